//! Cartridges: give a language model a long corpus once, and never pay for it again.
//!
//! This crate is the command line and the facade over the floors below: [`cartridges_model`],
//! [`cartridges_engine`], [`cartridges_study`], [`cartridges_train`] and [`cartridges_eval`].
#![recursion_limit = "256"]
#![deny(missing_docs)]

pub mod commands;
mod figure;
mod fresh_folder;
mod interrupt;
mod local_client;
mod local_teacher;
mod opening;
pub mod pipeline;
mod progress;
mod provenance;
pub mod quickstart;
mod screen;
pub mod serving;
pub mod sharing;

pub use interrupt::stop_flag;
pub use local_client::{LocalClient, TokenizerCodec};
pub use local_teacher::LocalTeacher;
pub use opening::{ModelArgs, Runtime, RuntimeArgs, load_cartridge};

/// What most programs need.
pub mod prelude {
    pub use crate::{LocalClient, TokenizerCodec};
    pub use cartridges_engine::{Engine, EngineOptions, GenerateRequest, Sampling, ScoreRequest};
    pub use cartridges_model::LanguageModel;
    pub use cartridges_model::cartridge::{Cartridge, HostCartridge};
    pub use cartridges_model::text::{ChatMessage, ChatTokenizer};
    pub use cartridges_ops::DeviceChoice;
    pub use cartridges_train::{TrainConfig, Trainer};
}
