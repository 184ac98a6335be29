//! `cartridges synthesize`: self-study of a text.

use std::path::PathBuf;

use anyhow::{Context, Result};
use cartridges_engine::{Engine, EngineOptions};
use cartridges_study::self_study::SelfStudyConfig;
use clap::Args;

use crate::opening::{ModelArgs, RuntimeArgs, read_corpus, read_text, writable_folder};
use crate::pipeline::self_study;

/// Let the model write conversations about a text: the data that a cartridge is trained on.
#[derive(Debug, Clone, Args)]
#[command(
    after_help = "A run that was stopped goes on where it was when the same command is given \
again.\n\nExample:\n  cartridges synthesize --corpus handbook.txt --out runs/handbook"
)]
pub struct SynthesizeArgs {
    #[command(flatten)]
    model: ModelArgs,
    /// The text (UTF-8).
    #[arg(long, value_name = "FILE")]
    corpus: PathBuf,
    /// Folder for the data set (`dataset.parquet`) and the parts of an unfinished run.
    #[arg(long, value_name = "DIR", env = "CARTRIDGES_OUTPUT_DIR")]
    out: PathBuf,
    /// TOML file with settings of self-study; flags win over it.
    #[arg(long, value_name = "FILE")]
    config: Option<PathBuf>,
    /// Conversations, besides the verbatim pieces.
    #[arg(long, value_name = "N")]
    conversations: Option<usize>,
    /// Conversations decoded together that share one context.
    #[arg(long, value_name = "N")]
    batch: Option<usize>,
    /// Seed of everything that is drawn.
    #[arg(long)]
    seed: Option<u64>,
}

/// Runs the command.
///
/// # Errors
/// If the text, the model or the folder cannot be used, or nothing was made.
pub fn run(args: SynthesizeArgs, runtime: &RuntimeArgs) -> Result<()> {
    let mut config: SelfStudyConfig = match &args.config {
        Some(path) => toml::from_str(&read_text(path)?)
            .with_context(|| format!("settings in {}", path.display()))?,
        None => SelfStudyConfig::default(),
    };
    if let Some(n) = args.conversations {
        config.num_conversations = n;
    }
    if let Some(n) = args.batch {
        config.batch_size = n;
    }
    if let Some(seed) = args.seed {
        config.seed = seed;
    }
    config.validate()?;
    let text = read_corpus(&args.corpus)?;
    writable_folder(&args.out)?;
    let model = args.model.open(&runtime.open()?)?;
    let mut engine = Engine::new(
        model,
        EngineOptions {
            max_batch: config.batch_size * config.batches_in_parallel,
            ..EngineOptions::default()
        },
    );
    let name = args
        .corpus
        .file_name()
        .unwrap_or_default()
        .to_string_lossy();
    let (dataset, report) = self_study(&mut engine, &name, &text, &config, &args.out)?;
    println!(
        "{} conversations of {} planned ({} tokens) in {}",
        report.finished,
        report.planned,
        report.tokens(),
        dataset.display()
    );
    for (cause, count) in &report.dropped {
        println!("  left out: {count} ({cause})");
    }
    for (cause, count) in &report.failed {
        println!("  failed: {count} ({cause})");
    }
    Ok(())
}
