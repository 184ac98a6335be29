//! `cartridges inspect`: what a file or folder holds.

mod adapter;
mod cartridge;
mod colour;
pub(crate) mod conversations;
mod model;
mod page;
mod samples;
mod synthesis;
pub(crate) mod table;

use std::io::{self, IsTerminal, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use cartridges_model::atomic_file::write_bytes;
use cartridges_model::hub::{ModelRef, ResolveOptions, find_card, resolve};
use cartridges_study::parquet::dataset_files;
use clap::{Args, ValueEnum};
use samples::Tokens;
use serde_json::Value;

use crate::opening::RuntimeArgs;

/// Say what a cartridge, an adapter, a data set, a synthesis run or a model holds.
#[derive(Debug, Clone, Args)]
#[command(
    after_help = "Nothing is computed and no weights are loaded, so it is quick even on large \
models.

Examples:
  cartridges inspect cartridges/handbook    a cartridge: size, origin, norms
  cartridges inspect adapters/handbook      an adapter: corpora, deltas, what is kept
  cartridges inspect runs/handbook          a synthesis run: plan, counts, samples
  cartridges inspect model.gguf             a model: shapes, formats, tokenizer
  cartridges inspect runs/handbook/dataset.parquet --json
  cartridges inspect runs/handbook/dataset.parquet --model smollm2-135m --html page.html"
)]
pub struct InspectArgs {
    /// A cartridge folder or .pt file, an adapter folder, conversations (.parquet), a synthesis run's folder, a .gguf
    /// file, a model folder, or the name of a known model that is on this machine.
    #[arg(value_name = "PATH")]
    path: PathBuf,
    /// One JSON object instead of tables.
    #[arg(long)]
    json: bool,
    /// Conversations that are shown, spread over the data set.
    #[arg(long, value_name = "N", default_value_t = 3)]
    samples: usize,
    /// The model whose tokens the conversations are made of: their probabilities are shown with it.
    /// Without it, the model that the run's folder names, if it is on this machine.
    #[arg(long, short, value_name = "MODEL")]
    model: Option<String>,
    /// Whether probabilities are shown by colour. `auto`: on a terminal, unless NO_COLOR is set.
    #[arg(long, value_enum, default_value_t = Colour::Auto, value_name = "WHEN")]
    color: Colour,
    /// Conversations: also write what is shown as one page that needs no other file.
    #[arg(long, value_name = "FILE")]
    html: Option<PathBuf>,
}

/// `--color`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
enum Colour {
    Auto,
    Always,
    Never,
}

impl Colour {
    fn is_wanted(self) -> bool {
        let allowed = || std::env::var_os("NO_COLOR").is_none_or(|value| value.is_empty());
        match self {
            Self::Always => true,
            Self::Never => false,
            Self::Auto => io::stdout().is_terminal() && allowed(),
        }
    }
}

/// How conversations are shown.
struct View {
    samples: usize,
    model: Option<String>,
    colour: bool,
}

impl View {
    /// The tokenizer of the model that was named, or of the one that the data's folder names.
    ///
    /// # Errors
    /// If the model that was named cannot be had.
    fn tokens(&self, data: &Path) -> Result<Option<Tokens>> {
        let open = |name: &str| -> Result<Tokens> {
            let options = ResolveOptions {
                offline: true,
                ..ResolveOptions::from_env()
            };
            let files = resolve(&ModelRef::parse(name)?, &options)?;
            Ok(Tokens::new(model::text(files.path.as_path())?))
        };
        match &self.model {
            Some(name) => open(name).map(Some),
            // Only a guess: where it does not work out, the text is shown without probabilities.
            None => Ok(synthesis::model_of(data).and_then(|name| open(&name).ok())),
        }
    }
}

/// What is shown of something.
struct Findings {
    /// For scripts.
    json: Value,
    /// For people.
    text: String,
    /// For a browser, where there is such a form.
    html: Option<String>,
}

/// Runs the command.
///
/// # Errors
/// If the path is not there, is nothing that is known, or is damaged.
pub fn run(args: InspectArgs, _runtime: &RuntimeArgs) -> Result<()> {
    let view = View {
        samples: args.samples,
        model: args.model,
        colour: args.color.is_wanted(),
    };
    let findings = findings(&located(&args.path)?, &view)?;
    if let Some(file) = &args.html {
        let page = findings
            .html
            .as_ref()
            .with_context(|| format!("{}: --html shows conversations only", args.path.display()))?;
        write_bytes(file, page.as_bytes())?;
        eprintln!("page     {}", file.display());
    }
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

fn findings(path: &Path, view: &View) -> Result<Findings> {
    if path.is_dir() {
        let has = |name: &str| path.join(name).is_file();
        return match () {
            () if has("cartridge.json") => cartridge::folder(path),
            () if has("adapter.json") => adapter::folder(path),
            () if has("plan.json") => synthesis::run_folder(path, view),
            () if has("config.json") => model::model(path),
            () if dataset_files(path).is_ok() => conversations::file(path, view),
            () => bail!(
                "{}: not a cartridge (cartridge.json), an adapter (adapter.json), a synthesis run \
                 (plan.json), a data set (data/*.parquet) or a model (config.json)",
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
        (_, "parquet") => conversations::file(path, view),
        (_, "gguf") => model::model(path),
        _ => bail!(
            "{}: unknown kind of file; expected .pt, .parquet, .gguf, or a folder",
            path.display()
        ),
    }
}
