//! A tiny model, for tests.

use std::fs;
use std::path::{Path, PathBuf};

use cartridges_ops::DeviceChoice;

use crate::decoder::{Decoder, ModelConfig};
use crate::weights::Weights;

fn fixture() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/tiny-qwen2")
}

pub(super) fn tiny() -> Decoder {
    load(&fixture())
}

/// The tiny model with a bias that all its queries share, as those of real models do, where rope turns
/// least.
pub(super) fn tiny_with_shared_queries() -> Decoder {
    let folder = tempfile::tempdir().unwrap();
    let bytes = fs::read(fixture().join("model.safetensors")).unwrap();
    let mut changed = bytes.clone();
    let file = safetensors::SafeTensors::deserialize(&bytes).unwrap();
    let dim = ModelConfig::from_file(&fixture().join("config.json"))
        .unwrap()
        .head_dim;
    for (name, tensor) in file.tensors() {
        if !name.ends_with("q_proj.bias") {
            continue;
        }
        assert_eq!(tensor.dtype(), safetensors::Dtype::F32);
        let start = tensor.data().as_ptr() as usize - bytes.as_ptr() as usize;
        for element in (dim / 2 - 1..tensor.shape()[0]).step_by(dim) {
            let at = start + 4 * element;
            changed[at..at + 4].copy_from_slice(&20f32.to_le_bytes());
        }
    }
    fs::write(folder.path().join("model.safetensors"), changed).unwrap();
    fs::copy(
        fixture().join("config.json"),
        folder.path().join("config.json"),
    )
    .unwrap();
    load(folder.path())
}

fn load(folder: &Path) -> Decoder {
    let config = ModelConfig::from_file(&folder.join("config.json")).unwrap();
    let weights = Weights::open(folder).unwrap();
    let (device, _) = "cpu".parse::<DeviceChoice>().unwrap().open().unwrap();
    Decoder::load(config, &weights, &device, &mut |_, _| {}).unwrap()
}
