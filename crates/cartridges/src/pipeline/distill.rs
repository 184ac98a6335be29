//! Training a started cartridge on conversations.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Result, anyhow};
use cartridges_model::LanguageModel;
use cartridges_model::cartridge::{Cartridge, HostCartridge};
use cartridges_model::digest::hex;
use cartridges_study::conversation::Conversation;
use cartridges_train::{
    Alone, BestBy, CHECKPOINT, CheckpointError, Evaluation, Exchange, Hooks, RunEnd, RunError,
    Score, StepReport, Teacher, TrainConfig, Trainer, examples, open_trackers, pack, train,
};
use sha2::{Digest, Sha256};

use super::evaluations::Evaluations;
use super::on_policy::EngineTeacher;
use crate::interrupt::{Interrupted, stop_flag};
use crate::progress::progress;
use crate::screen::Screen;

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

/// How a run is shown while it goes on.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum View {
    /// A bar on a terminal, now and then a line elsewhere.
    Progress,
    /// The whole terminal; without one as [`View::Progress`], and that is said.
    Screen,
}

/// What a run has around it.
pub struct Surroundings<'a> {
    /// The processes that train together, which all give the same.
    pub group: Box<dyn Exchange>,
    /// The text that own answers are scored with where the conversations do not carry it.
    pub corpus: Option<&'a str>,
    /// How it is shown.
    pub view: View,
}

/// The screen, or `None` and a line that says why there is none.
fn open_screen() -> Option<Screen> {
    let why = match Screen::open() {
        Ok(Some(screen)) => return Some(screen),
        Ok(None) => "there is no terminal".to_owned(),
        Err(error) => format!("the terminal cannot be used ({error})"),
    };
    eprintln!("--tui: {why}; the ordinary progress is shown");
    None
}

/// Trains (or resumes) in `folder`.
///
/// # Errors
/// If the data has no targets, belongs to another model, or training diverges; [`Interrupted`] if
/// Ctrl-C stopped it, with a checkpoint on disk.
pub fn distill(
    model: &Arc<LanguageModel>,
    start: &HostCartridge,
    conversations: &[Conversation],
    config: &TrainConfig,
    folder: &Path,
) -> Result<Distilled> {
    let around = Surroundings {
        group: Box::new(Alone),
        corpus: None,
        view: View::Progress,
    };
    distill_in(model, start, conversations, config, folder, around)
}

/// As [`distill`], with what is around the run.
///
/// # Errors
/// As [`distill`], and if another process is lost, with a checkpoint on disk.
pub fn distill_in(
    model: &Arc<LanguageModel>,
    start: &HostCartridge,
    conversations: &[Conversation],
    config: &TrainConfig,
    folder: &Path,
    around: Surroundings<'_>,
) -> Result<Distilled> {
    let Surroundings {
        mut group,
        corpus,
        view,
    } = around;
    let leads = group.rank() == 0;
    let vocab = model.decoder.config().vocab_size;
    let (made, left_out) = examples(conversations, &model.text, vocab, config)?;
    if left_out > 0 && leads {
        eprintln!("{left_out} conversations have no targets and are left out");
    }
    let rows = pack(&made, config);
    let row_count = rows.len();
    let evaluations = match leads {
        true => Evaluations::open(model, config)?,
        false => None,
    };
    let teacher = EngineTeacher::open(model, conversations, corpus, start.slots, config)?;
    let digests = [
        evaluations.as_ref().map(Evaluations::digest),
        teacher.as_ref().map(EngineTeacher::digest),
    ];
    let asked: Vec<u8> = digests.into_iter().flatten().flatten().collect();
    let name = run_name(model, start, &made, &asked);
    // The others need not have what is evaluated.
    let name = group.share(name.into_bytes())?;
    let name = String::from_utf8_lossy(&name).into_owned();
    let trainer = Trainer::new(&model.decoder, start, rows, config.clone())?;
    let teacher = teacher.map(|teacher| Box::new(teacher) as Box<dyn Teacher>);
    let mut trainer = trainer.with_group(group)?.with_teacher(teacher);
    let total = trainer.total_steps();
    let begin = Instant::now();
    let mut tokens = 0;
    let mut last = None;
    let screen = match view {
        View::Screen if leads => open_screen(),
        View::Screen | View::Progress => None,
    };
    let progress = match &screen {
        None => Some(progress(total as u64, "training", "steps")),
        Some(_) => None,
    };
    let mut score = evaluations.as_ref().map(|evaluations| {
        |cartridge: &Cartridge, step: usize| {
            let found = evaluations.run(cartridge, step)?;
            if let Some(progress) = &progress {
                progress.say(&scored(step, &found));
            }
            Ok(found)
        }
    });
    let score = score.as_mut().map(|score| score as &mut Score<'_>);
    let mut on_step = |report: &StepReport| {
        if !leads {
            return;
        }
        tokens += report.tokens;
        if let Some(progress) = &progress {
            let rate = tokens as f64 / begin.elapsed().as_secs_f64();
            let note = format!("loss {:.3} · {rate:.0} tok/s", report.loss);
            progress.set(report.step as u64, note);
        }
        last = Some(*report);
    };
    let mut trackers = match leads {
        true => open_trackers(config, folder),
        false => Vec::new(),
    };
    trackers.extend(screen.as_ref().map(Screen::tracker));
    let hooks = Hooks {
        trackers,
        on_step: &mut on_step,
        score,
    };
    let end = train(&mut trainer, folder, &name, &stop_flag(), hooks);
    drop((progress, screen));
    let end = end.map_err(|error| with_what_is_kept(error, folder))?;
    let steps = trainer.steps_done();
    match end {
        RunEnd::Stopped => return Err(Interrupted("training").into()),
        RunEnd::OutOfPatience if leads => eprintln!(
            "{} scores in a row were no better: training ends after {steps} of {total} steps",
            config.patience
        ),
        RunEnd::OutOfPatience | RunEnd::Finished => {}
    }
    let mut how = serde_json::json!({
        "examples": made.len(),
        "rows": row_count,
        "steps": steps,
        "tokens": tokens,
        "config": config,
    });
    if let (Some((score, step)), Some(evaluations)) = (trainer.best_score(), &evaluations) {
        let by = evaluations.decided_by();
        let value = match by {
            BestBy::HeldOutLoss | BestBy::Nll => -score,
            BestBy::Choice | BestBy::Generation => score,
        };
        let name = by.name();
        eprintln!("the cartridge after {step} steps is the best, with a {name} of {value:.4}");
        how["best"] = serde_json::json!({ "step": step, name: value });
    }
    Ok(Distilled {
        cartridge: trainer.best_cartridge()?,
        how,
        loss: last.map_or(f64::NAN, |report| report.loss),
    })
}

/// A log or a checkpoint that could not be written ends a run; says what is there all the same.
fn with_what_is_kept(error: RunError, folder: &Path) -> anyhow::Error {
    let write = matches!(
        error,
        RunError::Checkpoint(CheckpointError::Write(_)) | RunError::Track(_) | RunError::Write(_)
    );
    match write && folder.join(CHECKPOINT).exists() {
        true => {
            anyhow!("{error}; the last checkpoint is whole, and the same command goes on from it")
        }
        false => error.into(),
    }
}

/// An evaluation in a line.
fn scored(step: usize, found: &Evaluation) -> String {
    let main = found.scalars.iter().filter(|(name, _)| {
        let last = name.rsplit('/').next();
        matches!(last, Some("loss" | "choice" | "score"))
    });
    let parts: Vec<String> = main.map(|(name, x)| format!("{name} {x:.3}")).collect();
    format!("scored   after {step} steps · {}", parts.join(" · "))
}

/// A digest of model, start, examples and questions: a checkpoint fits only the run it was made in.
pub(super) fn run_name(
    model: &LanguageModel,
    start: &HostCartridge,
    examples: &[cartridges_train::Example],
    asked: &[u8],
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
    hash.update(asked);
    hex(&hash.finalize()[..16])
}
