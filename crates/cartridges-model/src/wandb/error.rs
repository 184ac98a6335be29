//! What can go wrong with Weights & Biases.

use crate::atomic_file::WriteError;

/// A question to Weights & Biases that got no usable answer.
#[derive(Debug, thiserror::Error)]
pub enum WandbError {
    /// There is no key.
    #[error("WANDB_API_KEY is not set; it is on the page /authorize of the server")]
    NoKey,
    /// A name that is none.
    #[error(
        "`{given}` names nothing in Weights & Biases, expected wandb:ENTITY/PROJECT/NAME, for an \
         artifact with :VERSION behind it"
    )]
    Name {
        /// What was given.
        given: String,
    },
    /// No answer came.
    #[error("{base}: {what}: {problem}")]
    NoAnswer {
        /// The server.
        base: String,
        /// What was asked for.
        what: String,
        /// What happened.
        problem: String,
    },
    /// The server says no.
    #[error("{base}: {what}: status {status}: {said}")]
    Refused {
        /// The server.
        base: String,
        /// What was asked for.
        what: String,
        /// The status.
        status: u16,
        /// The beginning of its words.
        said: String,
    },
    /// The answer is not what the interface promises.
    #[error("{base}: {what}: {problem}")]
    Answer {
        /// The server.
        base: String,
        /// What was asked for.
        what: String,
        /// What is wrong with it.
        problem: String,
    },
    /// There is no such artifact and no such run.
    #[error("{base} has no {what} {name}, or the key may not read it")]
    Missing {
        /// The server.
        base: String,
        /// Artifact or run.
        what: &'static str,
        /// Its name.
        name: String,
    },
    /// A file came otherwise than it was stated.
    #[error("{name} of Weights & Biases: {problem}; it was not kept")]
    Damaged {
        /// The file.
        name: String,
        /// What is wrong.
        problem: String,
    },
    /// A file could not be written.
    #[error(transparent)]
    Write(#[from] WriteError),
}

impl WandbError {
    /// Whether the same question may be answered later.
    pub fn may_pass(&self) -> bool {
        match self {
            Self::NoAnswer { .. } => true,
            Self::Refused { status, .. } => *status == 429 || *status == 408 || *status >= 500,
            _ => false,
        }
    }
}
