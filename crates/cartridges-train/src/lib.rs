//! Training a cartridge: conversations become packed rows, a frozen decoder runs over them behind the
//! cartridge, and the cartridge is moved towards the teacher's stored distribution.
#![recursion_limit = "256"]
#![deny(missing_docs)]

mod adam;
mod checkpoint;
mod config;
mod example;
mod gradient;
mod packing;
mod run;
mod schedule;
mod trainer;

pub use adam::Adam;
pub use checkpoint::CheckpointError;
pub use config::{LossPer, Packing, Recompute, Schedule, Targets, TrainConfig, TrainConfigError};
pub use example::{Example, ExampleError, Target, examples};
pub use gradient::{Gradient, row_gradient, row_loss};
pub use packing::{PackedRow, pack};
pub use run::{RunEnd, RunError, train};
pub use schedule::learning_rate;
pub use trainer::{StepReport, TrainError, Trainer};
