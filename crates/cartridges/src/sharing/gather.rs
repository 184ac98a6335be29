//! The files that a repository gets.

use std::path::{Path, PathBuf};

use anyhow::{Result, bail};
use cartridges_eval::Report;
use cartridges_model::adapter::load_adapter;
use cartridges_model::cartridge::{CartridgeDtype, load, torch::write_pt};
use cartridges_model::hub::{Content, PushFile, hub_id};
use cartridges_study::parquet::dataset_files;
use serde_json::{Value, json};

use super::Kind;
use super::card::{Card, about_adapter, about_cartridge, about_dataset};
use super::yaml::yaml;
use crate::commands::inspect::conversations;
use crate::opening::read_json;

/// Far more than any real plan or report.
const LARGEST_TEXT: u64 = 64 << 20;

/// What a repository gets.
pub(crate) struct Shared {
    pub kind: Kind,
    pub files: Vec<PushFile>,
    /// For people: what it is.
    pub summary: String,
}

/// The files of `path`, checked, with the reference's form beside ours and a card. `scratch` is a folder
/// for files that are made, and has to last until they are sent.
///
/// # Errors
/// If `path` is not what `kind` says, or is damaged.
pub(crate) fn gather(
    path: &Path,
    kind: Option<Kind>,
    repo: &str,
    licence: Option<&str>,
    scratch: &Path,
) -> Result<Shared> {
    let found = Kind::of(path)?;
    if let Some(kind) = kind.filter(|kind| *kind != found) {
        bail!(
            "{} is a {}, not a {}",
            path.display(),
            found.noun(),
            kind.noun()
        );
    }
    let (mut files, card) = match found {
        Kind::Dataset => dataset(path)?,
        Kind::Cartridge => cartridge(path, scratch)?,
        Kind::Adapter => adapter(path)?,
    };
    let summary = card.summary.clone();
    files.push(made("README.md", card.text(repo, licence)));
    Ok(Shared {
        kind: found,
        files,
        summary,
    })
}

fn made(path: &str, text: String) -> PushFile {
    PushFile {
        path: path.to_owned(),
        content: Content::Bytes(text.into_bytes()),
    }
}

fn copied(path: &str, from: PathBuf) -> PushFile {
    PushFile {
        path: path.to_owned(),
        content: Content::File(from),
    }
}

/// Conversations in the reference's layout: `data/train-0000i-of-0000n.parquet` and `config.yaml`.
fn dataset(path: &Path) -> Result<(Vec<PushFile>, Card)> {
    let parts = dataset_files(path)?;
    let data = conversations::read(&parts, 0, None)?;
    if data.rows == 0 {
        bail!("{} holds no conversations", path.display());
    }
    let count = parts.len();
    let mut files: Vec<PushFile> = (parts.iter().enumerate())
        .map(|(i, part)| {
            let name = format!("data/train-{i:05}-of-{count:05}.parquet");
            copied(&name, part.clone())
        })
        .collect();
    let folder = match path.is_dir() {
        true => path,
        false => path.parent().unwrap_or(Path::new("")),
    };
    // A lone file says nothing about how it was made, unless it is a run's own.
    let plan = json_beside(folder, "plan.json")?;
    let config = folder.join("config.yaml");
    if path.is_dir() && config.is_file() {
        files.push(copied("config.yaml", config));
    } else {
        let model = plan["model"]
            .as_str()
            .map(|model| hub_id(model).unwrap_or(model.to_owned()));
        let mut synthesizer = plan["config"].clone();
        if synthesizer.is_null() {
            synthesizer = json!({});
        }
        if let Some(model) = &model {
            synthesizer["client"] = json!({ "model_name": model });
        }
        let config = json!({
            "name": "synthesize",
            "num_samples": data.rows,
            "synthesizer": synthesizer,
        });
        files.push(made("config.yaml", yaml(&config)));
    }
    let report = json_beside(folder, "report.json")?;
    Ok((files, about_dataset(&data, &plan, &report)))
}

/// A cartridge in our form and in the reference's: one `.pt` file and `config.yaml`.
fn cartridge(path: &Path, scratch: &Path) -> Result<(Vec<PushFile>, Card)> {
    let (host, manifest) = load(path)?;
    let torch = scratch.join("cartridge.pt");
    // The reference's own type.
    write_pt(&torch, &host, CartridgeDtype::Bf16)?;
    let model = &manifest.base_model.id;
    let config = json!({
        "kv_cache_initializer": {
            "max_tokens": host.slots,
            "num_frozen_tokens": host.frozen,
        },
        "model": {
            "pretrained_model_name_or_path": hub_id(model).unwrap_or(model.clone()),
        },
    });
    let files = vec![
        copied("cartridge.safetensors", path.join("cartridge.safetensors")),
        copied("cartridge.json", path.join("cartridge.json")),
        copied("cartridge.pt", torch),
        made("config.yaml", yaml(&config)),
    ];
    Ok((files, about_cartridge(&manifest, measured(path)?.as_ref())))
}

fn adapter(path: &Path) -> Result<(Vec<PushFile>, Card)> {
    let (_, manifest) = load_adapter(path)?;
    let files = vec![
        copied("adapter.safetensors", path.join("adapter.safetensors")),
        copied("adapter.json", path.join("adapter.json")),
    ];
    Ok((files, about_adapter(&manifest, measured(path)?.as_ref())))
}

/// What was measured with what lies at `path`: a report in its folder, or as `quickstart` lays it out in
/// the folder around `cartridge`.
fn measured(path: &Path) -> Result<Option<Report>> {
    let mut found = json_beside(path, "report.json")?;
    if found.is_null() && path.file_name().is_some_and(|name| name == "cartridge") {
        found = json_beside(&path.join(".."), "report.json")?;
    }
    // A report of another kind says nothing about this.
    Ok(serde_json::from_value(found).ok())
}

/// A JSON file of a folder; null if it is not there.
fn json_beside(folder: &Path, name: &str) -> Result<Value> {
    let path = folder.join(name);
    match path.exists() {
        true => read_json(&path, LARGEST_TEXT),
        false => Ok(Value::Null),
    }
}
