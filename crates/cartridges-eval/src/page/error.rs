//! What can go wrong between reports and their page.

use std::io;
use std::path::PathBuf;

use cartridges_model::atomic_file::WriteError;

use crate::figure::PngError;

/// A page that could not be made.
#[derive(Debug, thiserror::Error)]
pub enum PageError {
    /// A report that cannot be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A file that is far larger than any report.
    #[error("{path} has more than {limit} bytes; that is no report")]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// Bytes that are read at most.
        limit: u64,
    },
    /// JSON that is no report, or one of a program too old or too new.
    #[error(
        "{path} is not a report of `cartridges eval` or `cartridges quickstart`: field `{field}`: {reason}"
    )]
    NoReport {
        /// The file.
        path: PathBuf,
        /// The field, as a path from the top; `.` is the whole file.
        field: String,
        /// What is wrong with it.
        reason: String,
    },
    /// Nothing to show.
    #[error("{path} holds no report")]
    Empty {
        /// The file.
        path: PathBuf,
    },
    /// Results that would be lost.
    #[error(
        "{path} is one of the reports to compare and would be replaced by the list of all; name another folder"
    )]
    WouldReplace {
        /// The file.
        path: PathBuf,
    },
    /// A file that could not be written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// A figure that could not be drawn.
    #[error(transparent)]
    Png(#[from] PngError),
    /// Reports that could not be turned into JSON.
    #[error("cannot write the reports as JSON: {0}")]
    Json(#[from] serde_json::Error),
}
