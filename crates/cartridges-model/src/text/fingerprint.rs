//! A hash that tells whether two tokenizers read and write the same ids.

use serde::Deserialize;
use sha2::{Digest, Sha256};
use tokenizers::Tokenizer;

use super::error::TextError;
use crate::digest::hex;

#[derive(Deserialize)]
struct ModelView {
    #[serde(default)]
    merges: Option<Vec<Merge>>,
}

#[derive(Deserialize)]
#[serde(untagged)]
enum Merge {
    Joined(String),
    Pair(String, String),
}

/// SHA-256 in lower-case hex over every (id, token) pair in the order of ids, then the merges in
/// the order of their rank; each string is preceded by its length in bytes (u64, little endian).
/// Whether a token is special is left out, since GGUF and Hugging Face files disagree about it.
pub(super) fn vocabulary_fingerprint(tokenizer: &Tokenizer) -> Result<String, TextError> {
    let mut entries: Vec<(u32, String)> = tokenizer
        .get_vocab(true)
        .into_iter()
        .map(|(token, id)| (id, token))
        .collect();
    entries.sort_unstable();
    let mut hasher = Sha256::new();
    hasher.update((entries.len() as u64).to_le_bytes());
    for (id, token) in &entries {
        hasher.update(id.to_le_bytes());
        update_text(&mut hasher, token);
    }
    // The library keeps its merges private, but writes them out.
    let model = serde_json::to_string(tokenizer.get_model())
        .and_then(|json| serde_json::from_str::<ModelView>(&json))
        .map_err(|error| TextError::Encode {
            message: format!("the tokenizer's model cannot be written as JSON: {error}"),
        })?;
    let merges = model.merges.unwrap_or_default();
    hasher.update((merges.len() as u64).to_le_bytes());
    for merge in &merges {
        let (left, right) = match merge {
            Merge::Joined(pair) => pair.split_once(' ').unwrap_or((pair, "")),
            Merge::Pair(left, right) => (left.as_str(), right.as_str()),
        };
        update_text(&mut hasher, left);
        update_text(&mut hasher, right);
    }
    Ok(hex(&hasher.finalize()))
}

/// SHA-256 in lower-case hex over the vocabulary's fingerprint and the template, without the
/// template's trailing line breaks (files end with one, metadata strings often do not).
pub(super) fn full_fingerprint(vocabulary: &str, template: Option<&str>) -> String {
    let mut hasher = Sha256::new();
    update_text(&mut hasher, vocabulary);
    update_text(
        &mut hasher,
        template.unwrap_or_default().trim_end_matches('\n'),
    );
    hex(&hasher.finalize())
}

fn update_text(hasher: &mut Sha256, text: &str) {
    hasher.update((text.len() as u64).to_le_bytes());
    hasher.update(text.as_bytes());
}
