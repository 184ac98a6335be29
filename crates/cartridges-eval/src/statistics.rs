//! Means over questions and how sure they are.

use serde::{Deserialize, Serialize};

use crate::random::SplitMix64;
use crate::score::sum_statistics;

/// Resamples of the bootstrap.
pub(crate) const RESAMPLES: usize = 1000;

/// A number with its 95 % interval over questions.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Estimate {
    /// The number.
    pub value: f64,
    /// Lower end of the interval.
    pub low: f64,
    /// Upper end of the interval.
    pub high: f64,
}

/// A value of the sums of some numbers over questions, as many for each, with the percentile bootstrap (Efron
/// 1979): questions are drawn with replacement [`RESAMPLES`] times. `None` where the value of all is none.
pub(crate) fn resampled<R: AsRef<[f64]>>(
    rows: &[R],
    seed: u64,
    value: impl Fn(&[f64]) -> Option<f64>,
) -> Option<Estimate> {
    let found = value(&sum_statistics(rows.iter().map(AsRef::as_ref)))?;
    let mut rng = SplitMix64::new(seed);
    let mut resampled: Vec<f64> = (0..RESAMPLES)
        .filter_map(|_| {
            let drawn = (0..rows.len()).map(|_| rows[rng.below(rows.len())].as_ref());
            value(&sum_statistics(drawn))
        })
        .collect();
    resampled.sort_by(f64::total_cmp);
    let at = |share: f64| {
        let place = share * resampled.len().saturating_sub(1) as f64;
        resampled
            .get(place.round() as usize)
            .copied()
            .unwrap_or(found)
    };
    Some(Estimate {
        value: found,
        low: at(0.025),
        high: at(0.975),
    })
}

/// Sum of the first numbers over sum of the second, with its interval. `None` without any weight.
pub(crate) fn ratio(pairs: &[[f64; 2]], seed: u64) -> Option<Estimate> {
    resampled(pairs, seed, |sums| match sums {
        [sum, weight] if *weight > 0.0 => Some(sum / weight),
        _ => None,
    })
}

/// The share of `true`, with its interval.
pub(crate) fn share(flags: impl Iterator<Item = bool>, seed: u64) -> Option<Estimate> {
    let pairs: Vec<[f64; 2]> = flags
        .map(|right| [f64::from(u8::from(right)), 1.0])
        .collect();
    ratio(&pairs, seed)
}

/// The median; of an even count, the mean of the two in the middle. 0 for no values.
pub(crate) fn median(values: &[usize]) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_unstable();
    match (
        sorted.get(sorted.len().saturating_sub(1) / 2),
        sorted.get(sorted.len() / 2),
    ) {
        (Some(a), Some(b)) => (*a as f64 + *b as f64) / 2.0,
        _ => 0.0,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_interval_is_that_of_the_mean() {
        // 100 questions, half right: standard error 0.05, so about 0.5 ± 0.098.
        let half = share((0..100).map(|i| i % 2 == 0), 5).unwrap();
        assert!((half.value - 0.5).abs() < 1e-12);
        assert!((half.low - 0.402).abs() < 0.025, "{half:?}");
        assert!((half.high - 0.598).abs() < 0.025, "{half:?}");
        assert_eq!(half, share((0..100).map(|i| i % 2 == 0), 5).unwrap());
    }

    #[test]
    fn tokens_are_weights() {
        let estimate = ratio(&[[3.0, 1.0], [1.0, 3.0]], 0).unwrap();
        assert!((estimate.value - 1.0).abs() < 1e-12);
        assert!((estimate.low - 1.0 / 3.0).abs() < 1e-12);
        assert!((estimate.high - 3.0).abs() < 1e-12);
        assert_eq!(ratio(&[], 0), None);
    }

    #[test]
    fn medians() {
        assert_eq!(median(&[3, 1, 2]), 2.0);
        assert_eq!(median(&[4, 1, 2, 3]), 2.5);
        assert_eq!(median(&[]), 0.0);
    }
}
