//! A folder in Hugging Face layout: one safetensors file, or shards and their index.

use std::collections::BTreeMap;
use std::path::{Component, Path};

use serde::Deserialize;

use super::mapped::MappedFile;
use super::safetensors_header;
use super::store::{Entry, Stored};
use super::{Dtype, WeightsError};

const SINGLE: &str = "model.safetensors";
const INDEX: &str = "model.safetensors.index.json";

/// Largest index that is read; that of a 405 B model has 0.1 MB.
const INDEX_LIMIT: u64 = 64 << 20;

type Table = BTreeMap<String, Entry>;

/// The index; its `metadata` only repeats sizes.
#[derive(Deserialize)]
struct ShardIndex {
    weight_map: BTreeMap<String, String>,
}

/// Maps the files of `folder` and lists their tensors.
pub(super) fn open(folder: &Path) -> Result<(Vec<MappedFile>, Table), WeightsError> {
    let single = folder.join(SINGLE);
    let index = folder.join(INDEX);
    let mut files = Vec::new();
    let mut entries = Table::new();
    if single.exists() {
        let (file, table) = open_file(&single, 0)?;
        files.push(file);
        entries = table;
    } else if index.exists() {
        let index_name = index.display().to_string();
        let map = read_index(&index, &index_name)?;
        let mut shards: Vec<&String> = map.values().collect();
        shards.sort();
        shards.dedup();
        for shard in shards {
            check_shard_name(shard, &index_name)?;
            let (file, table) = open_file(&folder.join(shard), files.len())?;
            merge(&mut entries, table, shard, &map, &file)?;
            files.push(file);
        }
        if let Some((tensor, shard)) = map.iter().find(|(t, _)| !entries.contains_key(*t)) {
            return Err(WeightsError::MissingTensor {
                file: folder.join(shard).display().to_string(),
                tensor: tensor.clone(),
            });
        }
    } else {
        return Err(WeightsError::NoWeights {
            folder: folder.display().to_string(),
        });
    }
    Ok((files, entries))
}

/// Adds the tensors of one shard. A tensor that the index places elsewhere is left out, one that the
/// index does not know is taken (as Hugging Face's loader does) unless another shard has it as well.
fn merge(
    entries: &mut Table,
    table: Table,
    shard: &str,
    map: &BTreeMap<String, String>,
    file: &MappedFile,
) -> Result<(), WeightsError> {
    for (name, entry) in table {
        if map.get(&name).is_some_and(|home| home != shard) {
            continue;
        }
        if entries.contains_key(&name) {
            return Err(WeightsError::Tensor {
                file: file.name().to_owned(),
                tensor: name,
                reason: "is in another shard, too, and the index does not say which counts"
                    .to_owned(),
            });
        }
        entries.insert(name, entry);
    }
    Ok(())
}

fn open_file(path: &Path, number: usize) -> Result<(MappedFile, Table), WeightsError> {
    let file = MappedFile::open(path)?;
    let table = safetensors_header::read(file.bytes(), file.name())?
        .into_iter()
        .map(|found| {
            let stored = match found.info.dtype {
                safetensors::Dtype::F32 => Stored::Known(Dtype::F32),
                safetensors::Dtype::F16 => Stored::Known(Dtype::F16),
                safetensors::Dtype::BF16 => Stored::Known(Dtype::BF16),
                other => Stored::Foreign(format!("{other:?}")),
            };
            let entry = Entry {
                shape: found.info.shape,
                stored,
                file: number,
                range: found.range,
                interleaved_head: None,
            };
            (found.name, entry)
        })
        .collect();
    Ok((file, table))
}

fn read_index(path: &Path, name: &str) -> Result<BTreeMap<String, String>, WeightsError> {
    let read_error = |source| WeightsError::Read {
        file: name.to_owned(),
        source,
    };
    let broken = |reason: String| WeightsError::Index {
        file: name.to_owned(),
        reason,
    };
    let about = std::fs::metadata(path).map_err(read_error)?;
    if !about.is_file() || about.len() > INDEX_LIMIT {
        return Err(broken(format!("not a file of at most {INDEX_LIMIT} bytes")));
    }
    let text = std::fs::read(path).map_err(read_error)?;
    let index: ShardIndex = serde_json::from_slice(&text).map_err(|e| broken(e.to_string()))?;
    if index.weight_map.is_empty() {
        return Err(broken("weight_map is empty".to_owned()));
    }
    Ok(index.weight_map)
}

/// An index comes with a download and must not make this program open files elsewhere.
fn check_shard_name(shard: &str, index: &str) -> Result<(), WeightsError> {
    let mut parts = Path::new(shard).components();
    let plain = matches!(
        (parts.next(), parts.next()),
        (Some(Component::Normal(part)), None) if part == shard
    ) && !shard.contains(['/', '\\', ':']);
    if plain {
        return Ok(());
    }
    Err(WeightsError::Index {
        file: index.to_owned(),
        reason: format!("shard {shard:?} is not the plain name of a file in the folder"),
    })
}
