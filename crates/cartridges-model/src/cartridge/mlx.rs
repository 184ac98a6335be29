//! A prompt cache of Apple's `mlx_lm`, which its command line and its server start from.
//!
//! The layout is that of `mlx_lm.models.cache.save_prompt_cache` since version 0.32: per layer `{i}.0` and
//! `{i}.1`, keys after rope and values, `[1, kv_heads, slots, head_dim]`, and `{i}.2`, the number of
//! slots. Nested lists stand in the metadata under their paths: `0` what is said about the cache, `1` the
//! class of each layer, `2` which arrays are plain numbers. Older versions keep the number of slots
//! elsewhere and cannot read it.

use std::path::Path;

use serde_json::{Map, Value, json};

use super::dtype::CartridgeDtype;
use super::error::CartridgeError;
use super::host::HostCartridge;
use crate::atomic_file::write_atomic;

/// Bytes of an `i32`.
const NUMBER: usize = 4;

/// Saves a cartridge as a prompt cache. `base_model` is said in its metadata, as `mlx_lm` says it.
///
/// # Errors
/// If an element is not finite in `dtype`, there are more than 2³¹ slots, or writing fails; an older file
/// then stays as it was.
pub fn write_mlx(
    path: &Path,
    cartridge: &HostCartridge,
    base_model: Option<&str>,
    dtype: CartridgeDtype,
) -> Result<(), CartridgeError> {
    cartridge.validate_as(dtype)?;
    let slots = i32::try_from(cartridge.slots)
        .map_err(|_| CartridgeError::shape("slots", "is more than a prompt cache can count"))?;
    let mut head = serde_json::to_vec(&header(cartridge, base_model, dtype))
        .map_err(|e| CartridgeError::file(path, e.to_string()))?;
    head.resize(head.len().next_multiple_of(8), b' ');
    write_atomic(path, |w| {
        w.write_all(&(head.len() as u64).to_le_bytes())?;
        w.write_all(&head)?;
        let mut bytes = Vec::new();
        for layer in &cartridge.layers {
            for part in [&layer.key, &layer.value] {
                bytes.clear();
                dtype.encode(part, &mut bytes);
                w.write_all(&bytes)?;
            }
        }
        for _ in &cartridge.layers {
            w.write_all(&slots.to_le_bytes())?;
        }
        Ok(())
    })?;
    Ok(())
}

/// The table of the safetensors file: all keys and values, then all numbers.
fn header(cartridge: &HostCartridge, base_model: Option<&str>, dtype: CartridgeDtype) -> Value {
    let mut about = Map::new();
    if let Some(model) = base_model {
        about.insert("0.model".into(), model.into());
    }
    about.insert("0.frozen".into(), cartridge.frozen.to_string().into());
    // The list of numbers starts with an empty text, so that it is never empty.
    about.insert("2.0".into(), "".into());
    let layers = cartridge.layers.len();
    for layer in 0..layers {
        about.insert(format!("1.{layer}"), "KVCache".into());
        about.insert(format!("2.{}.0", layer + 1), format!("{layer}.2").into());
        about.insert(format!("2.{}.1", layer + 1), "scalar".into());
    }
    let mut table = Map::new();
    table.insert("__metadata__".into(), about.into());
    let shape = [1, cartridge.kv_heads, cartridge.slots, cartridge.head_dim];
    let (element, part) = (
        dtype.safetensors_name(),
        cartridge.tensor_len() * dtype.size(),
    );
    let mut offset = 0;
    let mut next = |len: usize| {
        offset += len;
        [offset - len, offset]
    };
    for layer in 0..layers {
        for name in ["0", "1"] {
            let entry = json!({ "dtype": element, "shape": shape, "data_offsets": next(part) });
            table.insert(format!("{layer}.{name}"), entry);
        }
    }
    for layer in 0..layers {
        let entry = json!({ "dtype": "I32", "shape": [], "data_offsets": next(NUMBER) });
        table.insert(format!("{layer}.2"), entry);
    }
    table.into()
}

#[cfg(test)]
mod tests {
    use safetensors::SafeTensors;
    use safetensors::tensor::Dtype;

    use super::super::host::HostLayer;
    use super::*;

    fn cartridge() -> HostCartridge {
        let data = |seed: usize| {
            (0..2 * 5 * 3)
                .map(|i| ((i * 7 + seed) as f32).sin())
                .collect()
        };
        let layers = (0..3).map(|l| HostLayer {
            key: data(100 * l),
            value: data(100 * l + 50),
        });
        HostCartridge::new(2, 3, 5, 1, layers.collect()).unwrap()
    }

    /// Read with the format's own library, as mlx_lm takes it apart.
    #[test]
    fn the_layout_is_that_of_mlx_lm() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("new/cache.safetensors");
        let host = cartridge();
        for dtype in [
            CartridgeDtype::F32,
            CartridgeDtype::F16,
            CartridgeDtype::Bf16,
        ] {
            write_mlx(&path, &host, Some("owner/model"), dtype).unwrap();
            let bytes = std::fs::read(&path).unwrap();
            let file = SafeTensors::deserialize(&bytes).unwrap();
            assert_eq!(file.len(), 9);
            for (l, layer) in host.layers.iter().enumerate() {
                for (name, wanted) in [("0", &layer.key), ("1", &layer.value)] {
                    let tensor = file.tensor(&format!("{l}.{name}")).unwrap();
                    assert_eq!(tensor.shape(), [1, 2, 5, 3]);
                    let mut values = Vec::new();
                    dtype.decode(tensor.data(), &mut values);
                    let rounded: Vec<f32> = wanted.iter().map(|v| dtype.round(*v)).collect();
                    assert_eq!(values, rounded);
                }
                let count = file.tensor(&format!("{l}.2")).unwrap();
                assert_eq!((count.dtype(), count.shape()), (Dtype::I32, &[][..]));
                assert_eq!(count.data(), 5i32.to_le_bytes());
            }
            let (_, header) = SafeTensors::read_metadata(&bytes).unwrap();
            let about = header.metadata().as_ref().unwrap();
            assert_eq!(about["0.model"], "owner/model");
            assert_eq!((&*about["1.2"], &*about["2.0"]), ("KVCache", ""));
            assert_eq!((&*about["2.3.0"], &*about["2.3.1"]), ("2.2", "scalar"));
        }
    }

    #[test]
    fn numbers_that_do_not_fit_are_refused() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("cache.safetensors");
        let mut host = cartridge();
        host.layers[1].value[4] = 1e6;
        let error = write_mlx(&path, &host, None, CartridgeDtype::F16).unwrap_err();
        assert!(
            error.to_string().contains("layer 1 value: element 4"),
            "{error}"
        );
        assert!(!path.exists());
    }
}
