//! LongHealth: questions about long patient records (Adams et al., arXiv 2401.14490).

use std::path::Path;

use cartridges_study::resource::file_name;
use serde_json::Value;

use super::Suite;
use super::choice;
use super::error::SuiteError;
use super::read;
use crate::questions::Question;

const NAME: &str = "longhealth";

/// The questions of some patients, or of all, from `benchmark_v5.json`.
///
/// Unlike the reference: an answer without `<answer>` that does not name one option is wrong and counted as
/// unanswered, where the reference takes the first option; and the right answer is looked up among the options, so that a file
/// that does not have it there is refused.
///
/// # Errors
/// [`SuiteError`], with the patient and the question.
pub fn longhealth(path: &Path, patients: &[String], cot: bool) -> Result<Suite, SuiteError> {
    let wrong = |problem: String| SuiteError::format(NAME, path, problem);
    let root = read::json(NAME, path)?;
    let Value::Object(all) = &root else {
        return Err(wrong("expected an object of patients by id".to_owned()));
    };
    if let Some(missing) = patients.iter().find(|id| !all.contains_key(*id)) {
        return Err(wrong(format!("there is no patient `{missing}`")));
    }
    let mut questions = Vec::new();
    let chosen = all
        .iter()
        .filter(|(id, _)| patients.is_empty() || patients.contains(id));
    for (id, patient) in chosen {
        let list = patient.get("questions").and_then(Value::as_array);
        let list = list.ok_or_else(|| wrong(format!("patient `{id}` has no list `questions`")))?;
        let about = |field| read::field(patient, field).unwrap_or("unknown");
        let about = format!(
            "Answer the question below about this patient. ID: {id}; name: {}; born: {}; diagnosis: {}.",
            about("name"),
            about("birthday"),
            about("diagnosis"),
        );
        for (place, item) in list.iter().enumerate() {
            let number = item.get("No").and_then(Value::as_u64);
            let number = number.unwrap_or(place as u64);
            let lacks = |what: &str| wrong(format!("question {number} of patient `{id}` {what}"));
            let asked = read::field(item, "question").ok_or_else(|| lacks("has no text"))?;
            let letters = ["a", "b", "c", "d", "e"];
            let options = letters
                .iter()
                .filter_map(|letter| read::field(item, &format!("answer_{letter}")))
                .map(str::to_owned)
                .collect::<Vec<_>>();
            let gold = read::field(item, "correct").ok_or_else(|| lacks("has no `correct`"))?;
            if !options.iter().any(|option| option == gold) {
                return Err(lacks("has no option that is equal to `correct`"));
            }
            questions.push(Question {
                id: format!("{id}_{number}"),
                question: choice::ask(&about, asked, &options, cot),
                answers: vec![gold.to_owned()],
                options,
                earlier: Vec::new(),
            });
        }
    }
    if questions.is_empty() {
        return Err(wrong("it has no questions".to_owned()));
    }
    Ok(Suite::new(
        NAME,
        file_name(path),
        questions,
        None,
        choice::options(cot),
    ))
}
