//! What a step and a run say about themselves, under the names that the reference logs.

use serde::{Deserialize, Serialize};

/// What one step did.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct StepReport {
    /// The step, from 1.
    pub step: usize,
    /// Steps in all.
    pub total: usize,
    /// Loss before the update.
    pub loss: f64,
    /// Learning rate.
    pub lr: f64,
    /// Global norm of the gradient before clipping.
    pub grad_norm: f64,
    /// Tokens that went through the model.
    pub tokens: usize,
    /// Positions that were trained on.
    #[serde(default)]
    pub targets: usize,
    /// Passes over the data that were done before the step.
    #[serde(default)]
    pub epoch: usize,
    /// Packed rows from the run's beginning to the end of this step.
    #[serde(default)]
    pub rows: usize,
    /// Tokens from the run's beginning to the end of this step.
    #[serde(default)]
    pub total_tokens: usize,
    /// Trained positions from the run's beginning to the end of this step.
    #[serde(default)]
    pub total_targets: usize,
    /// Where the student answered before this step: the divergence of its distribution from the
    /// teacher's over these answers, per position and as far as the teacher's candidates go.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub on_policy_kl: Option<f64>,
    /// Seconds the step took.
    pub seconds: f64,
}

impl StepReport {
    /// The numbers under the reference's names (its section on logged keys), and the norm of the
    /// gradient and the seconds besides.
    pub fn scalars(&self) -> Vec<(&'static str, f64)> {
        let on_policy = self.on_policy_kl.map(|kl| ("train/on_policy_kl", kl));
        let always = [
            ("train/loss", self.loss),
            ("train/perplexity", self.loss.exp()),
            ("train/epoch_idx", self.epoch as f64),
            ("train/optimizer_step", self.step as f64),
            ("train/iter_idx", self.rows as f64),
            ("train/step_num_input_tokens", self.tokens as f64),
            ("train/step_num_target_tokens", self.targets as f64),
            ("train/num_input_tokens", self.total_tokens as f64),
            ("train/num_target_tokens", self.total_targets as f64),
            ("train/grad_norm", self.grad_norm),
            ("train/seconds", self.seconds),
            ("optimizer/lr_group0", self.lr),
        ];
        always.into_iter().chain(on_policy).collect()
    }
}

/// How much is trained, once per run.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct Sizes {
    /// Slots of the cartridge that are trained.
    pub trainable_slots: usize,
    /// Numbers in them, over all layers.
    pub trainable_parameters: usize,
}

impl Sizes {
    /// The numbers under the reference's names.
    pub fn scalars(&self) -> [(&'static str, f64); 3] {
        let parameters = self.trainable_parameters as f64;
        [
            ("num_trainable_params", parameters),
            ("cache_trainable_params", parameters),
            ("num_trainable_tokens", self.trainable_slots as f64),
        ]
    }
}
