//! Training a cartridge: conversations become packed rows, a frozen decoder runs over them behind the
//! cartridge, and the cartridge is moved towards the teacher's stored distribution.
#![recursion_limit = "256"]
#![deny(missing_docs)]

mod adam;
mod before;
mod best;
mod checkpoint;
mod config;
mod example;
mod gradient;
mod group;
mod joint;
mod mixture;
mod numbered;
mod on_policy;
mod packing;
mod report;
mod run;
mod schedule;
mod sieve;
mod track;
mod trainer;

pub use adam::Adam;
pub use checkpoint::CheckpointError;
pub use config::{
    BestBy, DataSource, EvalQuestions, LossPer, OnPolicyConfig, Optimizer, Packing, QuestionKind,
    Recompute, Schedule, Targets, TrackerKind, TrainConfig, TrainConfigError, TrainOn, WandbConfig,
    WandbMode,
};
pub use example::{Example, ExampleError, Target, examples, prompt_ids};
pub use gradient::{Gradient, gradient_among, loss_among, row_gradient, row_loss};
pub use group::{Alone, DeviceGroup, Exchange, Facts, GroupError, GroupOptions, Star, share_start};
pub use joint::{JointConfig, JointHooks, JointScore, JointTrainer, train_joint};
pub use mixture::{MixtureError, Taken, read_mixture};
pub use numbered::{CHECKPOINT, numbered_checkpoint};
pub use on_policy::Teacher;
pub use packing::{PackedRow, pack};
pub use report::{Sizes, StepReport};
pub use run::{Evaluation, Hooks, RunEnd, RunError, Score, held_out, train};
pub use schedule::learning_rate;
pub use sieve::Dropped;
pub use track::{
    JsonLines, RunStart, Table, TensorBoard, TrackError, Tracker, WandbOffline, open_trackers,
};
pub use trainer::{TrainError, Trainer};
