//! Copying the tokenizer out of a GGUF header.

use super::{Gguf, TokenizerParts};
use crate::weights::WeightsError;

const TOKENS: &str = "tokenizer.ggml.tokens";
const TYPES: &str = "tokenizer.ggml.token_type";

/// Reads the `tokenizer.*` entries and checks that they fit each other.
pub(in crate::weights) fn read(gguf: &Gguf) -> Result<TokenizerParts, WeightsError> {
    let text = |key: &str| Ok::<_, WeightsError>(gguf.text(key)?.map(str::to_owned));
    let tokens = gguf
        .texts(TOKENS)?
        .ok_or_else(|| gguf.missing(TOKENS, "an array of texts"))?;
    let token_types = gguf.integers(TYPES)?.unwrap_or_default();
    if !token_types.is_empty() && token_types.len() != tokens.len() {
        return Err(gguf.metadata_error(
            TYPES,
            format!("an array of {}", token_types.len()),
            format!("one item for each of {} tokens", tokens.len()),
        ));
    }
    let id = |key: &str| token_id(gguf, key, tokens.len());
    Ok(TokenizerParts {
        model: text("tokenizer.ggml.model")?
            .ok_or_else(|| gguf.missing("tokenizer.ggml.model", "gpt2 or llama"))?,
        pre: text("tokenizer.ggml.pre")?,
        tokens: tokens.to_vec(),
        merges: gguf
            .texts("tokenizer.ggml.merges")?
            .unwrap_or_default()
            .to_vec(),
        token_types,
        bos_id: id("tokenizer.ggml.bos_token_id")?,
        eos_id: id("tokenizer.ggml.eos_token_id")?,
        unknown_id: id("tokenizer.ggml.unknown_token_id")?,
        pad_id: id("tokenizer.ggml.padding_token_id")?,
        add_bos: gguf.boolean("tokenizer.ggml.add_bos_token")?,
        add_space_prefix: gguf.boolean("tokenizer.ggml.add_space_prefix")?,
        chat_template: text("tokenizer.chat_template")?,
    })
}

/// A token id below `tokens`. Some converters write "there is none" as -1 in an unsigned field.
fn token_id(gguf: &Gguf, key: &str, tokens: usize) -> Result<Option<u32>, WeightsError> {
    match gguf.unsigned(key)? {
        None => Ok(None),
        Some(id) if id == u64::from(u32::MAX) => Ok(None),
        Some(id) => match u32::try_from(id) {
            Ok(id) if (id as usize) < tokens => Ok(Some(id)),
            _ => Err(gguf.metadata_error(key, id, format!("an id below {tokens}"))),
        },
    }
}
