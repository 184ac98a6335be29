//! What else a condition changes: perplexity of text that has nothing to do with the document.

use crate::measurement::{ConditionKind, Measurement};
use crate::report::Report;

use super::Entry;
use super::canvas::{Align, Canvas, SIZE};
use super::ink::{class, report_class};
use super::picture::Figure;
use super::scale::{Scale, Unit, signed_per_cent};
use super::text::{number, shortened, width};

const WIDTH: f64 = 720.0;
const TOP: f64 = 60.0;
const ROW: f64 = 30.0;
const FOOT: f64 = 60.0;
const NAME: f64 = 210.0;
/// Room for numbers at the ends of the longest bars.
const NUMBER: f64 = 86.0;
/// A change that a careful cartridge or adapter stays below, in percent.
const MARK: f64 = 2.0;
/// Longer bars are cut, in percent: one that ruins the model must not hide the others.
const LONGEST: f64 = 25.0;

/// The change of the perplexity against no document, in percent.
pub(crate) fn unrelated_change(report: &Report, row: &Measurement) -> Option<f64> {
    let base = report.first(ConditionKind::None)?.unrelated?;
    let change = (row.unrelated? / base - 1.0) * 100.0;
    (base > 0.0 && change.is_finite()).then_some(change)
}

/// The figure, or `None` if there is nothing to compare.
pub(crate) fn locality(name: &str, entries: &[Entry<'_>]) -> Option<Figure> {
    let several = entries.len() > 1;
    let mut rows: Vec<(String, &'static str, f64)> = Vec::new();
    for entry in entries {
        for row in &entry.report.rows {
            if row.kind == ConditionKind::None {
                continue;
            }
            if let Some(change) = unrelated_change(entry.report, row) {
                let class = if several {
                    report_class(entry.index)
                } else {
                    class(row.kind)
                };
                rows.push((entry.tagged(&row.condition), class, change));
            }
        }
    }
    if rows.is_empty() {
        return None;
    }
    let title = "Perplexity of unrelated text, change against no document";
    let bottom = TOP + ROW * rows.len() as f64;
    let mut canvas = Canvas::new(WIDTH, bottom + FOOT, title);
    let widest = rows.iter().map(|r| width(&r.0, SIZE)).fold(60.0, f64::max);
    let left = 24.0 + widest.min(NAME);
    let drawn = |change: f64| change.clamp(-LONGEST, LONGEST);
    let low = rows.iter().map(|r| drawn(r.2)).fold(0.0, f64::min);
    let high = rows.iter().map(|r| drawn(r.2)).fold(2.0 * MARK, f64::max);
    // Numbers at the left of negative bars need room of their own.
    let begin = left + if low < 0.0 { NUMBER } else { 0.0 };
    let scale = Scale::exact([low, high], [begin, WIDTH - NUMBER]);

    for (at, name) in scale.ticks(Unit::PerCent, SIZE, true) {
        canvas.line("cf-grid", [at, TOP], [at, bottom], "");
        canvas.text("cf-faint", [at, bottom + 14.0], Align::Middle, &name);
    }
    let zero = scale.at(0.0)?;
    let mark = scale.at(MARK)?;
    let mut cut = false;
    for (index, (name, class, change)) in rows.iter().enumerate() {
        let y = TOP + ROW * (index as f64 + 0.5);
        let end = scale.at(drawn(*change))?;
        let shown = shortened(name, SIZE, NAME);
        canvas.text("cf-text", [left - 12.0, y], Align::End, &shown);
        let (from, size) = ([zero.min(end), y - 9.0], [(end - zero).abs(), 18.0]);
        canvas.rect(&format!("{class} cf-fill"), from, size, "rx=\"2\"");
        let mut told = signed_per_cent(*change);
        if change.abs() > LONGEST {
            cut = true;
            // A gap in the bar says that it goes on.
            let gap = end - 14.0 * change.signum();
            canvas.rect("cf-ground", [gap - 2.5, y - 9.0], [5.0, 18.0], "");
            told = format!("{told} »");
        }
        let (x, align) = match *change < 0.0 {
            true => (end - 8.0, Align::End),
            // Not on the line of the mark.
            false if end < mark && end + 14.0 + width(&told, SIZE) > mark => {
                (mark + 8.0, Align::Start)
            }
            false => (end + 8.0, Align::Start),
        };
        canvas.text("cf-text cf-halo", [x, y], align, &told);
    }
    canvas.line(
        "cf-axis",
        [zero, TOP],
        [zero, bottom],
        "stroke-width=\"1.5\"",
    );
    let dashes = "stroke-width=\"1.5\" stroke-dasharray=\"5 4\"";
    canvas.line("cf-mark", [mark, TOP - 4.0], [mark, bottom], dashes);
    canvas.text(
        "cf-faint",
        [mark, TOP - 12.0],
        Align::Middle,
        &format!("+{MARK} %"),
    );
    let axis = "change in percent, nearer to 0 is better";
    let middle = (begin + WIDTH - NUMBER) / 2.0;
    canvas.text("cf-text", [middle, bottom + 40.0], Align::Middle, axis);
    let base = match entries {
        [only] => only
            .report
            .first(ConditionKind::None)
            .and_then(|row| row.unrelated),
        _ => None,
    };
    let mut caption = format!("Dashed: +{MARK} %.");
    if let Some(base) = base {
        caption.push_str(&format!(
            " Without document the perplexity is {}.",
            number(base)
        ));
    }
    if cut {
        caption.push_str(&format!(" Bars are cut at {LONGEST} %."));
    }
    if several {
        caption.push_str(" Colour and letter: the report.");
    }
    Some(Figure::new(name, title.to_owned(), caption, canvas))
}
