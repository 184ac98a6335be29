//! What both examples of transmutation do with their conversations.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use cartridges::prelude::*;
use cartridges_engine::Flow;
use cartridges_model::adapter::save_adapter;
use cartridges_model::cartridge::CartridgeDtype;
use cartridges_study::conversation::Conversation;
use cartridges_transmute::{
    CorpusId, Material, PairOptions, RefineOptions, SweepOptions, pair, reference_adapter, refine,
    sweep,
};
use clap::{Args, ValueEnum};
use serde_json::json;

/// Every so manieth conversation decides on the deltas and is not fitted.
const VALIDATE_EVERY: usize = 8;
/// Tokens of a piece of a background text.
const PIECE: usize = 128;

/// `--estimator`.
#[derive(Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Estimator {
    /// Regression at mlp.down_proj, layer by layer, and distillation.
    Ridge,
    /// The reference's mean of maps of rank one behind the final norm, to compare with.
    Reference,
}

/// How deltas are solved.
#[derive(Args)]
pub struct SolveArgs {
    /// Folder for the adapter.
    #[arg(long, default_value = "transmuted_adapter", value_name = "DIR")]
    output_path: PathBuf,
    /// Rank of each delta.
    #[arg(long, default_value_t = 32)]
    rank: usize,
    /// Steps of distillation behind the closed form.
    #[arg(long, default_value_t = 100)]
    refine_steps: usize,
    /// A text about something else, at which the model is to stay as it is.
    #[arg(long, value_name = "FILE")]
    background: Option<PathBuf>,
    /// How deltas are estimated.
    #[arg(long, value_enum, default_value_t = Estimator::Ridge)]
    estimator: Estimator,
    /// Factor of the reference's sum of maps; 1 / tokens unless it is given.
    #[arg(long, value_name = "X")]
    lambda_scale: Option<f64>,
    /// Seed of the distillation.
    #[arg(long, default_value_t = 0)]
    seed: u64,
}

impl SolveArgs {
    /// Says what does not go together, before anything is loaded.
    pub fn check(&self) -> Result<()> {
        if self.lambda_scale.is_some() && self.estimator != Estimator::Reference {
            bail!("--lambda-scale is the reference's: it needs --estimator reference");
        }
        Ok(())
    }
}

/// Makes one adapter of corpora.
pub fn solve(
    model: &Arc<LanguageModel>,
    corpora: &[(CorpusId, Vec<Conversation>)],
    args: &SolveArgs,
) -> Result<()> {
    let all = corpora
        .iter()
        .flat_map(|(id, all)| all.iter().map(|c| (*id, c)));
    let pairing = PairOptions::default();
    let vocab_size = model.decoder.config().vocab_size;
    let mut fit = pair(all, &model.text, vocab_size, &pairing)?;
    let validation = fit.split_off(VALIDATE_EVERY);
    if validation.positions() == 0 {
        bail!("there are too few conversations: expected {VALIDATE_EVERY} or more");
    }
    let background = match &args.background {
        None => Vec::new(),
        Some(path) => {
            let text = std::fs::read_to_string(path);
            let text = text.with_context(|| format!("reading {}", path.display()))?;
            let ids = model.text.encode(&text, false)?;
            ids.chunks(PIECE).map(<[u32]>::to_vec).collect()
        }
    };
    let material = Material {
        decoder: &model.decoder,
        past: &[],
        fit: &fit,
        validation: &validation,
        background: &background,
    };
    let (adapter, how) = match args.estimator {
        Estimator::Reference => {
            let adapter = reference_adapter(&material, args.lambda_scale)?;
            (adapter, json!({ "lambda_scale": args.lambda_scale }))
        }
        Estimator::Ridge => {
            if background.is_empty() {
                eprintln!("without --background nothing holds the model to what it knew before");
            }
            let options = SweepOptions {
                rank: args.rank,
                ..SweepOptions::default()
            };
            let swept = sweep(&material, &options, &mut |_| Ok(()), &mut |report| {
                eprintln!("{}: {:.2} explained", report.target, report.explained);
            })?;
            let Some(mut adapter) = swept.adapter()? else {
                bail!("no delta brings the student nearer to the teacher");
            };
            let refining = RefineOptions {
                steps: args.refine_steps,
                seed: args.seed,
                ..RefineOptions::default()
            };
            let mut reached = swept.after;
            if refining.steps > 0 {
                let refined = refine(&material, &adapter, &refining, &mut |_, _| {
                    Ok(Flow::Continue)
                })?;
                (adapter, reached) = (refined.adapter, refined.after.divergence);
            }
            println!(
                "divergence from the teacher: {:.4} nats per token before, {reached:.4} now",
                swept.before
            );
            (
                adapter,
                json!({ "sweep": options, "refinement": refining, "targets": swept.targets }),
            )
        }
    };
    let data: Vec<CorpusId> = corpora.iter().map(|(id, _)| *id).collect();
    let made_by = json!({ "data": data, "pairing": pairing, "how": how });
    let (out, identity) = (&args.output_path, &model.identity);
    save_adapter(out, &adapter, identity, &made_by, CartridgeDtype::F32)?;
    println!(
        "adapter of {} patches in {}",
        adapter.patches().len(),
        out.display()
    );
    Ok(())
}
