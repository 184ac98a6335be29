//! Points with intervals between two horizontal anchors.

use crate::statistics::Estimate;

use super::canvas::{Align, Canvas, SIZE};
use super::ink::Shape;
use super::labels::{Area, place, spread};
use super::scale::{Scale, Unit};
use super::text::{shortened, width};

const WIDTH: f64 = 720.0;
const HEIGHT: f64 = 400.0;
const LEFT: f64 = 72.0;
const TOP: f64 = 44.0;
const BOTTOM: f64 = 56.0;
/// Room for the names of the anchors.
const NAMES: f64 = 190.0;
/// Longest name beside a point.
const LONGEST: f64 = 180.0;

/// Something that was measured.
#[derive(Debug, Clone)]
pub(super) struct Point {
    /// Its whole name.
    pub(super) name: String,
    /// What is written beside it; nothing for nothing.
    pub(super) label: String,
    pub(super) x: f64,
    pub(super) y: Estimate,
    pub(super) class: &'static str,
    pub(super) shape: Shape,
}

/// A height to compare with.
#[derive(Debug, Clone)]
pub(super) struct Level {
    pub(super) label: String,
    pub(super) y: Estimate,
    pub(super) class: &'static str,
    /// Whether to shade its interval.
    pub(super) shaded: bool,
}

/// A name and a unit.
#[derive(Debug, Clone)]
pub(super) struct Axis {
    pub(super) title: String,
    pub(super) unit: Unit,
}

/// All of a figure.
#[derive(Debug, Clone)]
pub(super) struct Scatter {
    pub(super) title: String,
    pub(super) x: Axis,
    pub(super) y: Axis,
    pub(super) points: Vec<Point>,
    /// Points that are joined, as indices.
    pub(super) joined: Vec<Vec<usize>>,
    pub(super) levels: Vec<Level>,
}

impl Scatter {
    /// The drawing, and how many labels had no room.
    pub(super) fn draw(&self) -> (Canvas, usize) {
        let mut canvas = Canvas::new(WIDTH, HEIGHT, &self.title);
        let names: Vec<String> = self.levels.iter().map(|l| self.level_name(l)).collect();
        let widest = names.iter().map(|n| width(n, SIZE)).fold(0.0, f64::max);
        let right = WIDTH - 16.0 - if widest > 0.0 { widest + 12.0 } else { 0.0 };
        let area = Area {
            left: LEFT,
            top: TOP,
            right,
            bottom: HEIGHT - BOTTOM,
        };

        let heights = self.points.iter().map(|p| p.y);
        let heights = heights.flat_map(|e| [e.value, e.low, e.high]);
        let must: Vec<f64> = self.levels.iter().map(|l| l.y.value).collect();
        let y = Scale::linear(heights, &must, [area.bottom, area.top]);
        let x = Scale::log(self.points.iter().map(|p| p.x), [area.left, area.right]);
        self.axes(&mut canvas, &area, &x, &y);
        let mut lines = self.levels(&mut canvas, &area, &y, &names);

        let at: Vec<Option<[f64; 2]>> = self
            .points
            .iter()
            .map(|p| Some([x.at(p.x)?, y.at(p.y.value)?]))
            .collect();
        for joined in &self.joined {
            let through: Vec<[f64; 2]> = joined.iter().filter_map(|i| *at.get(*i)?).collect();
            lines.extend(through.windows(2).map(|pair| [pair[0], pair[1]]));
            if let Some(first) = joined.first().and_then(|i| self.points.get(*i)) {
                canvas.path(
                    first.class,
                    &through,
                    "stroke-width=\"1.5\" opacity=\"0.45\"",
                );
            }
        }
        let mut taken = Vec::new();
        for (point, at) in self.points.iter().zip(&at) {
            let Some(at) = *at else { continue };
            let whisker = [point.y.low, point.y.high].map(|v| y.at(v).map(|v| [at[0], v]));
            let whisker = match whisker {
                [Some(low), Some(high)] => Some([low, high]),
                _ => None,
            };
            taken.push(Area::around(at, 6.3, 6.3));
            if let Some([low, high]) = whisker {
                taken.push(Area {
                    left: at[0] - 5.0,
                    right: at[0] + 5.0,
                    top: high[1],
                    bottom: low[1],
                });
            }
            canvas.marker(point.class, point.shape, at, whisker, &self.told(point));
        }
        let left_out = self.names_of_points(&mut canvas, &area, &at, &taken, &lines);
        (canvas, left_out)
    }

    /// Writes the labels; returns how many found no room.
    fn names_of_points(
        &self,
        canvas: &mut Canvas,
        area: &Area,
        at: &[Option<[f64; 2]>],
        taken: &[Area],
        lines: &[[[f64; 2]; 2]],
    ) -> usize {
        let wanted: Vec<(&Point, [f64; 2], String)> = self
            .points
            .iter()
            .zip(at)
            .filter(|(point, _)| !point.label.is_empty())
            .filter_map(|(p, at)| Some((p, (*at)?, shortened(&p.label, SIZE, LONGEST))))
            .collect();
        let texts: Vec<([f64; 2], String)> = wanted
            .iter()
            .map(|(_, at, text)| (*at, text.clone()))
            .collect();
        let places = place(&texts, taken, lines, *area, SIZE);
        let mut left_out = 0;
        for ((point, at, text), place) in wanted.iter().zip(places) {
            let Some(place) = place else {
                left_out += 1;
                continue;
            };
            if let Some(end) = place.leader {
                let class = format!("{} cf-line", point.class);
                canvas.line(&class, *at, end, "stroke-width=\"0.8\" opacity=\"0.7\"");
            }
            let middle = (place.area.top + place.area.bottom) / 2.0;
            // In the colour of its point, so that it is plain which is whose.
            let class = format!("{} cf-label cf-halo", point.class);
            canvas.text(&class, [place.area.left, middle], Align::Start, text);
        }
        left_out
    }

    fn axes(&self, canvas: &mut Canvas, area: &Area, x: &Scale, y: &Scale) {
        for (at, name) in y.ticks(self.y.unit, SIZE, false) {
            canvas.line("cf-grid", [area.left, at], [area.right, at], "");
            canvas.text("cf-faint", [area.left - 8.0, at], Align::End, &name);
        }
        for (at, name) in x.ticks(self.x.unit, SIZE, true) {
            canvas.line("cf-grid", [at, area.top], [at, area.bottom], "");
            canvas.line("cf-axis", [at, area.bottom], [at, area.bottom + 4.0], "");
            canvas.text("cf-faint", [at, area.bottom + 16.0], Align::Middle, &name);
        }
        canvas.line(
            "cf-axis",
            [area.left, area.bottom],
            [area.right, area.bottom],
            "",
        );
        if let Some(at) = x.broken_at() {
            // Two strokes across the axis, with ground between them.
            let y = area.bottom;
            canvas.rect("cf-ground", [at - 3.0, y - 3.0], [6.0, 6.0], "");
            for step in [-3.0, 3.0] {
                let (from, to) = ([at + step - 2.0, y + 5.0], [at + step + 2.0, y - 5.0]);
                canvas.line("cf-axis", from, to, "");
            }
        }
        let middle = (area.left + area.right) / 2.0;
        let below = [middle, HEIGHT - 14.0];
        canvas.text("cf-text", below, Align::Middle, &self.x.title);
        canvas.upwards(
            "cf-text",
            [18.0, (area.top + area.bottom) / 2.0],
            &self.y.title,
        );
    }

    /// Draws the levels; returns them as lines.
    fn levels(
        &self,
        canvas: &mut Canvas,
        area: &Area,
        y: &Scale,
        names: &[String],
    ) -> Vec<[[f64; 2]; 2]> {
        let found: Vec<(&Level, &String, f64)> = self
            .levels
            .iter()
            .zip(names)
            .filter_map(|(level, name)| Some((level, name, y.at(level.y.value)?)))
            .collect();
        let wanted: Vec<f64> = found.iter().map(|f| f.2).collect();
        let range = [area.top + 4.0, area.bottom - 4.0];
        let places = spread(&wanted, SIZE + 4.0, range);
        for ((level, name, at), text) in found.iter().zip(places) {
            if let (true, Some(low), Some(high)) =
                (level.shaded, y.at(level.y.low), y.at(level.y.high))
            {
                let (top, bottom) = (high.max(area.top), low.min(area.bottom));
                let size = [area.right - area.left, bottom - top];
                let class = format!("{} cf-fill", level.class);
                canvas.rect(&class, [area.left, top], size, "opacity=\"0.09\"");
            }
            let class = format!("{} cf-line", level.class);
            let ends = [[area.left, *at], [area.right, *at]];
            canvas.line(
                &class,
                ends[0],
                ends[1],
                "stroke-width=\"1.5\" stroke-dasharray=\"6 4\"",
            );
            let beside = [area.right + 10.0, text];
            canvas.line(
                &class,
                ends[1],
                [area.right + 8.0, text],
                "stroke-width=\"0.8\"",
            );
            canvas.text("cf-text", beside, Align::Start, name);
        }
        let ends = |at: &f64| [[area.left, *at], [area.right, *at]];
        wanted.iter().map(ends).collect()
    }

    fn level_name(&self, level: &Level) -> String {
        let value = self.y.unit.value(level.y.value);
        let room = NAMES - width(&value, SIZE) - 8.0;
        format!("{}  {value}", shortened(&level.label, SIZE, room))
    }

    /// A point in words.
    fn told(&self, point: &Point) -> String {
        let y = [point.y.value, point.y.low, point.y.high].map(|v| self.y.unit.value(v));
        format!(
            "{}: {} ({} to {}) at {}",
            point.name,
            y[0],
            y[1],
            y[2],
            self.x.unit.value(point.x),
        )
    }
}
