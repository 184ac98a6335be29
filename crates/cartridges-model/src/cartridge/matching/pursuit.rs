//! Greedy key choice by orthogonal least squares.
//!
//! With the mass factors near their optimum the attention of the chosen keys is `A_S diag(w)`,
//! so the output is `A_S C` for some `C` and the mass is `A_S w`: both are linear in the columns
//! of the document's attention `A = exp(s - ℓ)`. The keys wanted are those whose columns span
//! the targets `[O, 1]` best. arXiv 2602.16284 uses orthogonal matching pursuit with the mass
//! alone as target; here the exact greedy gain (orthogonal least squares) is affordable, since
//! after one Gram matrix every step is a row of a pivoted Cholesky factorisation.

use super::attention::Reference;
use super::options::MatchOptions;
use super::products::{add_gram_lower, add_product_at, mirror_lower};
use super::select::gather;

/// Keys in the order in which they were chosen.
pub(super) struct Pursuit {
    /// Which tokens.
    pub(super) chosen: Vec<usize>,
    /// What they and all before leave unexplained of the targets `[O/‖O‖, γ1]`, whose energy is `1 + γ²`
    /// in all.
    pub(super) left: Vec<f64>,
}

/// Chooses `slots` of `candidates` (the first one is always taken).
pub(super) fn pursue(
    reference: &Reference<'_>,
    keys: &[f32],
    candidates: &[usize],
    slots: usize,
    options: &MatchOptions,
) -> Pursuit {
    let count = candidates.len();
    let targets = reference.dim + 1;
    let keys = gather(keys, reference.dim, candidates);
    let (mut gram, correlation) = moments(reference, &keys, options.pursuit_mass_weight);
    drop(keys);
    mirror_lower(&mut gram, count);

    let mean_energy = (0..count)
        .map(|j| f64::from(gram[j * count + j]))
        .sum::<f64>()
        / count as f64;
    let ridge = (options.pursuit_ridge * mean_energy).max(f64::MIN_POSITIVE);
    // Columns whose remainder is below what f32 sums can tell from zero are spent.
    let spent: Vec<f64> = (0..count)
        .map(|j| ridge + 1e-5 * f64::from(gram[j * count + j]))
        .collect();
    let mut remainder: Vec<f64> = (0..count)
        .map(|j| ridge + f64::from(gram[j * count + j]))
        .collect();
    let mut correlation: Vec<f64> = correlation.into_iter().map(f64::from).collect();
    let mut open = vec![true; count];
    let mut factor: Vec<Vec<f64>> = Vec::with_capacity(slots);
    let mut chosen = Vec::with_capacity(slots);
    let mut left = Vec::with_capacity(slots);
    let mut rest = 1.0 + options.pursuit_mass_weight.powi(2);
    let mut next = 0;
    let first: f64 = correlation[..targets].iter().map(|r| r * r).sum();
    let mut gain = first / remainder[0];
    loop {
        open[next] = false;
        chosen.push(candidates[next]);
        rest -= gain;
        left.push(rest.max(0.0));
        if chosen.len() == slots.min(count) {
            return Pursuit { chosen, left };
        }
        let row = factor_row(&gram, &factor, next, remainder[next], ridge);
        let pivot = remainder[next].sqrt();
        let step: Vec<f64> = correlation[next * targets..(next + 1) * targets]
            .iter()
            .map(|r| r / pivot)
            .collect();
        let mut best: Option<(f64, usize)> = None;
        for (j, (&l, r)) in row
            .iter()
            .zip(correlation.chunks_exact_mut(targets))
            .enumerate()
        {
            if !open[j] {
                continue;
            }
            remainder[j] = (remainder[j] - l * l).max(ridge);
            for (r, s) in r.iter_mut().zip(&step) {
                *r -= l * s;
            }
            let explained: f64 = r.iter().map(|r| r * r).sum();
            let own = if remainder[j] > spent[j] {
                explained / remainder[j]
            } else {
                0.0
            };
            if best.is_none_or(|(top, _)| own > top) {
                best = Some((own, j));
            }
        }
        // `slots <= count` columns are never exhausted before the return above.
        match best {
            Some(found) => (gain, next) = found,
            None => return Pursuit { chosen, left },
        }
        factor.push(row);
    }
}

/// Row of the Cholesky factor of `gram + ridge I` for the new pivot: every candidate's
/// component along the new orthonormal direction.
fn factor_row(
    gram: &[f32],
    factor: &[Vec<f64>],
    pivot: usize,
    remainder: f64,
    ridge: f64,
) -> Vec<f64> {
    let count = factor
        .first()
        .map_or_else(|| gram.len().isqrt(), |row| row.len());
    let mut row: Vec<f64> = gram[pivot * count..(pivot + 1) * count]
        .iter()
        .map(|&g| f64::from(g))
        .collect();
    row[pivot] += ridge;
    for earlier in factor {
        let along = earlier[pivot];
        for (x, &l) in row.iter_mut().zip(earlier) {
            *x -= along * l;
        }
    }
    let inverse = remainder.sqrt().recip();
    for x in &mut row {
        *x *= inverse;
    }
    row
}

/// Lower triangle of `AᵀΩA`, `[m, m]`, and `AᵀΩ[O/‖O‖, γ1]`, `[m, d + 1]`, for the `m` keys.
fn moments(reference: &Reference<'_>, keys: &[f32], mass_weight: f64) -> (Vec<f32>, Vec<f32>) {
    let dim = reference.dim;
    let (count, targets) = (keys.len() / dim, dim + 1);
    let mut gram = vec![0.0; count * count];
    let mut correlation = vec![0.0; count * targets];
    let output_scale = if reference.output_energy > 0.0 {
        reference.output_energy.sqrt().recip()
    } else {
        0.0
    };
    let mut target = Vec::new();
    reference.for_each_scores(keys, |rows, scores| {
        reference.weighted_columns(rows.clone(), scores);
        target.clear();
        for query in rows.clone() {
            let root = reference.weights[query].sqrt();
            let factor = (root * output_scale) as f32;
            let output = &reference.outputs[query * dim..(query + 1) * dim];
            target.extend(output.iter().map(|&x| x * factor));
            target.push((root * mass_weight) as f32);
        }
        add_gram_lower(&mut gram, scores, rows.len());
        add_product_at(&mut correlation, scores, &target, rows.len());
    });
    (gram, correlation)
}

#[cfg(test)]
mod tests {
    use super::super::synthetic::SyntheticHead;
    use super::*;

    /// What is left of `targets` after projection on `columns` (Gram-Schmidt in `f64`).
    fn left_over(columns: &[Vec<f64>], targets: &[Vec<f64>]) -> f64 {
        let mut basis: Vec<Vec<f64>> = Vec::new();
        let project = |basis: &[Vec<f64>], x: &[f64]| {
            let mut x = x.to_vec();
            // Twice is enough for orthogonality.
            for _ in 0..2 {
                for b in basis {
                    let along: f64 = b.iter().zip(&x).map(|(b, x)| b * x).sum();
                    for (x, b) in x.iter_mut().zip(b) {
                        *x -= along * b;
                    }
                }
            }
            x
        };
        for column in columns {
            let rest = project(&basis, column);
            let norm = rest.iter().map(|x| x * x).sum::<f64>().sqrt();
            basis.push(rest.iter().map(|x| x / norm).collect());
        }
        targets
            .iter()
            .map(|t| project(&basis, t).iter().map(|x| x * x).sum::<f64>())
            .sum()
    }

    #[test]
    fn every_choice_is_the_best_next_one() {
        let (dim, tokens, slots) = (8, 24, 7);
        let head = SyntheticHead::new(30, tokens, 40, dim);
        let reference = Reference::new(&head.input(slots)).unwrap();
        let options = MatchOptions {
            pursuit_ridge: 1e-12,
            ..MatchOptions::default()
        };
        let candidates: Vec<usize> = (0..tokens).collect();
        let Pursuit { chosen, left } = pursue(&reference, &head.keys, &candidates, slots, &options);

        let mut columns = vec![Vec::new(); tokens];
        reference.for_each_scores(&head.keys, |rows, scores| {
            reference.weighted_columns(rows, scores);
            for row in scores.chunks_exact(tokens) {
                for (column, &a) in columns.iter_mut().zip(row) {
                    column.push(f64::from(a));
                }
            }
        });
        let queries = reference.weights.len();
        let root = (queries as f64).sqrt();
        let mut targets: Vec<Vec<f64>> = (0..dim)
            .map(|c| {
                (0..queries)
                    .map(|i| f64::from(reference.outputs[i * dim + c]) / root)
                    .map(|x| x / reference.output_energy.sqrt())
                    .collect()
            })
            .collect();
        targets.push(vec![options.pursuit_mass_weight / root; queries]);

        let mut kept = vec![columns[0].clone()];
        assert_eq!(chosen[0], 0);
        for (&next, &rest) in chosen[1..].iter().zip(&left) {
            assert!((left_over(&kept, &targets) - rest).abs() < 1e-4);
            let after = |t: usize| {
                let mut trial = kept.clone();
                trial.push(columns[t].clone());
                left_over(&trial, &targets)
            };
            let best = (1..tokens)
                .filter(|t| !chosen[..kept.len()].contains(t))
                .map(after)
                .fold(f64::INFINITY, f64::min);
            assert!(after(next) <= best * (1.0 + 1e-3) + 1e-9);
            kept.push(columns[next].clone());
        }
    }
}
