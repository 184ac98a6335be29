//! The decoder against transformers: logits, final hidden state, keys and values, greedy text.
#![recursion_limit = "256"]

use std::path::{Path, PathBuf};

use burn::tensor::{Device, Tensor};
use cartridges_model::adapter::BatchAdapters;
use cartridges_model::decoder::{Decoder, KvSource, ModelConfig, NoPast, Packed};
use cartridges_model::weights::Weights;
use cartridges_ops::AttentionLayout;
use safetensors::SafeTensors;

const MODELS: [&str; 3] = ["tiny-llama3", "tiny-qwen2", "tiny-qwen3"];

fn fixture(model: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../tests/fixtures")
        .join(model)
}

fn decoder(folder: &Path, device: &Device) -> Decoder {
    let config = ModelConfig::from_file(&folder.join("config.json")).unwrap();
    let weights = Weights::open_folder(folder).unwrap();
    Decoder::load(config, &weights, device, &mut |_, _| ()).unwrap()
}

fn floats(file: &SafeTensors, name: &str) -> Vec<f32> {
    let bytes = file.tensor(name).unwrap().data();
    bytes
        .chunks_exact(4)
        .map(|b| f32::from_le_bytes(b.try_into().unwrap()))
        .collect()
}

fn ints(file: &SafeTensors, name: &str) -> Vec<u32> {
    let tensor = file.tensor(name).unwrap();
    let bytes = tensor.data();
    match tensor.dtype() {
        safetensors::Dtype::I64 => bytes
            .chunks_exact(8)
            .map(|b| i64::from_le_bytes(b.try_into().unwrap()) as u32)
            .collect(),
        other => panic!("{name} is {other:?}"),
    }
}

fn values<const D: usize>(tensor: Tensor<D>) -> Vec<f32> {
    tensor.into_data().try_to_vec::<f32>().unwrap()
}

fn assert_close(found: &[f32], wanted: &[f32], tolerance: f32, what: &str) {
    assert_eq!(found.len(), wanted.len(), "{what}");
    for (i, (a, b)) in found.iter().zip(wanted).enumerate() {
        assert!(
            (a - b).abs() <= tolerance,
            "{what}[{i}]: {a} instead of {b}"
        );
    }
}

struct Recorder(Vec<(Tensor<3>, Tensor<3>)>);

impl KvSource for Recorder {
    fn extend(&mut self, _: usize, k: Tensor<3>, v: Tensor<3>) -> (Tensor<3>, Tensor<3>) {
        self.0.push((k.clone(), v.clone()));
        (k, v)
    }
}

#[test]
fn logits_hidden_states_keys_and_values_are_those_of_transformers() {
    for name in MODELS {
        let folder = fixture(name);
        let bytes = std::fs::read(folder.join("reference.safetensors")).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let model = decoder(&folder, &cartridges_ops::test_device());
        let shape = file.tensor("input_ids").unwrap().shape().to_vec();
        let (rows, length) = (shape[0], shape[1]);
        // Both rows of the reference batch as two packed sequences of one pass.
        let ids = ints(&file, "input_ids");
        let positions: Vec<u32> = (0..rows).flat_map(|_| 0..length as u32).collect();
        let layout = AttentionLayout::packed(0, &vec![length; rows]);
        let mut recorder = Recorder(Vec::new());
        let batch = Packed {
            ids: &ids,
            positions: &positions,
            layout: &layout,
            adapters: BatchAdapters::NONE,
        };
        let normed = model.final_norm(model.hidden(batch, &mut recorder), BatchAdapters::NONE);
        assert_close(
            &values(normed.clone()),
            &floats(&file, "final_hidden"),
            1e-4,
            &format!("{name} final_hidden"),
        );
        let logits = values(model.logits(normed, BatchAdapters::NONE));
        assert_close(
            &logits,
            &floats(&file, "logits"),
            1e-4,
            &format!("{name} logits"),
        );
        for (layer, (k, v)) in recorder.0.into_iter().enumerate() {
            // [rows·length, kv, d] → [rows, kv, length, d]
            let turn = |t: Tensor<3>| {
                let [_, kv, d] = t.dims();
                values(t.reshape([rows, length, kv, d]).permute([0, 2, 1, 3]))
            };
            let names = [format!("keys.{layer}"), format!("values.{layer}")];
            assert_close(&turn(k), &floats(&file, &names[0]), 1e-4, &names[0]);
            assert_close(&turn(v), &floats(&file, &names[1]), 1e-4, &names[1]);
        }
    }
}

#[test]
fn greedy_text_is_that_of_transformers() {
    for name in MODELS {
        let folder = fixture(name);
        let bytes = std::fs::read(folder.join("reference.safetensors")).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let model = decoder(&folder, &cartridges_ops::test_device());
        let length = file.tensor("input_ids").unwrap().shape()[1];
        let mut ids = ints(&file, "input_ids")[..length].to_vec();
        let wanted = ints(&file, "greedy");
        for _ in 0..wanted.len() {
            let positions: Vec<u32> = (0..ids.len() as u32).collect();
            let layout = AttentionLayout::packed(0, &[ids.len()]);
            let batch = Packed {
                ids: &ids,
                positions: &positions,
                layout: &layout,
                adapters: BatchAdapters::NONE,
            };
            let hidden = model.hidden(batch, &mut NoPast);
            let last = hidden.narrow(0, ids.len() - 1, 1);
            let logits = values(model.logits(
                model.final_norm(last, BatchAdapters::NONE),
                BatchAdapters::NONE,
            ));
            let best = (0..logits.len()).max_by(|a, b| logits[*a].total_cmp(&logits[*b]));
            ids.push(best.unwrap() as u32);
        }
        assert_eq!(&ids[length..], wanted, "{name}");
    }
}
