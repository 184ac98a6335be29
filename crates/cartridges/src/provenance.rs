//! What reports say of where their numbers come from.

use cartridges_model::digest::hex;
use sha2::{Digest, Sha256};

/// Name and version of this program.
pub(crate) fn program() -> String {
    concat!("cartridges ", env!("CARGO_PKG_VERSION")).to_owned()
}

/// The command line that this process was started with, without the program's folder.
pub(crate) fn command() -> String {
    let quoted = |word: String| match word.is_empty() || word.contains(char::is_whitespace) {
        true => format!("'{word}'"),
        false => word,
    };
    let words = std::env::args_os().skip(1);
    let words = words.map(|word| quoted(word.to_string_lossy().into_owned()));
    std::iter::once("cartridges".to_owned())
        .chain(words)
        .collect::<Vec<_>>()
        .join(" ")
}

/// SHA-256 of a text, in hexadecimal.
pub(crate) fn sha256(text: &str) -> String {
    hex(&Sha256::digest(text))
}

/// The date in UTC.
pub(crate) fn today() -> String {
    chrono::Utc::now().format("%Y-%m-%d").to_string()
}
