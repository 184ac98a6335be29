//! Values by ridge least squares.

use super::attention::Reference;
use super::error::MatchError;
use super::mass::absolute_ridge_cholesky;
use super::products::{add_gram_lower, add_product_at, cholesky_solve};

/// Normal equations of `min_C Σ_i ω_i ‖Ŵ_i C - o_i‖²` for the attention `Ŵ` over some keys.
pub(super) struct ValueSystem {
    /// Lower triangle of `ŴᵀΩŴ`, `[p, p]`.
    pub(super) gram: Vec<f64>,
    /// `ŴᵀΩO`, `[p, d]`.
    rhs: Vec<f64>,
    slots: usize,
}

impl ValueSystem {
    /// Attends from all queries to `keys`, `[p, d]`.
    pub(super) fn new(reference: &Reference<'_>, keys: &[f32]) -> Self {
        let dim = reference.dim;
        let slots = keys.len() / dim;
        let mut gram = vec![0.0; slots * slots];
        let mut rhs = vec![0.0; slots * dim];
        let (mut attention, mut outputs) = (Vec::new(), Vec::new());
        reference.for_each_scores(keys, |rows, scores| {
            reference.softmax(rows.clone(), scores, |_, _| {});
            attention.clear();
            outputs.clear();
            let wanted = &reference.outputs[reference.span(&rows)];
            for ((query, a), o) in rows
                .clone()
                .zip(scores.chunks_exact(slots))
                .zip(wanted.chunks_exact(dim))
            {
                let root = reference.weights[query].sqrt();
                attention.extend(a.iter().map(|&x| root * f64::from(x)));
                outputs.extend(o.iter().map(|&x| root * f64::from(x)));
            }
            add_gram_lower(&mut gram, &attention, rows.len());
            add_product_at(&mut rhs, &attention, &outputs, rows.len());
        });
        Self { gram, rhs, slots }
    }

    /// The ridge `λ` that is `relative` times the mean column energy.
    pub(super) fn ridge(&self, relative: f64) -> f64 {
        let trace: f64 = (0..self.slots).map(|j| self.energy(j)).sum();
        relative * trace / self.slots as f64
    }

    /// `Σ_i ω_i Ŵ_ij²` of slot `j`.
    pub(super) fn energy(&self, slot: usize) -> f64 {
        self.gram[slot * self.slots + slot]
    }

    /// Values `C`, `[p, d]`, that minimise the misfit plus `λ ‖C - prior‖²`.
    pub(super) fn solve(&self, prior: &[f32], ridge: f64) -> Result<Vec<f32>, MatchError> {
        let (factor, ridge) = absolute_ridge_cholesky(&self.gram, self.slots, ridge, "values")?;
        let mut values: Vec<f64> = self
            .rhs
            .iter()
            .zip(prior)
            .map(|(b, &v)| b + ridge * f64::from(v))
            .collect();
        cholesky_solve(&factor, &mut values, self.slots);
        Ok(values.into_iter().map(|x| x as f32).collect())
    }
}

#[cfg(test)]
mod tests {
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    use super::super::input::HeadInput;
    use super::super::synthetic::gaussian;
    use super::*;

    /// Softmax attention over the rows of `keys` in `f64`.
    fn attention(queries: &[f32], keys: &[f32], dim: usize) -> Vec<Vec<f64>> {
        let row = |query: &[f32]| {
            let scores: Vec<f64> = keys
                .chunks_exact(dim)
                .map(|key| {
                    let dot = key.iter().zip(query).map(|(k, q)| f64::from(k * q));
                    dot.sum::<f64>() / (dim as f64).sqrt()
                })
                .collect();
            let sum: f64 = scores.iter().map(|s| s.exp()).sum();
            scores.iter().map(|s| s.exp() / sum).collect()
        };
        queries.chunks_exact(dim).map(row).collect()
    }

    #[test]
    fn the_ridge_solution_is_stationary_in_plain_f64() {
        let (dim, tokens, count, slots) = (2, 5, 7, 2);
        let mut rng = ChaCha8Rng::seed_from_u64(4);
        let keys = gaussian(&mut rng, tokens * dim, 1.0);
        let values = gaussian(&mut rng, tokens * dim, 1.0);
        let queries = gaussian(&mut rng, count * dim, 1.0);
        let weights = [1.0, 2.0, 0.5, 1.0, 0.0, 3.0, 1.0];
        let few = gaussian(&mut rng, slots * dim, 1.0);
        let prior = gaussian(&mut rng, slots * dim, 1.0);
        let input = HeadInput {
            head_dim: dim,
            keys: &keys,
            values: &values,
            queries: &queries,
            slots,
            weights: Some(&weights),
        };
        let reference = Reference::new(&input).unwrap();
        let ridge = 0.05;
        let system = ValueSystem::new(&reference, &few);
        let solved = system.solve(&prior, ridge).unwrap();

        // Two unknowns per column: the 2 x 2 normal equations by Cramer's rule.
        let full = attention(&queries, &keys, dim);
        let short = attention(&queries, &few, dim);
        let total: f64 = weights.iter().map(|&w| f64::from(w)).sum();
        for c in 0..dim {
            let (mut g, mut b) = ([[ridge, 0.0], [0.0, ridge]], [0.0; 2]);
            for j in 0..2 {
                b[j] = ridge * f64::from(prior[j * dim + c]);
            }
            for i in 0..count {
                let weight = f64::from(weights[i]) / total;
                let output: f64 = (0..tokens)
                    .map(|t| full[i][t] * f64::from(values[t * dim + c]))
                    .sum();
                for j in 0..2 {
                    b[j] += weight * short[i][j] * output;
                    for k in 0..2 {
                        g[j][k] += weight * short[i][j] * short[i][k];
                    }
                }
            }
            let determinant = g[0][0] * g[1][1] - g[0][1] * g[1][0];
            let want = [
                (b[0] * g[1][1] - b[1] * g[0][1]) / determinant,
                (b[1] * g[0][0] - b[0] * g[1][0]) / determinant,
            ];
            for j in 0..2 {
                let got = f64::from(solved[j * dim + c]);
                assert!((got - want[j]).abs() < 1e-5, "{got} against {}", want[j]);
            }
        }
    }
}
