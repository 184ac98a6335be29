//! Weights & Biases over HTTP: as much of its interface as runs that are logged and files that are read
//! need.
//!
//! The questions are those of the package `wandb` 0.31.

mod client;
mod error;
mod files;
mod source;
#[cfg(test)]
mod tests;

pub use client::WandbClient;
pub use error::WandbError;
pub use files::{WandbFile, download, list_files};
pub use source::WandbSource;
