//! Runs that survive being stopped.
//!
//! A run lives in a folder:
//!
//! | file | content |
//! |---|---|
//! | `plan.json` | configuration, digests of the texts and of the plan, the model's name, the number of tasks |
//! | `config.json` | the configuration alone, to start another run from |
//! | `parts/part-00000.parquet` … | finished conversations, written after every batch |
//! | `dataset.parquet` | all of them in task order, written at the end |
//! | `report.json` | what was made, dropped and failed |
//!
//! Starting again with the same configuration, texts and model goes on where it ended. The data set
//! does not depend on when and how often a run was stopped (its client answers equal requests
//! equally). Every file is replaced atomically.

mod parts;
mod plan_file;
mod report;
mod synthesis;
#[cfg(test)]
mod tests;

pub use plan_file::PlanFile;
pub use report::SynthesisReport;
pub use synthesis::{Outcome, Progress, RunError, SynthesisRun};
