mod config;
mod fleet;
mod openai;
mod sglang;
mod stand_in;
mod tokasaurus;
