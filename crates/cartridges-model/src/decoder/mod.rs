//! The decoder-only transformer: Llama, Qwen2 and Qwen3 from one description.
//!
//! A batch is packed: the tokens of all sequences stand in one row axis, and an
//! [`cartridges_ops::AttentionLayout`] says who sees whom. Keys and values come from a
//! [`KvSource`], which puts what was there before (a cartridge, a cache) in front of the new rows.

mod config;
mod layer;
mod load;
mod model;
mod random;
mod rope;

pub use config::{Architecture, ConfigError, Llama3Scaling, ModelConfig, RopeConfig};
pub use layer::{Half, Layer, LayerBatch};
pub use load::{LoadError, Precision};
pub use model::{Decoder, KvSource, NoPast, Packed};
pub use rope::{RotaryAngles, RotaryTable};
