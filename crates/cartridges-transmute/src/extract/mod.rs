//! What a prompt does to a model, token by token: teacher and student run the same conversations, one with
//! the prompt and one without.

mod batch;
mod pairs;
mod stream;
#[cfg(test)]
mod tests;

pub use pairs::{Group, PairOptions, Pairs, StudentContext, Turns, pair};

pub(crate) use batch::Batch;
pub(crate) use stream::{Stream, values};
