//! Variable tracking (RULER, Hsieh et al., arXiv 2404.06654).

use cartridges_study::resource::TrailText;

use super::Suite;
use super::error::SuiteError;
use crate::grade::Grade;
use crate::measure::MeasureOptions;
use crate::questions::Question;

const NAME: &str = "variable-tracking";

/// A question for each value of a made text: the variables that have it. The likelihood is that of the
/// first one.
///
/// # Errors
/// [`SuiteError::Setting`], if there is no chain of assignments in the text.
pub fn variables(made: TrailText) -> Result<Suite, SuiteError> {
    if made.chains.is_empty() {
        return Err(SuiteError::setting(NAME, "no variable is in the text"));
    }
    let question = |(value, variables): &(String, Vec<String>)| Question {
        id: format!("{NAME}_{value}"),
        question: format!(
            "Which variables have the value {value}, directly or by way of others? Give nothing but \
             their names, one a line, in this form:\n<answer>\nname\nname\n</answer>"
        ),
        answers: variables.clone(),
        ..Question::default()
    };
    let questions = made.chains.iter().map(question).collect();
    let about = format!("of {} chains", made.chains.len());
    let options = MeasureOptions {
        instruction: String::new(),
        lead: "<answer>\n".to_owned(),
        grade: Grade::Variables,
        max_new_tokens: 96,
        ..MeasureOptions::default()
    };
    Ok(Suite::new(NAME, about, questions, Some(made.text), options))
}
