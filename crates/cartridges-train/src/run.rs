//! A training run in a folder: log, checkpoints, resume.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use crate::trainer::{StepReport, TrainError, Trainer};

/// A run that failed.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Training itself.
    #[error(transparent)]
    Train(#[from] TrainError),
    /// The log could not be written.
    #[error("cannot write {path}: {source}")]
    Log {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunEnd {
    /// All steps are done.
    Finished,
    /// The stop flag was raised; a checkpoint was written.
    Stopped,
}

/// Trains to the end, from the checkpoint in `folder` if there is one: writes `checkpoint.safetensors`
/// every `save_every` steps and when stopped, and a line of JSON per step to `train.jsonl`. `name`
/// says which data, model and start this run has.
///
/// # Errors
/// [`RunError`]; the last checkpoint stays.
pub fn train(
    trainer: &mut Trainer<'_>,
    folder: &Path,
    name: &str,
    stop: &AtomicBool,
    on_step: &mut dyn FnMut(&StepReport),
) -> Result<RunEnd, RunError> {
    let checkpoint = folder.join("checkpoint.safetensors");
    std::fs::create_dir_all(folder).map_err(|source| RunError::Log {
        path: folder.to_owned(),
        source,
    })?;
    trainer
        .resume(&checkpoint, name)
        .map_err(TrainError::from)?;
    let log = folder.join("train.jsonl");
    while trainer.steps_done() < trainer.total_steps() {
        if stop.load(Ordering::Relaxed) {
            trainer
                .save_checkpoint(&checkpoint, name)
                .map_err(TrainError::from)?;
            return Ok(RunEnd::Stopped);
        }
        let report = trainer.step()?;
        append(&log, &report).map_err(|source| RunError::Log {
            path: log.clone(),
            source,
        })?;
        on_step(&report);
        let every = trainer.config.save_every;
        let last = report.step == trainer.total_steps();
        if last || (every > 0 && report.step % every == 0) {
            trainer
                .save_checkpoint(&checkpoint, name)
                .map_err(TrainError::from)?;
        }
    }
    Ok(RunEnd::Finished)
}

fn append(log: &Path, report: &StepReport) -> std::io::Result<()> {
    let mut line = serde_json::to_string(report)?;
    line.push('\n');
    let mut file = OpenOptions::new().create(true).append(true).open(log)?;
    file.write_all(line.as_bytes())
}
