//! The delta from statistics: `W = (C + μ C_bg) R⁻¹` with `R = S + μ S_bg + Λ`.

use super::factor::Factor;
use super::options::{Form, RidgeOptions, RidgeReport};
use super::solved::Solved;
use super::system::System;
use crate::error::{TransmuteError, check_finite};
use crate::matrix::Matrix;
use crate::statistics::SiteStatistics;

/// How often the ridge is raised.
const MAX_ESCALATIONS: u32 = 4;
/// What a ridge of 0 is raised to.
const LEAST_RIDGE: f64 = 1e-12;

/// A delta and how it was found.
#[derive(Debug, Clone, PartialEq)]
pub struct RidgeSolution {
    /// The delta.
    pub solved: Solved,
    /// How the solve went.
    pub report: RidgeReport,
}

/// Solves the delta of a linear map from the statistics of facts and, to preserve what the map does
/// elsewhere, of background. By Cholesky on the equilibrated system in f64, with the ridge raised tenfold
/// up to four times if that is not positive definite, and one step of refinement.
///
/// # Errors
/// [`TransmuteError::Field`] if a setting is wrong or the statistics are of maps of other shapes;
/// [`TransmuteError::Indefinite`] if no ridge helps.
pub fn solve(
    facts: &SiteStatistics,
    background: Option<&SiteStatistics>,
    options: &RidgeOptions,
) -> Result<RidgeSolution, TransmuteError> {
    let system = System::new(facts, background, options)?;
    let background_tokens = background.map_or(0, SiteStatistics::tokens);
    if facts.weight() <= 0.0 {
        let shape = (facts.inputs(), facts.outputs(), facts.intercept());
        return Ok(RidgeSolution::empty(shape, background_tokens, options));
    }
    let attempt = |ridge| Factor::new(&system.second, &system.penalties(options, ridge));
    let Escalated {
        factor,
        ridge,
        escalations,
    } = escalate(options.ridge, system.second.rows(), attempt)?;
    let penalties = system.penalties(options, ridge);
    let times_system = |x: &Matrix| {
        let mut product = x.times(&system.second);
        add_scaled_columns(&mut product, x, &penalties);
        product
    };
    let Refined {
        solution: whole,
        relative_residual,
    } = refined_solve(&factor, &system.cross, times_system)?;
    let solved = match facts.intercept() {
        false => Solved {
            weight: whole,
            cross: system.cross,
            centre: None,
        },
        true => {
            let size = system.second.rows();
            let mut border = system.second.values()[(size - 1) * size..].to_vec();
            border[size - 1] += penalties[size - 1];
            Solved::from_augmented(&whole, &system.cross, &border)
        }
    };
    Ok(RidgeSolution {
        solved,
        report: RidgeReport {
            form: Form::Primal,
            ridge,
            escalations,
            preserve: system.preserve,
            tokens: facts.tokens(),
            background_tokens,
            condition: factor.condition,
            relative_residual,
        },
    })
}

impl RidgeSolution {
    /// The delta of no facts: 0.
    pub(super) fn empty(
        (inputs, outputs, intercept): (usize, usize, bool),
        background_tokens: u64,
        options: &RidgeOptions,
    ) -> Self {
        Self {
            solved: Solved::zero(inputs, outputs, intercept),
            report: RidgeReport {
                form: Form::Empty,
                ridge: options.ridge,
                escalations: 0,
                preserve: options.preserve,
                tokens: 0,
                background_tokens,
                condition: 1.0,
                relative_residual: 0.0,
            },
        }
    }
}

pub(super) struct Escalated {
    pub(super) factor: Factor,
    pub(super) ridge: f64,
    pub(super) escalations: u32,
}

/// The factor with the least ridge, from this one on, that has one.
pub(super) fn escalate(
    mut ridge: f64,
    size: usize,
    attempt: impl Fn(f64) -> Option<Factor>,
) -> Result<Escalated, TransmuteError> {
    for escalations in 0..=MAX_ESCALATIONS {
        if escalations > 0 {
            ridge = (10.0 * ridge).max(LEAST_RIDGE);
        }
        if let Some(factor) = attempt(ridge) {
            return Ok(Escalated {
                factor,
                ridge,
                escalations,
            });
        }
    }
    Err(TransmuteError::Indefinite {
        size,
        ridge,
        attempts: 1 + MAX_ESCALATIONS,
    })
}

pub(crate) struct Refined {
    pub(crate) solution: Matrix,
    pub(crate) relative_residual: f64,
}

/// Solves `X R = rhs` with one step of refinement; `times_system` gives `X R`.
pub(crate) fn refined_solve(
    factor: &Factor,
    rhs: &Matrix,
    times_system: impl Fn(&Matrix) -> Matrix,
) -> Result<Refined, TransmuteError> {
    let residual = |solution: &Matrix| {
        let mut residual = rhs.clone();
        residual.add(-1.0, &times_system(solution));
        residual
    };
    let mut solution = rhs.clone();
    factor.solve(&mut solution);
    let mut correction = residual(&solution);
    factor.solve(&mut correction);
    solution.add(1.0, &correction);
    check_finite("the solved delta", solution.values().iter().copied())?;
    let relative_residual = relative(residual(&solution).frobenius_norm(), rhs);
    Ok(Refined {
        solution,
        relative_residual,
    })
}

/// An error relative to the norm of what was wanted; 0 if that is 0.
pub(super) fn relative(error: f64, wanted: &Matrix) -> f64 {
    match wanted.frobenius_norm() {
        norm if norm > 0.0 => error / norm,
        _ => 0.0,
    }
}

/// `sum += x diag(factors)`
pub(super) fn add_scaled_columns(sum: &mut Matrix, x: &Matrix, factors: &[f64]) {
    let width = x.columns();
    for (row, x) in sum.values_mut().chunks_exact_mut(width).zip(x.iter_rows()) {
        for ((sum, x), factor) in row.iter_mut().zip(x).zip(factors) {
            *sum += factor * x;
        }
    }
}
