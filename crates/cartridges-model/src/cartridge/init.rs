//! Where a cartridge starts: the model's own keys and values of some tokens, noise, or other
//! cartridges. The closed form that matches a whole document is in [`super::matching`].

use burn::tensor::Tensor;
use cartridges_ops::AttentionLayout;
use rand::seq::SliceRandom;
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rand_distr::{Distribution, StandardNormal};

use super::error::CartridgeError;
use super::host::{HostCartridge, HostLayer};
use crate::adapter::BatchAdapters;
use crate::decoder::{Decoder, KvSource, Packed};
use crate::text::ChatTokenizer;

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
/// If there are no ids, more than the model has positions, one is outside the vocabulary, or there are
/// more frozen slots than ids.
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
    let window = decoder.config().max_position_embeddings;
    if ids.len() > window {
        let problem = format!("are {}, the model has positions for {window}", ids.len());
        return Err(CartridgeError::shape("slots", problem));
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

/// The ids that stand for ordinary text: no control tokens, none that was added to the vocabulary, no
/// rows of the embedding (`vocab_size`) without a token.
pub fn ordinary_ids(text: &ChatTokenizer, vocab_size: usize) -> Vec<u32> {
    (0..text.vocab_size().min(vocab_size) as u32)
        .filter(|&id| text.token_text(id).is_some() && !text.is_added(id))
        .collect()
}

/// The model's keys and values of `slots` tokens drawn from `ordinary`, each as likely as the others
/// and again and again: the paper's start from random tokens.
///
/// # Errors
/// If `ordinary` is empty, and as [`first_tokens`].
pub fn random_tokens(
    decoder: &Decoder,
    ordinary: &[u32],
    slots: usize,
    frozen: usize,
    seed: u64,
) -> Result<HostCartridge, CartridgeError> {
    if ordinary.is_empty() {
        return Err(CartridgeError::shape(
            "vocabulary",
            "has no ordinary tokens to draw from",
        ));
    }
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let ids: Vec<u32> = (0..slots)
        .map(|_| ordinary[rng.random_range(0..ordinary.len())])
        .collect();
    first_tokens(decoder, &ids, frozen)
}

/// `slots` ids out of a longer text: its first `piece` ids, then pieces of that length drawn without
/// repeat, in the order of the text. The last one drawn is cut to fit.
///
/// The first piece is always there because it opens the message that the text stands in. A text that
/// is no longer than `slots` is taken whole.
pub fn sampled_chunks(ids: &[u32], slots: usize, piece: usize, seed: u64) -> Vec<u32> {
    if ids.len() <= slots {
        return ids.to_vec();
    }
    let piece = piece.max(1);
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut others: Vec<usize> = (1..ids.len().div_ceil(piece)).collect();
    others.shuffle(&mut rng);
    let mut room = slots;
    let mut drawn = Vec::new();
    for index in std::iter::once(0).chain(others) {
        let start = index * piece;
        let len = piece.min(ids.len() - start).min(room);
        drawn.push(start..start + len);
        room -= len;
        if room == 0 {
            break;
        }
    }
    drawn.sort_unstable_by_key(|range| range.start);
    drawn
        .into_iter()
        .flat_map(|range| &ids[range])
        .copied()
        .collect()
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
    use crate::cartridge::tiny::tiny;

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
    fn sampled_pieces_are_pieces_of_the_text_in_its_order() {
        let ids: Vec<u32> = (0..103).collect();
        let mut seen = std::collections::BTreeSet::new();
        for seed in 0..200 {
            for (slots, piece) in [
                (1, 8),
                (7, 8),
                (40, 8),
                (97, 8),
                (102, 8),
                (50, 1),
                (50, 200),
            ] {
                let drawn = sampled_chunks(&ids, slots, piece, seed);
                assert_eq!(drawn.len(), slots);
                assert_eq!(drawn[0], 0);
                assert!(drawn.windows(2).all(|w| w[0] < w[1]), "{drawn:?}");
                // Every gap and every start is at a piece's edge, but for the one that was cut.
                let odd = drawn
                    .windows(2)
                    .filter(|w| w[1] != w[0] + 1 && (w[0] + 1) % piece as u32 != 0)
                    .count();
                assert!(odd <= 1, "{drawn:?}");
                let starts = drawn.windows(2).filter(|w| w[1] != w[0] + 1);
                assert!(starts.into_iter().all(|w| w[1] % piece as u32 == 0));
            }
            seen.extend(sampled_chunks(&ids, 40, 8, seed));
        }
        // Every part of the text is drawn sometimes.
        assert_eq!(seen.len(), 103);
        assert_eq!(sampled_chunks(&ids, 103, 8, 1), ids);
        assert_eq!(sampled_chunks(&ids, 500, 8, 1), ids);
        assert_eq!(
            sampled_chunks(&ids, 40, 8, 5),
            sampled_chunks(&ids, 40, 8, 5)
        );
    }

    /// In the first layer a key depends on its token and position alone, so it tells which was drawn.
    #[test]
    fn random_tokens_are_drawn_from_the_given_ones() {
        let decoder = tiny();
        let ordinary: Vec<u32> = (0..512).step_by(3).collect();
        let (slots, dim) = (12, decoder.config().head_dim);
        let mut drawn = Vec::new();
        for seed in 0..4 {
            let cartridge = random_tokens(&decoder, &ordinary, slots, 1, seed).unwrap();
            assert_eq!((cartridge.slots, cartridge.frozen), (slots, 1));
            let key = &cartridge.layers[0].key;
            let slot = |slot: usize| &key[slot * dim..(slot + 1) * dim];
            let ids: Vec<u32> = (0..slots)
                .map(|at| {
                    let lengths = vec![1; 512];
                    let mut recorder = Recorder::default();
                    decoder.hidden(
                        Packed {
                            ids: &(0..512).collect::<Vec<u32>>(),
                            positions: &vec![at as u32; 512],
                            layout: &AttentionLayout::packed(0, &lengths),
                            adapters: BatchAdapters::NONE,
                        },
                        &mut recorder,
                    );
                    let all = recorder.layers[0].0.clone().into_data();
                    let all = all.try_to_vec::<f32>().unwrap();
                    let width = decoder.config().num_kv_heads * dim;
                    let near = |id: &usize| {
                        let key = &all[id * width..id * width + dim];
                        key.iter().zip(slot(at)).all(|(a, b)| (a - b).abs() < 1e-5)
                    };
                    let found: Vec<usize> = (0..512).filter(near).collect();
                    assert_eq!(found.len(), 1, "slot {at} is the key of {found:?}");
                    found[0] as u32
                })
                .collect();
            assert!(ids.iter().all(|id| ordinary.contains(id)), "{ids:?}");
            assert_eq!(
                cartridge,
                random_tokens(&decoder, &ordinary, slots, 1, seed).unwrap()
            );
            drawn.push(ids);
        }
        drawn.sort();
        drawn.dedup();
        assert_eq!(drawn.len(), 4);
        assert!(random_tokens(&decoder, &[], slots, 1, 0).is_err());
        let error = random_tokens(&decoder, &ordinary, 4097, 1, 0).unwrap_err();
        assert!(error.to_string().contains("4097") && error.to_string().contains("4096"));
    }

    #[test]
    fn ordinary_tokens_are_no_markers() {
        let folder = std::path::Path::new(env!("CARGO_MANIFEST_DIR"))
            .join("../../tests/fixtures/tokenizers/smollm2");
        let text = ChatTokenizer::from_folder(&folder).unwrap();
        let ids = ordinary_ids(&text, 40_000);
        let start = text.token_id("<|im_start|>").unwrap();
        assert!(!ids.contains(&start) && ids.iter().all(|&id| !text.is_special(id)));
        assert_eq!(*ids.last().unwrap(), 39_999);
        assert!(ids.contains(&text.token_id("the").unwrap()));
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
