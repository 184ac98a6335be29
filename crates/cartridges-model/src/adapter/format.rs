//! The adapter folder: `adapter.safetensors` (per patch `TARGET.lora_a [rank, in]`,
//! `TARGET.lora_b [out, rank]` or `TARGET.delta [out, in]`, and `TARGET.bias_delta [out]`) and
//! `adapter.json` ([`AdapterManifest`]).

use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::error::AdapterError;
use super::host::{Delta, HostAdapter, HostPatch, Mode};
use super::target::Target;
use crate::cartridge::{CartridgeDtype, ModelIdentity};
use crate::digest::is_sha256;
use crate::tensor_folder::{self, FolderError, Manifest, NamedTensor, StoredTensors};

/// Name of the tensor file in an adapter folder.
pub const ADAPTER_FILE: &str = "adapter.safetensors";
/// Name of the manifest in an adapter folder.
pub const ADAPTER_MANIFEST_FILE: &str = "adapter.json";

/// The only format version there is so far.
const FORMAT_VERSION: u32 = 1;

/// The content of `adapter.json`.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AdapterManifest {
    /// 1.
    pub format_version: u32,
    /// The model it was made for.
    pub base_model: ModelIdentity,
    /// What there is at each target, in the order of the targets.
    pub patches: Vec<PatchRecord>,
    /// Element type of the tensor file.
    pub dtype: CartridgeDtype,
    /// How it was made: program version, data, settings.
    pub made_by: Value,
    /// SHA-256 of the whole tensor file, 64 lower-case hexadecimal digits.
    pub sha256: String,
}

/// The settings of one patch.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct PatchRecord {
    /// Where.
    pub target: Target,
    /// With what the delta is multiplied.
    pub mode: Mode,
    /// Multiplies delta and bias.
    pub scale: f32,
    /// Width of what the delta is multiplied with.
    pub inputs: usize,
    /// Width of the target's output.
    pub outputs: usize,
}

impl AdapterManifest {
    /// Checks that the adapter was made for `model`; see
    /// [`CartridgeManifest::check`](crate::cartridge::CartridgeManifest::check).
    ///
    /// # Errors
    /// [`AdapterError::OtherModel`] with every property that differs.
    pub fn check(
        &self,
        model: &ModelIdentity,
        allow_other_weights: bool,
    ) -> Result<(), AdapterError> {
        let checked = self.base_model.check("adapter", model, allow_other_weights);
        checked.map_err(|error| AdapterError::OtherModel(Box::new(error)))
    }
}

impl Manifest for AdapterManifest {
    type Error = AdapterError;
    const FILES: [&'static str; 2] = [ADAPTER_FILE, ADAPTER_MANIFEST_FILE];

    fn sha256(&self) -> &str {
        &self.sha256
    }

    fn validate(&self, path: &Path) -> Result<(), AdapterError> {
        if self.format_version != FORMAT_VERSION {
            let found = self.format_version;
            let problem = format!("is {found}, this program reads version {FORMAT_VERSION}");
            return Err(AdapterError::field(path, "format_version", problem));
        }
        if !is_sha256(&self.sha256) {
            let problem = "is not 64 lower-case hexadecimal digits";
            return Err(AdapterError::field(path, "sha256", problem));
        }
        Ok(())
    }
}

/// Saves an adapter into the folder `dir`, which is made if it is missing.
///
/// # Errors
/// If writing fails or a value is not finite in `dtype`; an older adapter in `dir` then stays as it was.
pub fn save_adapter(
    dir: &Path,
    adapter: &HostAdapter,
    model: &ModelIdentity,
    made_by: &Value,
    dtype: CartridgeDtype,
) -> Result<AdapterManifest, AdapterError> {
    let mut tensors = Vec::new();
    for patch in adapter.patches() {
        let mut add = |part: &str, shape: &[usize], values| {
            tensors.push(NamedTensor {
                name: format!("{}.{part}", patch.target),
                shape: shape.to_vec(),
                values,
            });
        };
        match &patch.delta {
            Delta::None => {}
            Delta::LowRank { rank, a, b } => {
                add("lora_a", &[*rank, patch.inputs], a.as_slice());
                add("lora_b", &[patch.outputs, *rank], b.as_slice());
            }
            Delta::Dense(delta) => add("delta", &[patch.outputs, patch.inputs], delta.as_slice()),
        }
        if let Some(bias) = &patch.bias {
            add("bias_delta", &[patch.outputs], bias.as_slice());
        }
        let mut values = patch.parts().into_iter().flatten();
        if let Some(value) = values.find(|x| !dtype.round(**x).is_finite()) {
            let problem = format!("holds {value}, which is no finite {dtype}");
            return Err(AdapterError::patch(patch.target, problem));
        }
    }
    let record = |patch: &HostPatch| PatchRecord {
        target: patch.target,
        mode: patch.mode,
        scale: patch.scale,
        inputs: patch.inputs,
        outputs: patch.outputs,
    };
    tensor_folder::save(dir, &tensors, dtype, |sha256| AdapterManifest {
        format_version: FORMAT_VERSION,
        base_model: model.clone(),
        patches: adapter.patches().iter().map(record).collect(),
        dtype,
        made_by: made_by.clone(),
        sha256,
    })
}

/// Loads an adapter from its folder, or from the path of either file in it.
///
/// # Errors
/// If a file is missing, is damaged, or does not agree with the other; see [`AdapterError`].
pub fn load_adapter(path: &Path) -> Result<(HostAdapter, AdapterManifest), AdapterError> {
    let (mut stored, manifest) = tensor_folder::load::<AdapterManifest>(path)?;
    let file = tensor_folder::tensor_path::<AdapterManifest>(path)?;
    if stored.dtype != manifest.dtype {
        let (found, said) = (stored.dtype, manifest.dtype);
        let problem = format!("holds {found}, the manifest says {said}");
        return Err(FolderError::file(&file, problem).into());
    }
    let patches = manifest
        .patches
        .iter()
        .map(|record| patch(record, &mut stored, &file))
        .collect::<Result<_, FolderError>>()?;
    if let Some(name) = stored.tensors.keys().min() {
        let problem = "belongs to no patch of the manifest";
        return Err(FolderError::tensor(&file, name, problem).into());
    }
    Ok((HostAdapter::new(patches)?, manifest))
}

/// Reads only the manifest: from the folder, or from the path of either file in it. The tensors are
/// not looked at, so their hash is not checked.
///
/// # Errors
/// If the manifest is missing or not valid.
pub fn load_adapter_manifest(path: &Path) -> Result<AdapterManifest, AdapterError> {
    tensor_folder::load_manifest(path)
}

fn patch(
    record: &PatchRecord,
    stored: &mut StoredTensors,
    file: &Path,
) -> Result<HostPatch, FolderError> {
    let (inputs, outputs) = (record.inputs, record.outputs);
    let name = |part: &str| format!("{}.{part}", record.target);
    let mut take = |part: &str, dims: usize| match stored.tensors.remove(&name(part)) {
        Some((shape, values)) if shape.len() == dims => Ok(Some((shape, values))),
        Some((shape, _)) => {
            let problem = format!("has shape {shape:?}, expected {dims} dimensions");
            Err(FolderError::tensor(file, &name(part), problem))
        }
        None => Ok(None),
    };
    let (a, b) = (take("lora_a", 2)?, take("lora_b", 2)?);
    let (dense, bias) = (take("delta", 2)?, take("bias_delta", 1)?);
    let wrong = |part: &str, found: &[usize], expected: &[usize]| {
        let problem = format!("has shape {found:?}, the manifest says {expected:?}");
        Err(FolderError::tensor(file, &name(part), problem))
    };
    let delta = match (a, b, dense) {
        (None, None, None) => Delta::None,
        (Some((a_shape, a)), Some((b_shape, b)), None) => {
            let rank = a_shape[0];
            if a_shape != [rank, inputs] {
                return wrong("lora_a", &a_shape, &[rank, inputs]);
            }
            if b_shape != [outputs, rank] {
                return wrong("lora_b", &b_shape, &[outputs, rank]);
            }
            Delta::LowRank { rank, a, b }
        }
        (None, None, Some((shape, delta))) => {
            if shape != [outputs, inputs] {
                return wrong("delta", &shape, &[outputs, inputs]);
            }
            Delta::Dense(delta)
        }
        _ => {
            let problem = "is half of a delta: lora_a and lora_b, or delta alone, were expected";
            return Err(FolderError::tensor(file, &name("*"), problem));
        }
    };
    Ok(HostPatch {
        target: record.target,
        mode: record.mode,
        scale: record.scale,
        inputs,
        outputs,
        delta,
        bias: bias.map(|(_, values)| values),
    })
}
