//! The CARTRIDGE adapter of Hugging Face's PEFT (since version 0.19).
//!
//! One tensor `prompt_embeddings [slots, layers · 2 · kv_heads · head_dim]`: per slot the key of layer 0,
//! its value, the key of layer 1, and so on, frozen slots first. PEFT hands it to the model as
//! `past_key_values`, so keys are stored after rope, at positions `0 .. slots`, and the tokens of a
//! request follow from position `slots`: as they are here.

use std::path::Path;

use serde_json::json;

use super::dtype::CartridgeDtype;
use super::error::CartridgeError;
use super::host::{HostCartridge, HostLayer};
use crate::peft_folder::{self, PeftFolder, short};
use crate::tensor_folder::{FolderError, NamedTensor};

const PEFT_TYPE: &str = "CARTRIDGE";
const TENSOR: &str = "prompt_embeddings";

/// A cartridge as PEFT keeps it.
#[derive(Debug, Clone, PartialEq)]
pub struct PeftCartridge {
    /// The cartridge.
    pub cartridge: HostCartridge,
    /// The model that the folder names, if it names one.
    pub base_model: Option<String>,
    /// Element type of the tensor file.
    pub dtype: CartridgeDtype,
}

/// Saves a cartridge as a folder that `PeftModel.from_pretrained` loads. `base_model` is the model's
/// hub id or folder.
///
/// # Errors
/// If an element is not finite in `dtype`, or writing fails.
pub fn write_peft(
    folder: &Path,
    cartridge: &HostCartridge,
    base_model: Option<&str>,
    dtype: CartridgeDtype,
) -> Result<(), CartridgeError> {
    cartridge.validate_as(dtype)?;
    let (layers, slots) = (cartridge.layers.len(), cartridge.slots);
    let width = cartridge.kv_heads * cartridge.head_dim;
    let settings = json!({
        "auto_mapping": null,
        "base_model_name_or_path": base_model,
        "inference_mode": true,
        "num_attention_heads": cartridge.kv_heads,
        "num_frozen_tokens": cartridge.frozen,
        "num_layers": layers,
        "num_transformer_submodules": 1,
        "num_virtual_tokens": slots,
        "peft_type": PEFT_TYPE,
        "revision": null,
        "task_type": "CAUSAL_LM",
        "token_dim": width,
    });
    let mut values = Vec::with_capacity(slots * layers * 2 * width);
    for slot in 0..slots {
        for layer in &cartridge.layers {
            for part in [&layer.key, &layer.value] {
                for head in part.chunks_exact(slots * cartridge.head_dim) {
                    let from = slot * cartridge.head_dim;
                    values.extend(&head[from..from + cartridge.head_dim]);
                }
            }
        }
    }
    let tensor = NamedTensor {
        name: TENSOR.to_owned(),
        shape: vec![slots, layers * 2 * width],
        values: &values,
    };
    Ok(peft_folder::write(folder, &settings, &[tensor], dtype)?)
}

/// Reads a cartridge from a folder that PEFT saved.
///
/// # Errors
/// If a file is missing or damaged, or the settings and the tensor do not agree.
pub fn read_peft(folder: &Path) -> Result<PeftCartridge, CartridgeError> {
    let mut files = PeftFolder::read(folder, PEFT_TYPE)?;
    let settings = &files.settings;
    let slots = settings.size("num_virtual_tokens")?;
    let layers = settings.size("num_layers")?;
    let kv_heads = settings.size("num_attention_heads")?;
    let width = settings.size("token_dim")?;
    let frozen = settings.count("num_frozen_tokens")?.unwrap_or(1);
    if let Some(count) = settings.get("num_transformer_submodules")
        && count.as_u64() != Some(1)
    {
        let problem = format!("{}, expected 1: a decoder", short(count));
        return Err(settings.wrong("num_transformer_submodules", problem).into());
    }
    if width % kv_heads != 0 {
        let problem = format!("{width}, expected a multiple of the {kv_heads} key/value heads");
        return Err(settings.wrong("token_dim", problem).into());
    }
    let path = &files.tensor_path;
    let (shape, values) = (files.stored.tensors.remove(TENSOR))
        .ok_or_else(|| FolderError::tensor(path, TENSOR, "is missing"))?;
    let row = layers.checked_mul(2).and_then(|n| n.checked_mul(width));
    let expected = row.map(|row| [slots, row]);
    if Some(shape.as_slice()) != expected.as_ref().map(<[usize; 2]>::as_slice) {
        let problem = format!(
            "has shape {shape:?}, the settings say [{slots}, {layers} layers · 2 · {width}]"
        );
        return Err(FolderError::tensor(path, TENSOR, problem).into());
    }
    files.nothing_left("a cartridge")?;

    // From here on every size is covered by the file's length.
    let (row, head_dim) = (layers * 2 * width, width / kv_heads);
    let part = |number: usize| -> Vec<f32> {
        let at = |head: usize, slot: usize| slot * row + number * width + head * head_dim;
        (0..kv_heads)
            .flat_map(|head| (0..slots).map(move |slot| at(head, slot)))
            .flat_map(|from| &values[from..from + head_dim])
            .copied()
            .collect()
    };
    let layers = (0..layers)
        .map(|layer| HostLayer {
            key: part(2 * layer),
            value: part(2 * layer + 1),
        })
        .collect();
    let cartridge = HostCartridge::new(kv_heads, head_dim, slots, frozen, layers)
        .map_err(|e| e.in_file(path))?;
    Ok(PeftCartridge {
        cartridge,
        base_model: files.base_model()?,
        dtype: files.stored.dtype,
    })
}

#[cfg(test)]
#[path = "peft_tests.rs"]
mod tests;
