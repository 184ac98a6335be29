//! Training a started cartridge on conversations.

use std::path::Path;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use cartridges_model::LanguageModel;
use cartridges_model::cartridge::HostCartridge;
use cartridges_study::conversation::Conversation;
use cartridges_train::{
    Hooks, PackedRow, RunEnd, Score, StepReport, TrainConfig, Trainer, examples, held_out,
    open_trackers, pack, read_mixture, train,
};
use sha2::{Digest, Sha256};

use crate::interrupt::{Interrupted, stop_flag};
use crate::progress::progress;

/// A trained cartridge, with how it came about.
#[derive(Debug, Clone)]
pub struct Distilled {
    /// The cartridge.
    pub cartridge: HostCartridge,
    /// For the record: steps, rows, losses.
    pub how: serde_json::Value,
    /// The last step's loss.
    pub loss: f64,
}

/// Trains (or resumes) in `folder`.
///
/// # Errors
/// If the data has no targets, belongs to another model, or training diverges; [`Interrupted`] if
/// Ctrl-C stopped it, with a checkpoint on disk.
pub fn distill(
    model: &LanguageModel,
    start: &HostCartridge,
    conversations: &[Conversation],
    config: &TrainConfig,
    folder: &Path,
) -> Result<Distilled> {
    let vocab = model.decoder.config().vocab_size;
    let (made, left_out) = examples(conversations, &model.text, vocab, config)?;
    if left_out > 0 {
        eprintln!("{left_out} conversations have no targets and are left out");
    }
    let rows = pack(&made, config);
    let row_count = rows.len();
    let name = run_name(model, start, &made);
    let mut trainer = Trainer::new(&model.decoder, start, rows, config.clone())?;
    let total = trainer.total_steps();
    let progress = progress(total as u64, "training", "steps");
    let begin = Instant::now();
    let mut tokens = 0;
    let mut last = None;
    let held_back = held_back_rows(model, config)?;
    let mut score = held_out(&model.decoder, &held_back, "held_out");
    let score: Option<&mut Score<'_>> = match config.eval_every {
        0 => None,
        _ => Some(&mut score),
    };
    let mut on_step = |report: &StepReport| {
        tokens += report.tokens;
        let rate = tokens as f64 / begin.elapsed().as_secs_f64();
        let note = format!("loss {:.3} · {rate:.0} tok/s", report.loss);
        progress.set(report.step as u64, note);
        last = Some(*report);
    };
    let hooks = Hooks {
        trackers: open_trackers(config, folder),
        on_step: &mut on_step,
        score,
    };
    let end = train(&mut trainer, folder, &name, &stop_flag(), hooks)?;
    drop(progress);
    let steps = trainer.steps_done();
    match end {
        RunEnd::Stopped => return Err(Interrupted("training").into()),
        RunEnd::OutOfPatience => eprintln!(
            "{} scores in a row were no better: training ends after {steps} of {total} steps",
            config.patience
        ),
        RunEnd::Finished => {}
    }
    let mut how = serde_json::json!({
        "examples": made.len(),
        "rows": row_count,
        "steps": steps,
        "tokens": tokens,
        "config": config,
    });
    if let Some((score, step)) = trainer.best_score() {
        eprintln!(
            "the cartridge after {step} steps is the best, with a held-out loss of {:.4}",
            -score
        );
        how["best"] = serde_json::json!({ "step": step, "held_out_loss": -score });
    }
    Ok(Distilled {
        cartridge: trainer.best_cartridge()?,
        how,
        loss: last.map_or(f64::NAN, |report| report.loss),
    })
}

/// The rows of `eval_data`, packed as those that are trained on; none where nothing is scored.
fn held_back_rows(model: &LanguageModel, config: &TrainConfig) -> Result<Vec<PackedRow>> {
    if config.eval_every == 0 {
        return Ok(Vec::new());
    }
    if config.eval_data.is_empty() {
        bail!(
            "training: eval_every is {}, but eval_data names no file",
            config.eval_every
        );
    }
    let (conversations, _) = read_mixture(&config.eval_data, config.seed)?;
    let vocab = model.decoder.config().vocab_size;
    let (made, left_out) =
        examples(&conversations, &model.text, vocab, config).context("eval_data")?;
    if left_out > 0 {
        eprintln!("{left_out} conversations of eval_data have no targets and are left out");
    }
    Ok(pack(&made, config))
}

/// A digest of model, start and examples: a checkpoint fits only the run it was made in.
fn run_name(
    model: &LanguageModel,
    start: &HostCartridge,
    examples: &[cartridges_train::Example],
) -> String {
    let mut hash = Sha256::new();
    hash.update(&model.identity.weights_fingerprint);
    for layer in &start.layers {
        for value in layer.key.iter().chain(&layer.value) {
            hash.update(value.to_le_bytes());
        }
    }
    for example in examples {
        example
            .ids
            .iter()
            .for_each(|id| hash.update(id.to_le_bytes()));
        for target in &example.targets {
            hash.update(target.position.to_le_bytes());
            hash.update(target.id.to_le_bytes());
            hash.update(target.weight.to_le_bytes());
        }
    }
    hash.finalize()[..16]
        .iter()
        .map(|b| format!("{b:02x}"))
        .collect()
}
