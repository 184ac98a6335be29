//! One adapter for several texts, as the reference's `transmute_cartridges.py`: the data sets of several
//! cartridges, by the sum of their statistics. Deltas that are solved apart and added up interfere.
//!
//! ```console
//! cargo run --release --example transmute_cartridges -- --model-name qwen3-0.6b \
//!     --data-paths runs/handbook/dataset.parquet hf:owner/data-set wandb:entity/project/name:v0 \
//!     --output-path adapters/all
//! ```

#[path = "transmute/solve.rs"]
mod solve;

use std::path::PathBuf;

use anyhow::{Context, Result, bail};
use cartridges::sharing::local_sources;
use cartridges::{ModelArgs, RuntimeArgs};
use cartridges_model::hub::ResolveOptions;
use cartridges_study::conversation::Conversation;
use cartridges_study::parquet::{dataset_files, read_conversations};
use cartridges_train::DataSource;
use cartridges_transmute::CorpusId;
use clap::Parser;

#[global_allocator]
static GLOBAL: mimalloc::MiMalloc = mimalloc::MiMalloc;

/// Solve one adapter for several texts.
#[derive(Parser)]
#[command(mut_arg("model", |arg| arg.visible_alias("model-name")))]
struct Args {
    #[command(flatten)]
    runtime: RuntimeArgs,
    #[command(flatten)]
    model: ModelArgs,
    /// Conversations of self-study, one data set per text: parquet files, folders of them,
    /// hf:OWNER/NAME[@REVISION] or wandb:ENTITY/PROJECT/NAME:VERSION.
    #[arg(long, value_name = "DATA", required = true, num_args = 1..)]
    data_paths: Vec<PathBuf>,
    /// At most so many conversations of each data set.
    #[arg(long, value_name = "N")]
    data_limit: Option<usize>,
    #[command(flatten)]
    solve: solve::SolveArgs,
}

fn main() -> Result<()> {
    let args = Args::parse();
    args.solve.check()?;
    let mut hub = ResolveOptions::from_env();
    hub.offline |= args.model.offline;
    let mut corpora: Vec<(CorpusId, Vec<Conversation>)> = Vec::new();
    for path in &args.data_paths {
        let sources = local_sources(&[DataSource::new(path)], &hub)?;
        let (mut bytes, mut conversations) = (Vec::new(), Vec::new());
        for source in sources {
            for file in dataset_files(&source.path)? {
                let content = std::fs::read(&file);
                bytes.extend(content.with_context(|| format!("reading {}", file.display()))?);
                conversations.extend(read_conversations(&file, args.data_limit)?);
            }
        }
        conversations.truncate(args.data_limit.unwrap_or(usize::MAX));
        let id = CorpusId::of(&bytes);
        if corpora.iter().any(|(known, _)| *known == id) {
            bail!("{} is given twice", path.display());
        }
        corpora.push((id, conversations));
    }
    let model = args.model.open(&args.runtime.open()?)?;
    solve::solve(&model, &corpora, &args.solve)
}
