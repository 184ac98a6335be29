//! Thought adapters: bias and low-rank weight deltas at named places of the decoder, and the files they
//! live in.

mod batch;
mod error;
mod format;
mod host;
mod lora;
mod lora_settings;
mod module;
mod registry;
mod target;
#[cfg(test)]
mod tests;
mod torch;

pub use batch::BatchAdapters;
pub use error::AdapterError;
pub use format::{
    ADAPTER_FILE, ADAPTER_MANIFEST_FILE, AdapterManifest, load_adapter, load_adapter_manifest,
    save_adapter,
};
pub use host::{Delta, HostAdapter, HostPatch, Mode};
pub use lora::{LoraAdapter, read_lora, write_lora};
pub use module::ThoughtAdapter;
pub use registry::{AdapterHandle, AdapterRegistry, Registered};
pub use target::{Site, Target};
pub use torch::{TorchAdapter, is_torch_adapter, read_adapter_pt};
