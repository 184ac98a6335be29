//! Models by name: model cards, the hub, its cache, and other places to get a model from. Data sets and
//! what plugs into a model go to the hub and come from it.
//!
//! ```no_run
//! use cartridges_model::hub::{ModelRef, ResolveOptions, resolve};
//!
//! let model = ModelRef::parse("qwen2.5-coder-0.5b")?;
//! let files = resolve(&model, &ResolveOptions::from_env())?;
//! println!("{} lies in {}", files.id, files.path.as_path().display());
//! # Ok::<(), cartridges_model::hub::HubError>(())
//! ```

mod by_digest;
mod card;
mod client;
mod error;
mod named_files;
mod options;
mod pip;
mod progress;
mod pull;
mod push;
mod reference;
mod resolve;
mod snapshot;
mod stored;
mod verify;
mod wheels;

#[cfg(test)]
mod stand_in;
#[cfg(test)]
mod tests_hub;
#[cfg(test)]
mod tests_wheels;

pub use by_digest::fetch_by_digest;
pub use card::{
    ChatFamily, ChatRules, DEFAULT_MODEL, Elsewhere, ElsewhereKind, HubSource, ModelCard,
    ThinkingRule, cards, find_card,
};
pub use error::HubError;
pub use named_files::fetch_files;
pub use options::{Notice, ResolveOptions};
pub use pull::{Pulled, PulledFile, pull_files};
pub use push::{Content, PushFile, Pushed, push_files};
pub use reference::{ModelRef, hub_id};
pub use resolve::{ModelFiles, ModelPath, Origin, resolve};
