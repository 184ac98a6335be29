//! What one text does to a model, as weight deltas: the reference's `transmute_corpus.py`, with the text in
//! the loop. `cartridges transmute` has more to choose from.
//!
//! ```console
//! cargo run --release --example transmute_corpus -- --data-path runs/handbook/dataset.parquet \
//!     --model-name qwen3-0.6b --output-path adapters/handbook
//! cartridges chat --model qwen3-0.6b --adapter adapters/handbook
//! ```

#[path = "transmute/solve.rs"]
mod solve;

use std::path::PathBuf;

use anyhow::{Context, Result};
use cartridges::{ModelArgs, RuntimeArgs};
use cartridges_study::parquet::read_conversations;
use cartridges_transmute::CorpusId;
use clap::Parser;

#[global_allocator]
static GLOBAL: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Solve an adapter for one text.
#[derive(Parser)]
#[command(mut_arg("model", |arg| arg.visible_alias("model-name")))]
struct Args {
    #[command(flatten)]
    runtime: RuntimeArgs,
    #[command(flatten)]
    model: ModelArgs,
    /// Conversations of self-study about the text (parquet).
    #[arg(long, value_name = "FILE")]
    data_path: PathBuf,
    /// At most so many conversations.
    #[arg(long, value_name = "N")]
    data_limit: Option<usize>,
    #[command(flatten)]
    solve: solve::SolveArgs,
}

fn main() -> Result<()> {
    let args = Args::parse();
    args.solve.check()?;
    let path = &args.data_path;
    let bytes = std::fs::read(path).with_context(|| format!("reading {}", path.display()))?;
    let corpus = (
        CorpusId::of(&bytes),
        read_conversations(path, args.data_limit)?,
    );
    let model = args.model.open(&args.runtime.open()?)?;
    solve::solve(&model, &[corpus], &args.solve)
}
