//! Several cartridges that are trained together, so that they can be served together.

mod config;
mod run;
mod trainer;
mod visibility;

pub use config::JointConfig;
pub use run::{JointHooks, JointScore, train_joint};
pub use trainer::JointTrainer;
