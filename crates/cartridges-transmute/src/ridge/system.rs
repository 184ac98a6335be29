//! The system `X R = C` of facts and background, with an intercept as its last row.

use super::options::{RidgeOptions, RidgeReport};
use crate::error::TransmuteError;
use crate::matrix::Matrix;
use crate::statistics::SiteStatistics;

/// `A = S + μ S_bg` and `C + μ C_bg`, not yet penalised.
pub(super) struct System {
    pub(super) second: Matrix,
    pub(super) cross: Matrix,
    /// The factor `μ` of the background.
    pub(super) preserve: f64,
    inputs: usize,
    squared_norm: f64,
}

impl System {
    /// Adds up the statistics of one map.
    pub(super) fn new(
        facts: &SiteStatistics,
        background: Option<&SiteStatistics>,
        options: &RidgeOptions,
    ) -> Result<Self, TransmuteError> {
        options.check()?;
        let mut second = facts.second_moment();
        let mut cross = facts.cross_moment().clone();
        let mut preserve = options.preserve;
        if let Some(background) = background {
            facts.check_same_map(background)?;
            preserve = options.background_factor(facts.weight(), background.weight());
            second.add(preserve, &background.second_moment());
            cross.add(preserve, background.cross_moment());
        }
        let inputs = facts.inputs();
        let squares = |row: &[f64]| crate::matrix::dot(&row[..inputs], &row[..inputs]);
        let squared_norm = second.iter_rows().take(inputs).map(squares).sum();
        Ok(Self {
            second,
            cross,
            preserve,
            inputs,
            squared_norm,
        })
    }

    /// The diagonal of `Λ [p]` for a relative ridge, with that of the intercept where there is one.
    pub(super) fn penalties(&self, options: &RidgeOptions, ridge: f64) -> Vec<f64> {
        let size = self.second.rows();
        let diagonal: Vec<f64> = (self.second.values().iter().copied())
            .step_by(size + 1)
            .collect();
        let (inputs, intercept) = diagonal.split_at(self.inputs);
        let mut penalties = options.penalties(ridge, inputs, self.squared_norm);
        penalties.extend(intercept.iter().map(|x| options.intercept_ridge * x));
        penalties
    }
}

/// The matrix `R = S + μ S_bg + Λ [p, p]` that a solve in the primal form used, to be kept beside the
/// finished patch for [`merge_finished`](crate::merge_finished).
///
/// # Errors
/// [`TransmuteError::Field`] if the statistics are of maps of other shapes, or a setting is wrong.
pub fn system_matrix(
    facts: &SiteStatistics,
    background: Option<&SiteStatistics>,
    options: &RidgeOptions,
    report: &RidgeReport,
) -> Result<Matrix, TransmuteError> {
    let system = System::new(facts, background, options)?;
    let penalties = system.penalties(options, report.ridge);
    let mut matrix = system.second;
    let size = matrix.rows();
    for (i, penalty) in penalties.into_iter().enumerate() {
        matrix.values_mut()[i * size + i] += penalty;
    }
    Ok(matrix)
}
