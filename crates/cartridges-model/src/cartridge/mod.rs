//! Cartridges: the module, ways to start one, and the files they live in.

mod behind;
mod dtype;
mod error;
mod format;
mod host;
mod init;
mod manifest;
mod match_document;
pub mod matching;
mod mlx;
mod module;
mod peft;
#[cfg(test)]
mod tiny;
pub mod torch;

pub use behind::Behind;
pub use dtype::CartridgeDtype;
pub use error::CartridgeError;
pub use format::{MANIFEST_FILE, TENSOR_FILE, load, load_manifest, save};
pub use host::{HostCartridge, HostLayer};
pub use init::{
    compose, first_tokens, from_kv, ordinary_ids, random_tokens, random_vectors, sampled_chunks,
    truncate_chat_ids,
};
pub use manifest::{CartridgeManifest, FORMAT_VERSION, ModelIdentity};
pub use match_document::{DocumentMatch, MatchChunk, MatchDocument, match_document};
pub use mlx::write_mlx;
pub use module::Cartridge;
pub use peft::{PeftCartridge, read_peft, write_peft};
