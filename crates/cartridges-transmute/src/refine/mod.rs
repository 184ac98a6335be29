//! A few steps of distillation on the factors that the closed form found.

mod adam;
mod gradient;
mod options;
mod run;
#[cfg(test)]
mod tests;
mod untrained;

pub use options::RefineOptions;
pub use run::{Look, Refinement, Step, Tell, refine};
pub use untrained::untrained;
