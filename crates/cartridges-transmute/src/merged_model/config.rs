//! What stands beside the weights: the model's config, tokenizer and other settings.

use std::fs;
use std::io::Read;
use std::path::Path;

use cartridges_model::atomic_file::{write_atomic, write_bytes};
use cartridges_model::cartridge::CartridgeDtype;
use serde_json::{Map, Value, json};

use crate::error::TransmuteError;

const CONFIG: &str = "config.json";
/// Settings, not data.
const MOST_CONFIG: u64 = 4 << 20;
/// A tokenizer of 250 000 words has 35 MB.
const MOST_FILE: u64 = 256 << 20;
/// Weights in one form or another.
const WEIGHTS: [&str; 10] = [
    "safetensors",
    "bin",
    "pt",
    "pth",
    "ckpt",
    "gguf",
    "ggml",
    "h5",
    "msgpack",
    "onnx",
];

/// The settings of the model in `folder`.
///
/// # Errors
/// [`TransmuteError::File`] if they are no JSON object, or say that the weights are quantised.
pub(super) fn read(folder: &Path) -> Result<Map<String, Value>, TransmuteError> {
    let path = folder.join(CONFIG);
    let failed = |source| TransmuteError::Read {
        path: path.clone(),
        source,
    };
    let file = fs::File::open(&path).map_err(failed)?;
    let mut text = Vec::new();
    file.take(MOST_CONFIG)
        .read_to_end(&mut text)
        .map_err(failed)?;
    let config: Map<String, Value> =
        serde_json::from_slice(&text).map_err(|e| TransmuteError::file(&path, e.to_string()))?;
    if config
        .get("quantization_config")
        .is_some_and(|q| !q.is_null())
    {
        let problem = "says that the weights are quantised, and a delta cannot be added to such weights; \
                       name the model it was quantised from, or keep the adapter beside the model";
        return Err(TransmuteError::file(&path, problem));
    }
    Ok(config)
}

/// Writes the settings, for weights of another type and an output head of its own where that is so.
pub(super) fn write(
    folder: &Path,
    mut config: Map<String, Value>,
    dtype: Option<CartridgeDtype>,
    untied: bool,
) -> Result<(), TransmuteError> {
    if let Some(dtype) = dtype {
        let name = match dtype {
            CartridgeDtype::F32 => "float32",
            CartridgeDtype::F16 => "float16",
            CartridgeDtype::Bf16 => "bfloat16",
        };
        // The name that newer versions of transformers read, and the one that all do.
        let mut named = false;
        for field in ["dtype", "torch_dtype"] {
            if let Some(value) = config.get_mut(field) {
                *value = json!(name);
                named = true;
            }
        }
        if !named {
            config.insert("torch_dtype".to_owned(), json!(name));
        }
    }
    if untied {
        config.insert("tie_word_embeddings".to_owned(), json!(false));
    }
    let path = folder.join(CONFIG);
    let mut text = serde_json::to_vec_pretty(&config)
        .map_err(|e| TransmuteError::file(&path, e.to_string()))?;
    text.push(b'\n');
    Ok(write_bytes(&path, &text)?)
}

/// Copies tokenizer, chat template, licence and whatever else there is, but for weights and the text about
/// the model, which is another now.
pub(super) fn copy_rest(from: &Path, to: &Path) -> Result<(), TransmuteError> {
    let failed = |path: &Path| {
        let path = path.to_owned();
        move |source| TransmuteError::Read { path, source }
    };
    for entry in fs::read_dir(from).map_err(failed(from))? {
        let path = entry.map_err(failed(from))?.path();
        let Some(name) = path.file_name().and_then(|name| name.to_str()) else {
            continue;
        };
        let end = name.rsplit_once('.').map_or("", |(_, end)| end);
        let skipped = WEIGHTS.contains(&end)
            || name.starts_with('.')
            || name.ends_with(".index.json")
            || [CONFIG, "README.md"].contains(&name);
        let about = fs::metadata(&path).map_err(failed(&path))?;
        if skipped || !about.is_file() || about.len() > MOST_FILE {
            continue;
        }
        let mut file = fs::File::open(&path).map_err(failed(&path))?;
        write_atomic(&to.join(name), |w| std::io::copy(&mut file, w).map(drop))?;
    }
    Ok(())
}
