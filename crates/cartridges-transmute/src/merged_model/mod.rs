//! A model's folder with an adapter in its weights, for programs that know no adapters.

mod config;
mod plan;
mod write;

pub use write::{MergedModel, write_merged_model};
