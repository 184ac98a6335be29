//! What can go wrong while a delta is solved.

use std::path::{Path, PathBuf};

use cartridges_model::adapter::AdapterError;
use cartridges_model::atomic_file::WriteError;
use cartridges_model::text::TextError;
use cartridges_model::weights::WeightsError;
use cartridges_ops::{LayoutError, TargetsError};

use crate::statistics::CorpusId;

/// Numbers from which no delta can be solved, or a file of statistics that cannot be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TransmuteError {
    /// An argument or a setting.
    #[error("{field} {problem}")]
    Field {
        /// Which.
        field: &'static str,
        /// What is wrong and what was expected.
        problem: String,
    },
    /// A vector that must point somewhere is zero.
    #[error(
        "{field} has norm 0: no weight delta gives anything for it; expected a non-zero vector"
    )]
    ZeroNorm {
        /// Which.
        field: &'static str,
    },
    /// A system stayed indefinite with every ridge that was tried.
    #[error(
        "the {size} by {size} system is not positive definite even with ridge {ridge:e}, the last of \
         {attempts} tried; expected statistics of finite rows, or a larger ridge"
    )]
    Indefinite {
        /// Rows of the system.
        size: usize,
        /// The largest relative ridge that was tried.
        ridge: f64,
        /// How many were tried.
        attempts: u32,
    },
    /// A decomposition did not converge.
    #[error("the decomposition of {field} ({rows} by {columns}) did not converge")]
    NoConvergence {
        /// Of what.
        field: &'static str,
        /// Its rows.
        rows: usize,
        /// Its columns.
        columns: usize,
    },
    /// Statistics do not hold a corpus, or hold it already.
    #[error("corpus {corpus} {problem}")]
    Corpus {
        /// Which.
        corpus: CorpusId,
        /// What is wrong and what was expected.
        problem: String,
    },
    /// The tokenizer or the chat template failed.
    #[error(transparent)]
    Text(#[from] TextError),
    /// The chat template writes turns in another way behind a system message.
    #[error(
        "the chat template writes a conversation in another way behind a system message, so that \
         teacher and student would not read the same turns"
    )]
    Alignment,
    /// An id is not in the model's vocabulary.
    #[error(
        "conversation {row}: token id {id} is outside the model's vocabulary of {vocab_size}; was \
         the data made with another model?"
    )]
    TokenId {
        /// The conversation's number, from 0.
        row: usize,
        /// The id.
        id: u32,
        /// Rows of the embedding table.
        vocab_size: usize,
    },
    /// A batch that contradicts itself.
    #[error(transparent)]
    Layout(#[from] LayoutError),
    /// Targets that contradict themselves.
    #[error(transparent)]
    Targets(#[from] TargetsError),
    /// An adapter that contradicts itself or does not fit the model.
    #[error(transparent)]
    Adapter(#[from] AdapterError),
    /// The weights of a model cannot be read.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// A tensor of a model with an adapter in it.
    #[error("tensor {name} {problem}")]
    Tensor {
        /// Its name.
        name: String,
        /// What is wrong and what was expected.
        problem: String,
    },
    /// A file could not be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// A file could not be written; what was there before is unchanged.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// A file is not what it should be.
    #[error("{path}: {problem}")]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong and what was expected.
        problem: String,
    },
}

impl TransmuteError {
    pub(crate) fn field(field: &'static str, problem: impl Into<String>) -> Self {
        Self::Field {
            field,
            problem: problem.into(),
        }
    }

    pub(crate) fn file(path: &Path, problem: impl Into<String>) -> Self {
        Self::File {
            path: path.to_owned(),
            problem: problem.into(),
        }
    }
}

/// That `found` is `expected`.
pub(crate) fn check_length(
    field: &'static str,
    found: usize,
    expected: usize,
) -> Result<(), TransmuteError> {
    if found == expected {
        return Ok(());
    }
    let problem = format!("has {found} values, expected {expected}");
    Err(TransmuteError::field(field, problem))
}

/// That every value is finite.
pub(crate) fn check_finite(
    field: &'static str,
    values: impl IntoIterator<Item = f64>,
) -> Result<(), TransmuteError> {
    match values.into_iter().enumerate().find(|(_, x)| !x.is_finite()) {
        None => Ok(()),
        Some((i, value)) => {
            let problem = format!("holds {value} at {i}, expected finite numbers");
            Err(TransmuteError::field(field, problem))
        }
    }
}

/// That a setting is a finite number that is not negative.
pub(crate) fn check_not_negative(field: &'static str, value: f64) -> Result<(), TransmuteError> {
    if value.is_finite() && value >= 0.0 {
        return Ok(());
    }
    let problem = format!("is {value}, expected a finite number, not negative");
    Err(TransmuteError::field(field, problem))
}
