//! An HTTP server for a language model with cartridges.
//!
//! It speaks OpenAI's interface, with the field `cartridges` added, and that of Tokasaurus'
//! cartridge branch, so that programs written for either find what they expect. Whoever generates
//! stands behind one trait, [`Inference`].
#![deny(missing_docs)]

mod answer;
mod api_error;
mod app;
mod compat;
mod docs;
mod error;
mod guard;
mod inference;
mod job;
mod metrics;
mod openai;
mod options;
mod page;
mod reply;
mod request;
mod router;
mod server;
mod status;

pub use answer::{Answer, AnswerSender, Event, FinishReason, JobError};
pub use error::ServeError;
pub use inference::{CartridgeInfo, Inference, Load, Served, TokenText};
pub use job::{CartridgeSpec, Constraint, Job, Message, Prompt, Role, Source};
pub use options::{ApiKey, ServerOptions};
pub use server::{Server, serve};
