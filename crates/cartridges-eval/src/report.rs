//! Measurements side by side, as JSON and as text.

use std::io::Read;
use std::path::Path;

use cartridges_model::atomic_file::write_bytes;
use serde::{Deserialize, Serialize};

use crate::error::EvalError;
use crate::measurement::{ConditionKind, Measurement, Score};
use crate::statistics::{Estimate, RESAMPLES};

/// The document that the questions are about.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Corpus {
    /// Its file or name.
    pub name: String,
    /// SHA-256 of its bytes, in hexadecimal.
    pub sha256: String,
    /// Its tokens.
    pub tokens: usize,
}

/// Where it was measured.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Machine {
    /// The processor's name, or its architecture where the system does not tell.
    pub cpu: String,
    /// Threads used.
    pub threads: usize,
}

impl Machine {
    /// This machine, with the number of threads in use.
    pub fn this(threads: usize) -> Self {
        let mut text = String::new();
        // Not there outside Linux; a cut in the middle of a character cannot hide the first name.
        if let Ok(file) = std::fs::File::open("/proc/cpuinfo") {
            let mut bytes = Vec::new();
            if file.take(1 << 16).read_to_end(&mut bytes).is_ok() {
                text = String::from_utf8_lossy(&bytes).into_owned();
            }
        }
        Self {
            cpu: cpu_name(&text).unwrap_or_else(|| std::env::consts::ARCH.to_owned()),
            threads,
        }
    }
}

fn cpu_name(cpuinfo: &str) -> Option<String> {
    let (_, name) = cpuinfo
        .lines()
        .find(|line| line.starts_with("model name"))?
        .split_once(':')?;
    let words: Vec<&str> = name.split_whitespace().collect();
    (!words.is_empty()).then(|| words.join(" "))
}

/// How long a step took.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Timing {
    /// The step.
    pub name: String,
    /// Wall time.
    pub seconds: f64,
}

/// Everything about one evaluation.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Report {
    /// Name and version of the program.
    pub program: String,
    /// The model.
    pub model: String,
    /// The document.
    pub corpus: Corpus,
    /// Id of the question list.
    pub questions: String,
    /// The suite that they are from; empty for a list of one's own.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub suite: String,
    /// The command that made the report.
    #[serde(default, skip_serializing_if = "String::is_empty")]
    pub command: String,
    /// When, as the caller writes dates.
    pub date: String,
    /// Where.
    pub machine: Machine,
    /// The resolved settings that made the cartridge and the measurement.
    pub recipe: serde_json::Value,
    /// One measurement per condition.
    pub rows: Vec<Measurement>,
    /// What else took time, such as training.
    pub timings: Vec<Timing>,
    /// How fast requests were answered.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub throughput: Vec<Throughput>,
}

/// How fast requests were answered under one condition, all at the same budget of keys and values.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Throughput {
    /// What stood before the requests.
    pub condition: String,
    /// What kind of thing that is.
    pub kind: ConditionKind,
    /// Tokens of the document.
    pub document_tokens: usize,
    /// Cartridge slots, or tokens of the document in the prompt.
    pub rows: usize,
    /// Requests at a time.
    pub batch: usize,
    /// Requests in all.
    pub requests: usize,
    /// Tokens of each question.
    pub prompt_tokens: usize,
    /// Tokens of each answer.
    pub new_tokens: usize,
    /// The budget, in rows of keys and values.
    pub kv_budget: usize,
    /// The most rows that were in use.
    pub kv_rows: usize,
    /// Wall time.
    pub seconds: f64,
    /// Tokens of answers per second.
    pub tokens_per_second: f64,
    /// Seconds from the submission to the first token, 50th and 95th percentile.
    pub first_token_seconds: [f64; 2],
    /// Seconds between tokens, 50th and 95th percentile.
    pub between_tokens_seconds: [f64; 2],
    /// Whether the document's rows are kept between requests.
    #[serde(default)]
    pub cached: bool,
    /// Requests that lost their rows to others and began again.
    #[serde(default)]
    pub preemptions: u64,
}

/// How much of the way from `none` to `document` a `row` has come: `(none − row) / (none −
/// document)`, for a number that is better when lower. Not clamped: below 0 is worse than no
/// document, above 1 better than the document. `None` if the document does not help.
pub fn gap_closed(none: f64, document: f64, row: f64) -> Option<f64> {
    let gap = none - document;
    (gap > 0.0 && gap.is_finite()).then(|| (none - row) / gap)
}

impl Report {
    /// The first row of a kind.
    pub(crate) fn first(&self, kind: ConditionKind) -> Option<&Measurement> {
        self.rows.iter().find(|row| row.kind == kind)
    }

    /// The share of a gap that a row closes, in words.
    fn closed(&self, row: &Measurement, number: impl Fn(&Measurement) -> Option<f64>) -> String {
        let closed = || {
            let none = number(self.first(ConditionKind::None)?)?;
            let document = number(self.first(ConditionKind::Document)?)?;
            gap_closed(none, document, number(row)?)
        };
        closed().map_or_else(|| "n/a".to_owned(), percent)
    }

    /// The measurements as an aligned plain-text table; below it, the intervals, and for each
    /// thing in between how much of the gap between no document and document it closes.
    pub fn table(&self) -> String {
        let head = [
            "condition",
            "NLL/token",
            "4-way",
            "generated",
            "tokens before answer",
            "KV MiB",
            "seconds",
        ];
        let mut lines = vec![head.map(str::to_owned).to_vec()];
        lines.extend(self.rows.iter().map(cells));
        let mut text = String::new();
        if !self.rows.is_empty() {
            text.push_str(&aligned(&lines));
            text.push_str(&format!(
                "\n95 % intervals over questions (bootstrap, {RESAMPLES} resamples)\n"
            ));
            let mut lines = vec![head[..4].iter().map(|h| (*h).to_owned()).collect()];
            lines.extend(self.rows.iter().map(|row| {
                let shares = |e: &Estimate| format!("{} to {}", percent(e.low), percent(e.high));
                let nats = |e: &Estimate| format!("{:.2} to {:.2}", e.low, e.high);
                vec![
                    row.condition.clone(),
                    or_dash(row.nll.as_ref(), nats),
                    or_dash(row.choice_accuracy.as_ref(), shares),
                    or_dash(row.generated_accuracy.as_ref(), shares),
                ]
            }));
            text.push_str(&aligned(&lines));
        }

        text.push_str(&self.own_scores());
        text.push_str(&self.speeds());

        if let Some(base) = self.rows.iter().find_map(|row| row.unrelated) {
            text.push_str("\nperplexity of unrelated text\n");
            let lines = self.rows.iter().filter_map(|row| {
                let found = row.unrelated?;
                let change = format!("{:+.1} %", (found / base - 1.0) * 100.0);
                Some(vec![row.condition.clone(), format!("{found:.2}"), change])
            });
            text.push_str(&aligned(&lines.collect::<Vec<_>>()));
        }

        for row in &self.rows {
            if matches!(row.kind, ConditionKind::None | ConditionKind::Document) {
                continue;
            }
            // More is better in accuracies, so they are turned round.
            let nll = self.closed(row, |m| m.nll.map(|e| e.value));
            let choice = self.closed(row, |m| m.choice_accuracy.map(|e| -e.value));
            let generated = self.closed(row, |m| m.generated_accuracy.map(|e| -e.value));
            text.push_str(&format!(
                "\n{name}: NLL gap closed: {nll}\n\
                 {name}: accuracy gap closed: 4-way {choice}, generated {generated}\n",
                name = row.condition,
            ));
        }
        text
    }

    /// The suite's own scores with their intervals, and how many answers were cut off or are none.
    fn own_scores(&self) -> String {
        let Some(most) = self.rows.iter().max_by_key(|row| row.scores.len()) else {
            return String::new();
        };
        if most.scores.is_empty() {
            return String::new();
        }
        let names = most.scores.iter().map(|score| score.name.clone());
        let head = std::iter::once("condition".to_owned()).chain(names);
        let head = head.chain([
            "answers".to_owned(),
            "cut off".to_owned(),
            "none".to_owned(),
        ]);
        let mut lines = vec![head.collect::<Vec<_>>()];
        for row in &self.rows {
            let mut line = vec![row.condition.clone()];
            for wanted in &most.scores {
                let found = row.scores.iter().find(|score| score.name == wanted.name);
                line.push(found.map_or_else(|| "-".to_owned(), interval));
            }
            line.extend(row.answers().map(|count| count.to_string()));
            lines.push(line);
        }
        format!(
            "\nscores of the answers that were written\n{}",
            aligned(&lines)
        )
    }

    /// How fast requests were answered.
    fn speeds(&self) -> String {
        if self.throughput.is_empty() {
            return String::new();
        }
        let head = [
            "requests behind",
            "document",
            "batch",
            "seconds",
            "req/s",
            "tok/s",
            "first p50/p95 s",
            "next p50/p95 ms",
            "KV rows",
        ];
        let mut lines = vec![head.map(str::to_owned).to_vec()];
        for row in &self.throughput {
            let [first, late] = row.first_token_seconds;
            let [next, slow] = row.between_tokens_seconds.map(|seconds| 1e3 * seconds);
            lines.push(vec![
                row.condition.clone(),
                row.document_tokens.to_string(),
                row.batch.to_string(),
                format!("{:.2}", row.seconds),
                format!("{:.2}", row.requests as f64 / row.seconds),
                format!("{:.1}", row.tokens_per_second),
                format!("{first:.2} / {late:.2}"),
                format!("{next:.1} / {slow:.1}"),
                row.kv_rows.to_string(),
            ]);
        }
        aligned(&lines)
    }

    /// The report as text: what was measured, the table, and the timings.
    pub fn text(&self) -> String {
        let mut text = format!(
            "{}, {}\nmodel: {}\ncorpus: {} ({} tokens, sha256 {})\nquestions: {}\n\
             machine: {}, {} threads\n\n{}",
            self.program,
            self.date,
            self.model,
            self.corpus.name,
            self.corpus.tokens,
            self.corpus.sha256,
            self.questions,
            self.machine.cpu,
            self.machine.threads,
            self.table(),
        );
        if !self.timings.is_empty() {
            let line = |t: &Timing| vec![t.name.clone(), format!("{:.1} s", t.seconds)];
            let lines: Vec<Vec<String>> = self.timings.iter().map(line).collect();
            text.push('\n');
            text.push_str(&aligned(&lines));
        }
        text
    }

    /// Writes `report.json` and `report.txt` into a folder, which is made if need be.
    ///
    /// # Errors
    /// [`EvalError::Write`] with the file.
    pub fn save(&self, folder: &Path) -> Result<(), EvalError> {
        let mut json = serde_json::to_vec_pretty(self)?;
        json.push(b'\n');
        write_bytes(&folder.join("report.json"), &json)?;
        write_bytes(&folder.join("report.txt"), self.text().as_bytes())?;
        Ok(())
    }
}

fn cells(row: &Measurement) -> Vec<String> {
    let of = |right: usize| format!("{right}/{}", row.questions.len());
    let questions = || row.questions.iter();
    let generated = || {
        of(questions()
            .filter(|q| q.generated_correct == Some(true))
            .count())
    };
    let right = || of(questions().filter(|q| q.choice_correct).count());
    vec![
        row.condition.clone(),
        or_dash(row.nll.as_ref(), |e| format!("{:.2}", e.value)),
        or_dash(row.choice_accuracy.as_ref(), |_| right()),
        or_dash(row.generated_accuracy.as_ref(), |_| generated()),
        format!("{:.0}", row.tokens_before_answer),
        format!("{:.2}", row.kv_bytes as f64 / f64::from(1 << 20)),
        format!("{:.1}", row.seconds),
    ]
}

/// A score with its interval: shares in percent, others as they are.
fn interval(score: &Score) -> String {
    let Estimate { value, low, high } = score.estimate;
    match score.best == 1.0 {
        true => format!("{} ({} to {})", percent(value), percent(low), percent(high)),
        false => format!("{value:.1} ({low:.1} to {high:.1})"),
    }
}

fn or_dash(found: Option<&Estimate>, show: impl Fn(&Estimate) -> String) -> String {
    found.map_or_else(|| "-".to_owned(), show)
}

/// A share in percent; never "-0 %".
fn percent(share: f64) -> String {
    format!("{:.0} %", (share * 100.0).round() + 0.0)
}

/// Columns two blanks apart, the first to the left, the others to the right.
fn aligned(lines: &[Vec<String>]) -> String {
    let length = |cell: &String| cell.chars().count();
    let columns = lines.iter().map(Vec::len).max().unwrap_or(0);
    let widths: Vec<usize> = (0..columns)
        .map(|c| {
            lines
                .iter()
                .filter_map(|l| l.get(c))
                .map(length)
                .max()
                .unwrap_or(0)
        })
        .collect();
    let mut text = String::new();
    for line in lines {
        for (c, (cell, width)) in line.iter().zip(&widths).enumerate() {
            match c {
                0 => text.push_str(&format!("{cell:<width$}")),
                _ => text.push_str(&format!("  {cell:>width$}")),
            }
        }
        text.push('\n');
    }
    text
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::measurement::{Graded, QuestionRecord};

    fn estimate(value: f64) -> Estimate {
        Estimate {
            value,
            low: value - 0.125,
            high: value + 0.125,
        }
    }

    fn row(
        name: &str,
        kind: ConditionKind,
        nll: f64,
        right: usize,
        generated: bool,
    ) -> Measurement {
        let question = |i: usize| QuestionRecord {
            id: i.to_string(),
            question: "?".into(),
            gold: "x".into(),
            candidates: Vec::new(),
            gold_index: 0,
            chosen: 0,
            choice_correct: i < right,
            nll,
            gold_tokens: 1,
            prompt_tokens: 10,
            generated: generated.then(|| "x".into()),
            generated_correct: generated.then_some(i < right),
            graded: None,
        };
        let share = estimate(right as f64 / 8.0);
        Measurement {
            condition: name.into(),
            kind,
            nll: Some(estimate(nll)),
            choice_accuracy: Some(share),
            choice_chance: 0.25,
            generated_accuracy: generated.then_some(share),
            tokens_before_answer: 321.5,
            document_rows: 0,
            kv_bytes: 3 << 19,
            scores: Vec::new(),
            build: None,
            unrelated: None,
            seconds: 2.04,
            score_seconds: 1.0,
            generate_seconds: 1.0,
            questions: (0..8).map(question).collect(),
        }
    }

    fn report(rows: Vec<Measurement>) -> Report {
        Report {
            program: "cartridges 0.1.0".into(),
            model: "tiny".into(),
            corpus: Corpus {
                name: "corpus.txt".into(),
                sha256: "00".into(),
                tokens: 900,
            },
            questions: "list".into(),
            date: "today".into(),
            machine: Machine::this(2),
            recipe: serde_json::json!({ "slots": 80 }),
            rows,
            timings: vec![Timing {
                name: "training".into(),
                seconds: 12.34,
            }],
            throughput: Vec::new(),
            suite: String::new(),
            command: String::new(),
        }
    }

    #[test]
    fn gaps() {
        let near = |found: Option<f64>, expected: f64| (found.unwrap() - expected).abs() < 1e-12;
        assert!(near(gap_closed(7.5, 0.5, 0.5), 1.0));
        assert!(near(gap_closed(7.5, 0.5, 4.0), 0.5));
        assert!(near(gap_closed(7.5, 0.5, 11.0), -0.5));
        assert!(near(gap_closed(-0.25, -0.75, -1.0), 1.5));
        assert_eq!(gap_closed(1.0, 1.0, 0.5), None);
        assert_eq!(gap_closed(1.0, 2.0, 0.5), None);
        assert_eq!(gap_closed(f64::NAN, 2.0, 0.5), None);
    }

    #[test]
    fn the_table_is_aligned_and_tells_the_gaps() {
        let text = report(vec![
            row("none", ConditionKind::None, 7.5, 4, true),
            row("document", ConditionKind::Document, 0.5, 8, true),
            row(
                "cartridge, 80 slots",
                ConditionKind::Cartridge,
                1.2,
                7,
                true,
            ),
        ])
        .table();
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines[..4],
            [
                "condition            NLL/token  4-way  generated  tokens before answer  KV MiB  seconds",
                "none                      7.50    4/8        4/8                   322    1.50      2.0",
                "document                  0.50    8/8        8/8                   322    1.50      2.0",
                "cartridge, 80 slots       1.20    7/8        7/8                   322    1.50      2.0",
            ]
        );
        assert!(text.contains("7.38 to 7.62"), "{text}");
        let end = lines.len();
        assert_eq!(
            lines[end - 2..],
            [
                "cartridge, 80 slots: NLL gap closed: 90 %",
                "cartridge, 80 slots: accuracy gap closed: 4-way 75 %, generated 75 %",
            ]
        );
    }

    #[test]
    fn own_scores_have_intervals_and_what_was_not_answered() {
        let mut scored = row("cartridge", ConditionKind::Cartridge, 1.2, 7, true);
        scored.scores = vec![
            Score {
                name: "accuracy".into(),
                best: 1.0,
                estimate: estimate(0.5),
            },
            Score {
                name: "chrF".into(),
                best: 100.0,
                estimate: estimate(40.0),
            },
        ];
        scored.questions[0].graded = Some(Graded {
            samples: 4,
            score: 0.5,
            truncated: 1,
            unanswered: 2,
        });
        let text = report(vec![row("none", ConditionKind::None, 7.5, 4, true), scored]).table();
        let words = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        let lines: Vec<String> = text.lines().map(words).collect();
        for line in [
            "condition accuracy chrF answers cut off none",
            "none - - 0 0 0",
            "cartridge 50 % (38 % to 63 %) 40.0 (39.9 to 40.1) 4 1 2",
        ] {
            assert!(
                lines.iter().any(|found| found == line),
                "no {line:?} in\n{text}"
            );
        }
    }

    #[test]
    fn without_a_gap_it_says_so() {
        let text = report(vec![
            row("none", ConditionKind::None, 1.0, 4, false),
            row("document", ConditionKind::Document, 1.0, 4, false),
            row("c", ConditionKind::Cartridge, 0.5, 8, false),
        ])
        .table();
        assert!(text.contains("c: NLL gap closed: n/a"));
        assert!(text.contains("4-way n/a, generated n/a"));
        let alone = report(vec![row("c", ConditionKind::Cartridge, 0.5, 8, true)]).table();
        assert!(alone.contains("c: NLL gap closed: n/a"));
    }

    #[test]
    fn it_is_saved_and_read_back() {
        let dir = tempfile::tempdir().unwrap();
        let folder = dir.path().join("run");
        let report = report(vec![row("none", ConditionKind::None, 7.5, 4, true)]);
        report.save(&folder).unwrap();
        let json = std::fs::read_to_string(folder.join("report.json")).unwrap();
        assert_eq!(serde_json::from_str::<Report>(&json).unwrap(), report);
        let text = std::fs::read_to_string(folder.join("report.txt")).unwrap();
        assert!(text.contains("corpus.txt (900 tokens"));
        assert!(text.contains("training  12.3 s"));
    }

    #[test]
    fn processor_names() {
        let info = "processor\t: 0\nmodel name\t: Some  CPU @ 2 GHz\nmodel name\t: Other\n";
        assert_eq!(cpu_name(info).as_deref(), Some("Some CPU @ 2 GHz"));
        assert_eq!(cpu_name("processor\t: 0\n"), None);
        assert!(!Machine::this(1).cpu.is_empty());
    }
}
