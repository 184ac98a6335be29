//! A cartridge from the conversations of `arxiv_synthesize`, as the reference's `arxiv_train.py`.
//!
//! ```console
//! cargo run --release --example arxiv_train -- runs/arxiv/dataset.parquet --corpus paper/main.tex \
//!     --out cartridges/arxiv
//! cargo run --release --example cartridge_chat -- cartridges/arxiv "What is self-study?"
//! ```

use std::path::PathBuf;

use anyhow::Result;
use cartridges::pipeline::{StartArgs, distill, read_data, start};
use cartridges::prelude::*;
use cartridges::{ModelArgs, RuntimeArgs};
use cartridges_model::cartridge::{CartridgeDtype, save};
use clap::Parser;

#[global_allocator]
static GLOBAL: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Parser)]
struct Args {
    #[command(flatten)]
    runtime: RuntimeArgs,
    #[command(flatten)]
    model: ModelArgs,
    #[command(flatten)]
    start: StartArgs,
    /// Conversations (parquet).
    data: PathBuf,
    /// The paper as plain text, for the starts that need it.
    #[arg(long)]
    corpus: Option<PathBuf>,
    /// Where the cartridge goes.
    #[arg(long, default_value = "cartridges/arxiv")]
    out: PathBuf,
    /// Optimizer steps.
    #[arg(long, default_value_t = 100)]
    steps: usize,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let model = args.model.open(&args.runtime.open()?)?;
    let conversations = read_data(&[args.data])?;
    let config = TrainConfig {
        steps: args.steps,
        ..TrainConfig::default()
    };
    let corpus = args.corpus.map(std::fs::read_to_string).transpose()?;
    let begun = start(
        &model,
        &args.start,
        corpus.as_deref(),
        &conversations,
        config.seed,
    )?;
    let done = distill(&model, &begun.cartridge, &conversations, &config, &args.out)?;
    let how = serde_json::json!({ "start": begun.how, "training": done.how });
    save(
        &args.out,
        &done.cartridge,
        &model.identity,
        &how,
        CartridgeDtype::F32,
    )?;
    println!("{} slots, last loss {:.4}", done.cartridge.slots, done.loss);
    Ok(())
}
