//! Data sets that are named by where they are kept.

use std::path::PathBuf;

use anyhow::{Context, Result};
use cartridges_model::hub::{ResolveOptions, pull_files};
use cartridges_model::wandb::WandbSource;
use cartridges_train::DataSource;

use super::{Kind, artifact};

/// Files of a repository that are taken: data, weights, settings, text. Hidden ones and programs are not.
pub(crate) fn is_kept(path: &str) -> bool {
    const KINDS: [&str; 9] = [
        "parquet",
        "safetensors",
        "pt",
        "json",
        "jsonl",
        "yaml",
        "yml",
        "md",
        "txt",
    ];
    let extension = path.rsplit_once('.').map_or("", |(_, extension)| extension);
    KINDS.contains(&extension) && !path.split('/').any(|part| part.starts_with('.'))
}

/// The same sources with those that are elsewhere replaced by what was fetched into the cache: the folder
/// of `hf:owner/name[@revision]`, the parquet files of `wandb:ENTITY/PROJECT/NAME:VERSION`.
///
/// # Errors
/// If one cannot be had or holds no conversations in the reference's layout.
pub fn local_sources(sources: &[DataSource], options: &ResolveOptions) -> Result<Vec<DataSource>> {
    let mut local = Vec::new();
    for source in sources {
        let name = source.path.to_str().unwrap_or_default();
        if WandbSource::is_one(name) {
            local.extend(artifact::fetch(&name.parse()?, source)?);
        } else if let Some(repository) = name.strip_prefix("hf:") {
            local.push(DataSource {
                path: fetched(repository, options).with_context(|| name.to_owned())?,
                ..source.clone()
            });
        } else {
            local.push(source.clone());
        }
    }
    Ok(local)
}

fn fetched(name: &str, options: &ResolveOptions) -> Result<PathBuf> {
    let (name, revision) = match name.split_once('@') {
        Some((name, revision)) => (name, Some(revision.to_owned())),
        None => (name, None),
    };
    let options = ResolveOptions {
        revision,
        ..options.clone()
    };
    let is_data = |path: &str| path.starts_with("data/") && path.ends_with(".parquet");
    let pulled = pull_files(&Kind::Dataset.repository(name), &is_data, &options)?;
    pulled.folder.with_context(|| {
        format!(
            "it holds no data/*.parquet, but {}",
            pulled.left_out.join(", ")
        )
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn programs_and_hidden_files_are_left_alone() {
        for path in [
            "data/train-00000-of-00001.parquet",
            "config.yaml",
            "a.b/c.json",
            "README.md",
        ] {
            assert!(is_kept(path), "{path}");
        }
        for path in [
            ".gitattributes",
            ".git/config.json",
            "run.py",
            "README",
            "a/.b/c.json",
            "x.pkl",
        ] {
            assert!(!is_kept(path), "{path}");
        }
    }
}
