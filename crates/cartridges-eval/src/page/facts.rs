//! What was run, and what came of it in a sentence.

use serde_json::Value;

use crate::figure::{Entry, Metric, count, duration, escaped, per_cent};
use crate::measurement::ConditionKind;
use crate::report::Report;

use super::html::{fact, folded, is_anchor};

/// Seeds that are named at most.
const SEEDS: usize = 6;

/// The report's own suite, or else its question list.
pub(super) fn suite(report: &Report) -> &str {
    match report.suite.is_empty() {
        true => &report.questions,
        false => &report.suite,
    }
}

/// What was run, where and when.
pub(super) fn facts(report: &Report) -> String {
    let mut out = "<dl class=\"facts\">\n".to_owned();
    fact(&mut out, "command", &report.command);
    fact(&mut out, "program", &report.program);
    fact(&mut out, "model", &report.model);
    let corpus = &report.corpus;
    if !corpus.name.is_empty() {
        let text = format!("{}, {} tokens", corpus.name, count(corpus.tokens as u64));
        fact(&mut out, "document", &text);
        fact(&mut out, "sha256 of it", &corpus.sha256);
    }
    fact(&mut out, "suite", &report.suite);
    fact(&mut out, "questions", &report.questions);
    let machine = &report.machine;
    let threads = format!("{}, {} threads", machine.cpu, machine.threads);
    fact(&mut out, "machine", &threads);
    fact(&mut out, "date", &report.date);
    let mut seeds = Vec::new();
    collect_seeds("", &report.recipe, &mut seeds);
    let seeds = match seeds.is_empty() {
        true => "not said".to_owned(),
        false => seeds.join(", "),
    };
    fact(&mut out, "seed", &seeds);
    out.push_str("</dl>\n");
    out
}

/// Numbers under names with `seed` in them, wherever they are.
fn collect_seeds(path: &str, value: &Value, found: &mut Vec<String>) {
    if found.len() >= SEEDS {
        return;
    }
    match value {
        Value::Object(fields) => {
            for (name, value) in fields {
                let path = match path.is_empty() {
                    true => name.clone(),
                    false => format!("{path}.{name}"),
                };
                match value {
                    Value::Number(seed) if name.contains("seed") => {
                        let text = if path == "seed" {
                            seed.to_string()
                        } else {
                            format!("{path} {seed}")
                        };
                        found.push(text);
                    }
                    _ => collect_seeds(&path, value, found),
                }
            }
        }
        Value::Array(values) => {
            for (index, value) in values.iter().enumerate() {
                collect_seeds(&format!("{path}[{index}]"), value, found);
            }
        }
        _ => {}
    }
}

/// A sentence for each thing that was measured between the anchors.
pub(super) fn in_short(entry: &Entry<'_>) -> String {
    let report = entry.report;
    let mut out = String::new();
    for row in report.rows.iter().filter(|row| !is_anchor(row.kind)) {
        let closed = |metric: &Metric| {
            let found = metric.gap_closed(report, row)?;
            let text = format!(
                "{} of the gap in {} (95 %: {} to {})",
                per_cent(found.value),
                metric.name(),
                per_cent(found.low),
                per_cent(found.high)
            );
            Some(text)
        };
        let metrics = Metric::of(report);
        let parts: Vec<String> = metrics.iter().filter_map(closed).take(2).collect();
        if parts.is_empty() {
            continue;
        }
        let document = report
            .first(ConditionKind::Document)
            .map_or(0, |row| row.document_rows);
        let size = match (row.document_rows, document) {
            (0, _) => String::new(),
            (rows, 0) => format!(", with {} rows", count(rows as u64)),
            (rows, all) => format!(
                ", with {} rows instead of {}",
                count(rows as u64),
                count(all as u64)
            ),
        };
        out.push_str(&format!(
            "<li><b>{}</b> closes {}{}.</li>\n",
            escaped(&row.condition),
            escaped(&parts.join(" and ")),
            escaped(&size)
        ));
    }
    match out.is_empty() {
        true => out,
        false => format!("<ul class=\"short\">\n{out}</ul>\n"),
    }
}

/// What else took time, and all settings.
pub(super) fn settings(report: &Report) -> String {
    let mut out = String::new();
    if !report.timings.is_empty() {
        let mut list = "<dl class=\"facts\">\n".to_owned();
        for timing in &report.timings {
            fact(&mut list, &timing.name, &duration(timing.seconds));
        }
        list.push_str("</dl>\n");
        out.push_str(&folded("What else took time", &list));
    }
    if let Ok(text) = serde_json::to_string_pretty(&report.recipe)
        && !report.recipe.is_null()
    {
        let body = format!("<pre>{}</pre>\n", escaped(&text));
        out.push_str(&folded("All settings", &body));
    }
    out
}
