mod config;
mod fleet;
mod openai;
mod sglang;
pub(crate) mod stand_in;
mod tokasaurus;
