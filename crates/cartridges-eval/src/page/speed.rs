//! Throughput as a table.

use crate::figure::{count, duration, number};
use crate::report::Report;

use super::html::{Table, condition, folded};

/// Every throughput number, folded away; the figure shows the main one.
pub(super) fn speed(report: &Report) -> String {
    if report.throughput.is_empty() {
        return String::new();
    }
    let mut table = Table::default();
    table.column("condition", "", false);
    table.column("document", "tokens", true);
    table.column("rows", "slots or tokens", true);
    table.column("at a time", "requests", true);
    table.column("requests", "in all", true);
    table.column("speed", "tokens/s, higher is better", true);
    table.column("requests/s", "higher is better", true);
    table.column(
        "first token",
        "median, 95th percentile; lower is better",
        true,
    );
    table.column(
        "between tokens",
        "median, 95th percentile; lower is better",
        true,
    );
    table.column("question", "tokens", true);
    table.column("answer", "tokens", true);
    table.column("KV rows", "most in use, of the budget", true);
    table.column("preempted", "began again, lower is better", true);
    table.column("wall time", "", true);
    for row in &report.throughput {
        let n = |value: usize| count(value as u64);
        let pair =
            |[half, most]: [f64; 2]| format!("{}<small>{}</small>", duration(half), duration(most));
        table.row("");
        table.name(&condition(&row.condition, row.kind));
        for value in [row.document_tokens, row.rows, row.batch, row.requests] {
            table.number(&n(value));
        }
        table.number(&number(row.tokens_per_second));
        table.number(&number(row.requests as f64 / row.seconds));
        table.number(&pair(row.first_token_seconds));
        table.number(&pair(row.between_tokens_seconds));
        table.number(&n(row.prompt_tokens));
        table.number(&n(row.new_tokens));
        table.number(&format!(
            "{}<small>of {}</small>",
            n(row.kv_rows),
            n(row.kv_budget)
        ));
        table.number(&count(row.preemptions));
        table.number(&duration(row.seconds));
    }
    folded("Throughput in numbers", &table.html("throughput"))
}
