//! How multiple choice is asked.

use crate::grade::Grade;
use crate::measure::MeasureOptions;

/// Blocks of question and options, and what form the answer has. With `cot` the model thinks first, as
/// the reference asks models that do not do it by themselves.
pub(super) fn ask(about: &str, question: &str, options: &[String], cot: bool) -> String {
    let form = match cot {
        true => {
            "Think about it step by step first. Then give the answer, exactly as it stands among the \
             options. Use this form:\n<thinking>\nyour thoughts\n</thinking>\n<answer>\nthe answer\n\
             </answer>"
        }
        false => {
            "Give nothing but the answer, exactly as it stands among the options, in this form:\n\
             <answer>\nthe answer\n</answer>"
        }
    };
    format!(
        "{about}\n\n<question>\n{question}\n</question>\n\n<options>\n{}\n</options>\n\n{form}",
        options.join("\n")
    )
}

/// How answers in that form are measured: of the answer alone, or with thoughts before it.
pub(super) fn options(cot: bool) -> MeasureOptions {
    MeasureOptions {
        instruction: String::new(),
        lead: "<answer>\n".to_owned(),
        grade: Grade::Option,
        max_new_tokens: if cot { 512 } else { 96 },
        ..MeasureOptions::default()
    }
}
