//! What only Tokasaurus has.

mod batch;
mod pickle;

pub(crate) use batch::{cartridge_batch, plain_batch};
