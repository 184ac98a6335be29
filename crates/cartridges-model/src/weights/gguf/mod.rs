//! GGUF files: metadata and quantised tensors in one file.
//!
//! Format: <https://github.com/ggml-org/ggml/blob/master/docs/gguf.md>, versions 2 and 3.

mod cursor;
mod file;
mod getters;
pub(super) mod layout;
pub(super) mod model_config;
mod names;
#[cfg(test)]
pub(crate) mod test_writer;
#[cfg(test)]
mod tests;
pub(super) mod tokenizer_metadata;
mod tokenizer_parts;
mod value;

pub use file::{Gguf, TensorInfo};
pub use tokenizer_parts::TokenizerParts;
pub use value::{Array, Value};
