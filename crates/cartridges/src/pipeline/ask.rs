//! Asking a list of questions, seen from a terminal.

use std::sync::atomic::Ordering;

use anyhow::Result;
use cartridges_engine::Engine;
use cartridges_eval::{Condition, MeasureOptions, Measurement, QuestionList, measure};

use crate::interrupt::{Interrupted, stop_flag};
use crate::progress::progress;

/// Asks all questions under one condition, with progress on stderr.
///
/// # Errors
/// As [`measure`]; [`Interrupted`] if Ctrl-C was pressed before it began.
pub fn ask(
    engine: &mut Engine,
    condition: &Condition,
    questions: &QuestionList,
    options: &MeasureOptions,
) -> Result<Measurement> {
    if stop_flag().load(Ordering::Relaxed) {
        return Err(Interrupted("measuring").into());
    }
    let progress = progress(1, "asking", "questions");
    let row = measure(engine, condition, questions, options, &mut |done, total| {
        progress.set_total(total as u64);
        progress.set(done as u64, condition.name.clone());
    })?;
    Ok(row)
}
