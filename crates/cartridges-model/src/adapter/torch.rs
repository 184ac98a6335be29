//! Adapters that the reference's transmutation fork saved with `torch.save`, in its two layouts:
//! `bias_delta [hidden]` and `weight_delta [hidden, hidden]`, or `bias_deltas` and `weight_deltas`, which
//! hold one of each per index into the `hidden_states` of transformers.
//!
//! Nothing in the file is executed; see [`crate::cartridge::torch`].

use std::collections::BTreeMap;
use std::path::Path;

use super::error::AdapterError;
use super::host::{Delta, HostAdapter, HostPatch, Mode};
use super::target::Target;
use crate::cartridge::CartridgeError;
use crate::cartridge::torch::MAX_PICKLE;
use crate::cartridge::torch::container::Container;
use crate::cartridge::torch::pickle::{Id, Node, Pickle, Tensor};
use crate::cartridge::torch::storage::{Storages, check_view};
use crate::tensor_folder::FolderError;

/// The key of the older layout, as the fork's own loader names it: the last entry of `hidden_states`.
const LAST: i64 = -1;

/// An adapter as the fork kept it.
#[derive(Debug, Clone, PartialEq)]
pub struct TorchAdapter {
    /// The adapter.
    pub adapter: HostAdapter,
    /// The model that the file names, if it names one.
    pub base_model: Option<String>,
    /// Layers of the file that change nothing, which were left out.
    pub skipped: Vec<i64>,
}

/// What the pickle says.
#[derive(Default)]
struct Found {
    biases: BTreeMap<i64, Tensor>,
    weights: BTreeMap<i64, Tensor>,
    base_model: Option<String>,
}

/// Whether a `.pt` file holds an adapter of the fork; a cartridge has other keys.
///
/// # Errors
/// If the file cannot be read or is no dict.
pub fn is_torch_adapter(path: &Path) -> Result<bool, AdapterError> {
    let bytes = Container::open(path)?.read("data.pkl", MAX_PICKLE)?;
    let pickle = parse(path, &bytes)?;
    let Node::Dict(entries) = pickle.root() else {
        return Err(FolderError::file(path, "the pickled value is not a dict").into());
    };
    let mut names = entries.iter().filter_map(|(key, _)| pickle.text(*key));
    Ok(names.any(|name| ["bias_delta", "bias_deltas"].contains(&name)))
}

/// Reads an adapter for a model of `num_layers` layers.
///
/// The fork measures the output of the final norm (index −1, or `num_layers`), so that is where the patch
/// goes, in mode post; the fork's own hook on the last layer, before the norm, is a mistake. Other
/// indices are states between two layers, where no target is: only those that are zero can be read.
///
/// # Errors
/// If the file cannot be read, is not such a file, or holds other layers.
pub fn read_adapter_pt(path: &Path, num_layers: usize) -> Result<TorchAdapter, AdapterError> {
    let wrong = |problem: String| AdapterError::from(FolderError::file(path, problem));
    let mut container = Container::open(path)?;
    let bytes = container.read("data.pkl", MAX_PICKLE)?;
    let found = find(path, &parse(path, &bytes)?)?;
    let file_len = container.file_len();
    let mut storages = Storages::new(container);
    let (mut patches, mut skipped, mut total) = (Vec::new(), Vec::new(), 0u64);
    for (index, bias) in &found.biases {
        let named = |part: &str, problem: &str| {
            AdapterError::from(FolderError::tensor(
                path,
                &format!("{part}.{index}"),
                problem,
            ))
        };
        let weight =
            (found.weights.get(index)).ok_or_else(|| named("weight_deltas", "is missing"))?;
        let hidden = bias.shape[3];
        if bias.axes != 1 {
            return Err(named("bias_deltas", "does not have one axis"));
        }
        if weight.axes != 2 || weight.shape != [1, 1, hidden, hidden] {
            let problem = format!("does not have shape [{hidden}, {hidden}] as the bias asks");
            return Err(named("weight_deltas", &problem));
        }
        for (part, tensor) in [("bias_deltas", bias), ("weight_deltas", weight)] {
            let count = check_view(tensor).map_err(|problem| named(part, &problem))?;
            total = total.saturating_add(count.saturating_mul(tensor.dtype.size() as u64));
        }
        if total > file_len {
            let problem = format!("the tensors claim {total} bytes, the file has {file_len}");
            return Err(wrong(problem));
        }
        let (bias, delta) = (storages.rows(bias)?, storages.rows(weight)?);
        if bias.iter().chain(&delta).all(|x| *x == 0.0) {
            skipped.push(*index);
            continue;
        }
        if *index != LAST && usize::try_from(*index) != Ok(num_layers) {
            return Err(wrong(format!(
                "changes hidden state {index}, between two layers, where an adapter has no target; \
                 only {LAST} or {num_layers}, the output of the final norm, can be read"
            )));
        }
        let hidden = bias.len();
        patches.push(HostPatch {
            target: Target::FinalNorm,
            mode: Mode::Post,
            scale: 1.0,
            inputs: hidden,
            outputs: hidden,
            delta: Delta::Dense(delta),
            bias: Some(bias),
        });
    }
    if let Some(index) = (found.weights.keys()).find(|index| !found.biases.contains_key(index)) {
        let name = format!("bias_deltas.{index}");
        return Err(FolderError::tensor(path, &name, "is missing").into());
    }
    Ok(TorchAdapter {
        adapter: HostAdapter::new(patches)?,
        base_model: found.base_model,
        skipped,
    })
}

fn parse<'a>(path: &Path, bytes: &'a [u8]) -> Result<Pickle<'a>, AdapterError> {
    Ok(
        Pickle::parse(bytes).map_err(|source| CartridgeError::Pickle {
            path: path.to_owned(),
            source,
        })?,
    )
}

/// Finds the tensors in the pickle.
fn find(path: &Path, pickle: &Pickle) -> Result<Found, AdapterError> {
    let wrong = |problem: String| AdapterError::from(FolderError::file(path, problem));
    let Node::Dict(entries) = pickle.root() else {
        return Err(wrong("the pickled value is not a dict".to_owned()));
    };
    let mut found = Found::default();
    for (key, value) in entries {
        let name = pickle.text(*key).unwrap_or("(not text)");
        let one = |id: Id| match pickle.node(id) {
            Node::Tensor(tensor) => Ok((**tensor).clone()),
            _ => Err(FolderError::tensor(path, name, "is not a tensor")),
        };
        let many = || match pickle.node(*value) {
            Node::Dict(entries) => entries
                .iter()
                .map(|(index, tensor)| match pickle.node(*index) {
                    Node::Int(index) => Ok((*index, one(*tensor)?)),
                    _ => Err(FolderError::tensor(
                        path,
                        name,
                        "has a key that is no index",
                    )),
                })
                .collect(),
            _ => Err(FolderError::tensor(path, name, "is not a dict")),
        };
        match name {
            "bias_delta" => _ = found.biases.insert(LAST, one(*value)?),
            "weight_delta" => _ = found.weights.insert(LAST, one(*value)?),
            "bias_deltas" => found.biases = many()?,
            "weight_deltas" => found.weights = many()?,
            "model_name" => found.base_model = pickle.text(*value).map(str::to_owned),
            "tokenizer_name" | "lambda_scale" | "metadata" => {}
            other => {
                let other: String = other.chars().take(100).collect();
                return Err(wrong(format!("unknown key '{other}' in an adapter")));
            }
        }
    }
    Ok(found)
}

#[cfg(test)]
#[path = "torch_tests.rs"]
mod tests;
