//! Which figures a page has.

use crate::figure::{
    Against, Entry, Figure, Metric, Quality, locality, quality, scores, throughput,
};

use super::facts::suite;

/// Figures of one report. `prefix` goes before the names of their files.
pub(super) fn of_one(prefix: &str, entry: &Entry<'_>) -> Vec<Figure> {
    // Alone, it needs no letter.
    let alone = [Entry {
        tag: String::new(),
        index: 0,
        report: entry.report,
    }];
    let metrics = Metric::of(entry.report);
    let mut found = Vec::new();
    for (metric, word) in headline(&metrics) {
        let shown = Quality::Plain(metric);
        for (against, axis) in [(Against::Size, "size"), (Against::BuildTime, "build-time")] {
            let name = format!("{prefix}{word}-{axis}");
            found.extend(quality(&name, &alone, &shown, against));
        }
    }
    let title = format!("{}: scores", suite(entry.report));
    found.extend(scores(&format!("{prefix}scores"), &title, &alone));
    found.extend(locality(&format!("{prefix}locality"), &alone));
    found.extend(throughput(&format!("{prefix}throughput"), &alone));
    found
}

/// Figures of all reports together, whatever their suites: shares of gaps, speed and locality.
pub(super) fn of_all(entries: &[Entry<'_>]) -> Vec<Figure> {
    let metrics: Vec<Metric> = entries.iter().flat_map(|e| Metric::of(e.report)).collect();
    let mut found = Vec::new();
    for (metric, word) in headline(&metrics).into_iter().take(1) {
        let shown = Quality::Gap(metric);
        for (against, axis) in [(Against::Size, "size"), (Against::BuildTime, "build-time")] {
            let name = format!("all-{word}-gap-{axis}");
            found.extend(shared(entries, |e| quality(&name, e, &shown, against)));
        }
    }
    found.extend(shared(entries, |e| locality("all-locality", e)));
    found.extend(shared(entries, |e| throughput("all-throughput", e)));
    found
}

/// Figures of the reports of one suite.
pub(super) fn of_suite(number: usize, name: &str, entries: &[Entry<'_>]) -> Vec<Figure> {
    let metrics: Vec<Metric> = entries.iter().flat_map(|e| Metric::of(e.report)).collect();
    let mut found = Vec::new();
    for (metric, word) in headline(&metrics) {
        let shown = Quality::Plain(metric);
        let file = format!("suite-{number}-{word}-size");
        found.extend(shared(entries, |e| {
            quality(&file, e, &shown, Against::Size)
        }));
    }
    let title = format!("{name}: scores");
    let file = format!("suite-{number}-scores");
    found.extend(shared(entries, |e| scores(&file, &title, e)));
    found
}

/// The figure of all reports if at least two have a part in it: what only one has is in its own section.
fn shared(
    entries: &[Entry<'_>],
    figure: impl Fn(&[Entry<'_>]) -> Option<Figure>,
) -> Option<Figure> {
    let parts = entries
        .iter()
        .filter(|entry| figure(std::slice::from_ref(*entry)).is_some());
    match parts.count() {
        0 | 1 => None,
        _ => figure(entries),
    }
}

/// What quality is told by: likelihood, and the first of the suite's own numbers.
fn headline(metrics: &[Metric]) -> Vec<(Metric, &'static str)> {
    let nll = metrics.iter().find(|m| **m == Metric::Nll);
    let own = metrics.iter().find(|m| matches!(m, Metric::Score { .. }));
    let written = metrics.iter().find(|m| **m == Metric::Generated);
    let second = own
        .or(written)
        .or_else(|| metrics.iter().find(|m| **m == Metric::Choice));
    let mut found = Vec::new();
    found.extend(nll.map(|m| (m.clone(), "nll")));
    found.extend(second.map(|m| (m.clone(), "score")));
    found
}
