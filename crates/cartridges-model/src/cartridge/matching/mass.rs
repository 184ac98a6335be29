//! The attention mass of the chosen keys: factors per key, and their folding into the keys.

use super::attention::Reference;
use super::error::MatchError;
use super::options::MatchOptions;
use super::products::{add_gram_lower, cholesky, cholesky_solve, mirror_lower};

/// Attempts to make a system positive definite, each with ten times the ridge.
const RIDGE_ATTEMPTS: u32 = 14;

/// Log mass factors `β`, `[p]`, of the document's own keys `[p, d]`: `w = exp β` minimises
/// `Σ_i ω_i (Σ_j w_j A_ij - 1)²` plus a small pull to `w = 1`, within `|β| <= beta_limit`.
pub(super) fn log_mass_factors(
    reference: &Reference<'_>,
    keys: &[f32],
    options: &MatchOptions,
) -> Vec<f64> {
    let slots = keys.len() / reference.dim;
    let mut gram = vec![0.0f64; slots * slots];
    let mut rhs = vec![0.0f64; slots];
    let mut wide = Vec::new();
    reference.for_each_scores(keys, |rows, scores| {
        reference.weighted_columns(rows.clone(), scores);
        wide.clear();
        wide.extend(scores.iter().map(|&x| f64::from(x)));
        add_gram_lower(&mut gram, &wide, rows.len());
        for (query, row) in rows.zip(wide.chunks_exact(slots)) {
            let root = reference.weights[query].sqrt();
            for (b, a) in rhs.iter_mut().zip(row) {
                *b += root * a;
            }
        }
    });
    mirror_lower(&mut gram, slots);
    for j in 0..slots {
        let pull = options.mass_ridge * gram[j * slots + j];
        gram[j * slots + j] += pull;
        rhs[j] += pull;
    }
    let limit = options.beta_limit;
    let bounds = (-limit).exp()..=limit.exp();
    let mut factors = vec![1.0; slots];
    bounded_least_squares(&gram, &rhs, &mut factors, bounds, options.mass_rounds);
    factors
        .iter()
        .map(|w| w.ln().clamp(-limit, limit))
        .collect()
}

/// Minimises `½ xᵀGx - bᵀx` with every `x` inside `bounds` by cyclic coordinate descent, from
/// the `x` given. The value never rises; ends after `rounds` or when nothing moves any more.
pub(super) fn bounded_least_squares(
    gram: &[f64],
    rhs: &[f64],
    x: &mut [f64],
    bounds: std::ops::RangeInclusive<f64>,
    rounds: usize,
) {
    let size = x.len();
    let mut gradient: Vec<f64> = gram
        .chunks_exact(size)
        .zip(rhs)
        .map(|(row, b)| row.iter().zip(x.iter()).map(|(g, x)| g * x).sum::<f64>() - b)
        .collect();
    for _ in 0..rounds {
        let mut largest = 0.0f64;
        for j in 0..size {
            let row = &gram[j * size..(j + 1) * size];
            if row[j] <= f64::MIN_POSITIVE {
                continue;
            }
            let wanted = (x[j] - gradient[j] / row[j]).clamp(*bounds.start(), *bounds.end());
            let step = wanted - x[j];
            if step == 0.0 {
                continue;
            }
            x[j] = wanted;
            largest = largest.max(step.abs() / wanted.abs());
            for (slope, g) in gradient.iter_mut().zip(row) {
                *slope += step * g;
            }
        }
        if largest < 1e-6 {
            break;
        }
    }
}

/// Direction `u`, `[d]`, with `q·u/√d ≈ 1` for all queries `[n, d]`, so that `k + β u` adds `β` to every
/// score of a key: `u = √d (QᵀΩQ + λI)⁻¹ QᵀΩ1`. Works because queries share a strong mean.
pub(super) fn fold_direction(
    dim: usize,
    queries: &[f32],
    weights: &[f64],
    relative_ridge: f64,
) -> Result<Vec<f64>, MatchError> {
    let second = query_moment(dim, queries, weights);
    let mut mean = vec![0.0; dim];
    for (weight, query) in weights.iter().zip(queries.chunks_exact(dim)) {
        for (m, &q) in mean.iter_mut().zip(query) {
            *m += weight * f64::from(q);
        }
    }
    let (factor, _) = ridge_cholesky(&second, dim, relative_ridge, "the fold direction")?;
    cholesky_solve(&factor, &mut mean, dim);
    let root = (dim as f64).sqrt();
    for m in &mut mean {
        *m *= root;
    }
    Ok(mean)
}

/// Lower triangle of `QᵀΩQ`, `[d, d]`.
pub(super) fn query_moment(dim: usize, queries: &[f32], weights: &[f64]) -> Vec<f64> {
    let mut second = vec![0.0; dim * dim];
    let mut wide = Vec::new();
    for (weights, queries) in weights.chunks(4096).zip(queries.chunks(4096 * dim)) {
        wide.clear();
        for (weight, query) in weights.iter().zip(queries.chunks_exact(dim)) {
            let root = weight.sqrt();
            wide.extend(query.iter().map(|&q| root * f64::from(q)));
        }
        add_gram_lower(&mut second, &wide, weights.len());
    }
    second
}

/// Cholesky factor of `G + λI` with `λ = relative_ridge * trace(G)/size`, raised tenfold until
/// the matrix is positive definite. Gives the factor and the `λ` used.
pub(super) fn ridge_cholesky(
    gram: &[f64],
    size: usize,
    relative_ridge: f64,
    what: &'static str,
) -> Result<(Vec<f64>, f64), MatchError> {
    let mean = (0..size).map(|i| gram[i * size + i]).sum::<f64>() / size as f64;
    absolute_ridge_cholesky(gram, size, relative_ridge * mean, what)
}

/// Like [`ridge_cholesky`], with `λ` itself given.
pub(super) fn absolute_ridge_cholesky(
    gram: &[f64],
    size: usize,
    ridge: f64,
    what: &'static str,
) -> Result<(Vec<f64>, f64), MatchError> {
    // An all-zero matrix (all queries zero) still has an answer: zero.
    let mut ridge = ridge.max(f64::MIN_POSITIVE.sqrt());
    for _ in 0..RIDGE_ATTEMPTS {
        let mut factor = gram.to_vec();
        for i in 0..size {
            factor[i * size + i] += ridge;
        }
        if cholesky(&mut factor, size) {
            return Ok((factor, ridge));
        }
        ridge *= 10.0;
    }
    Err(MatchError::NotSolvable { what, size, ridge })
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    use super::super::select::gather;
    use super::super::synthetic::{SyntheticHead, gaussian};
    use super::*;

    fn value(gram: &[f64], rhs: &[f64], x: &[f64]) -> f64 {
        let quadratic: f64 = gram
            .chunks_exact(x.len())
            .zip(x)
            .map(|(row, xi)| xi * row.iter().zip(x).map(|(g, x)| g * x).sum::<f64>())
            .sum();
        0.5 * quadratic - rhs.iter().zip(x).map(|(b, x)| b * x).sum::<f64>()
    }

    #[test]
    fn bounded_least_squares_falls_to_a_stationary_point() {
        let size = 12;
        let mut rng = ChaCha8Rng::seed_from_u64(3);
        let columns: Vec<f64> = gaussian(&mut rng, 40 * size, 1.0)
            .into_iter()
            .map(f64::from)
            .collect();
        let mut gram = vec![0.0; size * size];
        add_gram_lower(&mut gram, &columns, 40);
        mirror_lower(&mut gram, size);
        let rhs: Vec<f64> = gaussian(&mut rng, size, 30.0)
            .into_iter()
            .map(f64::from)
            .collect();
        let mut last = f64::INFINITY;
        let mut x = vec![1.0; size];
        for rounds in [0, 1, 1, 2, 5, 400] {
            bounded_least_squares(&gram, &rhs, &mut x, 0.05..=1.5, rounds);
            let now = value(&gram, &rhs, &x);
            assert!(now <= last);
            last = now;
        }
        // Karush-Kuhn-Tucker: no slope inside, and at a bound only one that presses against it.
        let (mut inside, mut bound) = (0, 0);
        for j in 0..size {
            let row = &gram[j * size..(j + 1) * size];
            let slope = row.iter().zip(&x).map(|(g, x)| g * x).sum::<f64>() - rhs[j];
            if x[j] <= 0.05 {
                assert!(slope >= -1e-3);
                bound += 1;
            } else if x[j] >= 1.5 {
                assert!(slope <= 1e-3);
                bound += 1;
            } else {
                assert!(slope.abs() < 1e-3, "slope {slope}");
                inside += 1;
            }
        }
        assert!(inside > 0 && bound > 0);
    }

    #[test]
    fn factors_restore_the_mass_of_the_document() {
        let head = SyntheticHead::new(20, 100, 60, 16);
        let reference = Reference::new(&head.input(25)).unwrap();
        let chosen: Vec<usize> = (0..25).map(|j| 4 * j).collect();
        let keys = gather(&head.keys, 16, &chosen);
        let options = MatchOptions::default();
        let beta = log_mass_factors(&reference, &keys, &options);
        let misfit = |beta: &[f64]| -> f64 {
            let mut sum = 0.0;
            reference.for_each_scores(&keys, |rows, scores| {
                reference.weighted_columns(rows.clone(), scores);
                for (query, row) in rows.zip(scores.chunks_exact(25)) {
                    let mass: f64 = row
                        .iter()
                        .zip(beta)
                        .map(|(&a, b)| f64::from(a) * b.exp())
                        .sum();
                    sum += (mass - reference.weights[query].sqrt()).powi(2);
                }
            });
            sum.sqrt()
        };
        assert!(misfit(&beta) < 0.5 * misfit(&[0.0; 25]));
        assert!(beta.iter().all(|b| b.abs() <= options.beta_limit));
    }

    #[test]
    fn the_fold_direction_adds_the_same_to_every_score() {
        let head = SyntheticHead::new(21, 60, 200, 32);
        let reference = Reference::new(&head.input(20)).unwrap();
        let direction = fold_direction(32, &head.queries, &reference.weights, 1e-4).unwrap();
        let misfit: f64 = head
            .queries
            .chunks_exact(32)
            .map(|query| {
                let dot: f64 = query
                    .iter()
                    .zip(&direction)
                    .map(|(&q, u)| f64::from(q) * u)
                    .sum();
                (dot / 32f64.sqrt() - 1.0).powi(2)
            })
            .sum::<f64>()
            / 600.0;
        assert!(misfit.sqrt() < 0.25, "{}", misfit.sqrt());
    }

    #[test]
    fn the_ridge_rises_until_the_matrix_is_definite() {
        let (_, ridge) = absolute_ridge_cholesky(&[1.0, 1.0, 1.0, 0.99], 2, 1e-6, "x").unwrap();
        assert!(ridge > 1e-3 && ridge < 0.2);
        assert!(matches!(
            absolute_ridge_cholesky(&[f64::NAN], 1, 1e-6, "x"),
            Err(MatchError::NotSolvable {
                what: "x",
                size: 1,
                ..
            })
        ));
    }
}
