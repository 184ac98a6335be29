//! What can go wrong with a conversation file.

use std::io;
use std::path::{Path, PathBuf};

use cartridges_model::atomic_file::WriteError;

/// A conversation file that could not be read or written.
#[derive(Debug, thiserror::Error)]
pub enum ConversationFileError {
    /// The file cannot be opened or read.
    #[error("cannot read {path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A folder that holds no data set.
    #[error(
        "{path} holds no data set: expected dataset.parquet, data/*.parquet or artifact/*.parquet in it"
    )]
    NoDataSet {
        /// The folder.
        path: PathBuf,
    },
    /// The file is not a complete parquet file, or lies about its contents.
    #[error("{path} is not a sound parquet file: {reason}")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// A column that every conversation file has is missing.
    #[error("{path} has no column `{column}`; its columns are: {present}")]
    MissingColumn {
        /// The file.
        path: PathBuf,
        /// The column.
        column: &'static str,
        /// The columns that are there.
        present: String,
    },
    /// A column has a type that cannot be understood.
    #[error("{path}: column `{column}`: {reason}")]
    ColumnType {
        /// The file.
        path: PathBuf,
        /// The column, as a dotted path.
        column: String,
        /// Expected and found type.
        reason: String,
    },
    /// A value is missing or out of range.
    #[error("{path}: row {row}: `{field}`: {reason}")]
    Value {
        /// The file.
        path: PathBuf,
        /// Row number, from 0.
        row: usize,
        /// The field, as a dotted path with indices.
        field: String,
        /// What is wrong.
        reason: String,
    },
    /// A conversation cannot be stored.
    #[error("cannot store conversation {row}: {reason}")]
    Unstorable {
        /// Row number, from 0.
        row: usize,
        /// What is wrong.
        reason: String,
    },
    /// The parquet encoder failed.
    #[error("cannot encode conversations: {0}")]
    Encode(String),
    /// The file cannot be written.
    #[error(transparent)]
    Write(#[from] WriteError),
}

impl ConversationFileError {
    pub(crate) fn malformed(path: &Path, reason: impl ToString) -> Self {
        Self::Malformed {
            path: path.to_owned(),
            reason: reason.to_string(),
        }
    }

    pub(crate) fn column(path: &Path, column: &str, reason: impl ToString) -> Self {
        Self::ColumnType {
            path: path.to_owned(),
            column: column.to_owned(),
            reason: reason.to_string(),
        }
    }
}
