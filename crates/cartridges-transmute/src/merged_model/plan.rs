//! Which tensors a merged model has, and where each comes from.

use std::collections::BTreeMap;

use cartridges_model::adapter::{Delta, HostAdapter, HostPatch, Mode, Target};
use cartridges_model::cartridge::CartridgeDtype;
use cartridges_model::decoder::ModelConfig;
use cartridges_model::weights::Weights;

use crate::error::TransmuteError;

const HEAD: &str = "lm_head.weight";
const EMBEDDING: &str = "model.embed_tokens.weight";

/// What is added to a tensor.
#[derive(Debug, Clone, Copy)]
pub(super) enum Change<'a> {
    Weight(&'a HostPatch),
    Bias(&'a HostPatch),
}

/// A tensor that is to be written.
#[derive(Debug)]
pub(super) struct Planned<'a> {
    /// Its name.
    pub(super) name: String,
    /// The tensor of the model that it begins with.
    pub(super) source: String,
    pub(super) shape: Vec<usize>,
    /// Its element type; `None` where it is copied as it is stored.
    pub(super) dtype: Option<CartridgeDtype>,
    /// The name of that type in safetensors.
    pub(super) dtype_name: String,
    pub(super) bytes: usize,
    pub(super) change: Option<Change<'a>>,
}

/// All tensors, those with wider elements first so that none is misaligned, and whether the output head
/// has become a tensor of its own.
///
/// # Errors
/// [`TransmuteError::Field`] if a patch cannot be added to weights.
pub(super) fn plan<'a>(
    weights: &Weights,
    config: &ModelConfig,
    adapter: &'a HostAdapter,
    dtype: Option<CartridgeDtype>,
) -> Result<(Vec<Planned<'a>>, bool), TransmuteError> {
    let mut changes = BTreeMap::new();
    for patch in adapter.patches() {
        check(patch, weights)?;
        if patch.delta != Delta::None {
            changes.insert(format!("{}.weight", patch.target), Change::Weight(patch));
        }
        if patch.bias.is_some() {
            changes.insert(format!("{}.bias", patch.target), Change::Bias(patch));
        }
    }
    let tied = config.tie_word_embeddings || weights.shape(HEAD).is_none();
    let untied = tied && changes.contains_key(HEAD);
    let stored = weights.names().map(|name| (name, name));
    // A tied head that is stored nevertheless is not what the model computes with.
    let stored = stored.filter(|(name, _)| !(untied && *name == HEAD));
    let head = untied.then_some((HEAD, EMBEDDING));
    let mut planned = Vec::new();
    for (name, source) in stored.chain(head) {
        planned.push(tensor(name, source, weights, dtype, changes.remove(name))?);
    }
    if let Some(name) = changes.keys().next() {
        let problem = format!("the model has no tensor {name}");
        return Err(TransmuteError::field("the adapter", problem));
    }
    let width = |t: &Planned<'_>| t.bytes / t.shape.iter().product::<usize>().max(1);
    planned.sort_by(|a, b| width(b).cmp(&width(a)).then_with(|| a.name.cmp(&b.name)));
    Ok((planned, untied))
}

fn tensor<'a>(
    name: &str,
    source: &str,
    weights: &Weights,
    dtype: Option<CartridgeDtype>,
    change: Option<Change<'a>>,
) -> Result<Planned<'a>, TransmuteError> {
    let found = (
        weights.shape(source),
        weights.dtype_name(source),
        weights.stored_bytes(source),
    );
    let (Some(shape), Some(stored), Some(stored_bytes)) = found else {
        let problem = format!("has no tensor {source}");
        return Err(TransmuteError::field("the model", problem));
    };
    let known = match stored {
        "F32" => Some(CartridgeDtype::F32),
        "F16" => Some(CartridgeDtype::F16),
        "BF16" => Some(CartridgeDtype::Bf16),
        _ => None,
    };
    // What is not a number of one of these types is a mask or a counter: it stays as it is.
    let wanted = known.map(|known| dtype.unwrap_or(known));
    if change.is_some() && wanted.is_none() {
        let problem = format!("keeps {source} as {stored}, to which no delta can be added");
        return Err(TransmuteError::field("the model", problem));
    }
    let rewritten = wanted.filter(|_| change.is_some() || wanted != known);
    Ok(Planned {
        name: name.to_owned(),
        source: source.to_owned(),
        shape: shape.to_vec(),
        dtype_name: match rewritten {
            Some(dtype) => dtype.safetensors_name().to_owned(),
            None => stored.to_owned(),
        },
        bytes: match rewritten {
            Some(dtype) => shape.iter().product::<usize>() * dtype.size(),
            None => stored_bytes,
        },
        dtype: rewritten,
        change,
    })
}

fn check(patch: &HostPatch, weights: &Weights) -> Result<(), TransmuteError> {
    let wrong = |problem: &str| {
        let problem = format!("{} {problem}", patch.target);
        Err(TransmuteError::field("the patch at", problem))
    };
    if patch.mode != Mode::Linear || patch.target == Target::FinalNorm {
        return wrong(
            "has mode post, which acts behind a map and cannot be added to its weights; keep the adapter \
             beside the model",
        );
    }
    let name = format!("{}.bias", patch.target);
    if patch.bias.is_some() && weights.shape(&name).is_none() {
        return wrong(
            "has a bias, and the model has none there to add it to; solve the adapter without intercept, \
             or keep it beside the model",
        );
    }
    Ok(())
}
