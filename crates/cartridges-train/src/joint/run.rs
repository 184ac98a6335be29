//! A run of joint training in a folder.

use std::error::Error;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use cartridges_model::atomic_file::WriteError;

use super::trainer::JointTrainer;
use crate::numbered::{CHECKPOINT, keep_numbered};
use crate::report::StepReport;
use crate::run::{RunEnd, RunError};
use crate::track::{RunStart, Tracker};

/// Measures the cartridges as they are now; gives what is logged of each, by name.
pub type JointScore<'a> = dyn FnMut(&JointTrainer<'_>) -> Result<Vec<Vec<(String, f64)>>, Box<dyn Error + Send + Sync>>
    + 'a;

/// Who looks on during a run.
pub struct JointHooks<'a> {
    /// Where each cartridge is logged.
    pub trackers: Vec<Vec<Box<dyn Tracker>>>,
    /// Called after every step.
    pub on_step: &'a mut dyn FnMut(&[StepReport]),
    /// Called every `eval_every` steps, before the first and after the last.
    pub score: Option<&'a mut JointScore<'a>>,
}

/// Trains to the end, from the checkpoint in `folder` if there is one; see [`crate::train`]. Scores are
/// logged; they choose no best cartridge and end no run.
///
/// # Errors
/// [`RunError`]; the last checkpoint stays.
pub fn train_joint(
    trainer: &mut JointTrainer<'_>,
    folder: &Path,
    name: &str,
    stop: &AtomicBool,
    mut hooks: JointHooks<'_>,
) -> Result<RunEnd, RunError> {
    std::fs::create_dir_all(folder).map_err(|source| WriteError {
        path: folder.to_owned(),
        source,
    })?;
    let checkpoint = folder.join(CHECKPOINT);
    let resumed = trainer.resume(&checkpoint, name)?;
    if trainer.steps_done() >= trainer.total_steps() {
        return Ok(RunEnd::Finished);
    }
    for (one, trackers) in trainer.trainers().iter().zip(&mut hooks.trackers) {
        let settings = serde_json::to_value(one.config()).unwrap_or_default();
        let start = RunStart {
            step: one.steps_done(),
            total: one.total_steps(),
            sizes: one.sizes(),
            settings: &settings,
        };
        trackers.iter_mut().try_for_each(|t| t.begin(&start))?;
    }
    let end = go(trainer, folder, name, stop, &mut hooks, !resumed);
    let mut all = hooks.trackers.iter_mut().flatten();
    let closed = all.try_for_each(|t| t.end());
    let end = end?;
    closed?;
    Ok(end)
}

fn go(
    trainer: &mut JointTrainer<'_>,
    folder: &Path,
    name: &str,
    stop: &AtomicBool,
    hooks: &mut JointHooks<'_>,
    from_the_start: bool,
) -> Result<RunEnd, RunError> {
    let checkpoint = folder.join(CHECKPOINT);
    let config = trainer.trainers()[0].config();
    let (save_every, eval_every) = (config.save_every, config.eval_every);
    let keep = config.keep_last_n;
    if from_the_start && eval_every > 0 {
        score(trainer, hooks)?;
    }
    loop {
        if stop.load(Ordering::Relaxed) {
            trainer.save_checkpoint(&checkpoint, name)?;
            return Ok(RunEnd::Stopped);
        }
        let reports = trainer.step()?;
        for (report, trackers) in reports.iter().zip(&mut hooks.trackers) {
            trackers.iter_mut().try_for_each(|t| t.step(report))?;
        }
        (hooks.on_step)(&reports);
        let step = trainer.steps_done();
        let last = step >= trainer.total_steps();
        let due = |every: usize| every > 0 && (step.is_multiple_of(every) || last);
        if due(eval_every) {
            score(trainer, hooks)?;
        }
        if due(save_every) || last {
            trainer.save_checkpoint(&checkpoint, name)?;
            keep_numbered(folder, step, keep)?;
        }
        if last {
            return Ok(RunEnd::Finished);
        }
    }
}

fn score(trainer: &JointTrainer<'_>, hooks: &mut JointHooks<'_>) -> Result<(), RunError> {
    let step = trainer.steps_done();
    let Some(score) = &mut hooks.score else {
        return Ok(());
    };
    let found = score(trainer).map_err(|source| RunError::Score { step, source })?;
    for (scalars, trackers) in found.iter().zip(&mut hooks.trackers) {
        let named: Vec<(&str, f64)> = scalars
            .iter()
            .map(|(name, x)| (name.as_str(), *x))
            .collect();
        trackers
            .iter_mut()
            .try_for_each(|t| t.scalars(step, &named))?;
    }
    Ok(())
}
