//! QASPER: questions about papers (Dasigi et al., arXiv 2105.03011).

use std::path::Path;

use cartridges_study::resource::file_name;
use serde_json::Value;

use super::Suite;
use super::error::SuiteError;
use super::read;
use crate::grade::Grade;
use crate::measure::MeasureOptions;
use crate::questions::Question;

const NAME: &str = "qasper";

/// The questions about some papers, or about all. Their likelihood is that of the reference answer inside
/// `<answer>`; answers that are written are graded by SQuAD's F1, inside `<answer>` if it is there.
///
/// Read are the authors' file (an object of papers with `qas`; the first annotator counts first, the others
/// are accepted too, unanswerable questions are left out), lists of rewritten questions (`paper_id`,
/// `question`, `answer`) as the reference publishes them, and L-Eval's lines (`instructions`, `outputs`,
/// `input`), where papers have numbers from 1. With one paper in a file that has texts, its text is the
/// suite's.
///
/// # Errors
/// [`SuiteError`], with the paper.
pub fn qasper(path: &Path, papers: &[String]) -> Result<Suite, SuiteError> {
    let wrong = |problem: String| SuiteError::format(NAME, path, problem);
    let root = read::json(NAME, path)?;
    let chosen = |id: &str| papers.is_empty() || papers.iter().any(|paper| paper == id);
    let mut questions = Vec::new();
    let mut text = None;
    let mut add = |paper: &str, asked: &str, answers: Vec<String>| {
        if !answers.is_empty() {
            let number = questions.len() + 1;
            questions.push(Question {
                id: format!("{paper}_{number}"),
                question: asked.to_owned(),
                answers,
                ..Question::default()
            });
        }
    };
    let with_qas: Vec<(String, &Value)> = match &root {
        Value::Object(all) => all.iter().map(|(id, paper)| (id.clone(), paper)).collect(),
        Value::Array(all) => (1..)
            .zip(all)
            .map(|(number, paper): (usize, &Value)| {
                let id = read::field(paper, "paper_id").or_else(|| read::field(paper, "id"));
                (id.map_or_else(|| number.to_string(), str::to_owned), paper)
            })
            .collect(),
        _ => return Err(wrong("expected papers or questions".to_owned())),
    };
    if let Some(missing) = papers
        .iter()
        .find(|paper| !with_qas.iter().any(|(id, _)| id == *paper))
    {
        return Err(wrong(format!("there is no paper `{missing}`")));
    }
    for (id, paper) in with_qas.iter().filter(|(id, _)| chosen(id)) {
        if let Some(qas) = paper.get("qas").and_then(Value::as_array) {
            for item in qas {
                let asked = read::field(item, "question");
                let asked =
                    asked.ok_or_else(|| wrong(format!("a question of `{id}` has no text")))?;
                add(id, asked, annotated(item));
            }
        } else if let Some(asked) = read::texts(paper, "instructions") {
            let answers = read::texts(paper, "outputs").unwrap_or_default();
            if answers.len() != asked.len() {
                return Err(wrong(format!(
                    "paper `{id}` has {} questions and {} answers",
                    asked.len(),
                    answers.len()
                )));
            }
            for (asked, answer) in asked.iter().zip(answers) {
                // L-Eval writes so what cannot be answered.
                let answerable = !answer.to_lowercase().starts_with("unanswerable");
                add(id, asked, Vec::from_iter(answerable.then_some(answer)));
            }
            text = read::field(paper, "input").map(str::to_owned);
        } else if let (Some(asked), Some(answer)) =
            (read::field(paper, "question"), read::field(paper, "answer"))
        {
            add(id, asked, vec![answer.to_owned()]);
        } else {
            return Err(wrong(format!(
                "`{id}` has neither `qas`, `instructions`, nor `question` and `answer`"
            )));
        }
    }
    if questions.is_empty() {
        return Err(wrong("it has no questions with an answer".to_owned()));
    }
    let options = MeasureOptions {
        instruction: "Give a short answer in this form:\n<answer>\nthe answer\n</answer>"
            .to_owned(),
        lead: "<answer>\n".to_owned(),
        grade: Grade::Words,
        max_new_tokens: 128,
        ..MeasureOptions::default()
    };
    Ok(Suite::new(
        NAME,
        format!("{} {}", file_name(path), papers.join(" ")),
        questions,
        text.filter(|_| papers.len() == 1),
        options,
    ))
}

/// The answers of all annotators, each in the form that it has.
fn annotated(item: &Value) -> Vec<String> {
    let list = item.get("answers").and_then(Value::as_array);
    let each = list.into_iter().flatten();
    let mut answers: Vec<String> = Vec::new();
    for answer in each.filter_map(|answer| answer.get("answer")) {
        if answer.get("unanswerable").and_then(Value::as_bool) == Some(true) {
            continue;
        }
        let spans = read::texts(answer, "extractive_spans").unwrap_or_default();
        let yes = answer.get("yes_no").and_then(Value::as_bool);
        let found = match (read::field(answer, "free_form_answer"), yes) {
            _ if !spans.is_empty() => spans.join(", "),
            (Some(free), _) => free.to_owned(),
            (None, Some(yes)) => if yes { "Yes" } else { "No" }.to_owned(),
            (None, None) => continue,
        };
        if !answers.contains(&found) {
            answers.push(found);
        }
    }
    answers
}
