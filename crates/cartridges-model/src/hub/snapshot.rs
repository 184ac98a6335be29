//! Which files of a repository make a model, and how they come into the hub cache.
//!
//! Weights are taken as safetensors or GGUF only; pickled weights are never fetched.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::Duration;

use serde::Deserialize;

use super::client::{HubRepo, RemoteFile};
use super::progress::{Meter, human};
use super::reference::{is_path_in_repo, some};
use super::stored::{check_stored, note_revision, snapshot, sweep_broken};
use super::{HubError, ModelPath, ResolveOptions};

/// Files beside the weights that are fetched where the repository has them.
const SMALL_FILES: &[&str] = &[
    "config.json",
    "generation_config.json",
    "tokenizer.json",
    "tokenizer_config.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "chat_template.jinja",
    "chat_template.json",
];
const INDEX: &str = "model.safetensors.index.json";
const SINGLE: &str = "model.safetensors";
/// Longer than any real index of shards.
const INDEX_LIMIT: u64 = 64 << 20;

/// A model in the hub cache.
pub(crate) struct Stored {
    pub path: ModelPath,
    pub commit: String,
    /// sha256 of a GGUF file, where the hub states it.
    pub sha256: Option<String>,
}

/// What is wanted of a repository.
#[derive(Clone, Copy)]
pub(crate) struct Want<'a> {
    pub revision: &'a str,
    /// A GGUF file; without it, whatever the repository has: a folder with safetensors weights,
    /// else its only GGUF file.
    pub file: Option<&'a str>,
    /// Length of `file` in bytes, where a card states it.
    pub bytes: Option<u64>,
    /// How long the hub may take for its first answer.
    pub first_answer: Duration,
}

/// Fetches a model from the hub.
pub(crate) fn fetch(
    repo: &HubRepo<'_>,
    want: Want<'_>,
    options: &ResolveOptions,
) -> Result<Stored, HubError> {
    options.say(&format!("asking {} for {}", repo.endpoint(), repo.id));
    let commit = repo.commit(want.revision, want.first_answer)?;
    let files = repo.files(&commit)?;
    let visit = Visit {
        repo,
        commit: &commit,
        files: &files,
        options,
    };
    let (path, sha256) = match want.file {
        Some(name) => visit.gguf(name, want.bytes)?,
        None if visit.has("config.json") && !with_end(&files, ".safetensors").is_empty() => {
            (ModelPath::Folder(visit.folder()?), None)
        }
        None => visit.gguf(&only_gguf(&repo.id, &files)?, None)?,
    };
    note_revision(&repo.id, want.revision, &commit, options)?;
    Ok(Stored {
        path,
        commit,
        sha256,
    })
}

/// A model from the hub cache alone. `Ok(None)`: it is not there, or not wholly.
pub(crate) fn from_cache(
    id: &str,
    revision: &str,
    file: Option<&str>,
    options: &ResolveOptions,
) -> Result<Option<Stored>, HubError> {
    let Some((commit, folder)) = snapshot(id, revision, options) else {
        return Ok(None);
    };
    let gguf = match file {
        Some(name) => Some(folder.join(name)),
        None if folder.join("config.json").is_file() => {
            let Some(weights) = cached_weights(&folder)? else {
                return Ok(None);
            };
            for path in &weights {
                check_stored(path, None, options)?;
            }
            None
        }
        None => match ends_in(&folder, ".gguf").as_slice() {
            [one] => Some(folder.join(one)),
            _ => return Ok(None),
        },
    };
    let Some(path) = gguf else {
        return Ok(Some(Stored {
            path: ModelPath::Folder(folder),
            commit,
            sha256: None,
        }));
    };
    if !path.is_file() {
        return Ok(None);
    }
    let sha256 = check_stored(&path, None, options)?;
    Ok(Some(Stored {
        path: ModelPath::Gguf(path),
        commit,
        sha256,
    }))
}

/// A repository at one commit.
pub(crate) struct Visit<'a> {
    pub repo: &'a HubRepo<'a>,
    pub commit: &'a str,
    pub files: &'a [RemoteFile],
    pub options: &'a ResolveOptions,
}

impl Visit<'_> {
    fn has(&self, name: &str) -> bool {
        self.files.iter().any(|f| f.path == name)
    }

    fn gguf(
        &self,
        name: &str,
        bytes: Option<u64>,
    ) -> Result<(ModelPath, Option<String>), HubError> {
        let Some(file) = self.files.iter().find(|f| f.path == name) else {
            let there = with_end(self.files, ".gguf");
            return Err(HubError::NotFound {
                what: format!("{name} in {}", self.repo.id),
                hint: if there.is_empty() {
                    "this repository has no .gguf files".to_owned()
                } else {
                    format!("it has {}", some(&there))
                },
            });
        };
        if let Some(expected) = bytes.filter(|b| *b != file.bytes) {
            return Err(HubError::Unusable {
                id: self.repo.id.clone(),
                hint: format!(
                    "{name} has {} bytes there now, the model card is for {expected}; \
                     name the commit you want as the revision",
                    file.bytes
                ),
            });
        }
        let (path, sha256) = self.get(file)?;
        Ok((ModelPath::Gguf(path), sha256))
    }

    fn folder(&self) -> Result<PathBuf, HubError> {
        let mut folder = None;
        for file in self.files {
            if SMALL_FILES.contains(&file.path.as_str()) {
                let (path, _) = self.get(file)?;
                folder = path.parent().map(Path::to_owned);
            }
        }
        for name in self.weights()? {
            match self.files.iter().find(|f| f.path == name) {
                Some(file) => self.get(file)?,
                None => {
                    return Err(HubError::Unusable {
                        id: self.repo.id.clone(),
                        hint: format!("{INDEX} names {name}, which is not in the repository"),
                    });
                }
            };
        }
        folder.ok_or_else(|| HubError::Unusable {
            id: self.repo.id.clone(),
            hint: "no config.json came".to_owned(),
        })
    }

    /// Names of the safetensors files that hold the weights.
    fn weights(&self) -> Result<Vec<String>, HubError> {
        if let Some(index) = self.files.iter().find(|f| f.path == INDEX) {
            let (path, _) = self.get(index)?;
            return Ok(shards(&path)?.into_iter().collect());
        }
        if self.has(SINGLE) {
            return Ok(vec![SINGLE.to_owned()]);
        }
        let mut top = with_end(self.files, ".safetensors");
        top.retain(|name| !name.contains('/'));
        match top.as_slice() {
            [one] => Ok(vec![(*one).to_owned()]),
            other => Err(HubError::Unusable {
                id: self.repo.id.clone(),
                hint: format!(
                    "expected {SINGLE} or {INDEX}; the repository has {}",
                    if other.is_empty() {
                        "none at its top".to_owned()
                    } else {
                        some(other)
                    }
                ),
            }),
        }
    }

    /// A file in the cache, fetched if need be, with its sha256 where the hub states it.
    pub(crate) fn get(&self, file: &RemoteFile) -> Result<(PathBuf, Option<String>), HubError> {
        let cached = snapshot(&self.repo.id, self.commit, self.options)
            .is_some_and(|(_, folder)| folder.join(&file.path).is_file());
        let meter = Meter::start(&file.path, file.bytes, self.options);
        if !cached {
            meter.say(&format!(
                "fetching {} ({}) from {}",
                file.path,
                human(file.bytes),
                self.repo.id
            ));
        }
        let result = self.repo.download(self.commit, file, &meter);
        meter.finish();
        let path = result.inspect_err(|_| sweep_broken(&self.repo.id, self.options))?;
        let sha256 = check_stored(&path, Some(file), self.options)?;
        Ok((path, sha256))
    }
}

fn with_end<'f>(files: &'f [RemoteFile], end: &str) -> Vec<&'f str> {
    files
        .iter()
        .map(|f| f.path.as_str())
        .filter(|path| path.ends_with(end))
        .collect()
}

fn only_gguf(id: &str, files: &[RemoteFile]) -> Result<String, HubError> {
    let unusable = |hint: String| HubError::Unusable {
        id: id.to_owned(),
        hint,
    };
    match with_end(files, ".gguf").as_slice() {
        [one] => Ok((*one).to_owned()),
        [] => {
            let pickled = [".bin", ".pt", ".pth"]
                .iter()
                .flat_map(|end| with_end(files, end))
                .collect::<Vec<_>>();
            Err(unusable(if pickled.is_empty() {
                "the repository has no config.json with .safetensors weights and no .gguf file"
                    .to_owned()
            } else {
                format!(
                    "the repository has only pickled weights ({}), which are not loaded; \
                     look for a conversion to safetensors or GGUF",
                    some(&pickled)
                )
            }))
        }
        many => Err(unusable(format!(
            "the repository has several .gguf files, name one, like {id}:{}; it has {}",
            many[0],
            some(many)
        ))),
    }
}

#[derive(Deserialize)]
struct Index {
    weight_map: BTreeMap<String, String>,
}

/// The shards that an index names.
fn shards(index: &Path) -> Result<BTreeSet<String>, HubError> {
    let wrong = |hint: String| HubError::NotAModel {
        path: index.to_owned(),
        hint,
    };
    let file = File::open(index).map_err(HubError::io("read", index))?;
    let mut text = String::new();
    let length = file
        .take(INDEX_LIMIT + 1)
        .read_to_string(&mut text)
        .map_err(HubError::io("read", index))?;
    if length as u64 > INDEX_LIMIT {
        return Err(wrong(format!("an index of over {INDEX_LIMIT} bytes")));
    }
    let parsed: Index = serde_json::from_str(&text).map_err(|e| wrong(e.to_string()))?;
    let names: BTreeSet<String> = parsed.weight_map.into_values().collect();
    let bad = |n: &&String| !n.ends_with(".safetensors") || !is_path_in_repo(n);
    match names.iter().find(bad) {
        Some(name) => Err(wrong(format!(
            "weight_map names {name:?}, expected .safetensors files"
        ))),
        None if names.is_empty() => Err(wrong("weight_map is empty".to_owned())),
        None => Ok(names),
    }
}

/// Weight files of a folder in the cache; `None` if any is missing.
fn cached_weights(folder: &Path) -> Result<Option<Vec<PathBuf>>, HubError> {
    let index = folder.join(INDEX);
    let names: Vec<String> = if index.is_file() {
        shards(&index)?.into_iter().collect()
    } else if folder.join(SINGLE).is_file() {
        vec![SINGLE.to_owned()]
    } else {
        match ends_in(folder, ".safetensors") {
            found if found.len() == 1 => found,
            _ => return Ok(None),
        }
    };
    let paths: Vec<PathBuf> = names.iter().map(|n| folder.join(n)).collect();
    Ok(paths.iter().all(|p| p.is_file()).then_some(paths))
}

fn ends_in(folder: &Path, end: &str) -> Vec<String> {
    fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .filter_map(|e| e.file_name().into_string().ok())
        .filter(|name| name.ends_with(end))
        .collect()
}
