//! Slots that no query attends to.
//!
//! All heads of a cartridge have as many rows. A head that needs fewer is padded with rows whose weight
//! vanishes: their key points away from what all queries of the head have in common, so that its score is
//! far below the rest of the head's for every query, and their value is zero.

use super::attention::log_masses;
use super::error::MatchError;
use super::mass::fold_direction;
use super::rotate::rotate_keys;

/// Places in the model's window where queries are tried. What they have in common where they were asked
/// may turn with their position; what they have in common everywhere does not.
const PLACES: usize = 16;
/// Queries that are tried at every place.
const TRIED: usize = 1024;
/// Least score, of a mean of 1, that every query must have along the shared direction.
const LEAST_SHARED: f64 = 0.05;
/// Log of the weight that a dead slot has at most: far below what `f32` adds to 1.
const DEAD: f64 = -60.0;

/// A key `[d]` that none of the queries `[n, d]` attends to beside `keys [m, d]`, nor would at any other
/// position of a window of `window` tokens. `None` where the queries share no direction for it.
/// `frequencies` as in [`rotate_keys`](super::rotate_keys).
///
/// # Errors
/// [`MatchError`] for frequencies that do not fit, or queries that are not finite.
pub fn dead_key(
    head_dim: usize,
    queries: &[f32],
    keys: &[f32],
    frequencies: &[f64],
    window: usize,
) -> Result<Option<Vec<f32>>, MatchError> {
    let count = queries.len() / head_dim;
    let step = count.div_ceil(TRIED).max(1);
    let tried: Vec<f32> = queries
        .chunks_exact(head_dim)
        .step_by(step)
        .flatten()
        .copied()
        .collect();
    let mut everywhere = Vec::with_capacity(PLACES * tried.len());
    for place in 0..PLACES {
        // Multiples of the golden section fall nowhere in step with any frequency.
        let shift = (place as f64 * 0.618_033_988_749_895).fract() * window as f64;
        let mut moved = tried.clone();
        rotate_keys(&mut moved, frequencies, shift.round())?;
        everywhere.append(&mut moved);
    }
    let rows = everywhere.len() / head_dim;
    let weights = vec![1.0 / rows as f64; rows];
    let direction = fold_direction(head_dim, &everywhere, &weights, 1e-4)?;
    let root = (head_dim as f64).sqrt();
    let along = |query: &[f32]| -> f64 {
        let dot = query.iter().zip(&direction).map(|(&q, u)| f64::from(q) * u);
        dot.sum::<f64>() / root
    };
    let lowest = |queries: &[f32]| {
        let scores = queries.chunks_exact(head_dim).map(along);
        scores.fold(f64::INFINITY, f64::min)
    };
    let shared = lowest(queries).min(lowest(&everywhere));
    if shared < LEAST_SHARED {
        return Ok(None);
    }
    let masses = log_masses(head_dim, queries, keys);
    let smallest = masses.into_iter().fold(0.0, f64::min);
    let factor = (DEAD + smallest) / shared;
    let key: Vec<f32> = direction.iter().map(|u| (factor * u) as f32).collect();
    Ok(key.iter().all(|x| x.is_finite()).then_some(key))
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    use super::super::synthetic::{SyntheticHead, frequencies, gaussian};
    use super::super::tests::attend;
    use super::*;

    const DIM: usize = 32;

    #[test]
    fn dead_slots_change_nothing_wherever_requests_stand() {
        let turns = frequencies(DIM);
        let window = 4096;
        let mut found = 0;
        for seed in 60..66 {
            let mut head = SyntheticHead::new(seed, 50, 40, DIM);
            // What queries of real models share lies where rope hardly turns.
            for query in head.queries.chunks_exact_mut(DIM) {
                query[DIM / 2 - 1] += 12.0;
            }
            let dead = dead_key(DIM, &head.queries, &head.keys, &turns, window).unwrap();
            let Some(dead) = dead else { continue };
            found += 1;
            let keys = [head.keys.clone(), dead.repeat(70)].concat();
            let values = [head.values.clone(), vec![0.0; 70 * DIM]].concat();
            for shift in [0.0, 700.0, 2500.0, 4000.0] {
                let mut queries = head.queries.clone();
                rotate_keys(&mut queries, &turns, shift).unwrap();
                let (want, mass) = attend(DIM, &queries, &head.keys, &head.values);
                let (got, padded) = attend(DIM, &queries, &keys, &values);
                for (a, b) in got.iter().chain(&padded).zip(want.iter().chain(&mass)) {
                    assert!((a - b).abs() < 1e-6, "{a} against {b}");
                }
            }
        }
        assert_eq!(found, 6);
    }

    #[test]
    fn queries_without_a_common_direction_have_no_dead_key() {
        let mut rng = ChaCha8Rng::seed_from_u64(70);
        let queries = gaussian(&mut rng, 40 * DIM, 1.0);
        let keys = gaussian(&mut rng, 9 * DIM, 1.0);
        let turns = frequencies(DIM);
        assert_eq!(dead_key(DIM, &queries, &keys, &turns, 512), Ok(None));
        let zeros = vec![0.0; 40 * DIM];
        assert_eq!(dead_key(DIM, &zeros, &keys, &turns, 512), Ok(None));
    }
}
