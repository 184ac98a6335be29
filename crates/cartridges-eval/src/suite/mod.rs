//! Benchmarks: where their questions come from, how they are asked, and how answers are graded.
//!
//! Prompts and scores follow the reference's evaluations; what is done otherwise is said at each suite.
//! Data is read from the files that its authors publish, or from simpler lists; nothing is shipped.

mod choice;
mod error;
mod longhealth;
mod mmlu;
mod mtob;
mod multi_turn;
mod needle;
mod qasper;
mod quality;
mod read;
#[cfg(test)]
mod tests;
mod variables;

pub use error::SuiteError;
pub use longhealth::longhealth;
pub use mmlu::mmlu;
pub use mtob::{Direction, MtobSuite, mtob};
pub use multi_turn::multi_turn;
pub use needle::needles;
pub use qasper::qasper;
pub use quality::quality;
pub use variables::variables;

use crate::measure::MeasureOptions;
use crate::questions::{Question, QuestionList};

/// Questions about a text, and how they are asked and graded.
#[derive(Debug, Clone, PartialEq)]
pub struct Suite {
    /// The suite, such as `longhealth`.
    pub name: &'static str,
    /// The questions.
    pub questions: QuestionList,
    /// The text they are about, where the suite's file has it.
    pub text: Option<String>,
    /// How they are asked and graded.
    pub options: MeasureOptions,
}

impl Suite {
    /// Questions of a benchmark, whose list is called as the suite and `about`.
    fn new(
        name: &'static str,
        about: String,
        questions: Vec<Question>,
        text: Option<String>,
        options: MeasureOptions,
    ) -> Self {
        Self {
            name,
            questions: QuestionList {
                id: format!("{name} {about}"),
                licence: String::new(),
                corpus: String::new(),
                questions,
            },
            text,
            options,
        }
    }
}
