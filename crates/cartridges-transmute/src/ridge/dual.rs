//! The delta from the rows themselves, where there are fewer of them than inputs:
//! `W = Tᵀ (H Λ⁻¹ Hᵀ + I)⁻¹ H Λ⁻¹`, the same as from their statistics.

use super::factor::Factor;
use super::options::{Form, RidgeOptions, RidgeReport};
use super::primal::{
    Escalated, Refined, RidgeSolution, add_scaled_columns, escalate, refined_solve, relative, solve,
};
use super::solved::{Centre, Solved};
use crate::error::TransmuteError;
use crate::matrix::{Matrix, axpy, dot};
use crate::rows::{Element, Rows};
use crate::statistics::{CorpusId, SiteStatistics};

/// Solves the delta of a map of `inputs` to `outputs` values from rows in memory: by the dual form if
/// there are fewer rows than inputs and the ridge is not 0, else from their statistics.
///
/// # Errors
/// Those of [`Rows::check`] and [`solve`].
pub fn solve_rows<T: Element>(
    (inputs, outputs, intercept): (usize, usize, bool),
    facts: Rows<'_, T>,
    background: Option<Rows<'_, T>>,
    options: &RidgeOptions,
) -> Result<RidgeSolution, TransmuteError> {
    options.check()?;
    if inputs == 0 || outputs == 0 {
        let problem = format!("are {inputs} and {outputs}, expected widths of a linear map");
        return Err(TransmuteError::field("inputs and outputs", problem));
    }
    let tokens = facts.check(inputs, outputs)?;
    let background_tokens = match &background {
        Some(background) => background.check(inputs, outputs)?,
        None => 0,
    };
    let sum = |rows: &Rows<'_, T>, count| (0..count).map(|i| rows.weight(i)).sum::<f64>();
    let weight = sum(&facts, tokens);
    if weight <= 0.0 {
        let shape = (inputs, outputs, intercept);
        return Ok(RidgeSolution::empty(
            shape,
            background_tokens as u64,
            options,
        ));
    }
    if tokens + background_tokens >= inputs || options.ridge == 0.0 {
        let statistics = |rows| {
            let mut statistics = SiteStatistics::new(inputs, outputs, intercept)?;
            statistics.add_rows(CorpusId([0; 32]), rows)?;
            Ok::<_, TransmuteError>(statistics)
        };
        let facts = statistics(facts)?;
        let background = background.map(statistics).transpose()?;
        return solve(&facts, background.as_ref(), options);
    }
    let mut preserve = options.preserve;
    let mut stacked = Stacked::default();
    stacked.push(&facts, tokens, 1.0);
    if let Some(rows) = &background {
        preserve = options.background_factor(weight, sum(rows, background_tokens));
        stacked.push(rows, background_tokens, preserve);
    }
    let mut solution = stacked.solve((inputs, outputs, intercept), options)?;
    solution.report.tokens = tokens as u64;
    solution.report.background_tokens = background_tokens as u64;
    solution.report.preserve = preserve;
    Ok(solution)
}

/// All rows, multiplied by the roots of their weights.
#[derive(Default)]
struct Stacked {
    inputs: Vec<f64>,
    targets: Vec<f64>,
    roots: Vec<f64>,
}

impl Stacked {
    fn push<T: Element>(&mut self, rows: &Rows<'_, T>, count: usize, factor: f64) {
        let (p, q) = (
            rows.inputs.len() / count.max(1),
            rows.targets.len() / count.max(1),
        );
        for row in 0..count {
            let root = (factor * rows.weight(row)).sqrt();
            let scaled = |x: &T| root * (*x).into();
            self.inputs
                .extend(rows.inputs[row * p..(row + 1) * p].iter().map(scaled));
            self.targets
                .extend(rows.targets[row * q..(row + 1) * q].iter().map(scaled));
            self.roots.push(root);
        }
    }

    fn solve(
        self,
        (inputs, outputs, intercept): (usize, usize, bool),
        options: &RidgeOptions,
    ) -> Result<RidgeSolution, TransmuteError> {
        let count = self.roots.len();
        let mut h = Matrix::of(count, inputs, self.inputs);
        let mut t = Matrix::of(count, outputs, self.targets);
        // The penalty is that of the statistics: of rows that are not yet centred.
        let mut diagonal = vec![0.0; inputs];
        for row in h.iter_rows() {
            diagonal.iter_mut().zip(row).for_each(|(d, x)| *d += x * x);
        }
        let squared_norm = h.times_transposed(&h).frobenius_norm().powi(2);
        let centre = intercept.then(|| centre(&mut h, &mut t, &self.roots, options));

        let attempt = |ridge| {
            let (_, _, gram) = scaled(&h, &options.penalties(ridge, &diagonal, squared_norm));
            Factor::new(&gram, &[])
        };
        let Escalated {
            factor,
            ridge,
            escalations,
        } = escalate(options.ridge, count, attempt)?;
        let penalties = options.penalties(ridge, &diagonal, squared_norm);
        let (v, inverse_roots, gram) = scaled(&h, &penalties);
        let rhs = t.transposed();
        let Refined { solution, .. } = refined_solve(&factor, &rhs, |x| x.times(&gram))?;
        let mut weight = solution.times(&v);
        for row in weight.values_mut().chunks_exact_mut(inputs) {
            row.iter_mut()
                .zip(&inverse_roots)
                .for_each(|(x, s)| *x *= s);
        }
        let cross = t.transposed_times(&h);
        let mut residual = weight.times_transposed(&h).times(&h);
        add_scaled_columns(&mut residual, &weight, &penalties);
        residual.add(-1.0, &cross);
        let relative_residual = relative(residual.frobenius_norm(), &cross);
        Ok(RidgeSolution {
            solved: Solved {
                weight,
                cross,
                centre,
            },
            report: RidgeReport {
                form: Form::Dual,
                ridge,
                escalations,
                preserve: options.preserve,
                tokens: 0,
                background_tokens: 0,
                condition: factor.condition,
                relative_residual,
            },
        })
    }
}

/// `V = H Λ^-1/2`, the diagonal of `Λ^-1/2` (0 for inputs that never occurred), and `V Vᵀ + I`.
fn scaled(h: &Matrix, penalties: &[f64]) -> (Matrix, Vec<f64>, Matrix) {
    let inverse_roots: Vec<f64> = penalties
        .iter()
        .map(|x| {
            if *x > f64::MIN_POSITIVE {
                x.sqrt().recip()
            } else {
                0.0
            }
        })
        .collect();
    let mut v = h.clone();
    for row in v.values_mut().chunks_exact_mut(inverse_roots.len()) {
        row.iter_mut()
            .zip(&inverse_roots)
            .for_each(|(x, s)| *x *= s);
    }
    let mut gram = v.times_transposed(&v).symmetrised();
    let count = gram.rows();
    gram.values_mut()
        .iter_mut()
        .step_by(count + 1)
        .for_each(|x| *x += 1.0);
    (v, inverse_roots, gram)
}

/// Takes from rows, which are multiplied by the roots `s` of their weights, what the bias explains: with
/// `ω = ‖s‖²` and its penalty `λ`, `X - (1 - √(λ/(ω+λ))) s sᵀX/ω`. Their products are then those about
/// the mean that `Solved::from_augmented` arrives at.
fn centre(h: &mut Matrix, t: &mut Matrix, roots: &[f64], options: &RidgeOptions) -> Centre {
    let weight = dot(roots, roots);
    let penalty = options.intercept_ridge * weight;
    let part = 1.0 - (penalty / (weight + penalty)).sqrt();
    let take = |rows: &mut Matrix| {
        let mut sum = vec![0.0; rows.columns()];
        for (row, root) in rows.iter_rows().zip(roots) {
            axpy(&mut sum, *root, row);
        }
        rows.add_outer(-part / weight, roots, &sum);
        sum.iter_mut().for_each(|x| *x /= weight + penalty);
        sum
    };
    Centre {
        inputs: take(h),
        targets: take(t),
    }
}
