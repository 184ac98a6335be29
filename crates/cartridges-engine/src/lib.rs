//! Everything that generates or scores text goes through this engine.
//!
//! Sequences of many requests are decoded together; they join and leave between steps. Keys and values
//! live in blocks of rows under one budget; a cartridge, and every beginning of a prompt that was seen
//! before, is held there once and read by all.
#![recursion_limit = "256"]
#![deny(missing_docs)]

mod blocks;
mod cartridges;
mod constraint;
mod engine;
mod error;
mod forward;
mod generate;
mod log_probs;
mod memory;
mod queue;
mod radix;
mod request;
mod sampling;
mod scheduler;
mod score;
mod sequence;
#[cfg(test)]
mod tests;
mod work;

pub use cartridges::CartridgeHandle;
pub use cartridges_model::adapter::AdapterHandle;
pub use constraint::{Constraint, ConstraintError, ConstraintFactory, TokenBytes};
pub use engine::{Engine, EngineOptions, EngineStats};
pub use error::{EngineError, RequestError};
pub use log_probs::{TopLogprobs, log_sum, top};
pub use radix::PrefixStats;
pub use request::{
    Completion, Event, FinishReason, Flow, GenerateRequest, RequestId, Score, ScoreRequest,
    StepEvent, StopRules,
};
pub use sampling::Sampling;
