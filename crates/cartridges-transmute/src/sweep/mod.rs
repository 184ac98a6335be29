//! The closed form, bottom-up: each map's patch is solved on the student that the patches before it make.

mod collect;
mod material;
mod options;
mod run;
#[cfg(test)]
mod tests;

pub use collect::TargetStatistics;
pub use material::Material;
pub use options::{Sites, SweepOptions, Weighting};
pub use run::{Swept, TargetReport, sweep};
