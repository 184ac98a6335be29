//! Elements of SVG. What is not finite is not drawn.

use std::fmt::Write;

use super::ink::Shape;
use super::text::escaped;

/// Size of text in figures.
pub(super) const SIZE: f64 = 13.0;

/// Where text stands at its point.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Align {
    Start,
    Middle,
    End,
}

impl Align {
    fn name(self) -> &'static str {
        match self {
            Self::Start => "start",
            Self::Middle => "middle",
            Self::End => "end",
        }
    }
}

/// A drawing in the making.
#[derive(Debug, Clone)]
pub(super) struct Canvas {
    pub(super) width: f64,
    pub(super) height: f64,
    pub(super) body: String,
}

/// Hundredths are finer than any screen.
fn n(value: f64) -> f64 {
    // Adding zero turns -0 into 0.
    (value * 100.0).round() / 100.0 + 0.0
}

fn finite(values: &[f64]) -> bool {
    values.iter().all(|v| v.is_finite())
}

impl Canvas {
    /// An empty ground with the title at its top.
    pub(super) fn new(width: f64, height: f64, title: &str) -> Self {
        let mut canvas = Self {
            width: width.ceil(),
            height: height.ceil(),
            body: String::new(),
        };
        let (w, h) = (canvas.width, canvas.height);
        canvas.push(format_args!(
            "<rect class=\"cf-ground\" width=\"{w}\" height=\"{h}\"/>\n\
             <text class=\"cf-text\" x=\"12\" y=\"24\" font-size=\"15\" font-weight=\"700\">{}</text>",
            escaped(title)
        ));
        canvas
    }

    fn push(&mut self, element: std::fmt::Arguments<'_>) {
        // A string takes whatever is written to it.
        let _ = writeln!(self.body, "{element}");
    }

    pub(super) fn line(&mut self, class: &str, from: [f64; 2], to: [f64; 2], more: &str) {
        let ([x1, y1], [x2, y2]) = (from, to);
        if finite(&[x1, y1, x2, y2]) {
            let [x1, y1, x2, y2] = [x1, y1, x2, y2].map(n);
            self.push(format_args!(
                "<line class=\"{class}\" x1=\"{x1}\" y1=\"{y1}\" x2=\"{x2}\" y2=\"{y2}\" {more}/>"
            ));
        }
    }

    pub(super) fn rect(&mut self, class: &str, at: [f64; 2], size: [f64; 2], more: &str) {
        let ([x, y], [w, h]) = (at, size);
        if finite(&[x, y, w, h]) && w >= 0.0 && h >= 0.0 {
            let [x, y, w, h] = [x, y, w, h].map(n);
            self.push(format_args!(
                "<rect class=\"{class}\" x=\"{x}\" y=\"{y}\" width=\"{w}\" height=\"{h}\" {more}/>"
            ));
        }
    }

    /// A line through points; those that are not finite are left out.
    pub(super) fn path(&mut self, class: &str, points: &[[f64; 2]], more: &str) {
        let points: Vec<String> = points
            .iter()
            .filter(|p| finite(&p[..]))
            .map(|p| format!("{},{}", n(p[0]), n(p[1])))
            .collect();
        if points.len() > 1 {
            let points = points.join(" ");
            self.push(format_args!(
                "<polyline class=\"{class} cf-line\" points=\"{points}\" {more}/>"
            ));
        }
    }

    /// Text on the middle of `y`.
    pub(super) fn text(&mut self, class: &str, at: [f64; 2], align: Align, text: &str) {
        self.text_sized(class, at, align, text, SIZE);
    }

    pub(super) fn text_sized(
        &mut self,
        class: &str,
        at: [f64; 2],
        align: Align,
        text: &str,
        size: f64,
    ) {
        if finite(&at) {
            let [x, y] = [n(at[0]), n(at[1] + size * 0.36)];
            let (align, text) = (align.name(), escaped(text));
            self.push(format_args!(
                "<text class=\"{class}\" x=\"{x}\" y=\"{y}\" font-size=\"{size}\" \
                 text-anchor=\"{align}\">{text}</text>"
            ));
        }
    }

    /// Text that reads upwards, centred at a point.
    pub(super) fn upwards(&mut self, class: &str, at: [f64; 2], text: &str) {
        if finite(&at) {
            let ([x, y], text) = (at.map(n), escaped(text));
            self.push(format_args!(
                "<text class=\"{class}\" transform=\"translate({x} {y}) rotate(-90)\" \
                 font-size=\"{SIZE}\" text-anchor=\"middle\">{text}</text>"
            ));
        }
    }

    /// A point with its interval and, for those who point at it, its numbers in words.
    pub(super) fn marker(
        &mut self,
        class: &str,
        shape: Shape,
        at: [f64; 2],
        whisker: Option<[[f64; 2]; 2]>,
        told: &str,
    ) {
        if !finite(&at) {
            return;
        }
        let told = escaped(told);
        self.push(format_args!("<g class=\"{class}\"><title>{told}</title>"));
        if let Some([from, to]) = whisker {
            self.whisker(from, to);
        }
        let [x, y] = at;
        let polygon = |points: &[[f64; 2]]| -> String {
            let corner = |p: &[f64; 2]| format!("{},{}", n(x + p[0]), n(y + p[1]));
            points.iter().map(corner).collect::<Vec<_>>().join(" ")
        };
        let points = match shape {
            Shape::Ring | Shape::Disc => {
                let (x, y) = (n(x), n(y));
                let form = match shape {
                    Shape::Ring => {
                        "class=\"cf-ground\" r=\"4.5\" stroke=\"currentColor\" stroke-width=\"2\""
                    }
                    _ => "class=\"cf-fill\" r=\"5\"",
                };
                self.push(format_args!("<circle cx=\"{x}\" cy=\"{y}\" {form}/></g>"));
                return;
            }
            Shape::Square => polygon(&[[-4.5, -4.5], [4.5, -4.5], [4.5, 4.5], [-4.5, 4.5]]),
            Shape::Triangle => polygon(&[[0.0, -6.0], [5.8, 4.5], [-5.8, 4.5]]),
            Shape::Wedge => polygon(&[[0.0, 6.0], [5.8, -4.5], [-5.8, -4.5]]),
            Shape::Diamond => polygon(&[[0.0, -6.3], [6.3, 0.0], [0.0, 6.3], [-6.3, 0.0]]),
            Shape::Cross => {
                let (a, b) = (2.0, 6.0);
                polygon(&[
                    [-a, -b],
                    [a, -b],
                    [a, -a],
                    [b, -a],
                    [b, a],
                    [a, a],
                    [a, b],
                    [-a, b],
                    [-a, a],
                    [-b, a],
                    [-b, -a],
                    [-a, -a],
                ])
            }
        };
        self.push(format_args!(
            "<polygon class=\"cf-fill\" points=\"{points}\"/></g>"
        ));
    }

    /// The line of an interval with its two ends; upright or level.
    fn whisker(&mut self, from: [f64; 2], to: [f64; 2]) {
        const HALF: f64 = 3.5;
        if !finite(&from) || !finite(&to) || from == to {
            return;
        }
        let end: [f64; 2] = match from[0] == to[0] {
            true => [HALF, 0.0],
            false => [0.0, HALF],
        };
        self.line("cf-line cf-whisker", from, to, "stroke-width=\"1.5\"");
        for at in [from, to] {
            let a = [at[0] - end[0], at[1] - end[1]];
            let b = [at[0] + end[0], at[1] + end[1]];
            self.line("cf-line", a, b, "stroke-width=\"1.5\"");
        }
    }
}
