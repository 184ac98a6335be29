//! The choices that the settings of training offer.

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
    /// As few of the lower layers as keep what is stored below half of the model's matrices in f32: none for
    /// short rows.
    Auto,
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

/// Whose words are trained on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TrainOn {
    /// The assistant's; with distribution targets every message that carries log-probs, as the
    /// reference does.
    Assistant,
    /// The user's as well: where there are no log-probs, the tokens themselves are the targets.
    Both,
}

/// The rule of an update.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Optimizer {
    /// Adam (arXiv 1412.6980); weight decay is added to the gradient, as in the reference.
    Adam,
    /// AdamW (arXiv 1711.05101): weight decay shrinks the values directly.
    AdamW,
}

/// Where a run is logged.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum TrackerKind {
    /// A line of JSON per step in `train.jsonl`.
    Jsonl,
    /// An event file in `tensorboard/`.
    TensorBoard,
    /// A run in `wandb/`, which `wandb sync` uploads, or which is sent at once if `wandb.mode` says so.
    Wandb,
}
