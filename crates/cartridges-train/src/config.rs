//! The configuration of training.

use serde::{Deserialize, Serialize};

/// What the model is trained towards.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Targets {
    /// The teacher's stored top-k distribution (distillation).
    Logits,
    /// The assistant's tokens themselves (next-token prediction).
    Tokens,
}

/// What happens to an example that does not fit into a row any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Packing {
    /// It starts the next row.
    Pad,
    /// It is added and its tail cut.
    Truncate,
}

/// What the summed loss of a step is divided by.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum LossPer {
    /// The number of target positions (the paper).
    Position,
    /// The number of stored candidates (the reference's code).
    Pair,
}

/// What is computed twice to save memory.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Recompute {
    /// Every layer's forward pass is run again in the backward pass: memory does not grow with depth.
    Layers,
    /// Nothing: faster by about a third, memory grows with depth times row length.
    Nothing,
}

/// How the learning rate moves after the warm-up.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Schedule {
    /// It stays.
    Constant,
    /// In a straight line to `final_lr_ratio`.
    Linear,
    /// Along half a cosine to `final_lr_ratio`.
    Cosine,
}

/// Everything about a training run except its data and its model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TrainConfig {
    /// Seed of the order of examples (default 42).
    pub seed: u64,
    /// Optimizer steps; 0 means `epochs` passes over the rows (default 0).
    pub steps: usize,
    /// Passes over the data when `steps` is 0 (default 1).
    pub epochs: usize,
    /// Packed rows per optimizer step (default 1).
    pub rows_per_step: usize,
    /// Tokens of a packed row (default 2048).
    pub packed_seq_length: usize,
    /// What happens at a row's end (default truncate).
    pub packing: Packing,
    /// What is trained towards (default logits).
    pub targets: Targets,
    /// What the loss is divided by (default position).
    pub loss_per: LossPer,
    /// Weight of verbatim pieces against conversations (default 1).
    pub verbatim_weight: f32,
    /// Learning rate after the warm-up (default 5e-3). The reference uses 2e-2 with large batches,
    /// which diverges with small ones.
    pub lr: f64,
    /// Steps over which the rate rises from a tenth (default 5).
    pub warmup_steps: usize,
    /// How it falls afterwards (default cosine).
    pub schedule: Schedule,
    /// Where it ends, as a share of `lr` (default 0.1).
    pub final_lr_ratio: f64,
    /// Adam's decay of the first moment (default 0.9).
    pub beta1: f64,
    /// Adam's decay of the second moment (default 0.999).
    pub beta2: f64,
    /// Adam's epsilon (default 1e-8).
    pub epsilon: f64,
    /// Largest global norm of the gradient; 0 means no limit (default 0).
    pub max_grad_norm: f64,
    /// What is computed twice (default layers).
    pub recompute: Recompute,
    /// A checkpoint every so many steps; 0 means only at the end (default 50).
    pub save_every: usize,
}

impl Default for TrainConfig {
    fn default() -> Self {
        Self {
            seed: 42,
            steps: 0,
            epochs: 1,
            rows_per_step: 1,
            packed_seq_length: 2048,
            packing: Packing::Truncate,
            targets: Targets::Logits,
            loss_per: LossPer::Position,
            verbatim_weight: 1.0,
            lr: 5e-3,
            warmup_steps: 5,
            schedule: Schedule::Cosine,
            final_lr_ratio: 0.1,
            beta1: 0.9,
            beta2: 0.999,
            epsilon: 1e-8,
            max_grad_norm: 0.0,
            recompute: Recompute::Layers,
            save_every: 50,
        }
    }
}

/// A field outside its range.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("training: {field} is {found}, expected {expected}")]
pub struct TrainConfigError {
    field: &'static str,
    found: String,
    expected: &'static str,
}

impl TrainConfig {
    /// Checks every field.
    ///
    /// # Errors
    /// [`TrainConfigError`], which names the first field that is out of range.
    pub fn validate(&self) -> Result<(), TrainConfigError> {
        let check = |ok: bool, field, found: &dyn std::fmt::Display, expected| match ok {
            true => Ok(()),
            false => Err(TrainConfigError {
                field,
                found: found.to_string(),
                expected,
            }),
        };
        let unit = |x: f64| (0.0..1.0).contains(&x);
        check(
            self.steps > 0 || self.epochs > 0,
            "epochs",
            &self.epochs,
            "at least 1 (or steps)",
        )?;
        check(
            self.rows_per_step > 0,
            "rows_per_step",
            &self.rows_per_step,
            "at least 1",
        )?;
        check(
            self.packed_seq_length >= 2,
            "packed_seq_length",
            &self.packed_seq_length,
            "at least 2",
        )?;
        check(
            self.lr.is_finite() && self.lr > 0.0,
            "lr",
            &self.lr,
            "more than 0",
        )?;
        check(
            (0.0..=1.0).contains(&self.final_lr_ratio),
            "final_lr_ratio",
            &self.final_lr_ratio,
            "0 to 1",
        )?;
        check(unit(self.beta1), "beta1", &self.beta1, "0 to below 1")?;
        check(unit(self.beta2), "beta2", &self.beta2, "0 to below 1")?;
        check(
            self.epsilon.is_finite() && self.epsilon > 0.0,
            "epsilon",
            &self.epsilon,
            "more than 0",
        )?;
        check(
            self.max_grad_norm.is_finite() && self.max_grad_norm >= 0.0,
            "max_grad_norm",
            &self.max_grad_norm,
            "0 or more",
        )?;
        check(
            self.verbatim_weight.is_finite() && self.verbatim_weight > 0.0,
            "verbatim_weight",
            &self.verbatim_weight,
            "more than 0",
        )
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn defaults_are_valid_and_wrong_fields_are_named() {
        TrainConfig::default().validate().unwrap();
        let wrong = TrainConfig {
            lr: f64::NAN,
            ..TrainConfig::default()
        };
        assert!(wrong.validate().unwrap_err().to_string().contains("lr"));
        assert!(serde_json::from_str::<TrainConfig>(r#"{"learning_rate": 1}"#).is_err());
    }
}
