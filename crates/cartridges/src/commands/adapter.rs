//! `cartridges adapter`: corpora put together and taken out again, and how strongly they count.

mod folder;

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use cartridges_model::adapter::{
    AdapterManifest, HostAdapter, load_adapter, load_adapter_manifest, save_adapter,
};
use cartridges_model::cartridge::{CartridgeDtype, ModelIdentity};
use cartridges_transmute::{CorpusId, Kept, combine, remove, sum};
use clap::{Args, Subcommand, ValueEnum};
use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use crate::fresh_folder::FreshFolder;
use crate::opening::RuntimeArgs;
use crate::progress::progress;
use crate::provenance::program;
use folder::{PARTS, link_tree, parts};

/// Merge adapters of several corpora, take a corpus out of one, or make one stronger or weaker.
#[derive(Debug, Clone, Args)]
#[command(
    after_help = "Adapters that `cartridges transmute --keep-statistics` made can be merged with others of \
the same model, and a corpus can be taken out again. No model is loaded.

Examples:
  cartridges adapter merge adapters/handbook adapters/prices --out adapters/both
  cartridges adapter remove adapters/both --corpus runs/prices/dataset.parquet --out adapters/one
  cartridges adapter scale adapters/handbook --by 0.75 --out adapters/gentle"
)]
pub struct AdapterArgs {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Clone, Subcommand)]
enum Command {
    Merge(MergeArgs),
    Remove(RemoveArgs),
    Scale(ScaleArgs),
}

/// Make one adapter of several.
///
/// The deltas of each layer are weighted by the statistics that they were solved on, so that none undoes
/// what another needs. It is approximate, unlike `cartridges transmute` with the data of all corpora: each
/// adapter was solved on states that its own lower layers had changed. OUT holds the adapters it is made
/// of, so that corpora can be taken out again; their files are not copied where the disk allows it.
#[derive(Debug, Clone, Args)]
struct MergeArgs {
    /// Folders of adapters.
    #[arg(value_name = "ADAPTER", required = true, num_args = 2..)]
    adapters: Vec<PathBuf>,
    /// Folder to make.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
    /// What is merged.
    #[arg(long, value_enum, default_value_t = By::Deltas)]
    by: By,
    /// Rank of the delta of each layer; without it the sum of the adapters' ranks.
    #[arg(long, value_name = "R")]
    rank: Option<usize>,
}

/// Take a corpus out of an adapter of several.
///
/// What is left of a merged adapter is merged again, as if the corpus had never been in it. An adapter
/// that `cartridges transmute` made of several corpora is solved again from the statistics of the others:
/// its refinement is lost, and the states on which its upper layers are solved had still seen the corpus.
#[derive(Debug, Clone, Args)]
struct RemoveArgs {
    /// Folder of the adapter.
    #[arg(value_name = "ADAPTER")]
    adapter: PathBuf,
    /// The file of conversations that the corpus was, or its id in adapter.json, of which the first eight
    /// digits are enough.
    #[arg(long, value_name = "FILE|ID")]
    corpus: String,
    /// Folder to make.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

/// Make an adapter stronger or weaker.
///
/// A weaker one changes other text less: the harm falls faster than what it knows. Statistics are left
/// behind.
#[derive(Debug, Clone, Args)]
struct ScaleArgs {
    /// Folder of the adapter.
    #[arg(value_name = "ADAPTER")]
    adapter: PathBuf,
    /// What all its deltas are multiplied by.
    #[arg(long, value_name = "FACTOR")]
    by: f32,
    /// Folder to make.
    #[arg(long, value_name = "DIR")]
    out: PathBuf,
}

/// `--by`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
enum By {
    /// The deltas as they are, with what refinement has learned.
    Deltas,
    /// The statistics, solved anew: without refinement, and without what the ranks cut off.
    Statistics,
    /// The plain sum of the deltas, which interfere in it. Needs no statistics; cannot be taken apart.
    Sum,
}

/// How an adapter was merged, in its manifest.
#[derive(Debug, Serialize, Deserialize)]
struct How {
    by: By,
    rank: Option<usize>,
}

/// Runs the command.
///
/// # Errors
/// If a folder holds no adapter, or none with statistics where they are needed, the adapters do not fit each other, a corpus is not there
/// or there twice, or the output cannot be written.
pub fn run(args: AdapterArgs, _runtime: &RuntimeArgs) -> Result<()> {
    match args.command {
        Command::Merge(args) => merge_adapters(&args),
        Command::Remove(args) => remove_corpus(&args),
        Command::Scale(args) => scale(&args),
    }
}

fn merge_adapters(args: &MergeArgs) -> Result<()> {
    let fresh = FreshFolder::new(&args.out)?;
    if args.by == By::Sum {
        return add_up(args, fresh);
    }
    let kept = open_all(&args.adapters)?;
    let how = How {
        by: args.by,
        rank: args.rank,
    };
    write_merged(&kept, &how, fresh)
}

/// The adapters in these folders; of merged ones those that they are made of.
fn open_all(folders: &[PathBuf]) -> Result<Vec<Kept>> {
    let mut kept = Vec::new();
    for folder in folders {
        for part in parts(folder)? {
            kept.push(Kept::open(&part)?);
        }
    }
    Ok(kept)
}

fn write_merged(kept: &[Kept], how: &How, fresh: FreshFolder) -> Result<()> {
    let bar = progress(kept[0].maps() as u64, "merging", "maps");
    let mut done = 0;
    let combined = combine(kept, how.by == By::Statistics, how.rank, &mut |target| {
        bar.set(done, target.to_string());
        done += 1;
    })?;
    drop(bar);
    let mut made_of = Vec::new();
    for part in kept {
        let name = &part.manifest.sha256[..12];
        link_tree(part.folder(), &fresh.path().join(PARTS).join(name))?;
        made_of.push(json!({
            "folder": format!("{PARTS}/{name}"),
            "data": part.corpora(),
            "made_by": part.manifest.made_by,
        }));
    }
    let corpora: BTreeSet<CorpusId> = kept.iter().flat_map(|k| k.corpora()).copied().collect();
    let made_by = json!({
        "program": program(),
        "data": corpora,
        "merged": how,
        "approximate": "the lower layers of the parts differ",
        "targets": combined.targets,
        "parts": made_of,
    });
    let model = &kept[0].manifest.base_model;
    save(&fresh, &combined.adapter, model, &made_by)?;
    let out = fresh.finish()?;
    println!(
        "adapter of {} patches for {} corpora in {} · approximate: the adapters were solved apart",
        combined.adapter.patches().len(),
        corpora.len(),
        out.display()
    );
    Ok(())
}

fn save(
    fresh: &FreshFolder,
    adapter: &HostAdapter,
    model: &ModelIdentity,
    how: &Value,
) -> Result<()> {
    save_adapter(fresh.path(), adapter, model, how, CartridgeDtype::F32)?;
    Ok(())
}

/// The plain sum.
fn add_up(args: &MergeArgs, fresh: FreshFolder) -> Result<()> {
    if args.rank.is_some() {
        bail!("a plain sum has the sum of the ranks: leave out --rank, or --by sum");
    }
    let all = args.adapters.iter().map(|folder| load_adapter(folder));
    let all: Vec<(HostAdapter, AdapterManifest)> = all.collect::<Result<_, _>>()?;
    let model = &all[0].1.base_model;
    for (folder, (_, manifest)) in args.adapters.iter().zip(&all) {
        let named = || format!("{} and {}", folder.display(), args.adapters[0].display());
        manifest.check(model, false).with_context(named)?;
    }
    let (adapters, manifests): (Vec<_>, Vec<_>) = all.iter().cloned().unzip();
    let whole = sum(&adapters)?;
    let made_by = json!({
        "program": program(),
        "merged": How { by: By::Sum, rank: None },
        "approximate": "deltas that were solved apart interfere in their sum",
        "parts": manifests.iter().map(|m| &m.made_by).collect::<Vec<_>>(),
    });
    save(&fresh, &whole, model, &made_by)?;
    let out = fresh.finish()?;
    println!(
        "plain sum of {} adapters in {} · deltas that were solved apart interfere in it",
        adapters.len(),
        out.display()
    );
    Ok(())
}

fn scale(args: &ScaleArgs) -> Result<()> {
    if !args.by.is_finite() || args.by <= 0.0 {
        bail!("--by {}: expected a number above 0", args.by);
    }
    let fresh = FreshFolder::new(&args.out)?;
    let (adapter, manifest) = load_adapter(&args.adapter)?;
    let patches = adapter.patches().iter().cloned().map(|mut patch| {
        patch.scale *= args.by;
        patch
    });
    let scaled = HostAdapter::new(patches.collect())?;
    let made_by = json!({ "program": program(), "scaled": args.by, "from": manifest.made_by });
    save(&fresh, &scaled, &manifest.base_model, &made_by)?;
    let out = fresh.finish()?;
    println!("adapter times {} in {}", args.by, out.display());
    Ok(())
}

fn remove_corpus(args: &RemoveArgs) -> Result<()> {
    let fresh = FreshFolder::new(&args.out)?;
    let mut kept = open_all(std::slice::from_ref(&args.adapter))?;
    let corpus = find(&args.corpus, &kept)?;
    let has = |part: &Kept| part.corpora().contains(&corpus);
    if kept
        .iter()
        .all(|part| has(part) && part.corpora().len() == 1)
    {
        bail!(
            "corpus {corpus} is all that is in {}: without it there is no adapter",
            args.adapter.display()
        );
    }
    // Beside the output, so that files need not be copied.
    let solved = FreshFolder::new(&args.out)?;
    if let Some(at) = kept
        .iter()
        .position(|part| has(part) && part.corpora().len() > 1)
    {
        solve_without(&kept[at], corpus, &solved)?;
        kept[at] = Kept::open(solved.path())?;
    }
    kept.retain(|part| !has(part));
    if let [only] = kept.as_slice() {
        link_tree(only.folder(), fresh.path())?;
        let out = fresh.finish()?;
        println!(
            "adapter without corpus {corpus} in {} · {} patches for {} corpora",
            out.display(),
            only.adapter.patches().len(),
            only.corpora().len()
        );
        return Ok(());
    }
    let manifest = load_adapter_manifest(&args.adapter)?;
    let how = manifest.made_by.get("merged").cloned().unwrap_or_default();
    let how: How = serde_json::from_value(how).with_context(|| {
        let folder = args.adapter.display();
        format!("{folder}: adapter.json does not say how it was merged")
    })?;
    write_merged(&kept, &how, fresh)
}

/// Solves a part again without one of its corpora.
fn solve_without(kept: &Kept, corpus: CorpusId, to: &FreshFolder) -> Result<()> {
    let bar = progress(kept.maps() as u64, "solving", "maps");
    let mut done = 0;
    let removed = remove(kept, corpus, to.path(), &mut |target| {
        bar.set(done, target.to_string());
        done += 1;
    })?;
    let mut made_by = kept.manifest.made_by.clone();
    if let Some(fields) = made_by.as_object_mut() {
        // What these said is not true of the new deltas.
        fields.remove("refinement");
        fields.remove("divergence");
        let rest: BTreeSet<_> = kept.corpora().iter().filter(|id| **id != corpus).collect();
        fields.insert("data".to_owned(), json!(rest));
        fields.insert("targets".to_owned(), json!(removed.targets));
        fields.insert("program".to_owned(), json!(program()));
        let before = fields.get("removed").cloned().unwrap_or(json!([]));
        let mut all: Vec<Value> = before.as_array().cloned().unwrap_or_default();
        all.push(json!({
            "corpus": corpus,
            "from": kept.manifest.sha256,
            "approximate": "the states at the upper maps had seen the corpus",
        }));
        fields.insert("removed".to_owned(), Value::Array(all));
    }
    save(to, &removed.adapter, &kept.manifest.base_model, &made_by)
}

/// The corpus that is meant.
fn find(corpus: &str, kept: &[Kept]) -> Result<CorpusId> {
    /// Fewer digits of an id could be those of a file's name.
    const LEAST_DIGITS: usize = 8;
    let all: BTreeSet<CorpusId> = kept.iter().flat_map(Kept::corpora).copied().collect();
    let path = Path::new(corpus);
    let fits: Vec<CorpusId> = if path.is_file() {
        let bytes = std::fs::read(path).with_context(|| format!("reading {corpus}"))?;
        let id = CorpusId::of(&bytes);
        all.get(&id).copied().into_iter().collect()
    } else {
        let begins = |id: &CorpusId| id.to_string().starts_with(corpus);
        let long = corpus.len() >= LEAST_DIGITS;
        all.iter()
            .filter(|id| long && begins(id))
            .copied()
            .collect()
    };
    match fits.as_slice() {
        [one] => Ok(*one),
        _ => {
            let known: Vec<String> = all.iter().map(CorpusId::to_string).collect();
            bail!(
                "no corpus '{corpus}' in the adapter, which was made of {}",
                known.join(", ")
            )
        }
    }
}
