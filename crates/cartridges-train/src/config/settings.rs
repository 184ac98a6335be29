//! The settings of training, with their defaults.

use serde::{Deserialize, Serialize};

use super::choices::{
    LossPer, Optimizer, Packing, Recompute, Schedule, Targets, TrackerKind, TrainOn,
};
use super::on_policy::OnPolicyConfig;
use super::questions::{BestBy, EvalQuestions, QuestionKind};
use super::source::DataSource;
use super::wandb::WandbConfig;

/// Everything about a training run except its model and its start.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TrainConfig {
    /// Seed of the order of examples (default 42).
    pub seed: u64,
    /// What to train on when the command line names no data (default nothing). Read by
    /// `cartridges train`; `quickstart` trains on the data it makes.
    pub data: Vec<DataSource>,
    /// Data whose loss is measured every `eval_every` steps and not trained on (default nothing).
    pub eval_data: Vec<DataSource>,
    /// Question lists that are asked every `eval_every` steps (default none).
    pub eval_questions: Vec<EvalQuestions>,
    /// Optimizer steps; 0 means `epochs` passes over the rows (default 0).
    pub steps: usize,
    /// Passes over the data when `steps` is 0 (default 1).
    pub epochs: usize,
    /// The run stops after so many optimizer steps even if `steps` or `epochs` ask for more; 0 means
    /// it does not. The learning rate moves as if the run went on (default 0).
    pub max_steps: usize,
    /// Packed rows per optimizer step (default 1).
    pub rows_per_step: usize,
    /// Tokens of a packed row (default 2048).
    pub packed_seq_length: usize,
    /// What happens at a row's end (default truncate).
    pub packing: Packing,
    /// What is trained towards (default logits).
    pub targets: Targets,
    /// Whose words are trained on (default assistant).
    pub train_on: TrainOn,
    /// Whether the mass that the stored candidates leave over counts as one more candidate, "any
    /// other token", with its own `p log(p / q)`; only with `targets = "logits"` (default false).
    pub tail_bucket: bool,
    /// What the loss is divided by (default position).
    pub loss_per: LossPer,
    /// Weight of verbatim pieces against conversations (default 1).
    pub verbatim_weight: f32,
    /// Learning rate after the warm-up (default 5e-3). The reference uses 2e-2 with large batches,
    /// which diverges with small ones.
    pub lr: f64,
    /// Steps over which the rate rises (default 5).
    pub warmup_steps: usize,
    /// Where it rises from, as a rate below `lr` (default a tenth of `lr`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub warmup_min_lr: Option<f64>,
    /// How it falls afterwards (default cosine).
    pub schedule: Schedule,
    /// Where it ends, as a share of `lr` (default 0.1).
    pub final_lr_ratio: f64,
    /// The step at which it gets there and stays, the reference's `max_steps` of a schedule; 0 means
    /// the run's last step (default 0).
    pub schedule_steps: usize,
    /// The rule of an update (default adam).
    pub optimizer: Optimizer,
    /// Weight decay per unit of learning rate (default 0).
    pub weight_decay: f64,
    /// Decay of the running average of the trained values. Where it is not 0, the average is what is
    /// evaluated and saved (default 0).
    pub ema_decay: f64,
    /// Adam's decay of the first moment (default 0.9).
    pub beta1: f64,
    /// Adam's decay of the second moment (default 0.999).
    pub beta2: f64,
    /// Adam's epsilon (default 1e-8).
    pub epsilon: f64,
    /// Largest global norm of the gradient; 0 means no limit (default 0).
    pub max_grad_norm: f64,
    /// Training on the student's own answers (default never). Needs the text: in the data's system prompts, or
    /// as the corpus.
    pub on_policy: OnPolicyConfig,
    /// What is computed twice to save memory (default auto).
    pub recompute: Recompute,
    /// A checkpoint every so many steps; 0 means only at the end (default 50).
    pub save_every: usize,
    /// Of the checkpoints so many are kept by their step's number beside the newest (default 0).
    pub keep_last_n: usize,
    /// The cartridge is scored every so many steps, before the first and after the last; the best is
    /// what the run gives. 0 means never (default 0).
    pub eval_every: usize,
    /// What decides which cartridge is the best; of equal ones the earliest (default: the first of
    /// `held_out_loss`, `generation` and `nll` that is measured).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub best_by: Option<BestBy>,
    /// The run ends when so many scores in a row were no better than the best; 0 means it goes on
    /// (default 0).
    pub patience: usize,
    /// Where the run is logged (default jsonl).
    pub trackers: Vec<TrackerKind>,
    /// How the run is called in Weights & Biases.
    pub wandb: WandbConfig,
}

impl Default for TrainConfig {
    fn default() -> Self {
        Self {
            seed: 42,
            data: Vec::new(),
            eval_data: Vec::new(),
            eval_questions: Vec::new(),
            steps: 0,
            epochs: 1,
            max_steps: 0,
            rows_per_step: 1,
            packed_seq_length: 2048,
            packing: Packing::Truncate,
            targets: Targets::Logits,
            train_on: TrainOn::Assistant,
            tail_bucket: false,
            loss_per: LossPer::Position,
            verbatim_weight: 1.0,
            lr: 5e-3,
            warmup_steps: 5,
            warmup_min_lr: None,
            schedule: Schedule::Cosine,
            final_lr_ratio: 0.1,
            schedule_steps: 0,
            optimizer: Optimizer::Adam,
            weight_decay: 0.0,
            ema_decay: 0.0,
            beta1: 0.9,
            beta2: 0.999,
            epsilon: 1e-8,
            max_grad_norm: 0.0,
            on_policy: OnPolicyConfig::default(),
            recompute: Recompute::Auto,
            save_every: 50,
            keep_last_n: 0,
            eval_every: 0,
            best_by: None,
            patience: 0,
            trackers: vec![TrackerKind::Jsonl],
            wandb: WandbConfig::default(),
        }
    }
}

impl TrainConfig {
    /// What decides which cartridge is the best; `None` where nothing is measured.
    pub fn decided_by(&self) -> Option<BestBy> {
        let by_default = [BestBy::HeldOutLoss, BestBy::Generation, BestBy::Nll];
        let measured = by_default.into_iter().find(|by| self.measures(*by));
        self.best_by.or(measured)
    }

    /// Whether the settings name what this is measured on.
    pub(crate) fn measures(&self, by: BestBy) -> bool {
        let asks = |kind| self.eval_questions.iter().any(|q| q.kind == kind);
        match by {
            BestBy::HeldOutLoss => !self.eval_data.is_empty(),
            BestBy::Nll | BestBy::Choice => asks(QuestionKind::Likelihood),
            BestBy::Generation => asks(QuestionKind::Generation),
        }
    }

    /// What decides the result, without what only says how a run is watched and kept and without the
    /// names of its data, whose content is compared: a run goes on from a checkpoint if this is the
    /// same.
    pub(crate) fn essence(&self) -> Self {
        let other = Self::default();
        Self {
            data: other.data,
            save_every: other.save_every,
            keep_last_n: other.keep_last_n,
            trackers: other.trackers,
            wandb: other.wandb,
            ..self.clone()
        }
    }
}
