//! A suite's own numbers, one row for each condition.

use crate::measurement::{ConditionKind, Measurement};

use super::Entry;
use super::canvas::{Align, Canvas, SIZE};
use super::ink::{class, report_class, shape};
use super::metric::Metric;
use super::picture::Figure;
use super::scale::Scale;
use super::text::{number, shortened, width};

const WIDTH: f64 = 720.0;
const TOP: f64 = 40.0;
const ROW: f64 = 24.0;
/// Above the rows of a metric: its name. Below them: its axis.
const HEAD: f64 = 30.0;
const FOOT: f64 = 34.0;
/// Longest name of a condition, and room for a number at the right.
const NAME: f64 = 210.0;
const NUMBER: f64 = 62.0;

/// One line of a metric's part.
struct Row<'a> {
    name: String,
    measured: &'a Measurement,
    class: &'static str,
}

/// The figure, or `None` if there is no number.
pub(crate) fn scores(name: &str, title: &str, entries: &[Entry<'_>]) -> Option<Figure> {
    let mut metrics: Vec<Metric> = Vec::new();
    for metric in entries.iter().flat_map(|entry| Metric::of(entry.report)) {
        // Likelihoods have figures of their own.
        if metric != Metric::Nll && !metrics.contains(&metric) {
            metrics.push(metric);
        }
    }
    let rows = rows(entries);
    let parts: Vec<(Metric, Vec<&Row<'_>>)> = metrics
        .into_iter()
        .map(|metric| {
            let with = |row: &&Row<'_>| metric.estimate(row.measured).is_some();
            let rows: Vec<&Row<'_>> = rows.iter().filter(with).collect();
            (metric, rows)
        })
        .filter(|(_, rows)| !rows.is_empty())
        .collect();
    if parts.is_empty() {
        return None;
    }
    let lines: usize = parts.iter().map(|(_, rows)| rows.len()).sum();
    let height = TOP + ROW * lines as f64 + (HEAD + FOOT) * parts.len() as f64;
    let mut canvas = Canvas::new(WIDTH, height, title);
    let widest = parts
        .iter()
        .flat_map(|(_, rows)| rows)
        .map(|row| width(&row.name, SIZE))
        .fold(60.0, f64::max);
    let left = 24.0 + widest.min(NAME);
    let mut top = TOP;
    for (metric, rows) in &parts {
        top = part(&mut canvas, metric, rows, left, top);
    }
    let mut caption = "Whiskers: 95 % intervals over questions. Anchors first.".to_owned();
    if parts.iter().any(|(metric, _)| *metric == Metric::Choice) {
        caption.push_str(" Dotted: what guessing gives.");
    }
    if entries.len() > 1 {
        caption.push_str(" Colour and letter: the report.");
    }
    Some(Figure::new(name, title.to_owned(), caption, canvas))
}

/// Conditions of all reports: first those without document, then those with it, then the rest in the
/// order in which they first come.
fn rows<'a>(entries: &[Entry<'a>]) -> Vec<Row<'a>> {
    let several = entries.len() > 1;
    let mut rows: Vec<Row<'a>> = Vec::new();
    for entry in entries {
        rows.extend(entry.report.rows.iter().map(|measured| Row {
            name: entry.tagged(&measured.condition),
            measured,
            class: if several {
                report_class(entry.index)
            } else {
                class(measured.kind)
            },
        }));
    }
    // The same condition of all reports together.
    let names: Vec<&str> = rows
        .iter()
        .map(|row| row.measured.condition.as_str())
        .collect();
    let place = |name: &str| names.iter().position(|n| *n == name);
    rows.sort_by_key(|row| {
        let group = match row.measured.kind {
            ConditionKind::None => 0,
            ConditionKind::Document => 1,
            _ => 2,
        };
        (group, place(&row.measured.condition))
    });
    rows
}

/// Draws the rows of one metric; returns where the next begins.
fn part(canvas: &mut Canvas, metric: &Metric, rows: &[&Row<'_>], left: f64, top: f64) -> f64 {
    let right = WIDTH - NUMBER;
    let places = [left, right];
    let values = || {
        let all = rows.iter().filter_map(|row| metric.estimate(row.measured));
        all.flat_map(|e| [e.value, e.low, e.high])
    };
    let scale = match metric.best() {
        Some(1.0) if values().all(|v| (0.0..=1.0).contains(&v)) => Scale::exact([0.0, 1.0], places),
        // Scores like BLEU stay far below their best, which would leave most of the axis empty.
        _ => Scale::linear(values(), &[0.0], places),
    };
    let first = top + HEAD;
    let bottom = first + ROW * rows.len() as f64;
    let head = match metric.best() {
        Some(best) if best != 1.0 => {
            format!(
                "{}, of {}, {}",
                metric.name(),
                number(best),
                metric.better()
            )
        }
        _ => format!("{}, {}", metric.name(), metric.better()),
    };
    canvas.text("cf-text", [left, top + 16.0], Align::Start, &head);
    for (at, name) in scale.ticks(metric.unit(), SIZE, true) {
        canvas.line("cf-grid", [at, first], [at, bottom], "");
        canvas.text("cf-faint", [at, bottom + 12.0], Align::Middle, &name);
    }
    if *metric == Metric::Choice {
        let chance = rows.first().map(|row| row.measured.choice_chance);
        if let Some(at) = chance.and_then(|chance| scale.at(chance)) {
            let (from, to) = ([at, first], [at, bottom]);
            canvas.line(
                "cf-axis",
                from,
                to,
                "stroke-width=\"1.5\" stroke-dasharray=\"2 3\"",
            );
        }
    }
    for (index, row) in rows.iter().enumerate() {
        let y = first + ROW * (index as f64 + 0.5);
        let Some(found) = metric.estimate(row.measured) else {
            continue;
        };
        let ends = [found.low, found.high].map(|v| scale.at(v).map(|x| [x, y]));
        let whisker = match ends {
            [Some(low), Some(high)] => Some([low, high]),
            _ => None,
        };
        let name = shortened(&row.name, SIZE, NAME);
        canvas.text("cf-text", [left - 12.0, y], Align::End, &name);
        canvas.line("cf-grid", [left, y], [right, y], "");
        if let Some(x) = scale.at(found.value) {
            let numbers = [found.value, found.low, found.high].map(|v| metric.told(v));
            let told = format!(
                "{}: {} ({} to {})",
                row.name, numbers[0], numbers[1], numbers[2]
            );
            canvas.marker(row.class, shape(row.measured.kind), [x, y], whisker, &told);
        }
        let value = metric.told(found.value);
        canvas.text("cf-text", [right + 12.0, y], Align::Start, &value);
    }
    bottom + FOOT
}
