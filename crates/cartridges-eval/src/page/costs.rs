//! After how many queries a cartridge or an adapter has paid for its making.

use crate::figure::{Entry, count, duration, escaped};
use crate::measurement::{ConditionKind, Measurement};
use crate::report::Report;

use super::html::{Table, condition};
use super::query_time::{Sources, query};

/// When something that costs once and then saves has paid.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum BreakEven {
    /// It never does.
    Never,
    /// From this many queries on.
    From(u64),
    /// Only up to this many queries: it is quick to make but slower to use.
    UpTo(u64),
}

/// Against reading the document anew for each query: `build + n · own = n · reading`. All in seconds;
/// `own` and `reading` for one query.
pub fn break_even_with_reading(build: f64, own: f64, reading: f64) -> BreakEven {
    solve(build, reading - own)
}

/// Against reading it once and keeping its rows: `build + n · own = first + n · cached`, where `first` is
/// what reading it once takes.
pub fn break_even_with_caching(build: f64, own: f64, first: f64, cached: f64) -> BreakEven {
    solve(build - first, cached - own)
}

/// The smallest `n` with `ahead <= n · saved`.
fn solve(ahead: f64, saved: f64) -> BreakEven {
    let queries = ahead / saved;
    match (ahead > 0.0, saved > 0.0) {
        _ if !ahead.is_finite() || !saved.is_finite() => BreakEven::Never,
        // As a cast does for numbers out of range, beyond what anyone asks.
        (true, true) => BreakEven::From((queries.ceil() as u64).max(1)),
        (false, true) => BreakEven::From(1),
        (true, false) => BreakEven::Never,
        (false, false) if saved == 0.0 => BreakEven::From(1),
        (false, false) => match queries.floor() as u64 {
            0 => BreakEven::Never,
            n => BreakEven::UpTo(n),
        },
    }
}

impl BreakEven {
    /// In words.
    pub(super) fn told(self) -> String {
        match self {
            Self::Never => "never".to_owned(),
            Self::From(1) => "at once".to_owned(),
            Self::From(n) => count(n),
            Self::UpTo(n) => format!("only up to {}", count(n)),
        }
    }
}

/// The section, or nothing if no build time is known. Throughput may be in a report of its own.
pub(super) fn costs(entry: &Entry<'_>, all: &[Entry<'_>]) -> String {
    let report = entry.report;
    let built: Vec<(&Measurement, f64)> = report
        .rows
        .iter()
        .filter(|row| matches!(row.kind, ConditionKind::Cartridge | ConditionKind::Adapter))
        .filter_map(|row| Some((row, row.build?.seconds)))
        .collect();
    if built.is_empty() {
        return String::new();
    }
    let study = self_study(report);
    let mut table = Table::default();
    table.column("condition", "", false);
    table.column("build", "B, time", true);
    table.column("a query", "q, time; lower is better", true);
    table.column("re-reading", "r, time of a query", true);
    table.column("prompt caching", "c, time of a query", true);
    table.column("pays against re-reading", "from this many queries on", true);
    table.column("pays against caching", "from this many queries on", true);
    if study.is_some() {
        table.column(
            "self-study too: re-reading",
            "from this many queries on",
            true,
        );
        table.column("self-study too: caching", "from this many queries on", true);
    }
    let mut sources = Sources::default();
    for (row, build) in built {
        let query = query(entry, all, row, &mut sources);
        table.row("");
        table.name(&condition(&row.condition, row.kind));
        table.number(&duration(build));
        let time = |seconds: Option<f64>| seconds.map(duration).unwrap_or_default();
        table.number(&time(query.as_ref().map(|q| q.own)));
        table.number(&time(query.as_ref().and_then(|q| q.reading)));
        table.number(&time(query.as_ref().and_then(|q| q.cached)));
        for extra in [Some(0.0), study].into_iter().flatten() {
            let build = build + extra;
            let reading = query.as_ref().and_then(|q| Some((q.own, q.reading?)));
            let reading = reading.map(|(own, r)| break_even_with_reading(build, own, r).told());
            let caching = query.as_ref().and_then(|q| Some((q, q.cached?)));
            let caching =
                caching.map(|(q, c)| break_even_with_caching(build, q.own, q.first, c).told());
            table.number(&reading.unwrap_or_else(|| "not measured".to_owned()));
            table.number(&caching.unwrap_or_else(|| "not measured".to_owned()));
        }
    }
    let study = study.map_or_else(
        || "Self-study, if there was any, is not in B.".to_owned(),
        |s| {
            format!(
                "Self-study took {} and is in B only where it says so.",
                duration(s)
            )
        },
    );
    format!(
        "<h3>When it pays</h3>\n{}<p class=\"note\">Something that takes B to build and q for each query costs \
         B + n · q for n queries; reading the document each time costs n · r; prompt caching reads it once and costs \
         (r − c) + n · c. So it pays against re-reading from n = B / (r − q) on, and against prompt caching from \
         n = (B − (r − c)) / (c − q) on; never where a query saves nothing. {}{}</p>\n",
        table.html("break-even"),
        escaped(&study),
        escaped(&sources.told()),
    )
}

/// Training or solving does not include it, but whoever starts from a text has to pay for it.
fn self_study(report: &Report) -> Option<f64> {
    let found: Vec<f64> = report
        .timings
        .iter()
        .filter(|t| t.name.contains("self-study") && t.seconds.is_finite())
        .map(|t| t.seconds)
        .collect();
    (!found.is_empty()).then(|| found.iter().sum())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn break_even_is_where_the_lines_cross() {
        // 100 + 1 n = 3 n
        assert_eq!(
            break_even_with_reading(100.0, 1.0, 3.0),
            BreakEven::From(50)
        );
        assert_eq!(
            break_even_with_reading(101.0, 1.0, 3.0),
            BreakEven::From(51)
        );
        assert_eq!(break_even_with_reading(100.0, 3.0, 3.0), BreakEven::Never);
        assert_eq!(break_even_with_reading(100.0, 4.0, 3.0), BreakEven::Never);
        assert_eq!(break_even_with_reading(0.0, 1.0, 3.0), BreakEven::From(1));
        // 100 + 1 n = 20 + 1.5 n
        assert_eq!(
            break_even_with_caching(100.0, 1.0, 20.0, 1.5),
            BreakEven::From(160)
        );
        // 5 + 2 n = 20 + 1.5 n: ahead until 30.
        assert_eq!(
            break_even_with_caching(5.0, 2.0, 20.0, 1.5),
            BreakEven::UpTo(30)
        );
        assert_eq!(
            break_even_with_caching(5.0, 1.5, 20.0, 1.5),
            BreakEven::From(1)
        );
        assert_eq!(
            break_even_with_caching(20.0, 2.0, 20.0, 1.5),
            BreakEven::Never
        );
        assert_eq!(
            break_even_with_reading(f64::NAN, 1.0, 3.0),
            BreakEven::Never
        );
        assert_eq!(
            break_even_with_reading(1.0, f64::INFINITY, 3.0),
            BreakEven::Never
        );
    }
}
