//! Questions in the course of a conversation.

use super::Suite;
use super::error::SuiteError;
use crate::measure::MeasureOptions;
use crate::questions::QuestionList;

const NAME: &str = "multi-turn";

/// The questions of a list, each behind the `turns` before it (the list is a circle) with their gold
/// answers.
///
/// # Errors
/// [`SuiteError::Setting`], if there are not more questions than turns.
pub fn multi_turn(mut list: QuestionList, turns: usize) -> Result<Suite, SuiteError> {
    let count = list.questions.len();
    if turns == 0 || turns >= count {
        let problem = format!(
            "{turns} turns before each of {count} questions, expected 1 or more, and fewer than there are questions"
        );
        return Err(SuiteError::setting(NAME, problem));
    }
    let asked: Vec<(String, String)> = list
        .questions
        .iter()
        .map(|q| (q.question.clone(), q.gold().to_owned()))
        .collect();
    for (index, question) in list.questions.iter_mut().enumerate() {
        let first = index + count - turns;
        question.earlier = (first..first + turns)
            .map(|at| asked[at % count].clone())
            .collect();
    }
    list.id = format!("{} behind {turns} turns", list.id);
    Ok(Suite {
        name: NAME,
        questions: list,
        text: None,
        options: MeasureOptions::default(),
    })
}
