//! JSON files: the whole, or the values at some paths.

mod file;
mod outline;
mod paths;

pub use file::JsonConfig;
pub(super) use file::read_values;
