//! What is wrong with a suite's data.

use std::path::{Path, PathBuf};

use cartridges_study::resource::ResourceError;

use crate::questions::QuestionError;

/// Data of a suite that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum SuiteError {
    /// The file could not be read.
    #[error(transparent)]
    Resource(#[from] ResourceError),
    /// The file is not what the suite expects.
    #[error("{} is no {suite} data: {problem}", path.display())]
    Format {
        /// The suite.
        suite: &'static str,
        /// The file.
        path: PathBuf,
        /// What is wrong, with the place.
        problem: String,
    },
    /// A setting is wrong.
    #[error("{suite}: {problem}")]
    Setting {
        /// The suite.
        suite: &'static str,
        /// What is wrong.
        problem: String,
    },
    /// The question list is wrong.
    #[error(transparent)]
    Questions(#[from] QuestionError),
}

impl SuiteError {
    pub(super) fn format(suite: &'static str, path: &Path, problem: impl Into<String>) -> Self {
        Self::Format {
            suite,
            path: path.to_owned(),
            problem: problem.into(),
        }
    }

    pub(super) fn setting(suite: &'static str, problem: impl Into<String>) -> Self {
        Self::Setting {
            suite,
            problem: problem.into(),
        }
    }
}
