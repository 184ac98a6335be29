//! Where a cartridge starts: the model's own keys and values of some tokens, noise, or other
//! cartridges. The closed form that matches a whole document is in [`super::matching`].

use burn::tensor::Tensor;
use cartridges_ops::AttentionLayout;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};

use super::error::CartridgeError;
use super::host::{HostCartridge, HostLayer};
use crate::adapter::BatchAdapters;
use crate::decoder::{Decoder, KvSource, Packed};

/// Keeps the keys and values that go by: `[n, kv_heads, head_dim]` per layer.
#[derive(Default)]
struct Recorder {
    layers: Vec<(Tensor<3>, Tensor<3>)>,
}

impl KvSource for Recorder {
    fn extend(&mut self, _layer: usize, k: Tensor<3>, v: Tensor<3>) -> (Tensor<3>, Tensor<3>) {
        self.layers.push((k.clone(), v.clone()));
        (k, v)
    }
}

/// The model's keys and values of `ids` at positions `0 ..`, with the first `frozen` slots frozen.
/// This is the reference's initialiser from text, and with the first p tokens of a corpus the
/// paper's.
///
/// # Errors
/// If there are no ids, one is outside the vocabulary, or there are more frozen slots than ids.
pub fn first_tokens(
    decoder: &Decoder,
    ids: &[u32],
    frozen: usize,
) -> Result<HostCartridge, CartridgeError> {
    if ids.is_empty() {
        return Err(CartridgeError::shape(
            "slots",
            "is 0, expected at least one token",
        ));
    }
    if let Err(id) = decoder.check_ids(ids) {
        return Err(CartridgeError::shape(
            "token id",
            format!("{id} is outside the model's vocabulary"),
        ));
    }
    let positions: Vec<u32> = (0..ids.len() as u32).collect();
    let layout = AttentionLayout::packed(0, &[ids.len()]);
    let mut recorder = Recorder::default();
    let batch = Packed {
        ids,
        positions: &positions,
        layout: &layout,
        adapters: BatchAdapters::NONE,
    };
    decoder.hidden(batch, &mut recorder);
    from_kv(&recorder.layers, frozen)
}

/// A cartridge from keys and values per layer, `[p, kv_heads, head_dim]`.
///
/// # Errors
/// If there are no layers, a value is not finite, or `frozen` exceeds `p`.
pub fn from_kv(
    layers: &[(Tensor<3>, Tensor<3>)],
    frozen: usize,
) -> Result<HostCartridge, CartridgeError> {
    let Some((first, _)) = layers.first() else {
        return Err(CartridgeError::shape("layers", "is 0, expected at least 1"));
    };
    let [slots, kv_heads, head_dim] = first.dims();
    let read = |tensor: &Tensor<3>| {
        tensor
            .clone()
            .permute([1, 0, 2])
            .into_data()
            .convert::<f32>()
            .try_to_vec::<f32>()
            .map_err(|_| CartridgeError::shape("keys", "could not be read from the device"))
    };
    let layers = layers
        .iter()
        .map(|(key, value)| {
            Ok(HostLayer {
                key: read(key)?,
                value: read(value)?,
            })
        })
        .collect::<Result<_, CartridgeError>>()?;
    HostCartridge::new(kv_heads, head_dim, slots, frozen, layers)
}

/// Keys and values drawn from N(0, 1), the reference's weakest initialiser.
///
/// # Errors
/// If `slots` is zero or smaller than `frozen`.
pub fn random_vectors(
    decoder: &Decoder,
    slots: usize,
    frozen: usize,
    seed: u64,
) -> Result<HostCartridge, CartridgeError> {
    let config = decoder.config();
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let len = config.num_kv_heads * slots * config.head_dim;
    let mut draw = || -> Vec<f32> {
        let normal = StandardNormal;
        (0..len).map(|_| normal.sample(&mut rng)).collect()
    };
    let layers = (0..config.num_layers)
        .map(|_| HostLayer {
            key: draw(),
            value: draw(),
        })
        .collect();
    HostCartridge::new(config.num_kv_heads, config.head_dim, slots, frozen, layers)
}

/// Cartridges one after the other, whole, each with its own frozen slots and without moving keys, as
/// the reference's server composes them; requests start after the sum of their slots. The frozen
/// count of the result is that of the first.
///
/// # Errors
/// If there is none or their shapes differ.
pub fn compose(parts: &[&HostCartridge]) -> Result<HostCartridge, CartridgeError> {
    let Some(first) = parts.first() else {
        return Err(CartridgeError::shape(
            "cartridges",
            "are none, expected at least 1",
        ));
    };
    for part in parts {
        let shape = |c: &HostCartridge| (c.layers.len(), c.kv_heads, c.head_dim);
        if shape(part) != shape(first) {
            return Err(CartridgeError::shape(
                "composition",
                format!(
                    "has cartridges of {:?} and {:?} (layers, key/value heads, head size)",
                    shape(first),
                    shape(part)
                ),
            ));
        }
    }
    let (heads, dim) = (first.kv_heads, first.head_dim);
    let join = |layer: usize, pick: fn(&HostLayer) -> &Vec<f32>| {
        let mut out = Vec::new();
        for head in 0..heads {
            for part in parts {
                let width = part.slots * dim;
                out.extend_from_slice(&pick(&part.layers[layer])[head * width..(head + 1) * width]);
            }
        }
        out
    };
    let layers = (0..first.layers.len())
        .map(|layer| HostLayer {
            key: join(layer, |l| &l.key),
            value: join(layer, |l| &l.value),
        })
        .collect();
    let slots = parts.iter().map(|part| part.slots).sum();
    HostCartridge::new(heads, dim, slots, first.frozen, layers)
}

/// The reference's truncation of a rendered system message to `max` ids: the start is kept and the
/// closing ids `end` (Llama: the end of turn; Qwen: the end of turn and a newline) stay last.
pub fn truncate_chat_ids(ids: &[u32], max: usize, end: &[u32]) -> Vec<u32> {
    if ids.len() <= max {
        return ids.to_vec();
    }
    let keep = max.saturating_sub(end.len());
    let mut out = ids[..keep].to_vec();
    out.extend_from_slice(&end[..end.len().min(max)]);
    out
}

#[cfg(test)]
mod tests {
    use super::*;

    fn numbered(slots: usize, from: f32) -> HostCartridge {
        let value = |add: f32| (0..2 * slots).map(|i| from + add + i as f32).collect();
        let layers = vec![HostLayer {
            key: value(0.0),
            value: value(0.5),
        }];
        HostCartridge::new(2, 1, slots, 1, layers).unwrap()
    }

    #[test]
    fn composition_keeps_each_head_together() {
        let both = compose(&[&numbered(1, 0.0), &numbered(2, 100.0)]).unwrap();
        assert_eq!(both.slots, 3);
        assert_eq!(both.layers[0].key, [0., 100., 101., 1., 102., 103.]);
        assert!(compose(&[]).is_err());
    }

    #[test]
    fn truncation_keeps_the_closing_ids() {
        assert_eq!(
            truncate_chat_ids(&[1, 2, 3, 4, 5, 6], 4, &[9, 8]),
            [1, 2, 9, 8]
        );
        assert_eq!(truncate_chat_ids(&[1, 2, 3], 4, &[9]), [1, 2, 3]);
        assert_eq!(truncate_chat_ids(&[1, 2, 3], 1, &[9, 8]), [9]);
    }
}
