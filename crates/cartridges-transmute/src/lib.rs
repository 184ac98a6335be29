//! Transmutation: what a prompt does to a model, solved into weight deltas.
//!
//! From conversations to an adapter:
//! - [`pair`]: what a teacher reads, who sees the text, and a student who does not;
//! - [`sweep`]: the deltas of all layers in closed form, bottom-up;
//! - [`refine`]: a few steps of distillation on their factors;
//! - [`combine`], [`remove`]: corpora put together and taken out, of adapters whose statistics were kept.
//!
//! The arithmetic, on plain memory and without a model:
//! - [`SiteStatistics`]: streamed sums of a linear map's inputs and of what its outputs lack;
//! - [`solve`], [`solve_rows`]: the delta by ridge regression, with a term that preserves background text;
//! - [`Solved::reduce`], [`truncate`], [`Factors`]: low rank;
//! - [`join`], [`merge_finished`]: several corpora;
//! - [`SwiGlu`]: patches that are exact for a single token;
//! - [`ReferenceEstimator`], [`reference_adapter`]: the estimator of the reference, to compare with;
//! - [`fold`], [`rounding_loss`], [`write_merged_model`]: a delta added to its weights, what their type
//!   swallows of it, and a model with an adapter in its weights.
#![recursion_limit = "256"]
#![deny(missing_docs)]

mod divergence;
mod error;
mod extract;
mod fold;
mod kept;
mod matrix;
mod merge;
mod merged_model;
mod rank;
mod reference;
mod refine;
mod ridge;
mod rows;
mod statistics;
mod statistics_file;
mod sweep;
#[cfg(test)]
mod synthetic;
#[cfg(test)]
mod tiny;
mod token_patch;

pub use divergence::validation_divergence;
pub use error::TransmuteError;
pub use extract::{Group, PairOptions, Pairs, StudentContext, Turns, pair};
pub use fold::{fold, rounding_loss};
pub use kept::{
    Combined, CombinedTarget, Kept, MadeTarget, Removed, StatisticsFolder, combine, remove, sum,
};
pub use matrix::Matrix;
pub use merge::{Finished, Merged, join, merge_finished};
pub use merged_model::{MergedModel, write_merged_model};
pub use rank::{Factors, Reduced, truncate};
pub use reference::{ReferenceEstimator, ReferencePatch, reference_adapter};
pub use refine::{Look, RefineOptions, Refinement, Step, Tell, refine, untrained};
pub use ridge::{
    Form, RidgeOptions, RidgeReport, RidgeRule, RidgeSolution, Solved, solve, solve_rows,
    system_matrix,
};
pub use rows::{Element, Rows};
pub use statistics::{CorpusId, CorpusShare, SiteStatistics};
pub use sweep::{
    Material, Sites, SweepOptions, Swept, TargetReport, TargetStatistics, Weighting, sweep,
};
pub use token_patch::{RankOne, SwiGlu, TokenPatch, TokenStates};
