//! A frozen base in 8 or 4 bits: the same as the base that its blocks stand for, and near the original.
#![recursion_limit = "256"]

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use burn::tensor::{Device, Tensor};
use cartridges_model::adapter::BatchAdapters;
use cartridges_model::cartridge::first_tokens;
use cartridges_model::decoder::{Decoder, ModelConfig, NoPast, Packed, Precision};
use cartridges_model::weights::Weights;
use cartridges_ops::{AttentionLayout, Packing, test_device};
use cartridges_train::{PackedRow, Schedule, Target, TrainConfig, Trainer};
use safetensors::tensor::{Dtype, TensorView};

const MODELS: [&str; 3] = ["tiny-llama3", "tiny-qwen2", "tiny-qwen3"];
const KINDS: [(Precision, Packing); 2] =
    [(Precision::Q8, Packing::Q8), (Precision::Q4, Packing::Q4)];
const IDS: [u32; 24] = [
    5, 93, 17, 250, 3, 44, 9, 121, 76, 30, 201, 8, 61, 15, 99, 180, 2, 7, 33, 140, 12, 64, 220, 71,
];

fn fixture(model: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../tests/fixtures")
        .join(model)
}

fn load(folder: &Path, precision: Precision, device: &Device) -> Decoder {
    let config = ModelConfig::from_file(&folder.join("config.json")).unwrap();
    let weights = Weights::open_folder(folder).unwrap();
    Decoder::load_as(config, &weights, precision, device, &mut |_, _| ()).unwrap()
}

/// The model in f32 with its matrices replaced by what their packed rows stand for.
fn unpacked(folder: &Path, packing: Packing, device: &Device) -> Decoder {
    let weights = Weights::open_folder(folder).unwrap();
    let tensors: HashMap<String, (Vec<usize>, Vec<u8>)> = weights
        .names()
        .map(|name| {
            let mut tensor = weights.read(name).unwrap();
            if tensor.shape.len() == 2 {
                tensor.values = weights.read_packed(name, packing).unwrap().values();
            }
            let bytes = tensor.values.iter().flat_map(|v| v.to_le_bytes()).collect();
            (name.to_owned(), (tensor.shape, bytes))
        })
        .collect();
    let views = tensors.iter().map(|(name, (shape, bytes))| {
        let view = TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap();
        (name, view)
    });
    let copy = tempfile::tempdir().unwrap();
    std::fs::copy(folder.join("config.json"), copy.path().join("config.json")).unwrap();
    safetensors::serialize_to_file(views, None, &copy.path().join("model.safetensors")).unwrap();
    load(copy.path(), Precision::F32, device)
}

fn logits(decoder: &Decoder) -> Vec<f32> {
    let positions: Vec<u32> = (0..IDS.len() as u32).collect();
    let layout = AttentionLayout::packed(0, &[IDS.len()]);
    let batch = Packed {
        ids: &IDS,
        positions: &positions,
        layout: &layout,
        adapters: BatchAdapters::NONE,
    };
    let normed = decoder.final_norm(decoder.hidden(batch, &mut NoPast), BatchAdapters::NONE);
    let logits: Tensor<2> = decoder.logits(normed, BatchAdapters::NONE);
    logits.into_data().try_to_vec::<f32>().unwrap()
}

/// `‖a − b‖ / ‖b‖`.
fn relative(a: &[f32], b: &[f32]) -> f32 {
    let norm = |values: &mut dyn Iterator<Item = f32>| values.map(|x| x * x).sum::<f32>().sqrt();
    norm(&mut a.iter().zip(b).map(|(a, b)| a - b)) / norm(&mut b.iter().copied())
}

fn each(test: impl Fn(&str, &Path, &Device)) {
    for name in MODELS {
        test(name, &fixture(name), &test_device());
    }
}

#[test]
fn logits_are_those_of_the_unpacked_base_and_near_those_of_the_original() {
    each(|name, folder, device| {
        let original = logits(&load(folder, Precision::F32, device));
        for (precision, packing) in KINDS {
            let packed = logits(&load(folder, precision, device));
            let wanted = logits(&unpacked(folder, packing, device));
            for (a, b) in packed.iter().zip(&wanted) {
                assert!((a - b).abs() <= 1e-4, "{name} {precision}: {a} for {b}");
            }
            // Rounding is uniform over one scale, so a weight is off by scale / √12. Among 32 normal
            // weights the greatest is about 2.1 standard deviations, so the scale is 2.1 / 127 or 2.1 / 8
            // of them. Each of the maps between ids and logits adds that much noise to its result, and
            // independent noise adds up in squares. That is its typical size; where results are
            // multiplied (scores, gates) it grows somewhat, so twice as much is the bound.
            let levels = match packing {
                Packing::Q8 => 127.0,
                Packing::Q4 => 8.0,
            };
            let config = ModelConfig::from_file(&folder.join("config.json")).unwrap();
            let maps = (7 * config.num_layers + 2) as f32;
            let bound = 2.0 * 2.1 / levels / 12f32.sqrt() * maps.sqrt();
            let off = relative(&packed, &original);
            assert!(off < bound, "{name} {precision}: {off}, bound {bound}");
            assert!(off > 0.0, "{name} {precision}: nothing was rounded");
        }
    });
}

#[test]
fn memory_of_a_packed_base_is_that_of_its_blocks() {
    each(|name, folder, device| {
        let config = ModelConfig::from_file(&folder.join("config.json")).unwrap();
        let bytes = |precision| load(folder, precision, device).resident_bytes();
        let full = bytes(Precision::F32);
        assert_eq!(full, 4 * config.matrix_values(config.tie_word_embeddings));
        // Widths of these models need not be whole blocks, so a little is padding.
        for (precision, bits) in [(Precision::Q8, 8.5), (Precision::Q4, 4.5)] {
            let ratio = bytes(precision) as f64 / full as f64;
            let wanted = bits / 32.0;
            assert!(
                (wanted..1.35 * wanted).contains(&ratio),
                "{name} {precision}: {ratio}, {wanted} for whole blocks"
            );
        }
    });
}

#[test]
fn training_through_a_packed_base_is_training_through_the_unpacked_one() {
    each(|name, folder, device| {
        let row = PackedRow {
            ids: IDS.to_vec(),
            lengths: vec![15, 9],
            targets: [4u32, 7, 11, 14, 18, 20, 23]
                .into_iter()
                .flat_map(|position| {
                    let target = |id: u32, weight| Target {
                        position,
                        id,
                        weight,
                    };
                    [target(position * 5 % 200, 0.6), target(position + 40, 0.3)]
                })
                .collect(),
            positions: 7.0,
        };
        let curve = |decoder: &Decoder| -> Vec<f64> {
            let start = first_tokens(decoder, &IDS[..6], 1).unwrap();
            let config = TrainConfig {
                steps: 12,
                lr: 2e-2,
                warmup_steps: 0,
                schedule: Schedule::Constant,
                ..TrainConfig::default()
            };
            let mut trainer = Trainer::new(decoder, &start, vec![row.clone()], config).unwrap();
            (0..12).map(|_| trainer.step().unwrap().loss).collect()
        };
        for (precision, packing) in KINDS {
            let packed = curve(&load(folder, precision, device));
            let wanted = curve(&unpacked(folder, packing, device));
            assert!(
                wanted[11] < wanted[0] - 0.1,
                "{name}: {wanted:?} does not learn"
            );
            for (step, (a, b)) in packed.iter().zip(&wanted).enumerate() {
                assert!(
                    (a - b).abs() <= 1e-4,
                    "{name} {precision} step {step}: {a} for {b}"
                );
            }
        }
    });
}
