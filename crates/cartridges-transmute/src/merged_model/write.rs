//! Writes the tensors one after the other: no more than one of them is in memory.

use std::io::{self, Write};
use std::path::Path;

use cartridges_model::adapter::HostAdapter;
use cartridges_model::atomic_file::{write_atomic, write_bytes};
use cartridges_model::cartridge::CartridgeDtype;
use cartridges_model::decoder::ModelConfig;
use cartridges_model::weights::Weights;
use serde_json::{Map, Value, json};

use super::config;
use super::plan::{Change, Planned, plan};
use crate::error::TransmuteError;
use crate::fold::{Swallowed, fold_bias, fold_weight};

/// Bytes of a file; more tensors go into the next.
const SHARD: usize = 5_000_000_000;
/// Values that are encoded at a time.
const PIECE: usize = 1 << 20;

/// A model that was written.
#[derive(Debug, Clone, PartialEq)]
pub struct MergedModel {
    /// Its tensors.
    pub tensors: usize,
    /// Those that the adapter changed.
    pub changed: usize,
    /// Bytes of all tensors.
    pub bytes: u64,
    /// What the element types swallowed of the deltas, all of them together; see
    /// [`rounding_loss`](crate::rounding_loss).
    pub swallowed: f64,
    /// Whether the output head, which was the embedding table, has become a tensor of its own.
    pub untied: bool,
}

/// Writes the model of the folder `model` with the adapter in its weights into the folder `out`: weights,
/// config, tokenizer. Deltas are added in f64 and rounded once, to `dtype` or to the type that the tensor is
/// stored in. The config comes last, so that what an interrupted run leaves is no model.
///
/// # Errors
/// [`TransmuteError::Field`] if the adapter does not fit the model or has a patch that cannot be added to
/// weights, or a value is not finite in `dtype`; [`TransmuteError::File`] for a quantised model; what
/// reading and writing give.
pub fn write_merged_model(
    model: &Path,
    shape: &ModelConfig,
    adapter: &HostAdapter,
    dtype: Option<CartridgeDtype>,
    out: &Path,
    tell: &mut dyn FnMut(u64, u64),
) -> Result<MergedModel, TransmuteError> {
    adapter.check(shape)?;
    let settings = config::read(model)?;
    let weights = Weights::open_folder(model)?;
    let (planned, untied) = plan(&weights, shape, adapter, dtype)?;
    let total: usize = planned.iter().map(|tensor| tensor.bytes).sum();
    let mut work = Work {
        weights: &weights,
        swallowed: Swallowed::default(),
        done: 0,
        total: total as u64,
        tell,
    };
    let shards = shards(&planned);
    let mut homes = Map::new();
    for (at, shard) in shards.iter().enumerate() {
        let name = match shards.len() {
            1 => "model.safetensors".to_owned(),
            all => format!("model-{:05}-of-{all:05}.safetensors", at + 1),
        };
        work.shard(shard, &out.join(&name))?;
        homes.extend(
            shard
                .iter()
                .map(|tensor| (tensor.name.clone(), json!(name))),
        );
    }
    if shards.len() > 1 {
        let index = json!({"metadata": {"total_size": total}, "weight_map": homes});
        let path = out.join("model.safetensors.index.json");
        write_bytes(&path, index.to_string().as_bytes())?;
    }
    config::copy_rest(model, out)?;
    config::write(out, settings, dtype, untied)?;
    Ok(MergedModel {
        tensors: planned.len(),
        changed: planned.iter().filter(|t| t.change.is_some()).count(),
        bytes: total as u64,
        swallowed: work.swallowed.share(),
        untied,
    })
}

/// Runs of tensors that fill a file.
fn shards<'p, 'a>(planned: &'p [Planned<'a>]) -> Vec<&'p [Planned<'a>]> {
    let (mut all, mut start, mut bytes) = (Vec::new(), 0, 0);
    for (at, tensor) in planned.iter().enumerate() {
        if at > start && bytes + tensor.bytes > SHARD {
            all.push(&planned[start..at]);
            (start, bytes) = (at, 0);
        }
        bytes += tensor.bytes;
    }
    all.push(&planned[start..]);
    all
}

struct Work<'w> {
    weights: &'w Weights,
    swallowed: Swallowed,
    done: u64,
    total: u64,
    tell: &'w mut dyn FnMut(u64, u64),
}

impl Work<'_> {
    fn shard(&mut self, tensors: &[Planned<'_>], path: &Path) -> Result<(), TransmuteError> {
        let header = header(tensors).map_err(|e| TransmuteError::file(path, e.to_string()))?;
        let mut failed = None;
        let written = write_atomic(path, |w| {
            w.write_all(&(header.len() as u64).to_le_bytes())?;
            w.write_all(&header)?;
            tensors.iter().try_for_each(|tensor| {
                self.tensor(tensor, w)?.map_err(|error| {
                    failed = Some(error);
                    io::Error::other("a tensor cannot be made")
                })
            })
        });
        match failed {
            Some(error) => Err(error),
            None => Ok(written?),
        }
    }

    /// Writes a tensor; the inner error is about its values, not about the file.
    fn tensor(
        &mut self,
        tensor: &Planned<'_>,
        writer: &mut dyn Write,
    ) -> io::Result<Result<(), TransmuteError>> {
        match tensor.dtype {
            None => {
                let copied = self
                    .weights
                    .with_stored(&tensor.source, |b| writer.write_all(b));
                copied.unwrap_or(Ok(()))?;
            }
            Some(dtype) => {
                let values = match self.values(tensor, dtype) {
                    Ok(values) => values,
                    Err(error) => return Ok(Err(error)),
                };
                let mut bytes = Vec::new();
                for piece in values.chunks(PIECE) {
                    if let Some(odd) = piece.iter().find(|x| !dtype.round(**x).is_finite()) {
                        let problem =
                            format!("holds {odd} with the adapter, which is no finite {dtype}");
                        return Ok(Err(TransmuteError::Tensor {
                            name: tensor.name.clone(),
                            problem,
                        }));
                    }
                    bytes.clear();
                    dtype.encode(piece, &mut bytes);
                    writer.write_all(&bytes)?;
                }
            }
        }
        self.done += tensor.bytes as u64;
        (self.tell)(self.done, self.total);
        Ok(Ok(()))
    }

    fn values(
        &mut self,
        tensor: &Planned<'_>,
        dtype: CartridgeDtype,
    ) -> Result<Vec<f32>, TransmuteError> {
        let mut values = self.weights.read(&tensor.source)?.values;
        if let Some(change) = tensor.change {
            let before = values.clone();
            match change {
                Change::Weight(patch) => fold_weight(&mut values, patch)?,
                Change::Bias(patch) => fold_bias(&mut values, patch)?,
            }
            self.swallowed.add(Swallowed::of(&before, &values, dtype)?);
        }
        Ok(values)
    }
}

/// The header of a safetensors file, padded so that the tensors behind it are aligned.
fn header(tensors: &[Planned<'_>]) -> serde_json::Result<Vec<u8>> {
    let mut table = Map::new();
    // transformers asks for this.
    table.insert("__metadata__".to_owned(), json!({"format": "pt"}));
    let mut offset = 0;
    for tensor in tensors {
        let end = offset + tensor.bytes;
        let about: Value = json!({
            "dtype": tensor.dtype_name,
            "shape": tensor.shape,
            "data_offsets": [offset, end],
        });
        table.insert(tensor.name.clone(), about);
        offset = end;
    }
    let mut bytes = serde_json::to_vec(&table)?;
    bytes.resize(bytes.len().next_multiple_of(8), b' ');
    Ok(bytes)
}
