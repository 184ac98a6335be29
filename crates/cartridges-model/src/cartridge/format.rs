//! The cartridge folder: `cartridge.safetensors` (`layers.{i}.key`, `layers.{i}.value`, each
//! `[kv_heads, slots, head_dim]`, frozen slots first) and `cartridge.json` ([`CartridgeManifest`]).

use std::path::Path;

use serde_json::Value;

use super::dtype::CartridgeDtype;
use super::error::{CartridgeError, Part};
use super::host::{HostCartridge, HostLayer};
use super::manifest::{CartridgeManifest, FORMAT_VERSION, ModelIdentity};
use crate::tensor_folder::{self, Manifest, NamedTensor, StoredTensors};

/// Name of the tensor file in a cartridge folder.
pub const TENSOR_FILE: &str = "cartridge.safetensors";
/// Name of the manifest in a cartridge folder.
pub const MANIFEST_FILE: &str = "cartridge.json";

/// Saves a cartridge into the folder `dir`, which is made if it is missing. `made_by` says how it was
/// made: program version, stage, config, data set hash, steps, unix time, and whatever else helps.
///
/// # Errors
/// If the cartridge does not have the shape of `model`, an element is not finite in `dtype`, or
/// writing fails; an older cartridge in `dir` then stays as it was.
pub fn save(
    dir: &Path,
    cartridge: &HostCartridge,
    model: &ModelIdentity,
    made_by: &Value,
    dtype: CartridgeDtype,
) -> Result<CartridgeManifest, CartridgeError> {
    cartridge.validate_as(dtype)?;
    model.check_shape(cartridge)?;
    let shape = [cartridge.kv_heads, cartridge.slots, cartridge.head_dim];
    let named = |layer: usize, part: Part, values| NamedTensor {
        name: tensor_name(layer, part),
        shape: shape.to_vec(),
        values,
    };
    let layers = cartridge.layers.iter().enumerate();
    let tensors: Vec<NamedTensor<'_>> = layers
        .flat_map(|(i, layer)| {
            [
                named(i, Part::Key, layer.key.as_slice()),
                named(i, Part::Value, layer.value.as_slice()),
            ]
        })
        .collect();
    tensor_folder::save(dir, &tensors, dtype, |sha256| CartridgeManifest {
        format_version: FORMAT_VERSION,
        base_model: model.clone(),
        slots: cartridge.slots,
        frozen: cartridge.frozen,
        dtype,
        made_by: made_by.clone(),
        sha256,
    })
}

/// Loads a cartridge from its folder, or from the path of either file in it.
///
/// # Errors
/// If a file is missing, is damaged, or does not agree with the other; see [`CartridgeError`].
pub fn load(path: &Path) -> Result<(HostCartridge, CartridgeManifest), CartridgeError> {
    let (stored, manifest) = tensor_folder::load::<CartridgeManifest>(path)?;
    let file = tensor_folder::tensor_path::<CartridgeManifest>(path)?;
    let cartridge = assemble(stored, &manifest, &file)?;
    Ok((cartridge, manifest))
}

/// Reads only the manifest: from the folder, or from the path of either file in it. The tensors are
/// not looked at, so their hash is not checked.
///
/// # Errors
/// If the manifest is missing or not valid.
pub fn load_manifest(path: &Path) -> Result<CartridgeManifest, CartridgeError> {
    tensor_folder::load_manifest(path)
}

impl Manifest for CartridgeManifest {
    type Error = CartridgeError;
    const FILES: [&'static str; 2] = [TENSOR_FILE, MANIFEST_FILE];

    fn sha256(&self) -> &str {
        &self.sha256
    }

    fn validate(&self, path: &Path) -> Result<(), CartridgeError> {
        self.validate_fields(path)
    }
}

/// Puts the layers together and checks that the file holds exactly what the manifest says.
fn assemble(
    mut stored: StoredTensors,
    manifest: &CartridgeManifest,
    path: &Path,
) -> Result<HostCartridge, CartridgeError> {
    let model = &manifest.base_model;
    if stored.dtype != manifest.dtype {
        let problem = format!(
            "holds {}, the manifest says {}",
            stored.dtype, manifest.dtype
        );
        return Err(CartridgeError::file(path, problem));
    }
    let shape = [model.num_kv_heads, manifest.slots, model.head_dim];
    let mut take = |name: String| {
        let (found, values) = (stored.tensors.remove(&name))
            .ok_or_else(|| CartridgeError::tensor(path, &name, "is missing"))?;
        if found != shape {
            let problem = format!("has shape {found:?}, the manifest says {shape:?}");
            return Err(CartridgeError::tensor(path, &name, problem));
        }
        Ok(values)
    };
    let mut layers = Vec::new();
    for layer in 0..model.num_layers {
        layers.push(HostLayer {
            key: take(tensor_name(layer, Part::Key))?,
            value: take(tensor_name(layer, Part::Value))?,
        });
    }
    if let Some(name) = stored.tensors.keys().min() {
        let problem = format!("is not part of a cartridge of {} layers", model.num_layers);
        return Err(CartridgeError::tensor(path, name, problem));
    }
    let [kv_heads, slots, head_dim] = shape;
    HostCartridge::new(kv_heads, head_dim, slots, manifest.frozen, layers)
        .map_err(|e| e.in_file(path))
}

fn tensor_name(layer: usize, part: Part) -> String {
    format!("layers.{layer}.{part}")
}

#[cfg(test)]
#[path = "format_tests.rs"]
mod tests;
