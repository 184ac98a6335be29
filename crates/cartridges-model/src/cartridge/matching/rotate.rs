//! Moving keys to other positions.

use super::error::MatchError;

/// Rotates keys that already carry RoPE by `shift` positions (negative: back), in place.
///
/// `keys` is `[p, d]` row-major and `frequencies` holds the `d/2` angular frequencies (radians
/// per position). The layout is the half-split one of Llama and Qwen checkpoints: dimension `i`
/// pairs with `i + d/2`, `(x1, x2) -> (x1 cos - x2 sin, x2 cos + x1 sin)` with the angle
/// `shift * frequency`. Rotations add up, so a key at position `s` becomes exactly the key at
/// position `s + shift`: after matching a document of `T` tokens with `p` slots, a shift of
/// `p - T` lets requests start at position `p`.
///
/// # Errors
/// When `frequencies` is empty or holds a non-finite number, `shift` is not finite, or
/// `keys.len()` is no multiple of `2 * frequencies.len()`.
pub fn rotate_keys(keys: &mut [f32], frequencies: &[f64], shift: f64) -> Result<(), MatchError> {
    let half = frequencies.len();
    if half == 0 {
        return Err(MatchError::NoHeadDim);
    }
    if !keys.len().is_multiple_of(2 * half) {
        return Err(MatchError::Length {
            what: "keys",
            expected: format!("a multiple of {}, two per frequency", 2 * half),
            found: keys.len(),
        });
    }
    if !shift.is_finite() {
        return Err(MatchError::NotFinite {
            what: "shift",
            index: 0,
            value: shift,
        });
    }
    if let Some(index) = frequencies.iter().position(|f| !f.is_finite()) {
        return Err(MatchError::NotFinite {
            what: "frequencies",
            index,
            value: frequencies[index],
        });
    }
    let turns: Vec<(f64, f64)> = frequencies.iter().map(|f| (shift * f).sin_cos()).collect();
    for key in keys.chunks_exact_mut(2 * half) {
        let (first, second) = key.split_at_mut(half);
        for ((x1, x2), (sin, cos)) in first.iter_mut().zip(second).zip(&turns) {
            let (a, b) = (f64::from(*x1), f64::from(*x2));
            *x1 = (a * cos - b * sin) as f32;
            *x2 = (b * cos + a * sin) as f32;
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    use super::super::synthetic::{frequencies, gaussian};
    use super::*;

    /// RoPE written out: the `i`-th pair of `x` turned by `position * 10000^(-2i/d)`.
    fn rope(x: &[f32], position: f64, turns: &[f64]) -> Vec<f32> {
        let half = turns.len();
        (0..2 * half)
            .map(|c| {
                let pair = c % half;
                let (sin, cos) = (position * turns[pair]).sin_cos();
                let (x1, x2) = (f64::from(x[pair]), f64::from(x[pair + half]));
                (if c < half {
                    x1 * cos - x2 * sin
                } else {
                    x2 * cos + x1 * sin
                }) as f32
            })
            .collect()
    }

    #[test]
    fn rotating_back_is_an_earlier_position() {
        let turns = frequencies(16);
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let plain = gaussian(&mut rng, 16, 1.0);
        for (position, shift) in [(900.0, -680.0), (5.0, -5.0), (0.0, 12.0), (4000.0, 0.0)] {
            let mut key = rope(&plain, position, &turns);
            rotate_keys(&mut key, &turns, shift).unwrap();
            for (got, want) in key.iter().zip(rope(&plain, position + shift, &turns)) {
                assert!((got - want).abs() < 1e-5);
            }
        }
    }

    #[test]
    fn scores_stay_when_queries_move_along() {
        let (dim, tokens, slots) = (16, 300.0, 75.0);
        let turns = frequencies(dim);
        let mut rng = ChaCha8Rng::seed_from_u64(2);
        let (key, query) = (gaussian(&mut rng, dim, 1.0), gaussian(&mut rng, dim, 1.0));
        let score = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(x, y)| x * y).sum::<f32>();
        for j in [0.0, 7.0, 200.0] {
            let kept = rope(&key, 123.0, &turns);
            let want = score(&rope(&query, tokens + j, &turns), &kept);
            let mut moved = kept.clone();
            rotate_keys(&mut moved, &turns, slots - tokens).unwrap();
            let got = score(&rope(&query, slots + j, &turns), &moved);
            assert!((got - want).abs() < 1e-4);
        }
    }

    #[test]
    fn bad_shapes_are_errors() {
        assert!(matches!(
            rotate_keys(&mut [0.0; 4], &[], 1.0),
            Err(MatchError::NoHeadDim)
        ));
        assert!(matches!(
            rotate_keys(&mut [0.0; 5], &[1.0, 0.5], 1.0),
            Err(MatchError::Length { what: "keys", .. })
        ));
        assert!(matches!(
            rotate_keys(&mut [0.0; 4], &[1.0, f64::NAN], 1.0),
            Err(MatchError::NotFinite { index: 1, .. })
        ));
        assert!(rotate_keys(&mut [0.0; 4], &[1.0, 0.5], f64::INFINITY).is_err());
    }
}
