//! Data sets, cartridges and adapters as repositories of the hub hold them.

mod artifact;
mod card;
mod gather;
mod kind;
mod sources;
mod yaml;

pub(crate) use gather::{Shared, gather};
pub use kind::Kind;
pub(crate) use sources::is_kept;
pub use sources::local_sources;
