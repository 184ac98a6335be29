//! Closed-form cartridges: a document's keys and values matched by fewer slots.
//!
//! Everything here works on one attention head (one layer, one key/value head) and plain
//! slices: given the document's keys and values and a set of reference queries,
//! [`match_head`] finds `p` keys and values whose attention output and attention mass come
//! close to those of the whole document, without a single training step.
//! [`match_blocks`] does it for a document that is too long for one system.
//! [`allot`] shares a number of slots out over all heads of a model by what they gain, and
//! [`dead_key`] pads those that got fewer.
//! [`rotate_keys`] then moves the keys from the document's positions to `0..p`.
//!
//! Method after *Attention Matching*, arXiv 2602.16284, with the per-key bias folded into the
//! keys because a cartridge has none.

mod allot;
mod attention;
mod blocks;
mod error;
mod head;
mod input;
mod mass;
mod options;
mod padding;
mod products;
mod pursuit;
mod refine;
mod rotate;
mod select;
mod values;

#[cfg(test)]
mod block_tests;
#[cfg(test)]
mod synthetic;
#[cfg(test)]
mod tests;

pub use allot::allot;
pub use blocks::{Block, match_blocks, unexplained};
pub use error::MatchError;
pub use head::{HeadMatch, match_head};
pub use input::HeadInput;
pub use options::{KeyChoice, MatchOptions, SlotShares, ValueChoice};
pub use padding::dead_key;
pub use rotate::rotate_keys;
