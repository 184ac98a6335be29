//! A solved delta, with what its reduction to a low rank needs.

use crate::matrix::{Matrix, dot};

/// A delta `W [outputs, inputs]` that solves `W R = C`, and its bias.
#[derive(Debug, Clone, PartialEq)]
pub struct Solved {
    pub(crate) weight: Matrix,
    /// `C [outputs, inputs]`, about the mean where there is an intercept.
    pub(crate) cross: Matrix,
    pub(crate) centre: Option<Centre>,
}

/// Means that decide the bias of any delta: `b = targets - W inputs`. With a penalty on the bias both
/// are that much nearer to 0.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Centre {
    /// `[inputs]`
    pub(crate) inputs: Vec<f64>,
    /// `[outputs]`
    pub(crate) targets: Vec<f64>,
}

impl Centre {
    /// The best bias, `[outputs]`, for a delta.
    pub(crate) fn bias(&self, weight: &Matrix) -> Vec<f64> {
        let rows = weight.iter_rows().zip(&self.targets);
        rows.map(|(row, t)| t - dot(row, &self.inputs)).collect()
    }
}

impl Solved {
    /// The delta `W [outputs, inputs]`.
    pub fn weight(&self) -> &Matrix {
        &self.weight
    }

    /// The bias `[outputs]`, if an intercept was asked for.
    pub fn bias(&self) -> Option<Vec<f64>> {
        Some(self.centre.as_ref()?.bias(&self.weight))
    }

    /// Zero, without anything to solve.
    pub(super) fn zero(inputs: usize, outputs: usize, intercept: bool) -> Self {
        Self {
            weight: Matrix::zeros(outputs, inputs),
            cross: Matrix::zeros(outputs, inputs),
            centre: intercept.then(|| Centre {
                inputs: vec![0.0; inputs],
                targets: vec![0.0; outputs],
            }),
        }
    }

    /// From `whole = [W b]`, `cross [outputs, p]` and the last row of `R`, `[p]`, both with the intercept
    /// behind the inputs. Eliminating the bias leaves `W (R_hh - r rᵀ/ρ) = C_h - c rᵀ/ρ`.
    pub(crate) fn from_augmented(whole: &Matrix, cross: &Matrix, border: &[f64]) -> Self {
        let inputs = border.len() - 1;
        let corner = border[inputs];
        let mean: Vec<f64> = border[..inputs].iter().map(|x| x / corner).collect();
        let sums = cross.column(inputs);
        let mut cross = cross.leading_columns(inputs);
        cross.add_outer(-1.0, &sums, &mean);
        Self {
            weight: whole.leading_columns(inputs),
            cross,
            centre: Some(Centre {
                inputs: mean,
                targets: sums.iter().map(|x| x / corner).collect(),
            }),
        }
    }
}
