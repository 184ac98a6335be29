//! A tiny model, for tests.

use std::path::Path;

use cartridges_ops::DeviceChoice;

use crate::decoder::{Decoder, ModelConfig};
use crate::weights::Weights;

pub(super) fn tiny() -> Decoder {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/tiny-qwen2");
    let config = ModelConfig::from_file(&folder.join("config.json")).unwrap();
    let weights = Weights::open(&folder).unwrap();
    let (device, _) = "cpu".parse::<DeviceChoice>().unwrap().open().unwrap();
    Decoder::load(config, &weights, &device, &mut |_, _| {}).unwrap()
}
