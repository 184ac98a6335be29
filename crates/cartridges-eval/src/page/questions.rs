//! Every question with its answers.

use crate::figure::{count, escaped, number};
use crate::measurement::{Measurement, QuestionRecord};
use crate::report::Report;

use super::html::{Table, condition, folded};
use super::measurements::ordered;

/// Letters of a question that its heading shows.
const HEADING: usize = 110;

/// The questions, folded away; each with what came of it under every condition.
pub(super) fn questions(report: &Report) -> String {
    let rows = ordered(report);
    // Conditions may have been asked different questions; each is shown once, in the order it came.
    let mut all: Vec<&QuestionRecord> = Vec::new();
    let mut seen = std::collections::HashSet::new();
    for question in rows.iter().flat_map(|row| &row.questions) {
        if seen.insert(&question.id) {
            all.push(question);
        }
    }
    if all.is_empty() {
        return String::new();
    }
    let asked: Vec<std::collections::HashMap<&str, &QuestionRecord>> = rows
        .iter()
        .map(|row| row.questions.iter().map(|q| (q.id.as_str(), q)).collect())
        .collect();
    let mut body = "<p class=\"note\">✓ right, ✗ wrong; of answers that are graded between them, the share of the \
                    best grade.</p>\n"
        .to_owned();
    for question in &all {
        let found: Vec<(&Measurement, &QuestionRecord)> = rows
            .iter()
            .zip(&asked)
            .filter_map(|(row, asked)| Some((*row, *asked.get(question.id.as_str())?)))
            .collect();
        body.push_str(&one(question, &found));
    }
    folded(
        &format!("Questions and answers ({})", count(all.len() as u64)),
        &body,
    )
}

fn one(question: &QuestionRecord, found: &[(&Measurement, &QuestionRecord)]) -> String {
    let mut table = Table::default();
    table.column("condition", "", false);
    table.column("answer", "", false);
    table.column("grade", "higher is better", true);
    table.column("NLL per token", "nats, lower is better", true);
    table.column("chosen", "of the candidates", false);
    for (row, record) in found {
        table.row("");
        table.name(&condition(&row.condition, row.kind));
        table.words(record.generated.as_deref().unwrap_or("–"));
        table.number(&grade(record));
        let nll = match record.gold_tokens {
            0 => String::new(),
            tokens => number(record.nll / tokens as f64),
        };
        table.number(&nll);
        let chosen = record
            .candidates
            .get(record.chosen)
            .filter(|_| record.candidates.len() > 1);
        let mark = if record.choice_correct { "✓" } else { "✗" };
        table.words(&chosen.map_or_else(|| "–".to_owned(), |c| format!("{mark} {}", c.text)));
    }
    let mut heading: String = question.question.chars().take(HEADING).collect();
    if heading.len() < question.question.len() {
        heading.push('…');
    }
    let marks: String = found
        .iter()
        .filter_map(|(_, record)| record.generated_correct.or(Some(record.choice_correct)))
        .map(|right| if right { '✓' } else { '✗' })
        .collect();
    let body = format!(
        "<p class=\"question\">{}</p>\n<p>Gold answer: <b>{}</b></p>\n{}",
        escaped(&question.question),
        escaped(&question.gold),
        table.html("answers"),
    );
    folded(&format!("{} · {heading} {marks}", question.id), &body)
}

/// Right or wrong, or the grade where a suite has more than these two.
fn grade(record: &QuestionRecord) -> String {
    match (record.generated_correct, record.graded) {
        (Some(true), _) => "✓".to_owned(),
        (Some(false), _) => "✗".to_owned(),
        (None, Some(graded)) => format!(
            "{}<small>{} samples</small>",
            number(graded.score),
            count(graded.samples as u64)
        ),
        (None, None) => String::new(),
    }
}
