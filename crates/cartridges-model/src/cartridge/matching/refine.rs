//! Refinement of the keys after the closed form.
//!
//! Minimises, over the keys, `Σ_i ω_i ‖ô_i - o_i‖² / E + μ Σ_i ω_i log²(m̂_i/m_i)`, where the
//! values are the exact ridge solution for the keys at hand (variable projection: the gradient
//! over the keys needs no derivative of the values). L-BFGS in coordinates where the
//! Gauss-Newton matrix is roughly the identity: keys times a root of the query moment and of
//! each slot's attention energy.

use std::collections::VecDeque;

use super::attention::Reference;
use super::error::MatchError;
use super::mass::{query_moment, ridge_cholesky};
use super::options::MatchOptions;
use super::products::{add_product_at, product, product_bt};
use super::values::ValueSystem;

/// Pairs that L-BFGS remembers.
const MEMORY: usize = 10;
/// Shortenings of a step before the search gives up.
const SHORTENINGS: usize = 6;

/// Improved keys `[p, d]` and values `[p, d]`, starting from `keys`; `prior` are the values
/// that the ridge draws to. Takes at most `key_refine_rounds` steps and never ends worse.
pub(super) fn refine(
    reference: &Reference<'_>,
    keys: &[f32],
    prior: &[f32],
    options: &MatchOptions,
) -> Result<(Vec<f32>, Vec<f32>), MatchError> {
    let system = ValueSystem::new(reference, keys);
    let objective = Objective {
        reference,
        prior,
        ridge: system.ridge(options.value_ridge),
        mass_weight: options.refine_mass_weight,
    };
    let mut point = objective.at(keys, &system)?;
    let metric = Metric::new(reference, &system, &point.values, options)?;
    drop(system);
    let mut gradient = metric.gradient(&point.gradient);
    let mut memory: VecDeque<Pair> = VecDeque::with_capacity(MEMORY);
    for _ in 0..options.key_refine_rounds {
        let direction = descent(&gradient, &memory);
        let slope = dot(&direction, &gradient);
        if slope >= 0.0 || !slope.is_finite() {
            break;
        }
        let step = metric.step(&direction);
        let mut length = 1.0;
        let mut found = None;
        for _ in 0..=SHORTENINGS {
            let keys: Vec<f32> = point
                .keys
                .iter()
                .zip(&step)
                .map(|(&k, s)| (f64::from(k) + length * s) as f32)
                .collect();
            let next = objective.at(&keys, &ValueSystem::new(reference, &keys))?;
            if next.loss <= point.loss + 1e-4 * length * slope {
                found = Some(next);
                break;
            }
            // Minimum of the parabola through both losses and the slope, kept within bounds.
            let bend = next.loss - point.loss - length * slope;
            length *= (-0.5 * length * slope / bend).clamp(0.05, 0.5);
        }
        let Some(next) = found else { break };
        let next_gradient = metric.gradient(&next.gradient);
        let moved: Vec<f64> = direction.iter().map(|d| length * d).collect();
        let turned: Vec<f64> = next_gradient
            .iter()
            .zip(&gradient)
            .map(|(a, b)| a - b)
            .collect();
        let curvature = dot(&moved, &turned);
        if curvature > 1e-10 * dot(&moved, &moved) {
            if memory.len() == MEMORY {
                memory.pop_front();
            }
            memory.push_back(Pair {
                moved,
                turned,
                curvature,
            });
        }
        let gained = point.loss - next.loss;
        gradient = next_gradient;
        point = next;
        if gained < 1e-4 * point.loss {
            break;
        }
    }
    Ok((point.keys, point.values))
}

struct Point {
    keys: Vec<f32>,
    values: Vec<f32>,
    loss: f64,
    gradient: Vec<f32>,
}

struct Objective<'a> {
    reference: &'a Reference<'a>,
    prior: &'a [f32],
    ridge: f64,
    mass_weight: f64,
}

impl Objective<'_> {
    /// Loss and gradient at `keys`, whose normal equations are given.
    fn at(&self, keys: &[f32], system: &ValueSystem) -> Result<Point, MatchError> {
        let reference = self.reference;
        let dim = reference.dim;
        let slots = keys.len() / dim;
        let energy = reference.output_energy.max(f64::MIN_POSITIVE);
        let values = system.solve(self.prior, self.ridge)?;
        let mut loss: f64 = values
            .iter()
            .zip(self.prior)
            .map(|(c, v)| f64::from(c - v).powi(2))
            .sum::<f64>()
            * self.ridge
            / energy;
        let mut gradient = vec![0.0f32; slots * dim];
        let (mut outputs, mut along, mut misfits) = (Vec::new(), Vec::new(), Vec::new());
        reference.for_each_scores(keys, |rows, attention| {
            misfits.clear();
            reference.softmax(rows.clone(), attention, |_, misfit| misfits.push(misfit));
            outputs.resize(rows.len() * dim, 0.0);
            product(&mut outputs, attention, &values, slots);
            // outputs becomes the residual; the shift is residual · output.
            let wanted = &reference.outputs[reference.span(&rows)];
            let mut shifts = Vec::with_capacity(rows.len());
            for (((query, got), want), misfit) in rows
                .clone()
                .zip(outputs.chunks_exact_mut(dim))
                .zip(wanted.chunks_exact(dim))
                .zip(&misfits)
            {
                let (mut squared, mut shift) = (0.0, 0.0);
                for (x, &o) in got.iter_mut().zip(want) {
                    let residual = *x - o;
                    squared += f64::from(residual * residual);
                    shift += f64::from(residual * *x);
                    *x = residual;
                }
                let weight = reference.weights[query];
                loss += weight * (squared / energy + self.mass_weight * misfit * misfit);
                shifts.push(self.mass_weight * misfit - shift / energy);
            }
            along.resize(rows.len() * slots, 0.0);
            product_bt(&mut along, &outputs, &values, dim, (1.0 / energy) as f32);
            for (((query, a), g), shift) in rows
                .clone()
                .zip(attention.chunks_exact(slots))
                .zip(along.chunks_exact_mut(slots))
                .zip(&shifts)
            {
                let factor = (2.0 * reference.weights[query]) as f32;
                let shift = *shift as f32;
                for (g, a) in g.iter_mut().zip(a) {
                    *g = factor * a * (*g + shift);
                }
            }
            let queries = &reference.queries[reference.span(&rows)];
            add_product_at(&mut gradient, &along, queries, rows.len());
        });
        let scale = reference.scale();
        for g in &mut gradient {
            *g *= scale;
        }
        Ok(Point {
            keys: keys.to_vec(),
            values,
            loss,
            gradient,
        })
    }
}

/// Coordinates `y_j = √(2 h_j) Lᵀ k_j` with `L Lᵀ = QᵀΩQ/d` and the slot's curvature `h_j`.
struct Metric {
    dim: usize,
    /// `L⁻¹`, `[d, d]`.
    inverse: Vec<f64>,
    /// `1/√(2 h_j)`, `[p]`.
    slots: Vec<f64>,
}

impl Metric {
    fn new(
        reference: &Reference<'_>,
        system: &ValueSystem,
        values: &[f32],
        options: &MatchOptions,
    ) -> Result<Self, MatchError> {
        let dim = reference.dim;
        let second: Vec<f64> = query_moment(dim, reference.queries, &reference.weights)
            .iter()
            .map(|x| x / dim as f64)
            .collect();
        let (factor, _) = ridge_cholesky(&second, dim, 1e-3, "the key metric")?;
        let energy = reference.output_energy.max(f64::MIN_POSITIVE);
        let curvature: Vec<f64> = values
            .chunks_exact(dim)
            .enumerate()
            .map(|(slot, value)| {
                // Moving a score moves the output by Ŵ (c - o); ‖o‖² stands in for its spread.
                let spread = super::attention::squared_norm(value) / energy + 1.0;
                system.energy(slot) * (spread + options.refine_mass_weight)
            })
            .collect();
        let mean = curvature.iter().sum::<f64>() / curvature.len() as f64;
        let floor = (1e-4 * mean).max(f64::MIN_POSITIVE.sqrt());
        Ok(Self {
            dim,
            inverse: lower_inverse(&factor, dim),
            slots: curvature
                .iter()
                .map(|h| (2.0 * h.max(floor)).sqrt().recip())
                .collect(),
        })
    }

    /// Gradient over `y` from that over the keys.
    fn gradient(&self, keys: &[f32]) -> Vec<f64> {
        let keys: Vec<f64> = keys.iter().map(|&g| f64::from(g)).collect();
        let mut out = vec![0.0; keys.len()];
        product_bt(&mut out, &keys, &self.inverse, self.dim, 1.0);
        self.scale(&mut out);
        out
    }

    /// Step of the keys for a step of `y`.
    fn step(&self, moved: &[f64]) -> Vec<f64> {
        let mut out = vec![0.0; moved.len()];
        product(&mut out, moved, &self.inverse, self.dim);
        self.scale(&mut out);
        out
    }

    fn scale(&self, rows: &mut [f64]) {
        for (row, scale) in rows.chunks_exact_mut(self.dim).zip(&self.slots) {
            for x in row {
                *x *= scale;
            }
        }
    }
}

/// Inverse of a lower triangular matrix (row-major; what stands above the diagonal is ignored).
fn lower_inverse(factor: &[f64], size: usize) -> Vec<f64> {
    let mut inverse = vec![0.0; size * size];
    for col in 0..size {
        for row in col..size {
            let known: f64 = (col..row)
                .map(|k| factor[row * size + k] * inverse[k * size + col])
                .sum();
            let unit = if row == col { 1.0 } else { 0.0 };
            inverse[row * size + col] = (unit - known) / factor[row * size + row];
        }
    }
    inverse
}

struct Pair {
    moved: Vec<f64>,
    turned: Vec<f64>,
    curvature: f64,
}

/// L-BFGS two-loop recursion (Nocedal and Wright, algorithm 7.4), negated.
fn descent(gradient: &[f64], memory: &VecDeque<Pair>) -> Vec<f64> {
    let mut direction: Vec<f64> = gradient.iter().map(|g| -g).collect();
    let mut shares = Vec::with_capacity(memory.len());
    for pair in memory.iter().rev() {
        let share = dot(&pair.moved, &direction) / pair.curvature;
        add_scaled(&mut direction, &pair.turned, -share);
        shares.push(share);
    }
    if let Some(last) = memory.back() {
        let scale = last.curvature / dot(&last.turned, &last.turned);
        for d in &mut direction {
            *d *= scale;
        }
    }
    for (pair, share) in memory.iter().zip(shares.into_iter().rev()) {
        let correction = dot(&pair.turned, &direction) / pair.curvature;
        add_scaled(&mut direction, &pair.moved, share - correction);
    }
    direction
}

fn dot(a: &[f64], b: &[f64]) -> f64 {
    a.iter().zip(b).map(|(a, b)| a * b).sum()
}

fn add_scaled(out: &mut [f64], add: &[f64], factor: f64) {
    for (o, a) in out.iter_mut().zip(add) {
        *o += factor * a;
    }
}

#[cfg(test)]
mod tests {
    use super::super::select::gather;
    use super::super::synthetic::SyntheticHead;
    use super::*;

    #[test]
    fn the_gradient_is_that_of_the_loss() {
        let dim = 8;
        let head = SyntheticHead::new(40, 30, 20, dim);
        let reference = Reference::new(&head.input(6)).unwrap();
        let chosen = [0, 3, 9, 14, 20, 27];
        let keys = gather(&head.keys, dim, &chosen);
        let prior = gather(&head.values, dim, &chosen);
        let objective = Objective {
            reference: &reference,
            prior: &prior,
            ridge: 1e-3,
            mass_weight: 0.3,
        };
        let at = |keys: &[f32]| {
            objective
                .at(keys, &ValueSystem::new(&reference, keys))
                .unwrap()
        };
        let point = at(&keys);
        let largest = point.gradient.iter().fold(0.0f32, |m, g| m.max(g.abs()));
        for index in [0, 5, 11, 17, 30, 41, 47] {
            let moved = |by: f32| {
                let mut keys = keys.clone();
                keys[index] += by;
                at(&keys).loss
            };
            let slope = (moved(0.02) - moved(-0.02)) / 0.04;
            let got = f64::from(point.gradient[index]);
            assert!(
                (slope - got).abs() < 0.01 * f64::from(largest),
                "[{index}] {got} against {slope}"
            );
        }
    }

    #[test]
    fn the_inverse_of_a_lower_triangle() {
        let inverse = lower_inverse(&[2.0, 9.0, 3.0, 4.0], 2);
        assert_eq!(inverse, [0.5, 0.0, -0.375, 0.25]);
    }
}
