//! The configuration of training.

mod choices;
mod on_policy;
mod questions;
mod settings;
mod source;
mod validation;
mod wandb;

pub use choices::{
    LossPer, Optimizer, Packing, Recompute, Schedule, Targets, TrackerKind, TrainOn,
};
pub use on_policy::OnPolicyConfig;
pub use questions::{BestBy, EvalQuestions, QuestionKind};
pub use settings::TrainConfig;
pub use source::DataSource;
pub use validation::TrainConfigError;
pub use wandb::{WandbConfig, WandbMode};
