//! How factors are refined.

use serde::{Deserialize, Serialize};

use crate::error::{TransmuteError, check_not_negative};

/// The loss is, per fitted position, `KL(teacher ‖ student)` over the teacher's most likely tokens and one
/// bucket for the rest, plus `hidden · Σ_layers ‖x_T - x_S‖₁ / ‖x_T‖₁`, plus `background · KL(base ‖ student)`
/// per background position.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct RefineOptions {
    /// Steps, of one batch each. Default 100.
    pub steps: usize,
    /// Adam's rate at the start; it falls to 0 on half a cosine. Default 1e-3.
    pub lr: f64,
    /// The teacher's tokens that are looked at by themselves. Default 20.
    pub top_k: usize,
    /// The weight of the hidden states (Deep Context Distillation); above 0 the teacher's states of all
    /// layers are kept in memory. Default 0.
    pub hidden: f64,
    /// The weight of the background. Default 4.
    pub background: f64,
    /// Most tokens behind a prompt in the batch of a step. Default 512.
    pub batch_tokens: usize,
    /// Steps between two looks at the validation conversations and at background that is kept out; the factors
    /// with the least loss there are kept.
    /// Default 25.
    pub check_every: usize,
    /// Seed of the order of the batches. Default 0.
    pub seed: u64,
}

impl Default for RefineOptions {
    fn default() -> Self {
        Self {
            steps: 100,
            lr: 1e-3,
            top_k: 20,
            hidden: 0.0,
            background: 4.0,
            batch_tokens: 512,
            check_every: 25,
            seed: 0,
        }
    }
}

impl RefineOptions {
    /// Checks the values.
    pub(crate) fn check(&self) -> Result<(), TransmuteError> {
        check_not_negative("lr", self.lr)?;
        check_not_negative("hidden", self.hidden)?;
        check_not_negative("background", self.background)?;
        let counts = [
            ("top_k", self.top_k),
            ("batch_tokens", self.batch_tokens),
            ("check_every", self.check_every),
        ];
        match counts.iter().find(|(_, value)| *value == 0) {
            Some((field, _)) => Err(TransmuteError::field(field, "is 0, expected at least 1")),
            None => Ok(()),
        }
    }
}
