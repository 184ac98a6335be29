//! The engine behind the server: one thread that generates, a shelf of cartridges, and the bridge
//! between both and HTTP.

mod engine_thread;
mod local_inference;
mod shelf;

pub use local_inference::{LocalInference, ServingOptions};
