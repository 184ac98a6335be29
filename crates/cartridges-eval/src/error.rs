//! What can go wrong in an evaluation.

use cartridges_engine::EngineError;
use cartridges_model::atomic_file::WriteError;
use cartridges_model::text::TextError;

use crate::questions::QuestionError;

/// An evaluation that could not be done or saved.
#[derive(Debug, thiserror::Error)]
pub enum EvalError {
    /// The question list is missing or wrong.
    #[error(transparent)]
    Questions(#[from] QuestionError),
    /// Text could not be turned into ids.
    #[error(transparent)]
    Text(#[from] TextError),
    /// The engine refused.
    #[error(transparent)]
    Engine(#[from] EngineError),
    /// A candidate answer that is no token at all.
    #[error("question `{question}`: the answer `{answer}` has no tokens")]
    NoTokens {
        /// Id of the question.
        question: String,
        /// The answer.
        answer: String,
    },
    /// A result that is not a number.
    #[error("condition `{condition}`, question `{question}`: an answer's log-prob is {value}")]
    NotFinite {
        /// Name of the condition.
        condition: String,
        /// Id of the question.
        question: String,
        /// What came instead.
        value: f64,
    },
    /// The report could not be written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// The report could not be turned into JSON.
    #[error("cannot write the report as JSON: {0}")]
    Json(#[from] serde_json::Error),
}
