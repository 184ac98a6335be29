//! The table of a report: conditions against everything that was measured.

use crate::figure::{Entry, Metric, count, duration, number, per_cent, unrelated_change};
use crate::measurement::Measurement;
use crate::report::Report;
use crate::statistics::Estimate;

use super::html::{Table, condition, interval, is_anchor};

/// Rows with the anchors first.
pub(super) fn ordered(report: &Report) -> Vec<&Measurement> {
    let mut rows: Vec<&Measurement> = report.rows.iter().collect();
    rows.sort_by_key(|row| !is_anchor(row.kind));
    rows
}

/// How good each condition is, and what it takes.
pub(super) fn measurements(entry: &Entry<'_>) -> String {
    let report = entry.report;
    let chance = report
        .rows
        .first()
        .filter(|_| Metric::of(report).contains(&Metric::Choice))
        .map(|row| Metric::Choice.told(row.choice_chance))
        .map(|chance| format!(" Guessing would choose the gold answer in {chance}."))
        .unwrap_or_default();
    let gap = match Columns::of(&[report]).iter().any(|column| column.gap) {
        true => {
            " A gap is what the document in context has over no document; beyond 100 % is better than \
             the document, below 0 % worse than none. The anchors are taken as they are."
        }
        false => {
            " Without both anchors, or where the document does not help, there is no gap to close."
        }
    };
    format!(
        "{}<p class=\"note\">Small numbers are 95 % intervals over questions, by bootstrap.{gap}{chance}</p>\n\
         <h3>What it takes</h3>\n{}",
        quality(report),
        expense(report),
    )
}

fn quality(report: &Report) -> String {
    let columns = Columns::of(&[report]);
    let mut table = Table::default();
    table.column("condition", "", false);
    for column in &columns {
        column.head(&mut table);
    }
    table.column("questions", "", true);
    let answers = report.rows.iter().any(|row| row.answers()[0] > 0);
    if answers {
        table.column("answers", "written", true);
        table.column("truncated", "lower is better", true);
        table.column("unanswered", "lower is better", true);
    }
    for row in ordered(report) {
        table.row(if is_anchor(row.kind) { "anchor" } else { "" });
        table.name(&condition(&row.condition, row.kind));
        for column in &columns {
            column.cells(&mut table, report, row);
        }
        table.number(&count(row.questions.len() as u64));
        if answers {
            let numbers = row.answers();
            for n in numbers {
                let text = if numbers[0] == 0 {
                    String::new()
                } else {
                    count(n as u64)
                };
                table.number(&text);
            }
        }
    }
    table.html("measurements")
}

fn expense(report: &Report) -> String {
    let mut table = Table::default();
    table.column("condition", "", false);
    table.column("rows", "slots or tokens of the document", true);
    table.column("KV", "MiB in f32, lower is better", true);
    table.column("before answer", "slots and tokens, median", true);
    table.column("build", "time", true);
    table.column("kept size", "MiB", true);
    table.column("scoring", "time", true);
    table.column("writing", "time", true);
    table.column("measuring", "time in all", true);
    let unrelated = report.rows.iter().any(|row| row.unrelated.is_some());
    if unrelated {
        table.column(
            "unrelated text",
            "perplexity, nearer to no document is better",
            true,
        );
    }
    let mib = |bytes: u64| number(bytes as f64 / f64::from(1 << 20));
    for row in ordered(report) {
        table.row(if is_anchor(row.kind) { "anchor" } else { "" });
        table.name(&condition(&row.condition, row.kind));
        table.number(&count(row.document_rows as u64));
        table.number(&mib(row.kv_bytes));
        table.number(&number(row.tokens_before_answer));
        table.number(&row.build.map(|b| duration(b.seconds)).unwrap_or_default());
        table.number(&row.build.map(|b| mib(b.bytes)).unwrap_or_default());
        for seconds in [row.score_seconds, row.generate_seconds, row.seconds] {
            table.number(&duration(seconds));
        }
        if unrelated {
            table.number(&unrelated_cell(report, row));
        }
    }
    table.html("what it takes")
}

/// A metric as columns: itself and, where any report has a gap to close, the share that is closed.
pub(super) struct Columns {
    metric: Metric,
    gap: bool,
}

impl Columns {
    /// Columns for the metrics of some reports.
    pub(super) fn of(reports: &[&Report]) -> Vec<Self> {
        let mut all: Vec<Self> = Vec::new();
        for report in reports {
            for metric in Metric::of(report) {
                let gap = report
                    .rows
                    .iter()
                    .any(|row| gap(&metric, report, row).is_some());
                match all.iter_mut().find(|c| c.metric == metric) {
                    Some(column) => column.gap |= gap,
                    None => all.push(Self { metric, gap }),
                }
            }
        }
        all
    }

    /// Their heads.
    pub(super) fn head(&self, table: &mut Table) {
        let metric = &self.metric;
        let unit = match metric {
            Metric::Nll => "nats, lower is better".to_owned(),
            _ => match metric.best() {
                Some(best) if best != 1.0 => format!("of {}, higher is better", number(best)),
                _ => metric.better().to_owned(),
            },
        };
        table.column(metric.name(), &unit, true);
        if self.gap {
            let hint = format!("{}, higher is better", metric.name());
            table.column("gap closed", &hint, true);
        }
    }

    /// Their cells for a row.
    pub(super) fn cells(&self, table: &mut Table, report: &Report, row: &Measurement) {
        let metric = &self.metric;
        table.number(&interval(metric.estimate(row), |v| metric.told(v)));
        if self.gap {
            table.number(&interval(gap(metric, report, row), per_cent));
        }
    }
}

/// The share of the gap that something between the anchors closes.
fn gap(metric: &Metric, report: &Report, row: &Measurement) -> Option<Estimate> {
    let between = !is_anchor(row.kind);
    between.then(|| metric.gap_closed(report, row)).flatten()
}

/// Perplexity of unrelated text with its change.
pub(super) fn unrelated_cell(report: &Report, row: &Measurement) -> String {
    let Some(found) = row.unrelated.filter(|v| v.is_finite()) else {
        return String::new();
    };
    let change = unrelated_change(report, row).filter(|_| !is_anchor(row.kind));
    let change = change
        .map(|c| format!("<small>{}</small>", crate::figure::signed_per_cent(c)))
        .unwrap_or_default();
    format!("{}{change}", number(found))
}
