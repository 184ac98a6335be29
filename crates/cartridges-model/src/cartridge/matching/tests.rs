//! A whole head: what must hold whatever the numbers.

use proptest::prelude::*;
use rand::SeedableRng;
use rand_chacha::ChaCha8Rng;

use super::synthetic::{SyntheticHead, frequencies, gaussian};
use super::{
    Block, HeadInput, HeadMatch, KeyChoice, MatchError, MatchOptions, allot, match_head,
    rotate_keys, unexplained,
};

fn options(key_choice: KeyChoice) -> MatchOptions {
    MatchOptions {
        key_choice,
        ..MatchOptions::default()
    }
}

fn closed_form(key_choice: KeyChoice) -> MatchOptions {
    MatchOptions {
        key_refine_rounds: 0,
        ..options(key_choice)
    }
}

fn run(head: &SyntheticHead, slots: usize, options: &MatchOptions) -> HeadMatch {
    match_head(&head.input(slots), options).unwrap()
}

/// Attention outputs and log-masses in `f64`.
pub(super) fn attend(
    dim: usize,
    queries: &[f32],
    keys: &[f32],
    values: &[f32],
) -> (Vec<f64>, Vec<f64>) {
    let (mut outputs, mut masses) = (Vec::new(), Vec::new());
    for query in queries.chunks_exact(dim) {
        let scores: Vec<f64> = keys
            .chunks_exact(dim)
            .map(|key| {
                let dot: f64 = key
                    .iter()
                    .zip(query)
                    .map(|(&k, &q)| f64::from(k) * f64::from(q))
                    .sum();
                dot / (dim as f64).sqrt()
            })
            .collect();
        let max = scores.iter().copied().fold(f64::NEG_INFINITY, f64::max);
        let sum: f64 = scores.iter().map(|s| (s - max).exp()).sum();
        masses.push(max + sum.ln());
        for c in 0..dim {
            outputs.push(
                scores
                    .iter()
                    .zip(values.chunks_exact(dim))
                    .map(|(s, v)| (s - max).exp() / sum * f64::from(v[c]))
                    .sum(),
            );
        }
    }
    (outputs, masses)
}

pub(super) fn relative_error(got: &[f64], want: &[f64]) -> f64 {
    let energy: f64 = want.iter().map(|x| x * x).sum();
    let misfit: f64 = got.iter().zip(want).map(|(a, b)| (a - b).powi(2)).sum();
    (misfit / energy).sqrt()
}

fn assert_close(got: &[f32], want: &[f32], tolerance: f32) {
    assert_eq!(got.len(), want.len());
    let size = want.iter().fold(1.0f32, |m, x| m.max(x.abs()));
    for (i, (a, b)) in got.iter().zip(want).enumerate() {
        assert!((a - b).abs() <= tolerance * size, "[{i}] {a} against {b}");
    }
}

#[test]
fn keeps_everything_when_slots_suffice() {
    let head = SyntheticHead::new(1, 20, 10, 16);
    for slots in [20, 31] {
        let matched = run(&head, slots, &MatchOptions::default());
        assert_eq!(matched.keys, head.keys);
        assert_eq!(matched.values, head.values);
        assert_eq!(matched.chosen, (0..20).collect::<Vec<_>>());
        assert_eq!(matched.output_error, 0.0);
        assert_eq!(matched.selection_error, 0.0);
    }
}

#[test]
fn reported_errors_are_those_of_a_plain_attention() {
    let head = SyntheticHead::new(2, 90, 40, 16);
    for refine in [0, 6] {
        let options = MatchOptions {
            key_refine_rounds: refine,
            ..MatchOptions::default()
        };
        let matched = run(&head, 20, &options);
        let (want, want_mass) = attend(16, &head.queries, &head.keys, &head.values);
        let (got, got_mass) = attend(16, &head.queries, &matched.keys, &matched.values);
        assert!((relative_error(&got, &want) - matched.output_error).abs() < 1e-4);
        let mass: f64 = got_mass
            .iter()
            .zip(&want_mass)
            .map(|(a, b)| (a - b).powi(2))
            .sum();
        assert!(((mass / want_mass.len() as f64).sqrt() - matched.mass_error).abs() < 1e-3);
        let rows = |m: &[f32]| -> Vec<f32> {
            let pick = |&t: &usize| m[t * 16..(t + 1) * 16].to_vec();
            matched.chosen.iter().flat_map(pick).collect()
        };
        let (kept, _) = attend(16, &head.queries, &rows(&head.keys), &rows(&head.values));
        assert!((relative_error(&kept, &want) - matched.selection_error).abs() < 1e-4);
    }
}

#[test]
fn each_step_helps_on_a_realistic_head() {
    let head = SyntheticHead::new(3, 200, 100, 32);
    for slots in [50, 20] {
        let top = run(&head, slots, &closed_form(KeyChoice::TopAttention));
        let pursuit = run(&head, slots, &closed_form(KeyChoice::Pursuit));
        let refined = run(
            &head,
            slots,
            &MatchOptions {
                key_refine_rounds: 10,
                ..options(KeyChoice::Pursuit)
            },
        );
        assert!(top.output_error < 0.8 * top.selection_error);
        assert!(pursuit.output_error < top.output_error);
        assert!(refined.output_error < 0.9 * pursuit.output_error);
        assert!(refined.mass_error < pursuit.mass_error);
        assert_eq!(refined.chosen, pursuit.chosen);
        for matched in [&top, &pursuit] {
            assert_eq!(matched.chosen.len(), slots);
            assert_eq!(matched.chosen[0], 0);
            assert!(matched.chosen.windows(2).all(|w| w[0] < w[1]));
        }
    }
}

#[test]
fn pursuit_does_not_keep_copies() {
    // Tokens 1..=5 are the same strongly attended key, the others carry the rest.
    let dim = 8;
    let mut head = SyntheticHead::new(4, 40, 60, dim);
    for t in 2..=5 {
        head.keys.copy_within(dim..2 * dim, t * dim);
        head.values.copy_within(dim..2 * dim, t * dim);
    }
    let matched = run(&head, 16, &closed_form(KeyChoice::Pursuit));
    let copies = matched
        .chosen
        .iter()
        .filter(|t| (1..=5).contains(*t))
        .count();
    assert!(copies <= 1, "{:?}", matched.chosen);
}

#[test]
fn a_shift_of_all_scores_of_a_query_changes_nothing() {
    // The same vector added to all keys moves every score of a query by the same amount.
    let head = SyntheticHead::new(5, 60, 40, 16);
    let mut rng = ChaCha8Rng::seed_from_u64(50);
    let offset = gaussian(&mut rng, 16, 3.0);
    let shifted: Vec<f32> = head
        .keys
        .chunks_exact(16)
        .flat_map(|key| key.iter().zip(&offset).map(|(k, o)| k + o))
        .collect();
    let options = closed_form(KeyChoice::Pursuit);
    let plain = run(&head, 15, &options);
    let input = HeadInput {
        keys: &shifted,
        ..head.input(15)
    };
    let moved = match_head(&input, &options).unwrap();
    assert_eq!(moved.chosen, plain.chosen);
    assert!((moved.output_error - plain.output_error).abs() < 1e-3);
    assert!((moved.mass_error - plain.mass_error).abs() < 1e-3);
}

#[test]
fn huge_scores_neither_overflow_nor_pass_silently() {
    let mut head = SyntheticHead::new(6, 60, 40, 16);
    for q in &mut head.queries {
        *q *= 300.0;
    }
    let matched = run(&head, 15, &MatchOptions::default());
    assert!(matched.output_error.is_finite() && matched.mass_error.is_finite());
    assert!(matched.output_error <= matched.selection_error);
    head.queries[3] = 1e30;
    head.keys.iter_mut().for_each(|k| *k *= 1e10);
    assert_eq!(
        match_head(&head.input(15), &MatchOptions::default()),
        Err(MatchError::ScoreOverflow { query: 0 })
    );
}

#[test]
fn the_order_of_the_queries_does_not_matter() {
    let head = SyntheticHead::new(7, 80, 50, 16);
    let reversed: Vec<f32> = head
        .queries
        .chunks_exact(16)
        .rev()
        .flatten()
        .copied()
        .collect();
    for choice in [KeyChoice::TopAttention, KeyChoice::Pursuit] {
        let plain = run(&head, 20, &closed_form(choice));
        let input = HeadInput {
            queries: &reversed,
            ..head.input(20)
        };
        let other = match_head(&input, &closed_form(choice)).unwrap();
        assert_eq!(other.chosen, plain.chosen);
        assert_close(&other.keys, &plain.keys, 1e-4);
        assert_close(&other.values, &plain.values, 2e-3);
    }
}

#[test]
fn weights_are_repetitions() {
    let head = SyntheticHead::new(8, 70, 40, 16);
    let weights: Vec<f32> = (0..120).map(|i| (i % 4) as f32).collect();
    let repeated: Vec<f32> = head
        .queries
        .chunks_exact(16)
        .zip(&weights)
        .flat_map(|(q, &w)| q.repeat(w as usize))
        .collect();
    let options = MatchOptions {
        key_refine_rounds: 3,
        ..MatchOptions::default()
    };
    let weighted = match_head(
        &HeadInput {
            weights: Some(&weights),
            ..head.input(18)
        },
        &options,
    )
    .unwrap();
    let counted = match_head(
        &HeadInput {
            queries: &repeated,
            ..head.input(18)
        },
        &options,
    )
    .unwrap();
    assert_eq!(weighted.chosen, counted.chosen);
    assert!((weighted.output_error - counted.output_error).abs() < 1e-3);
    assert!((weighted.selection_error - counted.selection_error).abs() < 1e-5);
    assert_close(&weighted.keys, &counted.keys, 1e-2);
}

#[test]
fn blocks_of_queries_join_seamlessly() {
    // 3 * 3000 queries are more than one block; every query twice has to give the same result.
    let head = SyntheticHead::new(9, 12, 3000, 8);
    let twice = head.queries.repeat(2);
    let options = closed_form(KeyChoice::Pursuit);
    let once = run(&head, 4, &options);
    let input = HeadInput {
        queries: &twice,
        ..head.input(4)
    };
    let both = match_head(&input, &options).unwrap();
    assert_eq!(once.chosen, both.chosen);
    assert_close(&both.keys, &once.keys, 1e-4);
    assert_close(&both.values, &once.values, 2e-3);
    assert!((once.output_error - both.output_error).abs() < 1e-5);
}

#[test]
fn one_slot_is_the_sink() {
    let head = SyntheticHead::new(10, 30, 20, 16);
    for choice in [KeyChoice::TopAttention, KeyChoice::Pursuit] {
        let matched = run(&head, 1, &options(choice));
        assert_eq!(matched.chosen, [0]);
        assert!(matched.output_error <= matched.selection_error);
    }
}

#[test]
fn slots_shared_out_over_heads_leave_less_than_even_ones() {
    // Heads that are more or less loud, and whose queries are more or less sharp.
    let heads: Vec<SyntheticHead> = [0.3f32, 1.0, 4.0]
        .iter()
        .zip(20..)
        .map(|(scale, seed)| {
            let mut head = SyntheticHead::new(seed, 120, 60, 16);
            head.values.iter_mut().for_each(|v| *v *= scale);
            head
        })
        .collect();
    let options = MatchOptions::default();
    let block = |head: &SyntheticHead, slots: usize| Block {
        keys: head.keys.clone(),
        values: head.values.clone(),
        slots,
    };
    let curves: Vec<_> = heads
        .iter()
        .map(|head| unexplained(16, &[block(head, 1)], &head.queries, 40, &options).unwrap())
        .collect();
    let shares = allot(&curves, 60, 40);
    assert_eq!(shares.iter().flatten().sum::<usize>(), 60);
    // Squared distance of all outputs from those of the document.
    let misfit = |slots: [usize; 3]| -> f64 {
        let parts = heads.iter().zip(slots).map(|(head, slots)| {
            let matched = run(head, slots, &options);
            let (want, _) = attend(16, &head.queries, &head.keys, &head.values);
            let energy: f64 = want.iter().map(|x| x * x).sum();
            matched.output_error.powi(2) * energy
        });
        parts.sum()
    };
    let (uneven, even) = (
        misfit([shares[0][0], shares[1][0], shares[2][0]]),
        misfit([20; 3]),
    );
    assert!(
        uneven < 0.8 * even,
        "{uneven} against {even} with {shares:?}"
    );
}

#[test]
fn degenerate_heads_are_solved() {
    // All-zero queries, all-equal keys, all-zero values: nothing to tell tokens apart.
    let head = SyntheticHead::new(11, 30, 20, 16);
    let zeros = vec![0.0; head.queries.len()];
    let equal = vec![1.0; head.keys.len()];
    let no_values = vec![0.0; head.values.len()];
    let inputs = [
        HeadInput {
            queries: &zeros,
            ..head.input(7)
        },
        HeadInput {
            keys: &equal,
            ..head.input(7)
        },
        HeadInput {
            values: &no_values,
            ..head.input(7)
        },
    ];
    for input in inputs {
        for choice in [KeyChoice::TopAttention, KeyChoice::Pursuit] {
            let options = MatchOptions {
                key_refine_rounds: 2,
                ..options(choice)
            };
            let matched = match_head(&input, &options).unwrap();
            assert_eq!(matched.chosen.len(), 7);
            assert!(matched.output_error <= matched.selection_error);
            assert!(matched.keys.iter().all(|x| x.is_finite()));
        }
    }
}

#[test]
fn bad_input_is_named() {
    let head = SyntheticHead::new(12, 30, 20, 16);
    let good = head.input(7);
    let check = |input: HeadInput<'_>| match_head(&input, &MatchOptions::default()).unwrap_err();
    assert_eq!(
        check(HeadInput {
            head_dim: 0,
            ..good
        }),
        MatchError::NoHeadDim
    );
    assert_eq!(check(HeadInput { slots: 0, ..good }), MatchError::NoSlots);
    assert_eq!(
        check(HeadInput {
            keys: &head.keys[..16],
            values: &head.values[..16],
            ..good
        }),
        MatchError::TooFewTokens { tokens: 1 }
    );
    assert_eq!(
        check(HeadInput {
            queries: &[],
            ..good
        }),
        MatchError::NoQueries
    );
    for (what, input) in [
        (
            "keys",
            HeadInput {
                keys: &head.keys[1..],
                ..good
            },
        ),
        (
            "values",
            HeadInput {
                values: &head.values[16..],
                ..good
            },
        ),
        (
            "weights",
            HeadInput {
                weights: Some(&[1.0]),
                ..good
            },
        ),
    ] {
        let error = check(input);
        assert!(matches!(error, MatchError::Length { what: w, .. } if w == what));
        assert!(error.to_string().contains(what));
    }
    let mut broken = head.values.clone();
    broken[17] = f32::NAN;
    assert!(matches!(
        check(HeadInput {
            values: &broken,
            ..good
        }),
        MatchError::NotFinite {
            what: "values",
            index: 17,
            ..
        }
    ));
    let mut weights = vec![0.0; 60];
    let weigh = |w: &[f32]| {
        match_head(
            &HeadInput {
                weights: Some(w),
                ..good
            },
            &MatchOptions::default(),
        )
        .unwrap_err()
    };
    assert_eq!(weigh(&weights), MatchError::ZeroWeights);
    weights[2] = -1.0;
    assert_eq!(
        weigh(&weights),
        MatchError::NegativeWeight {
            index: 2,
            value: -1.0
        }
    );
    let options = MatchOptions {
        value_ridge: 0.0,
        ..MatchOptions::default()
    };
    assert!(matches!(
        match_head(&good, &options),
        Err(MatchError::BadOption {
            option: "value_ridge",
            ..
        })
    ));
}

#[test]
fn rotated_slots_serve_requests_that_start_at_p() {
    let (dim, tokens, slots) = (16, 80, 20);
    let head = SyntheticHead::new(13, tokens, 30, dim);
    let matched = run(&head, slots, &MatchOptions::default());
    let turns = frequencies(dim);
    let back = slots as f64 - tokens as f64;
    let mut keys = matched.keys.clone();
    rotate_keys(&mut keys, &turns, back).unwrap();
    let mut queries = head.queries.clone();
    rotate_keys(&mut queries, &turns, back).unwrap();
    let (want, want_mass) = attend(dim, &head.queries, &matched.keys, &matched.values);
    let (got, got_mass) = attend(dim, &queries, &keys, &matched.values);
    assert!(relative_error(&got, &want) < 1e-5);
    for (a, b) in got_mass.iter().zip(&want_mass) {
        assert!((a - b).abs() < 1e-4);
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    #[test]
    fn matching_is_never_worse_than_selection(
        seed in 0u64..1000,
        tokens in 2usize..40,
        queries in 1usize..50,
        slots in 1usize..40,
        half in 1usize..9,
        pursuit: bool,
        refine in 0usize..3,
    ) {
        // Plain noise without any common mean: the hardest case for the fold.
        let dim = 2 * half;
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let keys = gaussian(&mut rng, tokens * dim, 2.0);
        let values = gaussian(&mut rng, tokens * dim, 1.0);
        let queries = gaussian(&mut rng, queries * dim, 2.0);
        let input = HeadInput {
            head_dim: dim,
            keys: &keys,
            values: &values,
            queries: &queries,
            slots,
            weights: None,
        };
        let choice = if pursuit { KeyChoice::Pursuit } else { KeyChoice::TopAttention };
        let options = MatchOptions { key_refine_rounds: refine, ..options(choice) };
        let matched = match_head(&input, &options).unwrap();
        prop_assert!(matched.output_error <= matched.selection_error);
        prop_assert_eq!(matched.chosen.len(), slots.min(tokens));
        prop_assert_eq!(matched.keys.len(), slots.min(tokens) * dim);
        prop_assert_eq!(matched.values.len(), matched.keys.len());
        prop_assert_eq!(matched.chosen[0], 0);
    }
}
