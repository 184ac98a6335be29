//! Cartridges of whole documents on a tiny model.

use burn::tensor::Tensor;
use cartridges_ops::AttentionLayout;

use super::*;
use crate::adapter::BatchAdapters;
use crate::cartridge::matching::SlotShares;
use crate::cartridge::tiny::{tiny, tiny_with_shared_queries};
use crate::cartridge::{Behind, first_tokens};
use crate::decoder::{KvSource, NoPast, Packed};

fn ids(count: usize, seed: u32) -> Vec<u32> {
    (0..count as u32)
        .map(|i| (i * i * 31 + i * 7 + seed * 101) % 512)
        .collect()
}

fn task(chunks: &[MatchChunk], slots: usize) -> MatchDocument<'_> {
    MatchDocument {
        chunks,
        slots,
        frozen: 1,
        max_queries: 4096,
        options: MatchOptions::default(),
    }
}

/// Hidden states of `ids` behind a cartridge.
fn behind_cartridge(decoder: &Decoder, cartridge: &HostCartridge, ids: &[u32]) -> Vec<f32> {
    let positions: Vec<u32> = (0..ids.len())
        .map(|i| (cartridge.slots + i) as u32)
        .collect();
    let batch = Packed {
        ids,
        positions: &positions,
        layout: &AttentionLayout::packed(cartridge.slots, &[ids.len()]),
        adapters: BatchAdapters::NONE,
    };
    let hidden = decoder.hidden(batch, &mut Behind(cartridge.tensors(decoder.device())));
    hidden.into_data().try_to_vec::<f32>().unwrap()
}

/// Hidden states of `ids` behind the document itself.
fn behind_document(decoder: &Decoder, document: &[u32], ids: &[u32]) -> Vec<f32> {
    let all = [document, ids].concat();
    let positions: Vec<u32> = (0..all.len() as u32).collect();
    let batch = Packed {
        ids: &all,
        positions: &positions,
        layout: &AttentionLayout::packed(0, &[all.len()]),
        adapters: BatchAdapters::NONE,
    };
    let hidden = decoder.hidden(batch, &mut NoPast);
    let width = hidden.dims()[1];
    let values = hidden.into_data().try_to_vec::<f32>().unwrap();
    values[document.len() * width..].to_vec()
}

fn distance(a: &[f32], b: &[f32]) -> f64 {
    let sum = |f: &dyn Fn(f32, f32) -> f32| -> f64 {
        a.iter()
            .zip(b)
            .map(|(a, b)| f64::from(f(*a, *b)).powi(2))
            .sum()
    };
    (sum(&|a, b| a - b) / sum(&|_, b| b)).sqrt()
}

#[test]
fn a_slot_for_every_token_is_the_document() {
    let decoder = tiny();
    let (document, queries) = (ids(40, 1), vec![ids(30, 2)]);
    let chunks = [MatchChunk::whole(document.clone(), queries)];
    let matched = match_document(&decoder, &task(&chunks, 64), &|_, _| {}).unwrap();
    assert_eq!(matched.cartridge.slots, 40);
    let asked = ids(20, 3);
    let got = behind_cartridge(&decoder, &matched.cartridge, &asked);
    let want = behind_document(&decoder, &document, &asked);
    assert!(distance(&got, &want) < 1e-5);
}

#[test]
fn few_slots_stand_in_for_the_document_where_its_first_tokens_do_not() {
    let decoder = tiny();
    let document = ids(160, 1);
    let queries: Vec<Vec<u32>> = (2..60).map(|seed| ids(40, seed)).collect();
    let chunks = [MatchChunk::whole(document.clone(), queries)];
    let matched = match_document(&decoder, &task(&chunks, 40), &|_, _| {}).unwrap();
    assert_eq!(matched.output_errors.len(), 3);
    let asked = ids(40, 77);
    let want = behind_document(&decoder, &document, &asked);
    let got = distance(
        &behind_cartridge(&decoder, &matched.cartridge, &asked),
        &want,
    );
    let first = first_tokens(&decoder, &document[..40], 1).unwrap();
    let plain = distance(&behind_cartridge(&decoder, &first, &asked), &want);
    assert!(got < 0.5 * plain, "{got} against {plain}");
}

/// Keys and values of sequences that each see themselves only, `[n, kv_heads · d]` per layer.
#[derive(Default)]
struct Rows(Vec<(Vec<f32>, Vec<f32>)>);

impl KvSource for Rows {
    fn extend(&mut self, _layer: usize, k: Tensor<3>, v: Tensor<3>) -> (Tensor<3>, Tensor<3>) {
        let read = |x: &Tensor<3>| x.clone().into_data().try_to_vec::<f32>().unwrap();
        self.0.push((read(&k), read(&v)));
        (k, v)
    }
}

fn rows(decoder: &Decoder, ids: &[u32], positions: &[u32], lengths: &[usize]) -> Rows {
    let mut rows = Rows::default();
    let batch = Packed {
        ids,
        positions,
        layout: &AttentionLayout::packed(0, lengths),
        adapters: BatchAdapters::NONE,
    };
    decoder.hidden(batch, &mut rows);
    rows
}

/// Two chunks of a document behind the same four tokens, closed by the same two.
fn two_chunks() -> [MatchChunk; 2] {
    let (opening, closing) = (ids(4, 9), ids(2, 8));
    let chunk = |len: usize, seed: u32, own: Range<usize>| MatchChunk {
        document: [opening.clone(), ids(len, seed), closing.clone()].concat(),
        own,
        queries: (2..30).map(|i| ids(40, seed * 100 + i)).collect(),
    };
    // The first brings all 76 tokens, the second 50 of its 56.
    [chunk(70, 1, 0..76), chunk(50, 2, 4..54)]
}

#[test]
fn chunks_with_a_slot_for_every_token_stand_before_the_request() {
    let decoder = tiny();
    let chunks = two_chunks();
    let matched = match_document(&decoder, &task(&chunks, 500), &|_, _| {}).unwrap();
    assert_eq!((matched.tokens, matched.cartridge.slots), (126, 126));
    assert!(matched.output_errors.iter().all(|&e| e < 1e-5));

    // Requests begin at 126: a token of a chunk of n tokens that stood at t there stands at 126 - n + t.
    let own: Vec<u32> = chunks
        .iter()
        .flat_map(|c| c.document[c.own.clone()].to_vec())
        .collect();
    let positions: Vec<u32> = (50..126).chain(126 - 56 + 4..126 - 2).collect();
    assert_eq!((own.len(), positions.len()), (126, 126));
    // In the first layer a key depends on its token and its position alone.
    let alone = rows(&decoder, &own, &positions, &[1; 126]);
    let config = decoder.config();
    let (kv, dim) = (config.num_kv_heads, config.head_dim);
    let at = |slot: usize, head: usize| {
        let from = (slot * kv + head) * dim;
        from..from + dim
    };
    let slot = |slot: usize, head: usize| {
        let from = (head * 126 + slot) * dim;
        from..from + dim
    };
    // Values of every layer are those that the chunk has when it is read by itself.
    let read: Vec<Rows> = chunks
        .iter()
        .map(|c| {
            let positions: Vec<u32> = (0..c.document.len() as u32).collect();
            rows(&decoder, &c.document, &positions, &[c.document.len()])
        })
        .collect();
    for s in 0..126 {
        let (chunk, row) = if s < 76 { (0, s) } else { (1, s - 76 + 4) };
        for head in 0..kv {
            let got = &matched.cartridge.layers[0].key[slot(s, head)];
            for (a, b) in got.iter().zip(&alone.0[0].0[at(s, head)]) {
                assert!((a - b).abs() < 1e-4, "slot {s}: {a} against {b}");
            }
            for (layer, tensors) in matched.cartridge.layers.iter().enumerate() {
                let want = &read[chunk].0[layer].1[at(row, head)];
                assert_eq!(&tensors.value[slot(s, head)], want);
            }
        }
    }
}

#[test]
fn few_slots_stand_in_for_two_chunks() {
    let decoder = tiny();
    let chunks = two_chunks();
    let exact = match_document(&decoder, &task(&chunks, 126), &|_, _| {}).unwrap();
    let asked = ids(40, 2077);
    let want = behind_cartridge(&decoder, &exact.cartridge, &asked);
    let document = [chunks[0].document.clone(), chunks[1].document.clone()].concat();
    let first = first_tokens(&decoder, &document[..40], 1).unwrap();
    let plain = distance(&behind_cartridge(&decoder, &first, &asked), &want);
    for shares in [SlotShares::Even, SlotShares::Attention] {
        let mut task = task(&chunks, 40);
        task.options.slot_shares = shares;
        let matched = match_document(&decoder, &task, &|_, _| {}).unwrap();
        assert_eq!(matched.cartridge.slots, 40);
        assert!(
            matched.output_errors.iter().all(|&e| e < 0.5),
            "{:?}",
            matched.output_errors
        );
        let got = behind_cartridge(&decoder, &matched.cartridge, &asked);
        let got = distance(&got, &want);
        assert!(got < 0.5 * plain, "{shares:?}: {got} against {plain}");
    }
}

/// One chunk and what asks it.
fn one_chunk() -> [MatchChunk; 1] {
    let queries = (2..40).map(|seed| ids(40, seed)).collect();
    [MatchChunk::whole(ids(120, 1), queries)]
}

#[test]
fn uneven_slots_meet_the_total_and_are_padded_where_they_are_fewer() {
    let decoder = tiny_with_shared_queries();
    let heads = decoder.config().num_layers * decoder.config().num_kv_heads;
    for chunks in [one_chunk().to_vec(), two_chunks().to_vec()] {
        let mut uneven = task(&chunks, 30);
        uneven.options.slot_shares = SlotShares::Uneven;
        let matched = match_document(&decoder, &uneven, &|_, _| {}).unwrap();
        let slots = &matched.head_slots;
        assert_eq!(slots.len(), heads);
        assert_eq!(slots.iter().sum::<usize>(), 30 * heads);
        assert_eq!(slots.iter().max(), Some(&matched.cartridge.slots));
        assert!(slots.iter().all(|&n| (7..=60).contains(&n)), "{slots:?}");
        assert!(slots.iter().any(|&n| n != 30), "{slots:?}");
        // Whatever stands in the padding, nothing comes of it.
        let (rows, dim) = (matched.cartridge.slots, decoder.config().head_dim);
        let mut other = matched.cartridge.clone();
        let kv = decoder.config().num_kv_heads;
        for (index, &n) in slots.iter().enumerate() {
            let head = index % kv;
            let value = &mut other.layers[index / kv].value;
            let padding = &mut value[(head * rows + n) * dim..(head + 1) * rows * dim];
            assert!(padding.iter().all(|&x| x == 0.0));
            padding.fill(1.0);
        }
        assert_ne!(other, matched.cartridge);
        let asked = ids(40, 77);
        let got = behind_cartridge(&decoder, &other, &asked);
        let want = behind_cartridge(&decoder, &matched.cartridge, &asked);
        assert!(distance(&got, &want) < 1e-6);
    }
}

#[test]
fn heads_that_cannot_be_padded_are_told_of() {
    // The queries of random weights share no direction.
    let chunks = one_chunk();
    let mut uneven = task(&chunks, 30);
    uneven.options.slot_shares = SlotShares::Uneven;
    let error = match_document(&tiny(), &uneven, &|_, _| {}).unwrap_err();
    assert!(error.to_string().contains("6 of 6 heads"), "{error}");
}

#[test]
fn uneven_slots_with_the_mean_as_the_most_are_even() {
    let decoder = tiny();
    for chunks in [one_chunk().to_vec(), two_chunks().to_vec()] {
        let even = match_document(&decoder, &task(&chunks, 30), &|_, _| {}).unwrap();
        let mut uneven = task(&chunks, 30);
        uneven.options.slot_shares = SlotShares::Uneven;
        uneven.options.most_slots = Some(30);
        let matched = match_document(&decoder, &uneven, &|_, _| {}).unwrap();
        assert_eq!(matched.cartridge, even.cartridge);
        assert_eq!(matched.head_slots, even.head_slots);
        uneven.options.most_slots = Some(29);
        let error = match_document(&decoder, &uneven, &|_, _| {}).unwrap_err();
        assert!(error.to_string().contains("at most 29"), "{error}");
    }
}

#[test]
fn slots_are_shared_by_tokens() {
    let chunk = |tokens: usize| MatchChunk::whole(vec![0; tokens], Vec::new());
    for (tokens, slots) in [
        (vec![10], 4),
        (vec![10, 20, 30], 12),
        (vec![100, 2, 2], 40),
        (vec![7, 9, 5, 3], 4),
        (vec![7, 9, 5, 3], 24),
        (vec![1000, 1001, 999], 1500),
    ] {
        let chunks: Vec<MatchChunk> = tokens.iter().map(|&n| chunk(n)).collect();
        let shares = slot_shares(&chunks, slots);
        assert_eq!(shares.iter().sum::<usize>(), slots);
        let total: usize = tokens.iter().sum();
        for (&share, &n) in shares.iter().zip(&tokens) {
            assert!(share >= 1 && share <= n, "{shares:?} of {tokens:?}");
            let fair = (slots * n) as f64 / total as f64;
            assert!(
                (share as f64 - fair).abs() <= 2.0,
                "{shares:?} of {tokens:?}"
            );
        }
    }
}

#[test]
fn documents_that_cannot_be_matched_are_named() {
    let decoder = tiny();
    let error = |chunks: &[MatchChunk], slots| {
        let matched = match_document(&decoder, &task(chunks, slots), &|_, _| {});
        matched.unwrap_err().to_string()
    };
    let whole = |tokens, asked| MatchChunk::whole(ids(tokens, 1), vec![ids(asked, 2)]);
    let found = error(&[whole(3000, 2000)], 10);
    assert!(found.contains("3000") && found.contains("4096"), "{found}");
    let found = error(&[whole(30, 20), whole(30, 20)], 1);
    assert!(found.contains("2 chunk"), "{found}");
    assert!(error(&[whole(1, 20)], 10).contains("at least 2"));
    assert!(error(&[whole(30, 0)], 10).contains("queries"));
    assert!(error(&[], 10).contains("no chunks"));
    let foreign = MatchChunk::whole(vec![1, 512], vec![vec![3]]);
    assert!(error(&[foreign], 10).contains("512"));
}
