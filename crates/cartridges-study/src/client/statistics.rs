//! What every server was asked and how it answered.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

/// One server's numbers. An attempt counts as a request.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ServerStatistics {
    /// The base URL.
    pub server: String,
    /// Requests sent.
    pub requests: u64,
    /// Requests answered well.
    pub answered: u64,
    /// Requests that failed, by cause.
    pub failures: BTreeMap<&'static str, u64>,
    /// Tokens of the prompts, as far as the server tells them.
    pub prompt_tokens: u64,
    /// Tokens of the answers, as far as the server tells them.
    pub completion_tokens: u64,
    /// Time from sending to the end of the reply, summed over the answered requests.
    pub busy: Duration,
}

impl ServerStatistics {
    /// Mean time to an answer; `None` before the first.
    pub fn mean_latency(&self) -> Option<Duration> {
        (self.answered > 0).then(|| self.busy.div_f64(self.answered as f64))
    }

    /// All failures.
    pub fn failed(&self) -> u64 {
        self.failures.values().sum()
    }
}

/// All servers' numbers; shown as a table.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct FleetStatistics {
    /// One per URL, in the configuration's order.
    pub servers: Vec<ServerStatistics>,
    /// Answers whose log-probs were asked for and came without token ids, so that only their text was
    /// kept.
    pub answers_without_ids: u64,
}

const HEADINGS: [&str; 7] = [
    "server",
    "requests",
    "answered",
    "prompt tokens",
    "answer tokens",
    "mean s",
    "failed",
];

impl fmt::Display for FleetStatistics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut rows = vec![HEADINGS.map(str::to_owned)];
        rows.extend(self.servers.iter().map(row));
        let mut widths = [0; HEADINGS.len()];
        for row in &rows {
            for (width, cell) in widths.iter_mut().zip(row) {
                *width = cell.chars().count().max(*width);
            }
        }
        for (number, row) in rows.iter().enumerate() {
            if number > 0 {
                writeln!(f)?;
            }
            for (column, (cell, &width)) in row.iter().zip(&widths).enumerate() {
                match column {
                    0 => write!(f, "{cell:<width$}")?,
                    // The causes run to the line's end.
                    6 => write!(f, "  {cell}")?,
                    _ => write!(f, "  {cell:>width$}")?,
                }
            }
        }
        if self.answers_without_ids > 0 {
            write!(
                f,
                "\n{} answers came without token ids: only their text was kept",
                self.answers_without_ids
            )?;
        }
        Ok(())
    }
}

fn row(server: &ServerStatistics) -> [String; HEADINGS.len()] {
    let causes: Vec<String> = server
        .failures
        .iter()
        .map(|(cause, count)| format!("{count} {cause}"))
        .collect();
    let failed = match causes.is_empty() {
        true => "0".to_owned(),
        false => format!("{} ({})", server.failed(), causes.join(", ")),
    };
    [
        server.server.clone(),
        server.requests.to_string(),
        server.answered.to_string(),
        server.prompt_tokens.to_string(),
        server.completion_tokens.to_string(),
        match server.mean_latency() {
            Some(mean) => format!("{:.2}", mean.as_secs_f64()),
            None => "-".to_owned(),
        },
        failed,
    ]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_has_a_line_per_server() {
        let statistics = FleetStatistics {
            servers: vec![
                ServerStatistics {
                    server: "http://a:8000/v1".to_owned(),
                    requests: 12,
                    answered: 10,
                    failures: BTreeMap::from([("busy", 1), ("timed out", 1)]),
                    prompt_tokens: 9000,
                    completion_tokens: 1234,
                    busy: Duration::from_secs(25),
                },
                ServerStatistics {
                    server: "http://b/v1".to_owned(),
                    ..ServerStatistics::default()
                },
            ],
            answers_without_ids: 2,
        };
        let expected = "\
server            requests  answered  prompt tokens  answer tokens  mean s  failed
http://a:8000/v1        12        10           9000           1234    2.50  2 (1 busy, 1 timed out)
http://b/v1              0         0              0              0       -  0
2 answers came without token ids: only their text was kept";
        assert_eq!(statistics.to_string(), expected);
    }
}
