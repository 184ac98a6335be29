//! Self-study: what is asked, and how the answers become training examples.
//!
//! [`SelfStudyConfig`] → [`Plan`] (every task's context and prompt, computed beforehand from seed,
//! texts and configuration) → [`run_batches`] (the conversations themselves).

mod cloze;
mod config;
mod coverage;
mod flow;
mod plan;
mod sentences;
#[cfg(test)]
pub(crate) mod tests;
#[cfg(test)]
mod tests_plan;
#[cfg(test)]
mod tests_tools;
mod tool_phase;
mod verbatim;

pub use config::{ConfigError, DEFAULT_SYSTEM_PROMPT, DEFAULT_TOOL_PROMPT, SelfStudyConfig};
pub use flow::{BatchesOutcome, Counts, Dropped, Failed, run_batches};
pub use plan::{Plan, PlanError, PlannedBatch, Task, TaskWork};
pub use sentences::{Segment, segments};
