//! The closed form, bottom-up: each layer's patch is solved on the student that the patches below it make.

mod layer;
mod material;
mod options;
mod run;
#[cfg(test)]
mod tests;

pub use material::Material;

pub use options::{SweepOptions, Weighting};
pub use run::{LayerReport, LayerStatistics, Swept, sweep};
