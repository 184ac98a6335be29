//! Needles in a haystack (RULER, Hsieh et al., arXiv 2404.06654).

use cartridges_study::resource::NeedleText;

use super::Suite;
use super::error::SuiteError;
use crate::grade::Grade;
use crate::measure::MeasureOptions;
use crate::questions::Question;

const NAME: &str = "niah";

/// A question for each key of a made text.
///
/// # Errors
/// [`SuiteError::Setting`], if nothing is hidden in the text.
pub fn needles(made: NeedleText) -> Result<Suite, SuiteError> {
    if made.needles.is_empty() {
        return Err(SuiteError::setting(NAME, "nothing is hidden in the text"));
    }
    let question = |(key, values): &(String, Vec<String>)| {
        let what = match values.len() {
            1 => "What is the special magic value",
            _ => "What are all special magic values, with commas between them,",
        };
        Question {
            id: format!("{NAME}_{key}"),
            question: format!(
                "{what} for {key} that the text mentions? Answer with nothing but the value, in this \
                 form: Answer: value"
            ),
            answers: match values.as_slice() {
                [one] => vec![one.clone()],
                all => all.to_vec(),
            },
            ..Question::default()
        }
    };
    let questions = made.needles.iter().map(question).collect();
    let about = format!("of {} keys", made.needles.len());
    let options = MeasureOptions {
        instruction: String::new(),
        lead: "Answer: ".to_owned(),
        grade: Grade::Needle,
        max_new_tokens: 128,
        ..MeasureOptions::default()
    };
    Ok(Suite::new(NAME, about, questions, Some(made.text), options))
}
