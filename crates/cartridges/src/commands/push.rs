//! `cartridges push`: a data set, cartridge or adapter to the hub.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result};
use cartridges_model::atomic_file::{write_atomic, write_bytes};
use cartridges_model::hub::{Content, PushFile, ResolveOptions, push_files};
use clap::Args;

use crate::opening::RuntimeArgs;
use crate::sharing::{Kind, Shared, gather};

/// Put a data set, a cartridge or an adapter on the hub, with a card.
#[derive(Debug, Clone, Args)]
#[command(
    after_help = "Everything goes as one commit: either all of it is there or nothing. The token comes \
from HF_TOKEN, the hub's address from HF_ENDPOINT.

A data set is laid out as the paper's code has it (data/*.parquet, config.yaml); a cartridge gets its .pt \
and config.yaml beside our own files. The card says what it is, how it was made and what was measured; \
read it before you publish: the settings in it may name files of this machine.

Examples:
  cartridges push runs/handbook me/handbook-study --private
  cartridges push cartridges/handbook me/handbook --license cc-by-4.0
  cartridges push cartridges/handbook me/handbook --out look    only look at what would be sent"
)]
pub struct PushArgs {
    /// A cartridge's or an adapter's folder, conversations (.parquet), or a folder of them.
    #[arg(value_name = "DIR|DATA.parquet")]
    path: PathBuf,
    /// The repository: owner/name. It is made if it is not there.
    #[arg(value_name = "REPO")]
    repo: String,
    /// Only people with rights in it can see a repository that is made now.
    #[arg(long)]
    private: bool,
    /// What it has to be; found out if not given.
    #[arg(long, value_enum)]
    kind: Option<Kind>,
    /// Licence for the card, by the hub's name for it, such as cc-by-4.0.
    #[arg(long, value_name = "NAME")]
    license: Option<String>,
    /// Message of the commit.
    #[arg(long, value_name = "TEXT")]
    message: Option<String>,
    /// Write the repository's files into this folder instead, and send nothing.
    #[arg(long, value_name = "DIR")]
    out: Option<PathBuf>,
}

/// Runs the command.
///
/// # Errors
/// If there is nothing to send, it is damaged, or the hub does not take it.
pub fn run(args: PushArgs, _runtime: &RuntimeArgs) -> Result<()> {
    let scratch = tempfile::tempdir().context("a folder for temporary files")?;
    let Shared {
        kind,
        files,
        summary,
    } = gather(
        &args.path,
        args.kind,
        &args.repo,
        args.license.as_deref(),
        scratch.path(),
    )?;
    if let Some(out) = &args.out {
        for file in &files {
            write(&out.join(&file.path), file)?;
        }
        println!("{summary}\n{} files in {}", files.len(), out.display());
        return Ok(());
    }
    let mut options = ResolveOptions::from_env();
    options.notice = Some(Arc::new(|line| eprintln!("{line}")));
    let repo = kind.repository(&args.repo);
    let message = match &args.message {
        Some(message) => message.clone(),
        None => format!(
            "{}, by cartridges {}",
            kind.noun(),
            env!("CARGO_PKG_VERSION")
        ),
    };
    let pushed = push_files(&repo, &files, args.private, &message, &options)?;
    println!("{summary}\n{} files in {}", files.len(), pushed.page);
    if let Some(commit) = pushed.commit {
        println!("commit {commit}");
    }
    Ok(())
}

fn write(path: &std::path::Path, file: &PushFile) -> Result<()> {
    match &file.content {
        Content::Bytes(bytes) => write_bytes(path, bytes)?,
        Content::File(from) => {
            let named = || format!("{}", from.display());
            let mut source = std::fs::File::open(from).with_context(named)?;
            write_atomic(path, |sink| std::io::copy(&mut source, sink).map(drop))?;
        }
    }
    Ok(())
}
