//! The LoRA adapter of Hugging Face's PEFT: `base_model.model.TARGET.lora_A.weight [rank, in]` and
//! `.lora_B.weight [out, rank]`, added beside the target's linear map (arXiv 2106.09685).
//!
//! What is written has one rank everywhere, padded with zeros where it is smaller, `lora_alpha` equal to
//! it and the scales folded into B: this is what inference servers take.

use std::collections::BTreeSet;
use std::path::Path;

use serde_json::json;

use super::error::AdapterError;
use super::host::{Delta, HostAdapter, HostPatch, Mode};
use super::lora_settings::LoraSettings;
use super::target::{Site, Target};
use crate::cartridge::{CartridgeDtype, ModelIdentity};
use crate::peft_folder::{self, PeftFolder};
use crate::tensor_folder::{FolderError, NamedTensor, StoredTensors};

const PEFT_TYPE: &str = "LORA";
const PREFIX: &str = "base_model.model.";
const A: &str = ".lora_A.weight";
const B: &str = ".lora_B.weight";
const BIAS: &str = ".lora_B.bias";

/// Padding to one rank may take this many times what there is, or [`SMALL`].
const MOST_PADDING: usize = 16;
/// Bytes that are never too many.
const SMALL: usize = 1 << 30;

/// An adapter as PEFT keeps it.
#[derive(Debug, Clone, PartialEq)]
pub struct LoraAdapter {
    /// The adapter.
    pub adapter: HostAdapter,
    /// The model that the folder names, if it names one.
    pub base_model: Option<String>,
    /// Element type of the tensor file.
    pub dtype: CartridgeDtype,
}

/// Saves an adapter for `model` as a folder that `PeftModel.from_pretrained` loads. A dense delta becomes
/// one of full rank, which is exact.
///
/// # Errors
/// If a patch is not linear or has a bias (see [`HostPatch::absorb_bias`]), the ranks are so different
/// that padding them to one is no use, a value is not finite in `dtype`, or writing fails.
pub fn write_lora(
    folder: &Path,
    adapter: &HostAdapter,
    model: &ModelIdentity,
    dtype: CartridgeDtype,
) -> Result<(), AdapterError> {
    let patches = adapter.patches();
    patches.iter().try_for_each(exportable)?;
    let rank = patches.iter().map(rank).max().unwrap_or(0);
    let (mut needed, mut padded) = (0usize, 0usize);
    for patch in patches {
        let width = patch.inputs.saturating_add(patch.outputs);
        needed = needed.saturating_add(width.saturating_mul(self::rank(patch)));
        padded = padded.saturating_add(width.saturating_mul(rank));
    }
    let bytes = padded.saturating_mul(size_of::<f32>());
    if bytes > SMALL && padded / MOST_PADDING > needed {
        return Err(AdapterError::Ranks { rank, bytes });
    }
    let mut parts = Vec::with_capacity(2 * patches.len());
    for patch in patches {
        let (a, b) = factors(patch, rank);
        let mut values = a.iter().chain(&b);
        if let Some(value) = values.find(|x| !dtype.round(**x).is_finite()) {
            let problem = format!("holds {value} with its scale, which is no finite {dtype}");
            return Err(AdapterError::patch(patch.target, problem));
        }
        parts.push((
            format!("{PREFIX}{}{A}", patch.target),
            [rank, patch.inputs],
            a,
        ));
        parts.push((
            format!("{PREFIX}{}{B}", patch.target),
            [patch.outputs, rank],
            b,
        ));
    }
    let tensors: Vec<NamedTensor<'_>> = parts
        .iter()
        .map(|(name, shape, values)| NamedTensor {
            name: name.clone(),
            shape: shape.to_vec(),
            values,
        })
        .collect();
    let settings = json!({
        "alpha_pattern": {},
        "auto_mapping": null,
        "base_model_name_or_path": model.id,
        "bias": "none",
        "fan_in_fan_out": false,
        "inference_mode": true,
        "init_lora_weights": true,
        "lora_alpha": rank,
        "lora_bias": false,
        "lora_dropout": 0.0,
        "modules_to_save": null,
        "peft_type": PEFT_TYPE,
        "r": rank,
        "rank_pattern": {},
        "revision": null,
        "target_modules": target_modules(adapter, model.num_layers),
        "task_type": "CAUSAL_LM",
        "use_dora": false,
        "use_rslora": false,
    });
    Ok(peft_folder::write(folder, &settings, &tensors, dtype)?)
}

/// Reads an adapter from a folder that PEFT saved.
///
/// # Errors
/// If a file is missing or damaged, they do not agree, a target is no place of our decoders, or the
/// adapter needs something beside deltas and biases, such as DoRA.
pub fn read_lora(folder: &Path) -> Result<LoraAdapter, AdapterError> {
    let mut files = PeftFolder::read(folder, PEFT_TYPE)?;
    let settings = LoraSettings::read(&files.settings)?;
    let names: BTreeSet<String> = (files.stored.tensors.keys())
        .filter_map(|name| name.strip_suffix(A).map(str::to_owned))
        .collect();
    let mut patches = Vec::with_capacity(names.len());
    for name in names {
        let path = name.strip_prefix(PREFIX).unwrap_or(&name);
        let target: Target = path.parse()?;
        let scaling = |rank| settings.scale(path, rank, &files.settings);
        let patch = read_patch(
            &name,
            target,
            &mut files.stored,
            &files.tensor_path,
            scaling,
        )?;
        patches.push(patch);
    }
    files.nothing_left("a LoRA adapter of lora_A and lora_B")?;
    Ok(LoraAdapter {
        adapter: HostAdapter::new(patches)?,
        base_model: files.base_model()?,
        dtype: files.stored.dtype,
    })
}

fn read_patch(
    name: &str,
    target: Target,
    stored: &mut StoredTensors,
    file: &Path,
    scale: impl FnOnce(usize) -> Result<f32, FolderError>,
) -> Result<HostPatch, AdapterError> {
    let mut take = |suffix: &str| stored.tensors.remove(&format!("{name}{suffix}"));
    let wrong = |suffix: &str, problem: String| {
        FolderError::tensor(file, &format!("{name}{suffix}"), problem)
    };
    let missing = |suffix: &str| wrong(suffix, "is missing".to_owned());
    let (a_shape, a) = take(A).ok_or_else(|| missing(A))?;
    let (b_shape, b) = take(B).ok_or_else(|| missing(B))?;
    let bias = take(BIAS);
    let [rank, _] = a_shape[..] else {
        let problem = format!("has shape {a_shape:?}, expected [rank, in]");
        return Err(wrong(A, problem).into());
    };
    let outputs = match b_shape[..] {
        [outputs, columns] if columns == rank => outputs,
        _ => {
            let problem = format!("has shape {b_shape:?}, expected [out, {rank}]");
            return Err(wrong(B, problem).into());
        }
    };
    if rank == 0 {
        return Err(AdapterError::patch(target, "has rank 0"));
    }
    if let Some((shape, _)) = &bias
        && shape[..] != [outputs]
    {
        let problem = format!("has shape {shape:?}, expected [{outputs}]");
        return Err(wrong(BIAS, problem).into());
    }
    Ok(HostPatch {
        scale: scale(rank)?,
        bias: bias.map(|(_, values)| values),
        ..HostPatch::low_rank(target, rank, a, b)
    })
}

/// Checks that LoRA can say what a patch does.
fn exportable(patch: &HostPatch) -> Result<(), AdapterError> {
    let wrong = |problem: &str| Err(AdapterError::patch(patch.target, problem));
    if patch.mode != Mode::Linear {
        return wrong("has mode post, which LoRA cannot say; only mode linear can be exported");
    }
    if patch.bias.iter().flatten().any(|x| *x != 0.0) {
        return wrong(
            "has a bias, which LoRA cannot hold; solve without an intercept, or absorb it into a rank",
        );
    }
    if patch.delta == Delta::None {
        return wrong("has no weight delta, which LoRA needs");
    }
    Ok(())
}

fn rank(patch: &HostPatch) -> usize {
    match &patch.delta {
        Delta::None => 0,
        Delta::LowRank { rank, .. } => *rank,
        Delta::Dense(_) => patch.inputs.min(patch.outputs),
    }
}

/// `a [rank, in]` and `b [out, rank]` with the scale in `b`; rows and columns beyond the own rank are zero.
fn factors(patch: &HostPatch, rank: usize) -> (Vec<f32>, Vec<f32>) {
    let (inputs, outputs) = (patch.inputs, patch.outputs);
    let (mut a, mut b) = (vec![0.0; rank * inputs], vec![0.0; outputs * rank]);
    let mut fill = |own: usize, own_a: &[f32], own_b: &[f32]| {
        a[..own_a.len()].copy_from_slice(own_a);
        for (row, own_row) in b.chunks_exact_mut(rank).zip(own_b.chunks_exact(own)) {
            let scaled = own_row.iter().map(|x| x * patch.scale);
            row.iter_mut().zip(scaled).for_each(|(x, y)| *x = y);
        }
    };
    match &patch.delta {
        Delta::None => {}
        Delta::LowRank { rank, a, b } => fill(*rank, a, b),
        Delta::Dense(delta) if inputs <= outputs => fill(inputs, &identity(inputs), delta),
        Delta::Dense(delta) => fill(outputs, delta, &identity(outputs)),
    }
    (a, b)
}

fn identity(n: usize) -> Vec<f32> {
    let mut values = vec![0.0; n * n];
    (0..n).for_each(|i| values[i * n + i] = 1.0);
    values
}

/// Names as short as they can be: the last word of a site where every layer has it, else whole paths.
fn target_modules(adapter: &HostAdapter, num_layers: usize) -> Vec<String> {
    let targets: BTreeSet<Target> = adapter.patches().iter().map(|p| p.target).collect();
    let everywhere =
        |site: Site| (0..num_layers).all(|layer| targets.contains(&Target::Layer { layer, site }));
    let names = targets.iter().map(|target| match target {
        Target::Layer { site, .. } if everywhere(*site) => {
            let path = site.path();
            path.rsplit('.').next().unwrap_or(path).to_owned()
        }
        other => other.to_string(),
    });
    // A set: one name stands for many targets.
    names.collect::<BTreeSet<_>>().into_iter().collect()
}

#[cfg(test)]
#[path = "lora_tests.rs"]
mod tests;
