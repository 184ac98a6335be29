//! A training run in a folder: logs, checkpoints, resume, early stopping.

use std::error::Error;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use cartridges_model::atomic_file::WriteError;
use cartridges_model::cartridge::Cartridge;
use cartridges_model::decoder::Decoder;

use crate::checkpoint::CheckpointError;
use crate::gradient::row_loss;
use crate::numbered::{CHECKPOINT, keep_numbered};
use crate::packing::PackedRow;
use crate::report::StepReport;
use crate::track::{RunStart, Table, TrackError, Tracker};
use crate::trainer::{TrainError, Trainer};

/// A run that failed.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// Training itself.
    #[error(transparent)]
    Train(#[from] TrainError),
    /// A checkpoint cannot be written or does not fit.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// A log could not be written.
    #[error(transparent)]
    Track(#[from] TrackError),
    /// The folder or a numbered checkpoint could not be written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// The cartridge could not be scored.
    #[error("scoring the cartridge after {step} steps: {source}")]
    Score {
        /// Steps done.
        step: usize,
        /// What the score's function said.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// The score is not a number.
    #[error("the score after {step} steps is {score}, expected a finite number")]
    NotANumber {
        /// Steps done.
        step: usize,
        /// The score.
        score: f64,
    },
    /// `eval_every` is set, but nothing gives scores.
    #[error(
        "training: eval_every is {0}, but there is nothing to score with (give eval_data or \
         eval_questions)"
    )]
    NoScore(usize),
}

/// How a run ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum RunEnd {
    /// All steps are done.
    Finished,
    /// As many scores in a row as `patience` says were no better than the best.
    OutOfPatience,
    /// The stop flag was raised; a checkpoint was written.
    Stopped,
}

/// How good a cartridge is.
#[derive(Debug, Clone, PartialEq)]
pub struct Evaluation {
    /// What decides which cartridge is the best: the higher, the better.
    pub score: f64,
    /// What is logged besides, by name.
    pub scalars: Vec<(String, f64)>,
    /// Tables that are logged besides, such as answers beside what was expected.
    pub tables: Vec<Table>,
}

/// Scores the cartridge as it would be saved; gets it and the steps done.
pub type Score<'a> =
    dyn FnMut(&Cartridge, usize) -> Result<Evaluation, Box<dyn Error + Send + Sync>> + 'a;

/// Who looks on during a run.
pub struct Hooks<'a> {
    /// Where the run is logged.
    pub trackers: Vec<Box<dyn Tracker>>,
    /// Called after every step.
    pub on_step: &'a mut dyn FnMut(&StepReport),
    /// Called every `eval_every` steps, before the first and after the last.
    pub score: Option<&'a mut Score<'a>>,
}

/// The reference's loss evaluation as a score: the mean loss per target position, negated. Logs it and its
/// perplexity under the reference's names, `eval_<name>/loss` and `eval_<name>/perplexity`.
pub fn held_out<'a>(
    decoder: &'a Decoder,
    rows: &'a [PackedRow],
    name: &'a str,
) -> impl FnMut(&Cartridge, usize) -> Result<Evaluation, Box<dyn Error + Send + Sync>> + 'a {
    move |cartridge, _| {
        let positions: f64 = rows.iter().map(|row| row.positions).sum();
        let losses = rows.iter().map(|row| row_loss(decoder, cartridge, row));
        let loss = losses.sum::<f64>() / positions;
        Ok(Evaluation {
            score: -loss,
            scalars: vec![
                (format!("eval_{name}/loss"), loss),
                (format!("eval_{name}/perplexity"), loss.exp()),
            ],
            tables: Vec::new(),
        })
    }
}

/// Trains to the end, from the checkpoint in `folder` if there is one: writes `checkpoint.safetensors`
/// every `save_every` steps and when stopped, numbered ones as `keep_last_n` says, and tells the hooks.
/// `name` says which data, model and start this run has. The result is [`Trainer::best_cartridge`].
///
/// # Errors
/// [`RunError`]; the last checkpoint stays.
pub fn train(
    trainer: &mut Trainer<'_>,
    folder: &Path,
    name: &str,
    stop: &AtomicBool,
    hooks: Hooks<'_>,
) -> Result<RunEnd, RunError> {
    let config = trainer.config();
    let eval_every = config.eval_every;
    if eval_every > 0 && hooks.score.is_none() && trainer.leads() {
        return Err(RunError::NoScore(eval_every));
    }
    if trainer.leads() {
        std::fs::create_dir_all(folder).map_err(|source| WriteError {
            path: folder.to_owned(),
            source,
        })?;
    }
    let checkpoint = folder.join(CHECKPOINT);
    let resumed = trainer.resume_together(&checkpoint, name)?;
    let mut run = Run {
        trainer,
        hooks,
        folder,
        checkpoint,
        name,
    };
    if let Some(end) = run.ended() {
        return Ok(end);
    }
    run.begin()?;
    let end = run.go(!resumed, stop);
    if let Err(RunError::Train(TrainError::Group(_))) = &end {
        // Steps are whole or not done at all.
        run.save()?;
    }
    // What was logged so far is kept, however the run ended.
    let closed = run.hooks.trackers.iter_mut().try_for_each(|t| t.end());
    let end = end?;
    closed?;
    Ok(end)
}

struct Run<'a, 't, 'd> {
    trainer: &'t mut Trainer<'d>,
    hooks: Hooks<'a>,
    folder: &'t Path,
    checkpoint: PathBuf,
    name: &'t str,
}

impl Run<'_, '_, '_> {
    fn ended(&self) -> Option<RunEnd> {
        if self.trainer.out_of_patience() {
            return Some(RunEnd::OutOfPatience);
        }
        let done = self.trainer.steps_done() >= self.trainer.total_steps();
        done.then_some(RunEnd::Finished)
    }

    /// All steps that are left.
    fn go(&mut self, from_the_start: bool, stop: &AtomicBool) -> Result<RunEnd, RunError> {
        let config = self.trainer.config();
        let (save_every, eval_every) = (config.save_every, config.eval_every);
        if from_the_start && eval_every > 0 {
            self.score()?;
        }
        loop {
            let stop = stop.load(Ordering::Relaxed);
            if self.trainer.agree_to_stop(stop)? {
                if self.trainer.leads() {
                    self.trainer.save_checkpoint(&self.checkpoint, self.name)?;
                }
                return Ok(RunEnd::Stopped);
            }
            let report = self.trainer.step()?;
            for tracker in &mut self.hooks.trackers {
                tracker.step(&report)?;
            }
            (self.hooks.on_step)(&report);
            let due = |every: usize| every > 0 && report.step % every == 0;
            let last = report.step == report.total;
            if due(eval_every) || (eval_every > 0 && last) {
                self.score()?;
            }
            let ended = self.ended();
            if ended.is_some() || due(save_every) {
                self.save()?;
            }
            if let Some(end) = ended {
                return Ok(end);
            }
        }
    }

    fn begin(&mut self) -> Result<(), RunError> {
        let settings = serde_json::to_value(self.trainer.config()).unwrap_or_default();
        let start = RunStart {
            step: self.trainer.steps_done(),
            total: self.trainer.total_steps(),
            sizes: self.trainer.sizes(),
            settings: &settings,
        };
        for tracker in &mut self.hooks.trackers {
            tracker.begin(&start)?;
        }
        Ok(())
    }

    fn score(&mut self) -> Result<(), RunError> {
        let step = self.trainer.steps_done();
        if !self.trainer.leads() {
            let score = self.trainer.agree_on_score(0.0)?;
            self.trainer.take_score(score);
            return Ok(());
        }
        let Some(score) = &mut self.hooks.score else {
            return Ok(());
        };
        let found = score(&self.trainer.evaluated(), step)
            .map_err(|source| RunError::Score { step, source })?;
        if !found.score.is_finite() {
            let score = found.score;
            return Err(RunError::NotANumber { step, score });
        }
        self.trainer.agree_on_score(found.score)?;
        let best = self.trainer.take_score(found.score);
        tracing::info!(step, score = found.score, best, "scored");
        let named = found.scalars.iter().map(|(name, x)| (name.as_str(), *x));
        let all: Vec<(&str, f64)> = std::iter::once(("eval/score", found.score))
            .chain(named)
            .collect();
        for tracker in &mut self.hooks.trackers {
            tracker.scalars(step, &all)?;
            for table in &found.tables {
                tracker.table(step, table)?;
            }
        }
        Ok(())
    }

    fn save(&mut self) -> Result<(), RunError> {
        if !self.trainer.leads() {
            return Ok(());
        }
        self.trainer.save_checkpoint(&self.checkpoint, self.name)?;
        let keep = self.trainer.config().keep_last_n;
        keep_numbered(self.folder, self.trainer.steps_done(), keep)?;
        Ok(())
    }
}
