//! A frozen language model and the small trained things that plug into it.
//!
//! - [`decoder`]: Llama, Qwen2 and Qwen3 in one config-driven decoder over packed batches;
//! - [`weights`]: safetensors folders and GGUF files; [`hub`]: getting them;
//! - [`text`]: tokenizers and chat templates;
//! - [`cartridge`]: trained keys and values that stand before the tokens of a request;
//! - [`wandb`]: Weights & Biases over HTTP;
//! - [`adapter`]: bias and low-rank weight deltas at named places of the decoder.
#![recursion_limit = "256"]
#![deny(missing_docs)]

pub mod adapter;
pub mod atomic_file;
pub mod cartridge;
pub mod decoder;
pub mod digest;
pub mod hub;
mod language_model;
mod loopback;
mod peft_folder;
mod tensor_folder;
pub mod text;
pub mod wandb;
pub mod weights;

pub use language_model::{LanguageModel, ModelError};
pub use loopback::is_loopback;
pub use peft_folder::{PEFT_CONFIG_FILE, PEFT_TENSOR_FILE, PeftKind, peft_kind};
pub use tensor_folder::FolderError;
