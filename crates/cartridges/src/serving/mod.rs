//! The engine behind the server: one thread that generates, shelves of cartridges and adapters, and the bridge
//! between both and HTTP.

mod engine_thread;
mod local_inference;
mod shelf;
mod ware;

pub use local_inference::{LocalInference, ServingOptions};
