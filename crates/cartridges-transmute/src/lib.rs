//! Transmutation: what a prompt does to a model, solved into weight deltas.
//!
//! This is its arithmetic, on plain memory and without a model:
//! - [`SiteStatistics`]: streamed sums of a linear map's inputs and of what its outputs lack;
//! - [`solve`], [`solve_rows`]: the delta by ridge regression, with a term that preserves background text;
//! - [`Solved::reduce`], [`truncate`], [`Factors`]: low rank;
//! - [`join`], [`merge_finished`]: several corpora;
#![recursion_limit = "256"]
#![deny(missing_docs)]

mod error;
mod matrix;
mod merge;
mod rank;
mod ridge;
mod rows;
mod statistics;
mod statistics_file;
#[cfg(test)]
mod synthetic;

pub use error::TransmuteError;
pub use matrix::Matrix;
pub use merge::{Finished, Merged, join, merge_finished};
pub use rank::{Factors, Reduced, truncate};
pub use ridge::{
    Form, RidgeOptions, RidgeReport, RidgeRule, RidgeSolution, Solved, solve, solve_rows,
    system_matrix,
};
pub use rows::{Element, Rows};
pub use statistics::{CorpusId, CorpusShare, SiteStatistics};
