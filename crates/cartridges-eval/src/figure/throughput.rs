//! How fast requests are answered, against the length of the document.

use std::collections::{BTreeMap, BTreeSet};

use crate::measurement::ConditionKind;
use crate::report::Throughput;

use super::Entry;
use super::canvas::{Align, Canvas, SIZE};
use super::ink::{class, report_class, shape};
use super::labels::{Area, spread};
use super::picture::Figure;
use super::scale::{Scale, Unit};
use super::text::{count, number, shortened, width};

const WIDTH: f64 = 720.0;
const TOP: f64 = 40.0;
const PANEL: f64 = 230.0;
const HEAD: f64 = 26.0;
const FOOT: f64 = 46.0;
const LEFT: f64 = 62.0;
const NAME: f64 = 150.0;

/// One line of a panel.
struct Series<'a> {
    label: String,
    class: &'static str,
    kind: ConditionKind,
    dashed: bool,
    rows: Vec<&'a Throughput>,
}

impl Series<'_> {
    /// Whether it holds at every length: what stands for a document takes the same time whatever its
    /// length, and is timed at one.
    fn is_level(&self) -> bool {
        self.kind != ConditionKind::Document && self.rows.len() == 1
    }
}

/// The figure, or `None` without numbers. One panel for each number of requests at a time.
pub(crate) fn throughput(name: &str, entries: &[Entry<'_>]) -> Option<Figure> {
    let usable = |row: &&Throughput| {
        row.tokens_per_second.is_finite() && row.tokens_per_second > 0.0 && row.document_tokens > 0
    };
    let all = || {
        entries
            .iter()
            .flat_map(|e| &e.report.throughput)
            .filter(usable)
    };
    let batches: BTreeSet<usize> = all().map(|row| row.batch).collect();
    if batches.is_empty() {
        return None;
    }
    let title = "Throughput against context length";
    let columns = batches.len().min(2);
    let lines = batches.len().div_ceil(columns);
    let height = TOP + (HEAD + PANEL + FOOT) * lines as f64;
    let mut canvas = Canvas::new(WIDTH, height, title);
    let room = (WIDTH - 12.0) / columns as f64;
    let lengths = || all().map(|row| row.document_tokens as f64);
    let speeds = || all().map(|row| row.tokens_per_second);

    for (index, batch) in batches.iter().enumerate() {
        let left = room * (index % columns) as f64 + LEFT;
        let top = TOP + (HEAD + PANEL + FOOT) * (index / columns) as f64 + HEAD;
        let series = series(entries, *batch);
        let widest = series
            .iter()
            .map(|s| width(&s.label, SIZE))
            .fold(0.0, f64::max);
        let area = Area {
            left,
            top,
            right: left - LEFT + room - 14.0 - widest.min(NAME),
            bottom: top + PANEL,
        };
        // The same axes everywhere, so that panels can be compared.
        let x = Scale::log(lengths(), [area.left, area.right]);
        let y = Scale::log(speeds(), [area.bottom, area.top]);
        panel(&mut canvas, &area, [&x, &y], *batch, &series);
    }
    let budgets: BTreeSet<usize> = all().map(|row| row.kv_budget).collect();
    let mut caption =
        "Tokens of answers per second, all at the same budget of keys and values".to_owned();
    if let (1, Some(budget)) = (budgets.len(), budgets.first()) {
        caption.push_str(&format!(" ({} rows)", count(*budget as u64)));
    }
    caption.push_str(
        "; both axes logarithmic. Dashed: the document's rows are kept between requests.",
    );
    if batches
        .iter()
        .any(|b| series(entries, *b).iter().any(Series::is_level))
    {
        caption.push_str(" Dotted: the same whatever the document's length.");
    }
    if entries.len() > 1 {
        caption.push_str(" Colour and letter: the report.");
    }
    Some(Figure::new(name, title.to_owned(), caption, canvas))
}

/// Lines of one panel. Conditions of one kind are one line if each has a length of its own.
fn series<'a>(entries: &[Entry<'a>], batch: usize) -> Vec<Series<'a>> {
    let several = entries.len() > 1;
    let mut all = Vec::new();
    for entry in entries {
        let mut kinds: Vec<(ConditionKind, bool, Vec<&Throughput>)> = Vec::new();
        let here = entry
            .report
            .throughput
            .iter()
            .filter(|row| row.batch == batch);
        for row in here {
            let line = (row.kind, row.cached);
            match kinds.iter_mut().find(|k| (k.0, k.1) == line) {
                Some(kind) => kind.2.push(row),
                None => kinds.push((row.kind, row.cached, vec![row])),
            }
        }
        for (kind, dashed, rows) in kinds {
            let lengths: BTreeSet<usize> = rows.iter().map(|row| row.document_tokens).collect();
            let mut lines: BTreeMap<&str, Vec<&Throughput>> = BTreeMap::new();
            for row in &rows {
                // One name for all if lengths do not repeat.
                let name = match lengths.len() == rows.len() {
                    true => rows[0].condition.as_str(),
                    false => row.condition.as_str(),
                };
                lines.entry(name).or_default().push(row);
            }
            for (name, mut rows) in lines {
                rows.sort_by_key(|row| row.document_tokens);
                all.push(Series {
                    label: entry.tagged(name),
                    class: if several {
                        report_class(entry.index)
                    } else {
                        class(kind)
                    },
                    kind,
                    dashed,
                    rows,
                });
            }
        }
    }
    all
}

fn panel(
    canvas: &mut Canvas,
    area: &Area,
    [x, y]: [&Scale; 2],
    batch: usize,
    series: &[Series<'_>],
) {
    let head = match batch {
        1 => "1 request at a time".to_owned(),
        batch => format!("{} requests at a time", count(batch as u64)),
    };
    canvas.text("cf-text", [area.left, area.top - 12.0], Align::Start, &head);
    for (at, name) in y.ticks(Unit::Count, SIZE, false) {
        canvas.line("cf-grid", [area.left, at], [area.right, at], "");
        canvas.text("cf-faint", [area.left - 7.0, at], Align::End, &name);
    }
    for (at, name) in x.ticks(Unit::Count, SIZE, true) {
        canvas.line("cf-grid", [at, area.top], [at, area.bottom], "");
        canvas.text("cf-faint", [at, area.bottom + 13.0], Align::Middle, &name);
    }
    let (corner, end) = ([area.left, area.bottom], [area.right, area.bottom]);
    canvas.line("cf-axis", corner, end, "");
    let middle = [(area.left + area.right) / 2.0, area.bottom + 32.0];
    canvas.text("cf-text", middle, Align::Middle, "document, tokens");
    let beside = [area.left - LEFT + 16.0, (area.top + area.bottom) / 2.0];
    canvas.upwards("cf-text", beside, "tokens/s, higher is better");

    let mut ends: Vec<(&Series<'_>, [f64; 2])> = Vec::new();
    for line in series {
        let points: Vec<([f64; 2], &Throughput)> = line
            .rows
            .iter()
            .filter_map(|row| {
                let at = [
                    x.at(row.document_tokens as f64)?,
                    y.at(row.tokens_per_second)?,
                ];
                Some((at, *row))
            })
            .collect();
        let through: Vec<[f64; 2]> = points.iter().map(|p| p.0).collect();
        if let ([at], true) = (&through[..], line.is_level()) {
            let (from, to) = ([area.left, at[1]], [area.right, at[1]]);
            let class = format!("{} cf-line", line.class);
            canvas.line(
                &class,
                from,
                to,
                "stroke-width=\"1.5\" stroke-dasharray=\"2 3\"",
            );
        }
        let dashes = if line.dashed {
            "stroke-width=\"2\" stroke-dasharray=\"6 4\""
        } else {
            "stroke-width=\"2\""
        };
        canvas.path(line.class, &through, dashes);
        for (at, row) in &points {
            let told = format!(
                "{}: {} tokens/s, document of {} tokens",
                line.label,
                number(row.tokens_per_second),
                count(row.document_tokens as u64)
            );
            canvas.marker(line.class, shape(line.kind), *at, None, &told);
        }
        ends.extend(through.last().map(|end| (line, *end)));
    }
    let wanted: Vec<f64> = ends.iter().map(|end| end.1[1]).collect();
    let places = spread(&wanted, SIZE + 3.0, [area.top + 4.0, area.bottom - 4.0]);
    for ((line, end), at) in ends.iter().zip(places) {
        let text = [area.right + 8.0, at];
        let class = format!("{} cf-line", line.class);
        canvas.line(
            &class,
            [end[0] + 7.0, end[1]],
            [text[0] - 3.0, at],
            "stroke-width=\"0.8\"",
        );
        let name = shortened(&line.label, SIZE, NAME);
        canvas.text(
            &format!("{} cf-label", line.class),
            text,
            Align::Start,
            &name,
        );
    }
}
