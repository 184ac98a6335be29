//! MMLU: what the model knows about everything else (Hendrycks et al., arXiv 2009.03300).

use std::path::Path;

use cartridges_study::resource::file_name;
use serde_json::Value;

use super::Suite;
use super::error::SuiteError;
use super::read;
use crate::grade::Grade;
use crate::measure::MeasureOptions;
use crate::questions::Question;
use crate::random::SplitMix64;

const NAME: &str = "mmlu";
const LETTERS: [char; 10] = ['A', 'B', 'C', 'D', 'E', 'F', 'G', 'H', 'I', 'J'];

/// So many questions, drawn with a seed; all if there are no more. The likelihood is that of the letter.
///
/// Read are lines or a list of objects with `question`, `choices` and `answer`, the place of the right one
/// from 0 or its letter, as the data set on the hub has them.
///
/// # Errors
/// [`SuiteError`], with the question.
pub fn mmlu(path: &Path, most: usize, seed: u64) -> Result<Suite, SuiteError> {
    let wrong = |problem: String| SuiteError::format(NAME, path, problem);
    let root = read::json(NAME, path)?;
    let Some(list) = root.as_array() else {
        return Err(wrong("expected a question per line".to_owned()));
    };
    let mut order: Vec<usize> = (0..list.len()).collect();
    if most < list.len() {
        SplitMix64::new(seed).shuffle(&mut order);
        order.truncate(most);
        order.sort_unstable();
    }
    let question = |place: usize| {
        let item = &list[place];
        let choices = read::texts(item, "choices")?;
        let right = match item.get("answer")? {
            Value::Number(at) => usize::try_from(at.as_u64()?).ok()?,
            Value::String(letter) => LETTERS
                .iter()
                .position(|l| letter.trim() == l.to_string())?,
            _ => return None,
        };
        let letters: Vec<String> = LETTERS
            .iter()
            .take(choices.len())
            .map(char::to_string)
            .collect();
        let lines: Vec<String> = letters
            .iter()
            .zip(&choices)
            .map(|(letter, choice)| format!("{letter}. {choice}"))
            .collect();
        let asked = read::field(item, "question")?;
        Some(Question {
            id: format!("{NAME}_{}", place + 1),
            question: format!(
                "{asked}\n\n{}\n\nExplain your reasoning in a few sentences. Then give the letter of \
                 the right choice in this form:\n<answer>\nletter\n</answer>",
                lines.join("\n")
            ),
            answers: vec![letters.get(right)?.clone()],
            options: letters,
            earlier: Vec::new(),
        })
    };
    let questions = order.into_iter().map(|place| {
        question(place).ok_or_else(|| {
            wrong(format!(
                "question {} lacks `question`, `choices` or the `answer` among them",
                place + 1
            ))
        })
    });
    let questions = questions.collect::<Result<Vec<_>, _>>()?;
    if questions.is_empty() {
        return Err(wrong("it has no questions".to_owned()));
    }
    let options = MeasureOptions {
        instruction: String::new(),
        lead: "<answer>\n".to_owned(),
        grade: Grade::Letter,
        max_new_tokens: 384,
        seed,
        ..MeasureOptions::default()
    };
    Ok(Suite::new(
        NAME,
        format!("{} of {}", questions.len(), file_name(path)),
        questions,
        None,
        options,
    ))
}
