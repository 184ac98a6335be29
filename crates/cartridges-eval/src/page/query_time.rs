//! How long a query takes, with a cartridge or an adapter and with the document instead.

use crate::figure::{Entry, count};
use crate::measurement::{ConditionKind, Measurement};
use crate::report::{Report, Throughput};

/// Seconds for a query under the conditions that are compared.
pub(super) struct Query {
    pub(super) own: f64,
    /// Reading the document each time; `None` if it was not measured.
    pub(super) reading: Option<f64>,
    /// With the document's rows kept; `None` if it was not measured.
    pub(super) cached: Option<f64>,
    /// What reading it once takes, if both are known.
    pub(super) first: f64,
}

/// Where the seconds come from, in words.
#[derive(Debug, Default)]
pub(super) struct Sources {
    throughput: Vec<String>,
    evaluation: bool,
}

impl Sources {
    pub(super) fn told(&self) -> String {
        let mut out = String::new();
        if !self.throughput.is_empty() {
            out.push_str(" Queries are as measured in throughput runs, wall time over requests: ");
            out.push_str(&self.throughput.join("; "));
            out.push_str(". A run with caching reads the document once, which is taken out of c.");
        }
        if self.evaluation {
            out.push_str(
                " Where there is no throughput run, queries are the evaluation's own time over its questions; it keeps \
                 the document's rows between questions, so that its document stands for prompt caching, with the first \
                 reading in it.",
            );
        }
        out
    }
}

/// What a query takes: from the report's own throughput, from that of another report of the same model on
/// the same machine, or from the evaluation itself.
pub(super) fn query(
    entry: &Entry<'_>,
    all: &[Entry<'_>],
    row: &Measurement,
    sources: &mut Sources,
) -> Option<Query> {
    let same = |other: &&Entry<'_>| {
        other.report.model == entry.report.model && other.report.machine == entry.report.machine
    };
    std::iter::once(entry)
        .chain(all.iter().filter(same))
        .find_map(|source| from_throughput(source, entry.report.corpus.tokens, row, sources))
        .or_else(|| from_evaluation(entry.report, row, sources))
}

/// Of the runs with the fewest requests at a time that have both, the one whose document is nearest in
/// length.
fn from_throughput(
    source: &Entry<'_>,
    tokens: usize,
    row: &Measurement,
    sources: &mut Sources,
) -> Option<Query> {
    let usable = |t: &&Throughput| t.requests > 0 && t.seconds > 0.0 && t.seconds.is_finite();
    let all: Vec<&Throughput> = source.report.throughput.iter().filter(usable).collect();
    let of_kind = || all.iter().copied().filter(|t| t.kind == row.kind);
    let mut own: Vec<&Throughput> = of_kind().filter(|t| t.condition == row.condition).collect();
    if own.is_empty() {
        // One that is called otherwise stands for it if there is no other of its kind.
        let first = &of_kind().next()?.condition;
        own = of_kind().collect();
        if own.iter().any(|t| t.condition != *first) {
            return None;
        }
    }
    let far = |t: &Throughput, wanted: usize| {
        let ln = |n: usize| (n.max(1) as f64).ln();
        (ln(t.document_tokens) - ln(wanted)).abs()
    };
    let document = all
        .iter()
        .copied()
        .filter(|t| t.kind == ConditionKind::Document && own.iter().any(|o| o.batch == t.batch))
        .min_by(|a, b| {
            a.batch
                .cmp(&b.batch)
                .then(far(a, tokens).total_cmp(&far(b, tokens)))
        })?;
    let (length, batch) = (document.document_tokens, document.batch);
    // What stands for a document takes the same time whatever its length, and may have been timed at one.
    let own = own
        .into_iter()
        .filter(|t| t.batch == batch)
        .min_by(|a, b| far(a, length).total_cmp(&far(b, length)))?;
    let at = |cached: bool| {
        all.iter().copied().find(|t| {
            t.kind == ConditionKind::Document
                && t.cached == cached
                && (t.document_tokens, t.batch) == (length, batch)
        })
    };
    let reading = at(false).map(each);
    let cached = at(true).map(|t| match (reading, t.requests) {
        (Some(reading), 2..) => ((t.seconds - reading) / (t.requests - 1) as f64).max(0.0),
        _ => each(t),
    });
    let told = format!(
        "{}, {} at a time, document of {} tokens, {} slots",
        source.tagged(&own.condition),
        count(batch as u64),
        count(length as u64),
        count(own.rows as u64),
    );
    if !sources.throughput.contains(&told) {
        sources.throughput.push(told);
    }
    Some(Query {
        own: each(own),
        reading,
        cached,
        first: match (reading, cached) {
            (Some(reading), Some(cached)) => (reading - cached).max(0.0),
            _ => 0.0,
        },
    })
}

fn each(row: &Throughput) -> f64 {
    row.seconds / row.requests as f64
}

/// From the time the evaluation itself took for its questions.
fn from_evaluation(report: &Report, row: &Measurement, sources: &mut Sources) -> Option<Query> {
    let query = |row: &Measurement| {
        // Writing an answer is what a user waits for; scoring candidates is not.
        let seconds = match row.generate_seconds > 0.0 {
            true => row.generate_seconds,
            false => row.seconds,
        };
        let asked = row.questions.len();
        (asked > 0 && seconds > 0.0 && seconds.is_finite()).then(|| seconds / asked as f64)
    };
    let found = Query {
        own: query(row)?,
        reading: None,
        cached: report.first(ConditionKind::Document).and_then(query),
        first: 0.0,
    };
    sources.evaluation = true;
    Some(found)
}
