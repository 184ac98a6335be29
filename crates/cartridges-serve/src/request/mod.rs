//! From a request body to jobs.

mod body;
mod cartridge_blocks;
mod cartridges;
mod fields;
mod messages;
mod plan;
mod question;
mod sampling;

pub(crate) use body::{ChatRequest, CompletionRequest, read};
pub(crate) use fields::{Endpoint, Form};
pub(crate) use plan::{Plan, Planner, Wanted};
