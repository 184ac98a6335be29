//! What a tracker is.

use std::io;
use std::path::{Path, PathBuf};

use super::table::Table;
use crate::report::{Sizes, StepReport};

/// A log that could not be written.
#[derive(Debug, thiserror::Error)]
#[error("cannot write {path}: {source}")]
pub struct TrackError {
    /// The file or folder.
    pub path: PathBuf,
    /// What the system said.
    #[source]
    pub source: io::Error,
}

impl TrackError {
    /// An error of this file, for `map_err`.
    pub(crate) fn of(path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self { path, source }
    }
}

/// What is known before the first step.
#[derive(Debug, Clone, Copy)]
pub struct RunStart<'a> {
    /// Steps that are done already, in an earlier part of the run.
    pub step: usize,
    /// Steps in all.
    pub total: usize,
    /// How much is trained.
    pub sizes: Sizes,
    /// The resolved settings.
    pub settings: &'a serde_json::Value,
}

/// Something that a run is logged to. What a method does not care for, it leaves out.
pub trait Tracker {
    /// Before the first step of a run, or of a part of it that goes on from a checkpoint.
    ///
    /// # Errors
    /// [`TrackError`], as every method.
    fn begin(&mut self, start: &RunStart<'_>) -> Result<(), TrackError> {
        let _ = start;
        Ok(())
    }

    /// After every step.
    ///
    /// # Errors
    /// [`TrackError`].
    fn step(&mut self, report: &StepReport) -> Result<(), TrackError>;

    /// Other numbers, like those of an evaluation, after `step` steps.
    ///
    /// # Errors
    /// [`TrackError`].
    fn scalars(&mut self, step: usize, values: &[(&str, f64)]) -> Result<(), TrackError>;

    /// A text, like an answer, after `step` steps.
    ///
    /// # Errors
    /// [`TrackError`].
    fn text(&mut self, step: usize, name: &str, text: &str) -> Result<(), TrackError> {
        let _ = (step, name, text);
        Ok(())
    }

    /// A table, like that of an evaluation's answers, after `step` steps.
    ///
    /// # Errors
    /// [`TrackError`].
    fn table(&mut self, step: usize, table: &Table) -> Result<(), TrackError> {
        let _ = (step, table);
        Ok(())
    }

    /// After the last step, and when the run is stopped.
    ///
    /// # Errors
    /// [`TrackError`].
    fn end(&mut self) -> Result<(), TrackError> {
        Ok(())
    }
}
