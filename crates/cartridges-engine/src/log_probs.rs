//! The most likely tokens and their log-probs.

/// Dense top-K log-probs of `rows` places: row-major, each row sorted from the most likely down.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct TopLogprobs {
    /// Candidates per row.
    pub k: usize,
    /// Token ids, `[rows · k]`.
    pub ids: Vec<u32>,
    /// Natural log-probs, `[rows · k]`.
    pub logprobs: Vec<f32>,
}

impl TopLogprobs {
    /// An empty table of `k` candidates per row.
    pub fn new(k: usize) -> Self {
        Self {
            k,
            ..Self::default()
        }
    }

    /// Adds one row of candidates.
    pub(crate) fn push(&mut self, row: &[(u32, f32)]) {
        self.ids.extend(row.iter().map(|c| c.0));
        self.logprobs.extend(row.iter().map(|c| c.1));
    }
}

/// Log of the sum of `e^(x / t)`.
pub fn log_sum(logits: &[f32], temperature: f32) -> f64 {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let scale = 1.0 / temperature;
    let sum: f64 = logits
        .chunks(4096)
        .map(|part| f64::from(part.iter().map(|x| ((x - max) * scale).exp()).sum::<f32>()))
        .sum();
    f64::from(max * scale) + sum.ln()
}

/// The `k` largest logits as log-probs at a temperature, ties by id; `log_sum` is [`log_sum`]'s.
pub fn top(logits: &[f32], k: usize, temperature: f32, log_sum: f64) -> Vec<(u32, f32)> {
    let k = k.min(logits.len());
    let mut best: Vec<(u32, f32)> = Vec::with_capacity(k + 1);
    for (id, &x) in logits.iter().enumerate() {
        if best.len() == k && best.last().is_none_or(|worst| x <= worst.1) {
            continue;
        }
        let at = best.partition_point(|b| b.1 >= x);
        best.insert(at, (id as u32, x));
        best.truncate(k);
    }
    for (_, x) in &mut best {
        *x = (f64::from(*x / temperature) - log_sum) as f32;
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_are_found_in_order() {
        let logits = [0.5f32, 3.0, -1.0, 3.0, 2.0];
        let sum = log_sum(&logits, 1.0);
        let expected: f64 = logits.iter().map(|x| f64::from(*x).exp()).sum::<f64>().ln();
        assert!((sum - expected).abs() < 1e-6);
        let best = top(&logits, 3, 1.0, sum);
        assert_eq!(best.iter().map(|b| b.0).collect::<Vec<_>>(), [1, 3, 4]);
        assert!((f64::from(best[2].1) - (2.0 - expected)).abs() < 1e-6);
        assert_eq!(top(&logits, 9, 1.0, sum).len(), 5);
    }
}
