//! Reading model weights on the host, without a tensor library.
//!
//! [`Weights`] maps the files of a Hugging Face folder (safetensors, sharded or not) or a GGUF file
//! into memory and hands out one tensor at a time as `f32`, under Hugging Face names and in Hugging
//! Face layout, whatever the file stores.

mod dequant;
mod dtype;
mod error;
mod fingerprint;
pub mod gguf;
mod mapped;
mod packed;
mod safetensors_folder;
mod safetensors_header;
mod store;
#[cfg(test)]
mod tests;

pub use dtype::Dtype;
pub use error::WeightsError;
pub use gguf::{Gguf, TokenizerParts};
pub use store::{HostTensor, Weights};
