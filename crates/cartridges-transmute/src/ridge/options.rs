//! How a delta is solved, and what came of it.

use serde::{Deserialize, Serialize};

use crate::error::{TransmuteError, check_not_negative};

/// What the relative ridge `l0` is multiplied with to give the penalty `Λ` of the inputs. `A` is the
/// second moment of facts and background together, over the inputs.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum RidgeRule {
    /// `Λ = l0 diag(A)`: every input by its own energy. Predictions do not depend on the unit of any
    /// input, and the few huge channels of language models do not decide for the others.
    #[default]
    Diagonal,
    /// `Λ = l0 tr(A)/p I`
    Trace,
    /// `Λ = l0 ‖A‖²/tr(A) I`, the mean of the eigenvalues weighted by themselves (PatchKV).
    Frobenius,
}

/// The objective `Σ w ‖t - W h - b‖² + μ Σ_bg w ‖t - W h - b‖² + tr(W Λ Wᵀ) + λ ‖b‖²`.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RidgeOptions {
    /// The relative ridge `l0`, not negative. Default 1e-3.
    pub ridge: f64,
    /// Relative to what. Default diagonal.
    pub rule: RidgeRule,
    /// The weight of the background, not negative. Default 1.
    pub preserve: f64,
    /// Whether [`Self::preserve`] weighs the whole background against all facts, so that
    /// `μ = preserve · Σ w / Σ_bg w`, or row against row: `μ = preserve`. Default true.
    pub balance: bool,
    /// The penalty `λ` of the bias, relative to the sum of the weights; not negative. Default 1e-6: next
    /// to none.
    pub intercept_ridge: f64,
}

impl Default for RidgeOptions {
    fn default() -> Self {
        Self {
            ridge: 1e-3,
            rule: RidgeRule::Diagonal,
            preserve: 1.0,
            balance: true,
            intercept_ridge: 1e-6,
        }
    }
}

impl RidgeOptions {
    /// Checks the values.
    ///
    /// # Errors
    /// [`TransmuteError::Field`] for the first that is negative or not finite.
    pub fn check(&self) -> Result<(), TransmuteError> {
        check_not_negative("ridge", self.ridge)?;
        check_not_negative("preserve", self.preserve)?;
        check_not_negative("intercept_ridge", self.intercept_ridge)
    }

    /// `μ` for these sums of weights of facts and background.
    pub(super) fn background_factor(&self, facts: f64, background: f64) -> f64 {
        match self.balance && background > 0.0 {
            true => self.preserve * facts / background,
            false => self.preserve,
        }
    }

    /// The diagonal of `Λ` for a relative ridge, from the diagonal of `A [p, p]` and `‖A‖²`.
    pub(super) fn penalties(&self, ridge: f64, diagonal: &[f64], squared_norm: f64) -> Vec<f64> {
        let trace: f64 = diagonal.iter().sum();
        let same = match self.rule {
            RidgeRule::Diagonal => return diagonal.iter().map(|d| ridge * d.max(0.0)).collect(),
            RidgeRule::Trace => trace / diagonal.len() as f64,
            RidgeRule::Frobenius if trace > 0.0 => squared_norm / trace,
            RidgeRule::Frobenius => 0.0,
        };
        vec![ridge * same; diagonal.len()]
    }
}

/// Which system was solved.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Form {
    /// As wide as the inputs, from their second moment.
    Primal,
    /// As wide as there are rows.
    Dual,
    /// None: there were no facts, the delta is 0.
    Empty,
}

/// How a solve went.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct RidgeReport {
    /// Which system was solved. [`Form::Empty`] says that there was nothing to solve.
    pub form: Form,
    /// The relative ridge that was used.
    pub ridge: f64,
    /// How often it was raised tenfold because the system was not positive definite.
    pub escalations: u32,
    /// The factor `μ` of the background's sums.
    pub preserve: f64,
    /// Rows of facts.
    pub tokens: u64,
    /// Rows of background.
    pub background_tokens: u64,
    /// Estimate of the condition number of the equilibrated system, in the 1-norm, never above the true
    /// one; 1 if there was none.
    pub condition: f64,
    /// `‖W R - C‖ / ‖C‖` after refinement; 0 if `C` is.
    pub relative_residual: f64,
}
