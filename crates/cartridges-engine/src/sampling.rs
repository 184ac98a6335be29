//! Choosing the next token.

use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

/// Tokens this far below the most likely one, in nats, have together less than 1e-11 of the mass.
const NEVER_DRAWN: f32 = -40.0;

/// How the next token is chosen. The filters apply in the order temperature, top-k, top-p, min-p.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Sampling {
    /// 0 is greedy; otherwise logits are divided by it.
    pub temperature: f32,
    /// Keep only this many most likely tokens (0: all).
    pub top_k: usize,
    /// Keep the smallest set whose mass reaches this (1: all).
    pub top_p: f32,
    /// Drop tokens less likely than this share of the most likely one (0: none).
    pub min_p: f32,
    /// Start of the random sequence of this request.
    pub seed: u64,
}

impl Default for Sampling {
    fn default() -> Self {
        Self {
            temperature: 0.0,
            top_k: 0,
            top_p: 1.0,
            min_p: 0.0,
            seed: 0,
        }
    }
}

impl Sampling {
    /// The setting that is out of range, in words.
    pub(crate) fn problem(&self) -> Option<String> {
        if !(self.temperature.is_finite() && self.temperature >= 0.0) {
            return Some(format!(
                "temperature is {}, expected 0 or more",
                self.temperature
            ));
        }
        if !(self.top_p > 0.0 && self.top_p <= 1.0) {
            return Some(format!(
                "top_p is {}, expected more than 0, at most 1",
                self.top_p
            ));
        }
        if !(0.0..=1.0).contains(&self.min_p) {
            return Some(format!("min_p is {}, expected 0 to 1", self.min_p));
        }
        None
    }

    pub(crate) fn rng(&self) -> ChaCha8Rng {
        ChaCha8Rng::seed_from_u64(self.seed)
    }

    /// Draws from `logits`, given the log of their softmax sum at this temperature.
    pub(crate) fn draw(&self, logits: &[f32], rng: &mut ChaCha8Rng) -> u32 {
        if self.temperature == 0.0 {
            return argmax(logits);
        }
        let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        // Most of a vocabulary is so unlikely that all of it together is never drawn.
        let weight = |x: f32| match (x - max) / self.temperature {
            z if z > NEVER_DRAWN => f64::from(z).exp(),
            _ => 0.0,
        };
        let plain = self.top_k == 0 && self.top_p >= 1.0 && self.min_p == 0.0;
        if plain {
            let total: f64 = logits.iter().map(|x| weight(*x)).sum();
            return pick(logits.iter().map(|x| weight(*x)), total, rng) as u32;
        }
        let mut kept: Vec<(u32, f64)> = logits
            .iter()
            .enumerate()
            .map(|(id, x)| (id as u32, weight(*x)))
            .collect();
        kept.sort_unstable_by(|a, b| b.1.total_cmp(&a.1).then(a.0.cmp(&b.0)));
        if self.top_k > 0 {
            kept.truncate(self.top_k);
        }
        if self.top_p < 1.0 {
            let target = kept.iter().map(|k| k.1).sum::<f64>() * f64::from(self.top_p);
            let mut mass = 0.0;
            let count = kept.iter().take_while(|k| {
                let more = mass < target;
                mass += k.1;
                more
            });
            let count = count.count().max(1);
            kept.truncate(count);
        }
        let floor = kept[0].1 * f64::from(self.min_p);
        kept.retain(|k| k.1 >= floor);
        let total = kept.iter().map(|k| k.1).sum();
        kept[pick(kept.iter().map(|k| k.1), total, rng)].0
    }
}

/// The first index of the largest value.
pub(crate) fn argmax(logits: &[f32]) -> u32 {
    let mut best = 0;
    for (id, x) in logits.iter().enumerate() {
        if *x > logits[best] {
            best = id;
        }
    }
    best as u32
}

/// An index drawn in proportion to its weight.
fn pick(weights: impl Iterator<Item = f64>, total: f64, rng: &mut ChaCha8Rng) -> usize {
    let mut left = rng.random::<f64>() * total;
    let mut last = 0;
    for (index, weight) in weights.enumerate() {
        if weight > 0.0 {
            last = index;
            left -= weight;
            if left < 0.0 {
                break;
            }
        }
    }
    last
}

#[cfg(test)]
mod tests {
    use super::*;

    fn shares(sampling: Sampling, logits: &[f32]) -> Vec<f64> {
        let mut rng = sampling.rng();
        let mut counts = vec![0.0; logits.len()];
        for _ in 0..20_000 {
            counts[sampling.draw(logits, &mut rng) as usize] += 1.0 / 20_000.0;
        }
        counts
    }

    #[test]
    fn draws_follow_the_tempered_distribution() {
        let logits = [1.0f32, 0.0, -1.0];
        let sampling = Sampling {
            temperature: 0.5,
            seed: 7,
            ..Sampling::default()
        };
        let weights: Vec<f64> = logits.iter().map(|x| f64::from(x / 0.5).exp()).collect();
        let total: f64 = weights.iter().sum();
        for (share, weight) in shares(sampling, &logits).iter().zip(&weights) {
            assert!((share - weight / total).abs() < 0.015, "{share} {weight}");
        }
    }

    #[test]
    fn filters_drop_what_they_say() {
        let logits = [2.0f32, 1.5, 1.0, -3.0];
        let base = Sampling {
            temperature: 1.0,
            ..Sampling::default()
        };
        let kept = |s: Sampling| shares(s, &logits).iter().filter(|x| **x > 0.0).count();
        assert_eq!(kept(Sampling { top_k: 2, ..base }), 2);
        // Masses are about 0.506, 0.307, 0.186, 0.003.
        assert_eq!(kept(Sampling { top_p: 0.5, ..base }), 1);
        assert_eq!(kept(Sampling { top_p: 0.6, ..base }), 2);
        assert_eq!(kept(Sampling { min_p: 0.5, ..base }), 2);
        assert_eq!(
            kept(Sampling {
                temperature: 0.0,
                ..base
            }),
            1
        );
    }

    #[test]
    fn settings_out_of_range_are_named() {
        let wrong = Sampling {
            top_p: 0.0,
            ..Sampling::default()
        };
        assert!(wrong.problem().unwrap().contains("top_p"));
        let wrong = Sampling {
            temperature: f32::NAN,
            ..Sampling::default()
        };
        assert!(wrong.problem().unwrap().contains("temperature"));
    }
}
