//! Why a text cannot be studied.

use std::path::{Path, PathBuf};

use crate::chunker::ChunkError;

/// A text that cannot be studied.
#[derive(Debug, thiserror::Error)]
pub enum ResourceError {
    /// The file cannot be read.
    #[error("cannot read {path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The file, or what it holds when unpacked, is larger than what is read.
    #[error("{path} is larger than {limit} bytes")]
    TooLarge {
        /// The file.
        path: PathBuf,
        /// The largest that is read.
        limit: u64,
    },
    /// The file holds too many of something.
    #[error("{path} has more than {limit} {what}")]
    TooMany {
        /// The file or folder.
        path: PathBuf,
        /// What there are too many of.
        what: &'static str,
        /// The most that are read.
        limit: usize,
    },
    /// A paper of arXiv cannot be had.
    #[error("the paper {id} of arXiv: {reason}")]
    Paper {
        /// Its identifier.
        id: String,
        /// Why, and what can be done.
        reason: String,
    },
    /// The file is not UTF-8.
    #[error("{path} is not UTF-8 text: the byte at offset {offset} does not fit")]
    NotText {
        /// The file.
        path: PathBuf,
        /// The first byte that is not text.
        offset: usize,
    },
    /// The file is not of the expected kind.
    #[error("{path} cannot be read as {kind}: {reason}")]
    Format {
        /// The file.
        path: PathBuf,
        /// The expected kind.
        kind: &'static str,
        /// What is wrong.
        reason: String,
    },
    /// The file lacks what the configuration asks for.
    #[error("{path} has no {what}")]
    Missing {
        /// The file or folder.
        path: PathBuf,
        /// What was asked for.
        what: String,
    },
    /// A field of the configuration has a value outside its range.
    #[error("resource of type {kind}: {field} is {found}, expected {expected}")]
    Field {
        /// The resource's type.
        kind: &'static str,
        /// The field.
        field: &'static str,
        /// Its value.
        found: String,
        /// What it may be.
        expected: &'static str,
    },
    /// There is nothing in it.
    #[error("the text `{name}` is empty: there is nothing to study")]
    Empty {
        /// The resource.
        name: String,
    },
    /// No seed types were chosen.
    #[error(
        "the resource `{name}` has no seed types to draw from, or \"own\" among them without seed_prompts"
    )]
    NoSeedTypes {
        /// The resource.
        name: String,
    },
    /// Windows cannot be drawn.
    #[error("the text `{name}` cannot be cut into chunks: {source}")]
    Chunk {
        /// The resource.
        name: String,
        /// Why.
        #[source]
        source: ChunkError,
    },
}

impl ResourceError {
    /// The error of a file that the system does not give.
    pub(super) fn io(path: &Path) -> impl Fn(std::io::Error) -> Self + '_ {
        |source| Self::Io {
            path: path.to_owned(),
            source,
        }
    }

    /// The error of a file that is not of a kind.
    pub(super) fn format(path: &Path, kind: &'static str, reason: impl ToString) -> Self {
        Self::Format {
            path: path.to_owned(),
            kind,
            reason: reason.to_string(),
        }
    }
}
