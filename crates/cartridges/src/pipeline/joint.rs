//! Several cartridges that are trained together.

use std::collections::HashSet;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use cartridges_model::LanguageModel;
use cartridges_model::cartridge::{Cartridge, CartridgeDtype, save};
use cartridges_model::hub::ResolveOptions;
use cartridges_train::{
    DataSource, JointConfig, JointHooks, JointScore, JointTrainer, PackedRow, RunEnd, StepReport,
    TrainConfig, Trainer, examples, loss_among, open_trackers, pack, read_mixture, train_joint,
};
use serde::Deserialize;

use super::distill::run_name;
use super::evaluations::held_back_rows;
use super::start::{Init, StartArgs, start};
use crate::interrupt::{Interrupted, stop_flag};
use crate::opening::{read_corpus, read_text, writable_folder};
use crate::progress::progress;
use crate::provenance::program;
use crate::sharing::local_sources;

/// What is read from the file of `--joint`.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JointSpec {
    /// What conversations see.
    #[serde(default)]
    joint: JointConfig,
    /// The cartridges.
    cartridge: Vec<JointMember>,
}

/// A cartridge among others.
#[derive(Debug, Clone, Deserialize)]
#[serde(deny_unknown_fields)]
struct JointMember {
    /// Its folder in `--out`.
    name: String,
    /// Its conversations.
    data: Vec<DataSource>,
    /// Conversations whose loss is measured alone and behind all cartridges, and not trained on.
    #[serde(default)]
    eval_data: Vec<DataSource>,
    /// Its text, for its start.
    #[serde(default)]
    corpus: Option<PathBuf>,
    /// A cartridge to start from, such as one that was trained alone.
    #[serde(default)]
    from: Option<PathBuf>,
}

impl JointSpec {
    /// Reads and checks a file; data that is on the hub is fetched.
    ///
    /// # Errors
    /// If it cannot be read or contradicts itself, or data cannot be had.
    pub fn read(path: &Path, config: &TrainConfig, hub: &ResolveOptions) -> Result<Self> {
        let mut spec: Self = toml::from_str(&read_text(path)?)
            .with_context(|| format!("cartridges in {}", path.display()))?;
        spec.check(config)
            .with_context(|| format!("cartridges in {}", path.display()))?;
        for member in &mut spec.cartridge {
            member.data = local_sources(&member.data, hub)?;
            member.eval_data = local_sources(&member.eval_data, hub)?;
        }
        Ok(spec)
    }

    fn check(&self, config: &TrainConfig) -> Result<()> {
        self.joint.validate()?;
        let count = self.cartridge.len();
        ensure!(
            count >= 2,
            "there is {count} [[cartridge]], expected at least 2"
        );
        let mut names = HashSet::new();
        for member in &self.cartridge {
            let name = &member.name;
            let plain = |c: char| c.is_alphanumeric() || matches!(c, '-' | '_' | '.');
            ensure!(
                !name.is_empty() && !name.starts_with('.') && name.chars().all(plain),
                "name `{name}`: expected letters, digits, `-`, `_` and `.`, for a folder"
            );
            ensure!(names.insert(name), "there are two cartridges `{name}`");
            ensure!(!member.data.is_empty(), "cartridge `{name}` has no data");
        }
        let questions = config.eval_questions.len();
        ensure!(
            config.patience == 0 && questions == 0,
            "patience and eval_questions are for one cartridge; leave them out with --joint"
        );
        ensure!(
            config.on_policy.every == 0,
            "on_policy is for one cartridge; leave it out with --joint"
        );
        let measured = self.cartridge.iter().any(|m| !m.eval_data.is_empty());
        ensure!(
            config.eval_every == 0 || measured,
            "eval_every is {}, but no cartridge has eval_data",
            config.eval_every
        );
        Ok(())
    }
}

/// A member that is ready to be trained.
struct Ready<'a> {
    trainer: Trainer<'a>,
    held_back: Vec<PackedRow>,
    run: String,
    how: serde_json::Value,
}

/// Trains (or resumes) the cartridges of `spec` in folders of `out` and saves them.
///
/// # Errors
/// If data, texts or folders cannot be used, or training diverges; [`Interrupted`] if Ctrl-C stopped it,
/// with a checkpoint on disk.
pub fn train_jointly(
    spec: &JointSpec,
    config: &TrainConfig,
    args: &StartArgs,
    model: &Arc<LanguageModel>,
    out: &Path,
) -> Result<()> {
    let mut trainers = Vec::new();
    let mut held_back = Vec::new();
    let mut made_by = Vec::new();
    let mut name = String::new();
    for member in &spec.cartridge {
        writable_folder(&out.join(&member.name))?;
        let ready = prepare(member, config, args, model)
            .with_context(|| format!("cartridge `{}`", member.name))?;
        name += &ready.run;
        trainers.push(ready.trainer);
        held_back.push(ready.held_back);
        made_by.push(ready.how);
    }
    let mut trainer = JointTrainer::new(trainers, spec.joint)?;
    let progress = progress(trainer.total_steps() as u64, "training", "steps");
    let (begin, mut tokens) = (Instant::now(), 0);
    let mut last: Vec<StepReport> = Vec::new();
    let mut on_step = |reports: &[StepReport]| {
        tokens += reports.iter().map(|r| r.tokens).sum::<usize>();
        let rate = tokens as f64 / begin.elapsed().as_secs_f64();
        let losses: Vec<String> = reports.iter().map(|r| format!("{:.3}", r.loss)).collect();
        let step = reports.first().map_or(0, |r| r.step);
        progress.set(
            step as u64,
            format!("losses {} · {rate:.0} tok/s", losses.join(" ")),
        );
        last = reports.to_vec();
    };
    let mut score = |trainer: &JointTrainer<'_>| {
        let found = measure(model, trainer, &held_back);
        for (member, scalars) in spec.cartridge.iter().zip(&found) {
            if let [(_, alone), (_, composed)] = scalars.as_slice() {
                progress.say(&format!(
                    "scored   after {} steps · {}: loss {alone:.3} alone, {composed:.3} composed",
                    trainer.steps_done(),
                    member.name,
                ));
            }
        }
        Ok(found)
    };
    let score: Option<&mut JointScore<'_>> = match config.eval_every {
        0 => None,
        _ => Some(&mut score),
    };
    let folders = spec.cartridge.iter().map(|m| out.join(&m.name));
    let hooks = JointHooks {
        trackers: folders.map(|f| open_trackers(config, &f)).collect(),
        on_step: &mut on_step,
        score,
    };
    let end = train_joint(&mut trainer, out, &name, &stop_flag(), hooks)?;
    drop(progress);
    if end == RunEnd::Stopped {
        return Err(Interrupted("training").into());
    }
    let names: Vec<&str> = spec.cartridge.iter().map(|m| m.name.as_str()).collect();
    for ((one, name), start) in trainer.trainers().iter().zip(&names).zip(made_by) {
        let made_by = serde_json::json!({
            "program": program(),
            "start": start,
            "training": { "steps": one.steps_done(), "config": one.config() },
            "joint": { "with": names, "settings": spec.joint },
        });
        let (cartridge, folder) = (one.cartridge()?, out.join(name));
        save(
            &folder,
            &cartridge,
            &model.identity,
            &made_by,
            CartridgeDtype::F32,
        )?;
        let loss = last.get(names.iter().position(|n| n == name).unwrap_or(0));
        println!(
            "cartridge of {} slots in {} (last loss {:.4})",
            cartridge.slots,
            folder.display(),
            loss.map_or(f64::NAN, |r| r.loss)
        );
    }
    Ok(())
}

fn prepare<'a>(
    member: &JointMember,
    config: &TrainConfig,
    args: &StartArgs,
    model: &'a Arc<LanguageModel>,
) -> Result<Ready<'a>> {
    let config = TrainConfig {
        data: member.data.clone(),
        eval_data: member.eval_data.clone(),
        ..config.clone()
    };
    let vocab = model.decoder.config().vocab_size;
    let (conversations, _) = read_mixture(&config.data, config.seed)?;
    let (made, left_out) = examples(&conversations, &model.text, vocab, &config)?;
    if left_out > 0 {
        eprintln!(
            "{left_out} conversations of {} have no targets and are left out",
            member.name
        );
    }
    let held_back = match config.eval_every {
        0 => Vec::new(),
        _ => held_back_rows(model, &config)?,
    };
    let mut args = args.clone();
    if let Some(from) = &member.from {
        args.init = Init::Cartridge;
        args.init_cartridge = Some(from.clone());
    }
    let corpus = member.corpus.as_deref().map(read_corpus).transpose()?;
    let begun = start(model, &args, corpus.as_deref(), &conversations, config.seed)?;
    let run = run_name(model, &begun.cartridge, &made, &[]);
    let rows = pack(&made, &config);
    Ok(Ready {
        trainer: Trainer::new(&model.decoder, &begun.cartridge, rows, config)?,
        held_back,
        run,
        how: begun.how,
    })
}

/// The loss per position of every cartridge's held-back conversations, behind it alone and behind all
/// cartridges one after the other; nothing for a cartridge without any.
fn measure(
    model: &LanguageModel,
    trainer: &JointTrainer<'_>,
    held_back: &[Vec<PackedRow>],
) -> Vec<Vec<(String, f64)>> {
    let cartridges: Vec<Cartridge> = trainer.trainers().iter().map(Trainer::evaluated).collect();
    let all: Vec<&Cartridge> = cartridges.iter().collect();
    let everybody: Vec<usize> = (0..all.len()).collect();
    let loss = |rows: &[PackedRow], seen: &[usize]| {
        let before: Vec<&Cartridge> = seen.iter().map(|i| all[*i]).collect();
        let numbers: Vec<usize> = (0..seen.len()).collect();
        let losses = rows.iter().map(|row| {
            let seen = vec![numbers.clone(); row.lengths.len()];
            loss_among(&model.decoder, &before, &seen, row)
        });
        losses.sum::<f64>() / rows.iter().map(|row| row.positions).sum::<f64>()
    };
    let scalars = |(number, rows): (usize, &Vec<PackedRow>)| match rows.is_empty() {
        true => Vec::new(),
        false => vec![
            ("eval_alone/loss".to_owned(), loss(rows, &[number])),
            ("eval_composed/loss".to_owned(), loss(rows, &everybody)),
        ],
    };
    held_back.iter().enumerate().map(scalars).collect()
}
