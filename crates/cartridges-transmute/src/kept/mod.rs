//! Finished adapters whose statistics were kept: corpora are put together, and taken out again.

mod adapter;
mod combine;
mod folder;
mod remove;

pub use adapter::{Kept, MadeTarget};
pub use combine::{Combined, CombinedTarget, combine, sum};
pub use folder::StatisticsFolder;
pub use remove::{Removed, remove};
