//! `cartridges train`: a cartridge from conversations.

use std::path::PathBuf;

use anyhow::{Context, Result};
use cartridges_model::cartridge::{CartridgeDtype, save};
use cartridges_train::{Recompute, TrainConfig};
use clap::Args;

use crate::opening::{ModelArgs, RuntimeArgs, read_corpus, read_text, writable_folder};
use crate::pipeline::{StartArgs, distill, read_data, start};

/// Train a cartridge on conversations of self-study.
#[derive(Debug, Clone, Args)]
#[command(
    after_help = "A run that was stopped goes on from its checkpoint when the same command is \
given again.\n\nExample:\n  cartridges train --data runs/handbook/dataset.parquet --corpus \
handbook.txt --out cartridges/handbook\n  cartridges chat --cartridge cartridges/handbook"
)]
pub struct TrainArgs {
    #[command(flatten)]
    model: ModelArgs,
    /// Conversations (parquet); may repeat.
    #[arg(long, value_name = "FILE", required = true)]
    data: Vec<PathBuf>,
    /// The text the conversations are about; needed by --init matching and first.
    #[arg(long, value_name = "FILE")]
    corpus: Option<PathBuf>,
    /// Folder for the cartridge, the log and the checkpoint.
    #[arg(long, value_name = "DIR", env = "CARTRIDGES_OUTPUT_DIR")]
    out: PathBuf,
    #[command(flatten)]
    start: StartArgs,
    /// TOML file with settings of training; flags win over it.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Optimizer steps (0: --epochs passes over the data).
    #[arg(long, value_name = "N")]
    steps: Option<usize>,
    /// Passes over the data when --steps is not given.
    #[arg(long, value_name = "N")]
    epochs: Option<usize>,
    /// Learning rate.
    #[arg(long)]
    lr: Option<f64>,
    /// Tokens of a packed row.
    #[arg(long, value_name = "N")]
    packed_seq_length: Option<usize>,
    /// Packed rows per step.
    #[arg(long, value_name = "N")]
    rows_per_step: Option<usize>,
    /// Keep the whole forward pass instead of running layers twice: faster, more memory.
    #[arg(long)]
    no_recompute: bool,
    /// Seed of the order of examples and of random starts.
    #[arg(long)]
    seed: Option<u64>,
}

impl TrainArgs {
    fn config(&self) -> Result<TrainConfig> {
        let mut config: TrainConfig = match &self.config {
            Some(path) => toml::from_str(&read_text(path)?)
                .with_context(|| format!("settings in {}", path.display()))?,
            None => TrainConfig::default(),
        };
        config.steps = self.steps.unwrap_or(config.steps);
        config.epochs = self.epochs.unwrap_or(config.epochs);
        config.lr = self.lr.unwrap_or(config.lr);
        config.packed_seq_length = self.packed_seq_length.unwrap_or(config.packed_seq_length);
        config.rows_per_step = self.rows_per_step.unwrap_or(config.rows_per_step);
        config.seed = self.seed.unwrap_or(config.seed);
        if self.no_recompute {
            config.recompute = Recompute::Nothing;
        }
        config.validate()?;
        Ok(config)
    }
}

/// Runs the command.
///
/// # Errors
/// If data, text, model or folder cannot be used, or training diverges.
pub fn run(args: TrainArgs, runtime: &RuntimeArgs) -> Result<()> {
    let config = args.config()?;
    args.start.check()?;
    writable_folder(&args.out)?;
    let conversations = read_data(&args.data)?;
    let corpus = args.corpus.as_deref().map(read_corpus).transpose()?;
    let model = args.model.open(&runtime.open()?)?;
    let begun = start(
        &model,
        &args.start,
        corpus.as_deref(),
        &conversations,
        config.seed,
    )?;
    let done = distill(&model, &begun.cartridge, &conversations, &config, &args.out)?;
    let made_by = serde_json::json!({
        "program": concat!("cartridges ", env!("CARGO_PKG_VERSION")),
        "start": begun.how,
        "training": done.how,
    });
    save(
        &args.out,
        &done.cartridge,
        &model.identity,
        &made_by,
        CartridgeDtype::F32,
    )?;
    println!(
        "cartridge of {} slots in {} (last loss {:.4})",
        done.cartridge.slots,
        args.out.display(),
        done.loss
    );
    Ok(())
}
