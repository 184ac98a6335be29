//! A head in blocks: what the blocks give together.

use super::synthetic::SyntheticHead;
use super::tests::{attend, relative_error};
use super::{
    Block, HeadMatch, KeyChoice, MatchError, MatchOptions, SlotShares, match_blocks, match_head,
};

const DIM: usize = 16;

/// The head cut at `cuts`, with `slots` per block.
fn cut(head: &SyntheticHead, cuts: &[usize], slots: &[usize]) -> Vec<Block> {
    let tokens = head.keys.len() / DIM;
    let starts = [&[0], cuts].concat();
    let ends = [cuts, &[tokens]].concat();
    starts
        .iter()
        .zip(&ends)
        .zip(slots)
        .map(|((&start, &end), &slots)| Block {
            keys: head.keys[start * DIM..end * DIM].to_vec(),
            values: head.values[start * DIM..end * DIM].to_vec(),
            slots,
        })
        .collect()
}

fn run(blocks: &[Block], queries: &[f32], options: &MatchOptions) -> HeadMatch {
    match_blocks(DIM, blocks, queries, options).unwrap()
}

/// Relative output error of a match in plain `f64`.
fn error(head: &SyntheticHead, queries: &[f32], matched: &HeadMatch) -> f64 {
    let (want, _) = attend(DIM, queries, &head.keys, &head.values);
    let (got, _) = attend(DIM, queries, &matched.keys, &matched.values);
    relative_error(&got, &want)
}

#[test]
fn one_block_is_the_whole_head() {
    let head = SyntheticHead::new(40, 90, 40, DIM);
    for choice in [KeyChoice::TopAttention, KeyChoice::Pursuit] {
        let options = MatchOptions {
            key_choice: choice,
            ..MatchOptions::default()
        };
        let blocks = cut(&head, &[], &[20]);
        let whole = match_head(&head.input(20), &options).unwrap();
        assert_eq!(run(&blocks, &head.queries, &options), whole);
    }
}

#[test]
fn blocks_with_a_slot_for_every_token_are_the_document() {
    let head = SyntheticHead::new(41, 90, 40, DIM);
    let blocks = cut(&head, &[30, 61], &[30, 31, 29]);
    let matched = run(&blocks, &head.queries, &MatchOptions::default());
    assert_eq!(matched.keys, head.keys);
    assert_eq!(matched.values, head.values);
    assert_eq!(matched.chosen, (0..90).collect::<Vec<_>>());
    assert!(matched.output_error < 1e-6 && matched.mass_error < 1e-6);
}

#[test]
fn blocks_together_come_close_to_the_document() {
    for seed in [42, 43, 44] {
        let head = SyntheticHead::new(seed, 160, 80, DIM);
        let options = MatchOptions::default();
        let blocks = cut(&head, &[70, 120], &[20, 12, 10]);
        let matched = run(&blocks, &head.queries, &options);
        // Every slot is accounted for, in the order of the blocks.
        assert_eq!(matched.keys.len(), 42 * DIM);
        assert_eq!(matched.values.len(), 42 * DIM);
        assert_eq!(matched.chosen[0], 0);
        assert!(matched.chosen.windows(2).all(|w| w[0] < w[1]));
        let inside = |range: std::ops::Range<usize>| {
            matched.chosen.iter().filter(|t| range.contains(t)).count()
        };
        assert_eq!(
            (inside(0..70), inside(70..120), inside(120..160)),
            (20, 12, 10)
        );
        // What is reported is the error over the joined blocks.
        let found = error(&head, &head.queries, &matched);
        assert!((found - matched.output_error).abs() < 1e-4);
        assert!(found < 0.5 * matched.selection_error, "{found}");
    }
}

/// Mean square of every token's attention over all queries, in plain `f64`.
fn energies(head: &SyntheticHead) -> Vec<f64> {
    let tokens = head.keys.len() / DIM;
    let mut energies = vec![0.0; tokens];
    for query in head.queries.chunks_exact(DIM) {
        let scores: Vec<f64> = (head.keys.chunks_exact(DIM))
            .map(|key| {
                let dot = key.iter().zip(query).map(|(k, q)| f64::from(k * q));
                dot.sum::<f64>() / (DIM as f64).sqrt()
            })
            .collect();
        let sum: f64 = scores.iter().map(|s| s.exp()).sum();
        for (energy, score) in energies.iter_mut().zip(&scores) {
            *energy += (score.exp() / sum).powi(2);
        }
    }
    energies
}

#[test]
fn slots_go_where_the_head_looks() {
    let options = MatchOptions {
        slot_shares: SlotShares::Attention,
        ..MatchOptions::default()
    };
    for seed in [45, 46, 47] {
        let head = SyntheticHead::new(seed, 160, 80, DIM);
        let blocks = cut(&head, &[50], &[20, 20]);
        let matched = run(&blocks, &head.queries, &options);
        assert_eq!(matched.chosen.len(), 40);
        assert_eq!(matched.chosen[0], 0);
        // The sink and the strongest key of the second block, then the strongest of all.
        let energies = energies(&head);
        let strongest = |range: std::ops::Range<usize>, count: usize, not: &[usize]| {
            let mut order: Vec<usize> = range.filter(|t| !not.contains(t)).collect();
            order.sort_by(|&a, &b| energies[b].total_cmp(&energies[a]));
            order.truncate(count);
            order
        };
        let second = strongest(50..160, 1, &[]);
        let others = strongest(1..160, 38, &second);
        let want = 1 + others.iter().filter(|&&t| t < 50).count();
        let found = matched.chosen.iter().filter(|&&t| t < 50).count();
        assert_eq!(found, want);
        assert_ne!(found, 20, "as even as before: the test tells nothing");
    }
}

#[test]
fn no_blocks_are_an_error() {
    let head = SyntheticHead::new(46, 20, 10, DIM);
    let options = MatchOptions::default();
    assert_eq!(
        match_blocks(DIM, &[], &head.queries, &options),
        Err(MatchError::NoBlocks)
    );
    let blocks = cut(&head, &[10], &[5, 0]);
    assert_eq!(
        match_blocks(DIM, &blocks, &head.queries, &options),
        Err(MatchError::NoSlots)
    );
}
