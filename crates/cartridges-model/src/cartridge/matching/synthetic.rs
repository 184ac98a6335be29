//! Heads for tests that behave like those of real models.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::input::HeadInput;
use super::rotate::rotate_keys;

/// A made-up head and its reference queries.
pub(super) struct SyntheticHead {
    pub(super) dim: usize,
    pub(super) keys: Vec<f32>,
    pub(super) values: Vec<f32>,
    pub(super) queries: Vec<f32>,
}

impl SyntheticHead {
    /// `tokens` keys and `positions * 3` queries (three query heads).
    ///
    /// As in real models: keys are a strong mean plus low-rank content, queries share a strong
    /// mean that points to a sink at token 0, the content of query `j` walks over the text as in
    /// a verbatim repeat, neighbours resemble each other, and RoPE turns all of it.
    pub(super) fn new(seed: u64, tokens: usize, positions: usize, dim: usize) -> Self {
        let mut rng = ChaCha8Rng::seed_from_u64(seed);
        let rank = dim / 4;
        let frequencies = frequencies(dim);
        let key_mean = gaussian(&mut rng, dim, 2.0);
        let query_mean = gaussian(&mut rng, dim, 1.5);
        let to_key = gaussian(&mut rng, rank * dim, 0.8 / (rank as f32).sqrt());
        let to_value = gaussian(&mut rng, rank * dim, 1.0 / (rank as f32).sqrt());
        let mut topics = gaussian(&mut rng, tokens * rank, 1.0);
        for t in 1..tokens {
            for r in 0..rank {
                topics[t * rank + r] =
                    0.6 * topics[(t - 1) * rank + r] + 0.8 * topics[t * rank + r];
            }
        }
        let place = |row: &mut [f32], position: f64| {
            // The layout and the frequencies are right by construction.
            rotate_keys(row, &frequencies, position).is_ok()
        };
        let mut head = Self {
            dim,
            keys: Vec::new(),
            values: Vec::new(),
            queries: Vec::new(),
        };
        for t in 0..tokens {
            let topic = &topics[t * rank..(t + 1) * rank];
            let noise = gaussian(&mut rng, dim, 0.3);
            let mut key: Vec<f32> = (0..dim)
                .map(|c| key_mean[c] + mix(topic, &to_key, c, dim) + noise[c])
                .collect();
            let mut value: Vec<f32> = (0..dim).map(|c| mix(topic, &to_value, c, dim)).collect();
            for v in &mut value {
                *v += 0.1 * gaussian(&mut rng, 1, 1.0)[0];
            }
            if t == 0 {
                for (k, q) in key.iter_mut().zip(&query_mean) {
                    *k += 0.8 * q;
                }
                value.iter_mut().for_each(|v| *v *= 0.05);
            }
            assert!(place(&mut key, t as f64));
            head.keys.extend(key);
            head.values.extend(value);
        }
        for query_head in 0..3 {
            let sharpness = [0.5, 1.0, 2.0][query_head];
            for j in 0..positions {
                let t = (j * tokens / positions + query_head) % tokens;
                let topic = &topics[t * rank..(t + 1) * rank];
                let noise = gaussian(&mut rng, dim, 0.3);
                let mut query: Vec<f32> = (0..dim)
                    .map(|c| query_mean[c] + sharpness * mix(topic, &to_key, c, dim) + noise[c])
                    .collect();
                assert!(place(&mut query, (tokens + j) as f64));
                head.queries.extend(query);
            }
        }
        head
    }

    /// The head as input.
    pub(super) fn input(&self, slots: usize) -> HeadInput<'_> {
        HeadInput {
            head_dim: self.dim,
            keys: &self.keys,
            values: &self.values,
            queries: &self.queries,
            slots,
            weights: None,
        }
    }
}

/// RoPE's angular frequencies with the base of Qwen2.
pub(super) fn frequencies(dim: usize) -> Vec<f64> {
    (0..dim / 2)
        .map(|i| 1e6f64.powf(-2.0 * i as f64 / dim as f64))
        .collect()
}

/// Normal numbers by Box and Muller.
pub(super) fn gaussian(rng: &mut ChaCha8Rng, count: usize, deviation: f32) -> Vec<f32> {
    (0..count)
        .map(|_| {
            let radius = (-2.0 * (1.0 - rng.random::<f64>()).ln()).sqrt();
            let angle = std::f64::consts::TAU * rng.random::<f64>();
            deviation * (radius * angle.cos()) as f32
        })
        .collect()
}

fn mix(topic: &[f32], basis: &[f32], column: usize, dim: usize) -> f32 {
    topic
        .iter()
        .enumerate()
        .map(|(r, x)| x * basis[r * dim + column])
        .sum()
}
