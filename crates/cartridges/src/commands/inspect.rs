//! `cartridges inspect`: what a file or folder holds.

mod cartridge;
mod conversations;
mod model;
mod synthesis;
pub(crate) mod table;

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use cartridges_model::hub::{ModelRef, ResolveOptions, find_card, resolve};
use clap::Args;
use serde_json::Value;

use crate::opening::RuntimeArgs;

/// Say what a cartridge, a data set, a synthesis run or a model holds.
#[derive(Debug, Clone, Args)]
#[command(
    after_help = "Nothing is computed and no weights are loaded, so it is quick even on large \
models.

Examples:
  cartridges inspect cartridges/handbook    a cartridge: size, origin, norms
  cartridges inspect runs/handbook          a synthesis run: plan, counts, samples
  cartridges inspect model.gguf             a model: shapes, formats, tokenizer
  cartridges inspect runs/handbook/dataset.parquet --json"
)]
pub struct InspectArgs {
    /// A cartridge folder or .pt file, conversations (.parquet), a synthesis run's folder, a .gguf
    /// file, a model folder, or the name of a known model that is on this machine.
    #[arg(value_name = "PATH")]
    path: PathBuf,
    /// One JSON object instead of tables.
    #[arg(long)]
    json: bool,
}

/// What is shown of something.
struct Findings {
    /// For scripts.
    json: Value,
    /// For people.
    text: String,
}

/// Runs the command.
///
/// # Errors
/// If the path is not there, is nothing that is known, or is damaged.
pub fn run(args: InspectArgs, _runtime: &RuntimeArgs) -> Result<()> {
    let findings = findings(&located(&args.path)?)?;
    let mut out = io::stdout().lock();
    match args.json {
        true => writeln!(out, "{:#}", findings.json)?,
        false => out.write_all(findings.text.as_bytes())?,
    }
    out.flush()?;
    Ok(())
}

/// The path itself, or the files of the known model that it names.
fn located(path: &Path) -> Result<PathBuf> {
    if path.exists() {
        return Ok(path.to_owned());
    }
    if let Some(name) = path.to_str()
        && find_card(name)?.is_some()
    {
        let options = ResolveOptions {
            offline: true,
            ..ResolveOptions::from_env()
        };
        let files = resolve(&ModelRef::Card(name.to_owned()), &options)?;
        return Ok(files.path.as_path().to_owned());
    }
    bail!("{} does not exist", path.display())
}

fn findings(path: &Path) -> Result<Findings> {
    if path.is_dir() {
        let has = |name: &str| path.join(name).is_file();
        return match () {
            () if has("cartridge.json") => cartridge::folder(path),
            () if has("plan.json") => synthesis::run_folder(path),
            () if has("config.json") => model::model(path),
            () if has("dataset.parquet") => conversations::file(&path.join("dataset.parquet")),
            () => bail!(
                "{}: not a cartridge (cartridge.json), a synthesis run (plan.json) or a model \
                 (config.json)",
                path.display()
            ),
        };
    }
    let name = path
        .file_name()
        .and_then(|n| n.to_str())
        .unwrap_or_default();
    let extension = path
        .extension()
        .and_then(|e| e.to_str())
        .unwrap_or_default();
    match (name, extension) {
        ("cartridge.json" | "cartridge.safetensors", _) => cartridge::folder(path),
        (_, "pt") => cartridge::torch_file(path),
        (_, "parquet") => conversations::file(path),
        (_, "gguf") => model::model(path),
        _ => bail!(
            "{}: unknown kind of file; expected .pt, .parquet, .gguf, or a folder",
            path.display()
        ),
    }
}
