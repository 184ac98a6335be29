//! How good, against how large or how long in the making.

use crate::measurement::{ConditionKind, Measurement};
use crate::statistics::Estimate;

use super::ink::{class, report_class, shape};
use super::metric::Metric;
use super::picture::Figure;
use super::scale::Unit;
use super::scatter::{Axis, Level, Point, Scatter};
use super::{Entry, text::count};

/// What quality is shown against.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Against {
    /// Rows of keys and values that stand for the document.
    Size,
    /// Wall time of the making.
    BuildTime,
}

/// How quality is shown.
#[derive(Debug, Clone, PartialEq)]
pub(crate) enum Quality {
    /// The metric itself.
    Plain(Metric),
    /// The share of the gap between no document and document that is closed.
    Gap(Metric),
}

/// The figure, or `None` if nothing but anchors is known.
pub(crate) fn quality(
    name: &str,
    entries: &[Entry<'_>],
    quality: &Quality,
    against: Against,
) -> Option<Figure> {
    let mut points = Vec::new();
    let mut joined: Vec<Vec<usize>> = Vec::new();
    let several = entries.len() > 1;
    for entry in entries {
        let mut own: Vec<(ConditionKind, usize)> = Vec::new();
        for row in &entry.report.rows {
            let Some((x, y)) = coordinates(entry, row, quality, against) else {
                continue;
            };
            own.push((row.kind, points.len()));
            points.push(Point {
                name: entry.tagged(&row.condition),
                // The document's height has its name at the end of its line.
                label: match row.kind {
                    ConditionKind::Document => String::new(),
                    _ => entry.tagged(&row.condition),
                },
                x,
                y,
                class: if several {
                    report_class(entry.index)
                } else {
                    class(row.kind)
                },
                shape: shape(row.kind),
            });
        }
        if against == Against::Size {
            joined.extend(lines(&own, &points));
        }
    }
    let measured = |p: &Point| p.shape != shape(ConditionKind::Document);
    if !points.iter().any(measured) {
        return None;
    }
    let (y, word) = match quality {
        Quality::Plain(metric) => (
            Axis {
                title: format!("{}, {}", metric.name(), metric.better()),
                unit: metric.unit(),
            },
            metric.name().to_owned(),
        ),
        Quality::Gap(metric) => (
            Axis {
                title: "share of the gap closed, higher is better".to_owned(),
                unit: Unit::Share,
            },
            format!("Share of the gap closed ({})", metric.name()),
        ),
    };
    let (x, title) = match against {
        Against::Size => (
            Axis {
                title: "rows of keys and values for the document (log)".to_owned(),
                unit: Unit::Count,
            },
            format!("{word} against size"),
        ),
        Against::BuildTime => (
            Axis {
                title: "time to build it, without self-study (log)".to_owned(),
                unit: Unit::Seconds,
            },
            format!("{word} against build time"),
        ),
    };
    let title = capital(&title);
    let scatter = Scatter {
        title: title.clone(),
        x,
        y,
        points,
        joined,
        levels: levels(entries, quality),
    };
    let (canvas, left_out) = scatter.draw();
    let mut caption = "Whiskers: 95 % intervals over questions.".to_owned();
    match quality {
        Quality::Plain(_) if scatter.levels.is_empty() => {}
        Quality::Plain(_) => caption.push_str(" Dashed: what to compare with."),
        Quality::Gap(metric) => caption.push_str(&format!(
            " 0 % is no document and 100 % the document in context, by {}; the anchors' own uncertainty is \
             not in the whiskers.",
            metric.name()
        )),
    }
    if scatter.points.iter().any(|p| p.x == 0.0) && against == Against::Size {
        caption.push_str(" Adapters take no rows and stand at 0.");
    }
    if scatter.points.iter().any(|p| p.label.is_empty()) {
        caption.push_str(" Square: the document in context.");
    }
    if several {
        caption.push_str(" Colour and letter: the report.");
    }
    if left_out > 0 {
        let names = match left_out {
            1 => "1 name".to_owned(),
            more => format!("{} names", count(more as u64)),
        };
        caption.push_str(&format!(
            " {names} found no room; pointing at the mark tells."
        ));
    }
    Some(Figure::new(name, title, caption, canvas))
}

/// With a capital at its beginning.
fn capital(text: &str) -> String {
    let mut chars = text.chars();
    let first = chars.next().into_iter().flat_map(char::to_uppercase);
    first.chain(chars.as_str().chars()).collect()
}

fn coordinates(
    entry: &Entry<'_>,
    row: &Measurement,
    quality: &Quality,
    against: Against,
) -> Option<(f64, Estimate)> {
    // Without document there is neither a size nor a build; it is a line.
    if row.kind == ConditionKind::None {
        return None;
    }
    let y = match quality {
        Quality::Plain(metric) => metric.estimate(row)?,
        Quality::Gap(metric) => metric.gap_closed(entry.report, row)?,
    };
    let x = match against {
        Against::Size => row.document_rows as f64,
        Against::BuildTime => row.build?.seconds,
    };
    (x.is_finite() && x >= 0.0).then_some((x, y))
}

/// Cartridges, and beginnings of the document, in the order of their size, where each has another: the
/// same thing at several sizes.
fn lines(own: &[(ConditionKind, usize)], points: &[Point]) -> Vec<Vec<usize>> {
    [ConditionKind::Cartridge, ConditionKind::Beginning]
        .into_iter()
        .filter_map(|kind| {
            let mut of: Vec<usize> = own.iter().filter(|o| o.0 == kind).map(|o| o.1).collect();
            of.sort_by(|a, b| points[*a].x.total_cmp(&points[*b].x));
            let apart = of.windows(2).all(|w| points[w[0]].x < points[w[1]].x);
            (of.len() > 1 && apart).then_some(of)
        })
        .collect()
}

/// No document and the document. Reports that agree share a line.
fn levels(entries: &[Entry<'_>], quality: &Quality) -> Vec<Level> {
    let fixed = |label: &str, kind, value| Level {
        label: label.to_owned(),
        y: Estimate {
            value,
            low: value,
            high: value,
        },
        class: class(kind),
        shaded: false,
    };
    let metric = match quality {
        Quality::Plain(metric) => metric,
        Quality::Gap(_) => {
            return vec![
                fixed("document", ConditionKind::Document, 1.0),
                fixed("no document", ConditionKind::None, 0.0),
            ];
        }
    };
    let several = entries.len() > 1;
    let mut levels = Vec::new();
    for (kind, word) in [
        (ConditionKind::Document, "document"),
        (ConditionKind::None, "no document"),
    ] {
        let mut found: Vec<(Vec<&str>, &str, Estimate)> = Vec::new();
        for entry in entries {
            let Some(row) = entry.report.first(kind) else {
                continue;
            };
            let Some(y) = metric.estimate(row) else {
                continue;
            };
            let near = |y: f64, other: f64| (y - other).abs() <= 0.005 * y.abs();
            match found.iter_mut().find(|f| near(f.2.value, y.value)) {
                Some(same) => same.0.push(&entry.tag),
                None => found.push((vec![&entry.tag], &row.condition, y)),
            }
        }
        levels.extend(found.into_iter().map(|(tags, name, y)| Level {
            label: match several {
                true => format!("{} · {word}", tags.join(", ")),
                false => name.to_owned(),
            },
            y,
            class: class(kind),
            shaded: !several,
        }));
    }
    levels
}
