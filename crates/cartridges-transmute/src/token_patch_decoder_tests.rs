//! Property 2: patches of one token in all layers, bottom-up, on a decoder in f64 by plain loops.

use cartridges_model::adapter::BatchAdapters;
use cartridges_model::decoder::ModelConfig;
use cartridges_model::weights::Weights;

use super::{RankOne, SwiGlu, TokenPatch, TokenStates};
use crate::extract::{Batch, Stream, values};
use crate::matrix::{Matrix, dot};
use crate::synthetic::{close, distance};
use crate::tiny;

const FIXTURE: &str = "tiny-qwen2";
const PROMPT: [u32; 9] = [3, 17, 250, 9, 88, 41, 7, 300, 12];
const QUESTION: [u32; 5] = [20, 411, 6, 77, 130];

type Rows = Vec<Vec<f64>>;

/// A layer's maps and norms.
struct Layer {
    norms: [Vec<f64>; 2],
    /// Queries, keys, values with their biases.
    inputs: [(Matrix, Vec<f64>); 3],
    output: Matrix,
    /// Gate, up, down.
    block: [Matrix; 3],
}

/// The model of the fixture.
struct Decoder {
    config: ModelConfig,
    embedding: Matrix,
    layers: Vec<Layer>,
    norm: Vec<f64>,
}

impl Decoder {
    fn load() -> Self {
        let folder = tiny::fixture(FIXTURE);
        let config = ModelConfig::from_file(&folder.join("config.json")).unwrap();
        let weights = Weights::open_folder(&folder).unwrap();
        let vector = |name: &str| -> Vec<f64> {
            let values = weights.read(name).unwrap().values;
            values.into_iter().map(f64::from).collect()
        };
        let matrix = |name: &str| {
            let shape = weights.shape(name).unwrap();
            Matrix::new(shape[0], shape[1], vector(name)).unwrap()
        };
        let layers = (0..config.num_layers).map(|layer| {
            let name = |part: &str| format!("model.layers.{layer}.{part}");
            let map = |part: &str| matrix(&name(&format!("{part}.weight")));
            let norm = |part: &str| vector(&name(&format!("{part}.weight")));
            let input = |part: &str| (map(part), vector(&name(&format!("{part}.bias"))));
            Layer {
                norms: ["input_layernorm", "post_attention_layernorm"].map(norm),
                inputs: ["self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj"].map(input),
                output: map("self_attn.o_proj"),
                block: ["mlp.gate_proj", "mlp.up_proj", "mlp.down_proj"].map(map),
            }
        });
        Self {
            layers: layers.collect(),
            embedding: matrix("model.embed_tokens.weight"),
            norm: vector("model.norm.weight"),
            config,
        }
    }

    fn embed(&self, ids: &[u32]) -> Rows {
        let row = |id: &u32| {
            self.embedding
                .iter_rows()
                .nth(*id as usize)
                .unwrap()
                .to_vec()
        };
        ids.iter().map(row).collect()
    }

    fn normed(&self, x: &[f64], weight: &[f64]) -> Vec<f64> {
        let root = (dot(x, x) / x.len() as f64 + self.config.rms_norm_eps).sqrt();
        x.iter().zip(weight).map(|(x, w)| x / root * w).collect()
    }

    /// One head's queries or keys at a position, turned.
    fn turned(&self, x: &[f64], position: usize) -> Vec<f64> {
        let half = x.len() / 2;
        let mut out = x.to_vec();
        for (i, frequency) in self.config.rope_frequencies().iter().enumerate() {
            let (sin, cos) = (position as f64 * frequency).sin_cos();
            out[i] = x[i] * cos - x[half + i] * sin;
            out[half + i] = x[half + i] * cos + x[i] * sin;
        }
        out
    }

    /// The residual stream behind a layer's attention.
    fn attention(&self, layer: &Layer, x: &Rows) -> Rows {
        let dim = self.config.head_dim;
        let mapped = |(map, bias): &(Matrix, Vec<f64>)| -> Rows {
            let row = |x: &Vec<f64>| {
                let y = map.apply(&self.normed(x, &layer.norms[0])).unwrap();
                y.iter().zip(bias).map(|(y, b)| y + b).collect()
            };
            x.iter().map(row).collect()
        };
        let [queries, keys, values] = layer.inputs.each_ref().map(mapped);
        let group = self.config.num_heads / self.config.num_kv_heads;
        let heads = |row: usize| -> Vec<f64> {
            let head = |head: usize| {
                let of = |all: &Rows, row: usize, head: usize| {
                    all[row][head * dim..(head + 1) * dim].to_vec()
                };
                let query = self.turned(&of(&queries, row, head), row);
                let scores = (0..=row).map(|seen| {
                    let key = self.turned(&of(&keys, seen, head / group), seen);
                    (dot(&query, &key) / (dim as f64).sqrt()).exp()
                });
                let scores: Vec<f64> = scores.collect();
                let total: f64 = scores.iter().sum();
                let mut mixed = vec![0.0; dim];
                for (seen, score) in scores.iter().enumerate() {
                    let value = of(&values, seen, head / group);
                    mixed
                        .iter_mut()
                        .zip(value)
                        .for_each(|(m, v)| *m += score / total * v);
                }
                mixed
            };
            (0..self.config.num_heads).flat_map(head).collect()
        };
        let after = |row: usize| {
            let added = layer.output.apply(&heads(row)).unwrap();
            x[row].iter().zip(added).map(|(x, y)| x + y).collect()
        };
        (0..x.len()).map(after).collect()
    }

    /// The residual stream behind a layer's block with these maps, and a bias where there is one.
    fn block(&self, layer: &Layer, maps: &[Matrix; 3], bias: Option<&[f64]>, v: &Rows) -> Rows {
        let [gate, up, down] = maps;
        let block = SwiGlu { gate, up, down };
        let row = |v: &Vec<f64>| {
            let z = self.normed(v, &layer.norms[1]);
            let mut y = down.apply(&block.features(&z).unwrap()).unwrap();
            y.iter_mut().zip(v).for_each(|(y, v)| *y += v);
            y.iter_mut()
                .zip(bias.into_iter().flatten())
                .for_each(|(y, b)| *y += b);
            y
        };
        v.iter().map(row).collect()
    }

    /// The logits of the last row.
    fn logits(&self, x: &Rows) -> Vec<f64> {
        let last = self.normed(x.last().unwrap(), &self.norm);
        self.embedding.apply(&last).unwrap()
    }

    /// The logits of the last id without any patch.
    fn run(&self, ids: &[u32]) -> Vec<f64> {
        let mut x = self.embed(ids);
        for layer in &self.layers {
            let v = self.attention(layer, &x);
            x = self.block(layer, &layer.block, None, &v);
        }
        self.logits(&x)
    }

    /// The logits of the question's last id without the prompt, with the patches that `make` gives for
    /// it: in every layer from below, at the states that the patches below have made, and for all rows.
    fn patched(&self, make: impl Fn(&SwiGlu<'_>, &TokenStates<'_>) -> TokenPatch) -> Vec<f64> {
        let mut with = self.embed(&[&PROMPT[..], &QUESTION].concat());
        let mut without = self.embed(&QUESTION);
        for layer in &self.layers {
            let (v_with, v) = (
                self.attention(layer, &with),
                self.attention(layer, &without),
            );
            let (last_with, last) = (v_with.last().unwrap(), v.last().unwrap());
            let [gate, up, down] = &layer.block;
            let states = TokenStates {
                residual: last,
                residual_with: last_with,
                normed: &self.normed(last, &layer.norms[1]),
                normed_with: &self.normed(last_with, &layer.norms[1]),
            };
            let patch = make(&SwiGlu { gate, up, down }, &states);
            let mut maps = layer.block.clone();
            for (map, delta) in maps.iter_mut().zip([&patch.gate, &patch.up, &patch.down]) {
                if let Some(delta) = delta.as_ref().map(RankOne::matrix) {
                    map.add(1.0, &delta);
                }
            }
            with = self.block(layer, &layer.block, None, &v_with);
            without = self.block(layer, &maps, patch.bias.as_deref(), &v);
        }
        self.logits(&without)
    }
}

/// The plain loops are the model: they give what the decoder on a device gives in f32.
#[test]
fn the_plain_decoder_is_the_decoder() {
    let decoder = tiny::load(&tiny::fixture(FIXTURE));
    let ids = [&PROMPT[..], &QUESTION].concat();
    let rows = [ids.len() - 1];
    let batch = Batch::new(0, &[], &[(&ids, &rows)], decoder.device()).unwrap();
    let normed = Stream::new(&decoder, &[], vec![batch]).finish(BatchAdapters::NONE);
    let logits = decoder.logits(normed[0].clone(), BatchAdapters::NONE);
    let found: Vec<f64> = values(logits).unwrap().into_iter().map(f64::from).collect();
    close(&found, &Decoder::load().run(&ids), 1e-5);
}

#[test]
fn patches_in_all_layers_give_the_logits_with_the_prompt() {
    let decoder = Decoder::load();
    let wanted = decoder.run(&[&PROMPT[..], &QUESTION].concat());
    let without = decoder.run(&QUESTION);
    assert!(distance(&without, &wanted) > 1e-2);
    close(
        &decoder.patched(|block, states| block.input_and_bias(states).unwrap()),
        &wanted,
        1e-9,
    );
    close(
        &decoder.patched(|block, states| block.all_maps(states).unwrap()),
        &wanted,
        1e-9,
    );
    close(
        &decoder.patched(|block, states| block.down_only(states).unwrap()),
        &wanted,
        1e-9,
    );
    // Patches of zero leave the model without the prompt as it is.
    close(
        &decoder.patched(|_, _| TokenPatch::default()),
        &without,
        1e-12,
    );
}
