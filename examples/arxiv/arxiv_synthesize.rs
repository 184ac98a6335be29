//! Self-study of a paper, as the reference's `arxiv_synthesize.py`: the model writes conversations about
//! the LaTeX source.
//!
//! ```console
//! cargo run --release --example arxiv_synthesize -- paper/main.tex --out runs/arxiv
//! ```

use std::path::PathBuf;

use anyhow::Result;
use cartridges::pipeline::{load_sources, model_name, self_study};
use cartridges::prelude::*;
use cartridges::{ModelArgs, RuntimeArgs, stop_flag};
use cartridges_study::resource::ResourceConfig;
use cartridges_study::seed_prompt::SeedType;
use cartridges_study::self_study::SelfStudyConfig;
use clap::Parser;

#[global_allocator]
static GLOBAL: mimalloc::MiMalloc = mimalloc::MiMalloc;

#[derive(Parser)]
struct Args {
    #[command(flatten)]
    runtime: RuntimeArgs,
    #[command(flatten)]
    model: ModelArgs,
    /// The paper: arxiv:2506.06266, a .tex file, a folder with its source, or an archive; PDF and plain
    /// text work too.
    paper: PathBuf,
    /// Where the conversations go.
    #[arg(long, default_value = "runs/arxiv")]
    out: PathBuf,
    /// How many; the reference writes 32 768.
    #[arg(long, default_value_t = 64)]
    conversations: usize,
}

fn main() -> Result<()> {
    let args = Args::parse();
    let model = args.model.open(&args.runtime.open()?)?;
    let config = SelfStudyConfig {
        num_conversations: args.conversations,
        seed_types: vec![
            SeedType::Structuring,
            SeedType::Summarization,
            SeedType::Question,
            SeedType::UseCase,
            SeedType::Creative,
        ],
        ..SelfStudyConfig::default()
    };
    let paper = ResourceConfig::for_path(&args.paper);
    let resources = load_sources(&[paper.into()], &model.text, &config)?;

    let name = model_name(&model.identity);
    let mut engine = Engine::new(model, EngineOptions::default());
    let mut client = LocalClient::new(&mut engine, stop_flag());
    let (dataset, report) = self_study(&mut client, &name, &resources, &config, &args.out)?;
    println!(
        "{} conversations, {} tokens in {}",
        report.finished,
        report.tokens(),
        dataset.display()
    );
    Ok(())
}
