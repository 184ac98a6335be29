//! What reports say of where their numbers come from.

use cartridges_model::digest::hex;
use sha2::{Digest, Sha256};

/// Name and version of this program.
pub(crate) fn program() -> String {
    concat!("cartridges ", env!("CARGO_PKG_VERSION")).to_owned()
}

/// SHA-256 of a text, in hexadecimal.
pub(crate) fn sha256(text: &str) -> String {
    hex(&Sha256::digest(text))
}

/// The date in UTC.
pub(crate) fn today() -> String {
    chrono::Utc::now().format("%Y-%m-%d").to_string()
}
