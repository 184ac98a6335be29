//! `cartridges pull`: a data set, cartridge or adapter from the hub.

use std::fs::File;
use std::io::{BufReader, Read};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use cartridges_model::adapter::load_adapter;
use cartridges_model::atomic_file::write_atomic;
use cartridges_model::cartridge::{load, torch::read_pt};
use cartridges_model::hub::{HubError, Pulled, PulledFile, ResolveOptions, pull_files};
use cartridges_study::parquet::{ConversationReader, dataset_files};
use clap::Args;

use crate::opening::{RuntimeArgs, writable_folder};
use crate::sharing::{Kind, is_kept};

/// Get a data set, a cartridge or an adapter from the hub.
#[derive(Debug, Clone, Args)]
#[command(
    after_help = "What comes is checked: lengths and digests that the hub states, and then whether it \
is a data set, a cartridge or an adapter. The token comes from HF_TOKEN, the hub's address from HF_ENDPOINT.

Examples:
  cartridges pull me/handbook --out cartridges/handbook
  cartridges pull datasets/me/handbook-study --out data"
)]
pub struct PullArgs {
    /// The repository: owner/name, of a data set also datasets/owner/name.
    #[arg(value_name = "REPO")]
    repo: String,
    /// Folder for its files.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// What it is. Without it a model's repository is looked for first, then a dataset's.
    #[arg(long, value_enum)]
    kind: Option<Kind>,
    /// Branch, tag or commit.
    #[arg(long, value_name = "REV")]
    revision: Option<String>,
    /// Write over files in the folder that are different.
    #[arg(long)]
    force: bool,
}

/// Runs the command.
///
/// # Errors
/// If the hub has no such repository, what is in it is nothing that is known, or the folder holds other
/// files of the same names.
pub fn run(args: PullArgs, _runtime: &RuntimeArgs) -> Result<()> {
    writable_folder(&args.out)?;
    let mut options = ResolveOptions::from_env();
    options.revision.clone_from(&args.revision);
    options.notice = Some(Arc::new(|line| eprintln!("{line}")));
    let pulled = pulled(&args, &options)?;
    if !pulled.left_out.is_empty() {
        eprintln!("left where they are: {}", pulled.left_out.join(", "));
    }
    let Some(folder) = &pulled.folder else {
        bail!("{}: there is nothing in it that is read here", args.repo);
    };
    let about = described(folder, &pulled.files).with_context(|| args.repo.clone())?;
    if !args.force {
        for file in &pulled.files {
            let place = args.out.join(&file.path);
            if place.exists() && !same(&place, &file.cached)? {
                bail!(
                    "{} is there already and is different; nothing was written. Name another folder, or \
                     write over it with --force",
                    place.display()
                );
            }
        }
    }
    for file in &pulled.files {
        let named = || format!("{}", file.cached.display());
        let mut source = File::open(&file.cached).with_context(named)?;
        write_atomic(&args.out.join(&file.path), |sink| {
            std::io::copy(&mut source, sink).map(drop)
        })?;
    }
    println!(
        "{about} in {} (commit {})",
        args.out.display(),
        pulled.commit
    );
    Ok(())
}

/// The files, of the kind of repository that there is.
fn pulled(args: &PullArgs, options: &ResolveOptions) -> Result<Pulled> {
    let named = args
        .kind
        .map_or(args.repo.clone(), |kind| kind.repository(&args.repo));
    let is_open = args.kind.is_none() && !args.repo.starts_with("datasets/");
    match pull_files(&named, &is_kept, options) {
        // To those who may not see a repository the hub does not say whether there is one.
        Err(
            error
            @ (HubError::NotFound { .. } | HubError::Access { .. } | HubError::Offline { .. }),
        ) if is_open => {
            let dataset = Kind::Dataset.repository(&args.repo);
            pull_files(&dataset, &is_kept, options).map_err(|_| error.into())
        }
        other => Ok(other?),
    }
}

/// What was fetched, once it is known to be sound.
fn described(folder: &Path, files: &[PulledFile]) -> Result<String> {
    let has = |name: &str| files.iter().any(|file| file.path == name);
    if has("cartridge.json") {
        let (host, manifest) = load(folder)?;
        let model = manifest.base_model.id;
        return Ok(format!("cartridge of {} slots for {model}", host.slots));
    }
    if has("adapter.json") {
        let (_, manifest) = load_adapter(folder)?;
        let count = manifest.patches.len();
        return Ok(format!(
            "adapter of {count} patches for {}",
            manifest.base_model.id
        ));
    }
    if let Some(file) = files.iter().find(|file| file.path.ends_with(".pt")) {
        let host = read_pt(&file.cached)?;
        return Ok(format!("cartridge of {} slots, {},", host.slots, file.path));
    }
    if files.iter().any(|file| file.path.ends_with(".parquet")) {
        let parts = dataset_files(folder)?;
        let mut rows = 0;
        for part in &parts {
            rows += ConversationReader::open(part)?.num_rows();
        }
        return Ok(format!("data set of {rows} conversations"));
    }
    let names: Vec<&str> = files.iter().map(|file| file.path.as_str()).collect();
    bail!(
        "neither a cartridge (cartridge.json, *.pt) nor an adapter (adapter.json) nor a data set \
         (data/*.parquet), but {}",
        names.join(", ")
    )
}

fn same(a: &Path, b: &Path) -> Result<bool> {
    let open = |path: &Path| {
        let file = File::open(path).with_context(|| format!("{}", path.display()));
        Ok::<_, anyhow::Error>(BufReader::new(file?))
    };
    if std::fs::metadata(a)?.len() != std::fs::metadata(b)?.len() {
        return Ok(false);
    }
    let (mut a, mut b) = (open(a)?, open(b)?);
    let (mut left, mut right) = (vec![0; 1 << 16], vec![0; 1 << 16]);
    loop {
        let count = a.read(&mut left)?;
        if count == 0 {
            return Ok(true);
        }
        b.read_exact(&mut right[..count])?;
        if left[..count] != right[..count] {
            return Ok(false);
        }
    }
}
