//! How a head is matched.

use super::error::MatchError;

/// How the document's keys that stay are chosen.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum KeyChoice {
    /// The keys with the largest root mean square of attention. Cheap, but it keeps
    /// near-duplicates.
    TopAttention,
    /// Greedy orthogonal least squares: every next key is the one whose attention column lowers
    /// the remaining misfit of output and mass the most, given the keys chosen so far.
    #[default]
    Pursuit,
}

/// What becomes of the chosen keys and values.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum ValueChoice {
    /// They stay as they are: selection alone.
    Keep,
    /// The lost mass is folded into the keys, the values are solved for, and both are refined.
    #[default]
    Fit,
}

/// How slots are shared out among heads, and among the blocks of a document that is matched in several.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum SlotShares {
    /// As the blocks ask for them, in every head alike.
    #[default]
    Even,
    /// In every head by its own attention: as many as a block has of the keys that the head attends to
    /// most. All heads keep the same number in all, so nothing is padded.
    Attention,
    /// Over all heads of the model and all blocks, each slot where it explains most (see
    /// [`allot`](super::allot)). Heads with fewer slots than the largest are padded with slots that no
    /// query attends to.
    Uneven,
}

/// Options of [`match_head`](super::match_head). The defaults suit real models; ridges are
/// relative, so that they mean the same for every head.
#[derive(Debug, Clone, PartialEq)]
pub struct MatchOptions {
    /// How keys are chosen.
    pub key_choice: KeyChoice,
    /// What becomes of them and their values.
    pub value_choice: ValueChoice,
    /// How heads, and the blocks of a long document, share the slots.
    pub slot_shares: SlotShares,
    /// Most slots of one head with [`SlotShares::Uneven`]; `None` is twice the mean.
    pub most_slots: Option<usize>,
    /// Pursuit: weight of the relative mass misfit beside the relative output misfit.
    pub pursuit_mass_weight: f64,
    /// Pursuit: ridge on the coefficients, relative to the mean column energy. Keeps keys
    /// that hardly any query attends from being chosen for the sake of huge values.
    pub pursuit_ridge: f64,
    /// Pursuit: only this many keys (those with the largest attention; never fewer than the
    /// slots) are considered, because the Gram matrix grows with their square.
    pub pursuit_candidates: usize,
    /// Rounds of coordinate descent for the mass (it stops early once converged).
    pub mass_rounds: usize,
    /// Ridge that draws the mass factors to 1, relative to each column's energy.
    pub mass_ridge: f64,
    /// Bound of |β|, the log of the mass factor folded into a key.
    pub beta_limit: f64,
    /// Ridge for the direction that β is folded along, relative to the queries' mean energy.
    pub fold_ridge: f64,
    /// Ridge that draws the values to those of the chosen keys, relative to the mean energy of
    /// the attention columns. Raised tenfold as often as the system needs.
    pub value_ridge: f64,
    /// Rounds of joint refinement of keys and values (L-BFGS on the keys, values solved
    /// exactly in every round). 0 turns it off. On a real model's heads about 5 to 10 rounds
    /// lower the error on queries that were not matched too; more rounds only fit the
    /// reference queries. A round costs about `n p²` multiply-adds in `f64`.
    pub key_refine_rounds: usize,
    /// Refinement: weight of the mean squared log-mass misfit beside the relative output misfit.
    pub refine_mass_weight: f64,
}

impl Default for MatchOptions {
    fn default() -> Self {
        Self {
            key_choice: KeyChoice::Pursuit,
            value_choice: ValueChoice::Fit,
            slot_shares: SlotShares::Even,
            most_slots: None,
            pursuit_mass_weight: 1.0,
            pursuit_ridge: 1e-4,
            pursuit_candidates: 2048,
            mass_rounds: 200,
            mass_ridge: 1e-2,
            beta_limit: 3.0,
            fold_ridge: 1e-4,
            value_ridge: 1e-4,
            key_refine_rounds: 5,
            refine_mass_weight: 0.1,
        }
    }
}

impl MatchOptions {
    pub(super) fn validate(&self) -> Result<(), MatchError> {
        let non_negative = [
            ("pursuit_mass_weight", self.pursuit_mass_weight),
            ("mass_ridge", self.mass_ridge),
            ("beta_limit", self.beta_limit),
            ("refine_mass_weight", self.refine_mass_weight),
        ];
        for (option, value) in non_negative {
            if !(value.is_finite() && value >= 0.0) {
                return Err(MatchError::BadOption {
                    option,
                    value,
                    expected: "a finite number of at least 0",
                });
            }
        }
        // Without any ridge, equal keys would make the systems singular.
        let positive = [
            ("pursuit_ridge", self.pursuit_ridge),
            ("fold_ridge", self.fold_ridge),
            ("value_ridge", self.value_ridge),
        ];
        for (option, value) in positive {
            if !(value.is_finite() && value > 0.0) {
                return Err(MatchError::BadOption {
                    option,
                    value,
                    expected: "a finite number above 0",
                });
            }
        }
        if self.beta_limit > 20.0 {
            return Err(MatchError::BadOption {
                option: "beta_limit",
                value: self.beta_limit,
                expected: "at most 20",
            });
        }
        Ok(())
    }
}
