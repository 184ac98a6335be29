//! Everything that generates or scores text goes through this engine.
//!
//! Sequences of many requests are decoded together. Keys and values live in one pool of rows per
//! layer; a cartridge and every prompt prefix that requests have in common is held there once and
//! read by all of them.
#![recursion_limit = "256"]
#![deny(missing_docs)]

mod engine;
mod error;
mod forward;
mod generate;
mod log_probs;
mod pool;
mod request;
mod residents;
mod sampling;
mod score;
#[cfg(test)]
mod tests;

pub use engine::{CartridgeHandle, Engine, EngineOptions};
pub use error::EngineError;
pub use log_probs::TopLogprobs;
pub use request::{
    Completion, Event, FinishReason, Flow, GenerateRequest, Score, ScoreRequest, StopRules,
};
pub use sampling::Sampling;
