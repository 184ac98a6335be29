//! Rebuilding a byte-level BPE tokenizer from GGUF metadata.
//!
//! GGUF keeps the vocabulary and the merges but only a *name* for the splitting rule in front of
//! them; the rules here are those of the Hugging Face tokenizers that the names stand for.

use tokenizers::models::bpe::{BPE, Merges, Vocab};
use tokenizers::normalizers::unicode::NFC;
use tokenizers::pre_tokenizers::byte_level::ByteLevel;
use tokenizers::pre_tokenizers::digits::Digits;
use tokenizers::pre_tokenizers::sequence::Sequence;
use tokenizers::pre_tokenizers::split::{Split, SplitPattern};
use tokenizers::{AddedToken, PreTokenizerWrapper, SplitDelimiterBehavior, Tokenizer};

use super::chat_tokenizer::{ChatTokenizer, NamedToken, Parts, SpecialTokens};
use super::error::TextError;
use crate::weights::gguf::TokenizerParts;

const UNKNOWN: i32 = 2;
const CONTROL: i32 = 3;
const USER_DEFINED: i32 = 4;
const UNUSED: i32 = 5;

/// Words, one digit at a time, punctuation, line breaks, blanks.
const QWEN2_SPLIT: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";
/// The same with up to three digits at a time.
const LLAMA3_SPLIT: &str = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+";

const KNOWN: &str = "default, gpt-2, llama-bpe, llama3, llama-v3, qwen2, smollm";

#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Splitting {
    Gpt2,
    SmolLm,
    Llama3,
    Qwen2,
}

impl Splitting {
    fn named(name: Option<&str>) -> Result<Self, TextError> {
        match name {
            None | Some("default" | "gpt-2" | "gpt2") => Ok(Self::Gpt2),
            Some("smollm") => Ok(Self::SmolLm),
            Some("llama-bpe" | "llama3" | "llama-v3") => Ok(Self::Llama3),
            Some("qwen2") => Ok(Self::Qwen2),
            Some(other) => Err(TextError::UnsupportedPreTokenizer {
                name: other.to_string(),
                known: KNOWN.to_string(),
            }),
        }
    }

    fn pre_tokenizer(self) -> Result<PreTokenizerWrapper, TextError> {
        let by_rule = |rule: &str| {
            Split::new(
                SplitPattern::Regex(rule.to_string()),
                SplitDelimiterBehavior::Isolated,
                false,
            )
            .map(|split| {
                let bytes = ByteLevel::new(false, true, false);
                Sequence::new(vec![split.into(), bytes.into()]).into()
            })
            .map_err(|error| gguf_error("tokenizer.ggml.pre", error.to_string()))
        };
        // Here `ByteLevel` splits by the GPT-2 rule itself.
        let gpt2 = ByteLevel::new(false, true, true);
        match self {
            Self::Gpt2 => Ok(gpt2.into()),
            Self::SmolLm => Ok(Sequence::new(vec![Digits::new(true).into(), gpt2.into()]).into()),
            Self::Llama3 => by_rule(LLAMA3_SPLIT),
            Self::Qwen2 => by_rule(QWEN2_SPLIT),
        }
    }
}

impl ChatTokenizer {
    /// Rebuilds the tokenizer that a GGUF file describes, with the ids that the Hugging Face
    /// tokenizer of the same model gives.
    ///
    /// Unused entries (rows that only pad the embedding) are left out of the vocabulary.
    /// Control, unknown and user-defined tokens are matched as a whole in text; GGUF calls some
    /// tokens "control" that Hugging Face does not call special, so decoding without specials
    /// can leave out a little more.
    ///
    /// # Errors
    /// [`TextError::UnsupportedGgufModel`] for SentencePiece and other kinds,
    /// [`TextError::UnsupportedPreTokenizer`] for an unknown splitting rule,
    /// [`TextError::Gguf`] for contradictions, and template errors.
    pub fn from_gguf(parts: &TokenizerParts) -> Result<Self, TextError> {
        if parts.model != "gpt2" {
            return Err(TextError::UnsupportedGgufModel {
                model: parts.model.clone(),
            });
        }
        let splitting = Splitting::named(parts.pre.as_deref())?;
        let bpe = BPE::builder()
            .vocab_and_merges(vocabulary(parts)?, merges(parts)?)
            .ignore_merges(splitting == Splitting::Llama3)
            .build()
            .map_err(|error| gguf_error("tokenizer.ggml.merges", error.to_string()))?;
        let mut tokenizer = Tokenizer::new(bpe);
        if splitting == Splitting::Qwen2 {
            tokenizer.with_normalizer(Some(NFC));
        }
        tokenizer.with_pre_tokenizer(Some(splitting.pre_tokenizer()?));
        tokenizer.with_decoder(Some(ByteLevel::new(false, false, false)));

        let specials = SpecialTokens {
            bos: named_token(parts, parts.bos_id, "tokenizer.ggml.bos_token_id")?,
            eos: named_token(parts, parts.eos_id, "tokenizer.ggml.eos_token_id")?,
            pad: named_token(parts, parts.pad_id, "tokenizer.ggml.padding_token_id")?,
            unknown: named_token(parts, parts.unknown_id, "tokenizer.ggml.unknown_token_id")?,
        };
        add_whole_tokens(parts, &specials, &mut tokenizer);

        // Llama 3 files may leave the flag out; its Hugging Face tokenizer always adds bos.
        let add_bos = parts.add_bos.unwrap_or(splitting == Splitting::Llama3);
        let prefix_id = specials
            .bos
            .as_ref()
            .and_then(|token| token.id)
            .filter(|_| add_bos);
        if parts.add_bos == Some(true) && prefix_id.is_none() {
            let message = "true, but the file names no bos token";
            return Err(gguf_error("tokenizer.ggml.add_bos_token", message));
        }
        Self::from_parts(Parts {
            tokenizer,
            specials,
            template: parts.chat_template.clone(),
            named_templates: Vec::new(),
            more_stop_ids: Vec::new(),
            prefix_id,
        })
    }
}

fn gguf_error(key: &'static str, message: impl Into<String>) -> TextError {
    TextError::Gguf {
        key,
        message: message.into(),
    }
}

fn kind(parts: &TokenizerParts, index: usize) -> i32 {
    parts.token_types.get(index).copied().unwrap_or(1)
}

/// Every token but the unused ones, with its index as id.
fn vocabulary(parts: &TokenizerParts) -> Result<Vocab, TextError> {
    const KEY: &str = "tokenizer.ggml.tokens";
    if parts.tokens.is_empty() {
        return Err(gguf_error(KEY, "the list is missing or empty"));
    }
    if !parts.token_types.is_empty() && parts.token_types.len() != parts.tokens.len() {
        let (types, tokens) = (parts.token_types.len(), parts.tokens.len());
        let message = format!("{types} types for {tokens} tokens");
        return Err(gguf_error("tokenizer.ggml.token_type", message));
    }
    let mut vocabulary = Vocab::with_capacity(parts.tokens.len());
    for (index, token) in parts.tokens.iter().enumerate() {
        if kind(parts, index) == UNUSED {
            continue;
        }
        let id =
            u32::try_from(index).map_err(|_| gguf_error(KEY, "more tokens than 32-bit ids"))?;
        if let Some(earlier) = vocabulary.insert(token.clone(), id) {
            let message = format!("`{token}` stands at both {earlier} and {id}");
            return Err(gguf_error(KEY, message));
        }
    }
    Ok(vocabulary)
}

fn merges(parts: &TokenizerParts) -> Result<Merges, TextError> {
    const KEY: &str = "tokenizer.ggml.merges";
    if parts.merges.is_empty() {
        return Err(gguf_error(
            KEY,
            "the list is missing or empty; byte-level BPE needs it",
        ));
    }
    parts
        .merges
        .iter()
        .enumerate()
        .map(|(rank, merge)| match merge.split_once(' ') {
            Some((left, right)) if !left.is_empty() && !right.is_empty() => {
                Ok((left.to_string(), right.to_string()))
            }
            _ => Err(gguf_error(
                KEY,
                format!("entry {rank}, `{merge}`, is not a pair"),
            )),
        })
        .collect()
}

fn named_token(
    parts: &TokenizerParts,
    id: Option<u32>,
    key: &'static str,
) -> Result<Option<NamedToken>, TextError> {
    let Some(id) = id else { return Ok(None) };
    match parts.tokens.get(id as usize) {
        Some(text) => Ok(Some(NamedToken {
            id: Some(id),
            text: text.clone(),
        })),
        None => {
            let count = parts.tokens.len();
            Err(gguf_error(
                key,
                format!("{id} is outside the vocabulary of {count} tokens"),
            ))
        }
    }
}

/// Registers the tokens that are matched as a whole. They are in the vocabulary already, so
/// their ids do not change.
fn add_whole_tokens(parts: &TokenizerParts, specials: &SpecialTokens, tokenizer: &mut Tokenizer) {
    let named: Vec<usize> = [&specials.bos, &specials.eos, &specials.pad]
        .into_iter()
        .flatten()
        .filter_map(|token| token.id.map(|id| id as usize))
        .filter(|_| parts.token_types.is_empty())
        .collect();
    let (mut special, mut plain) = (Vec::new(), Vec::new());
    for (index, token) in parts.tokens.iter().enumerate() {
        match kind(parts, index) {
            _ if token.is_empty() => {}
            CONTROL | UNKNOWN => special.push(AddedToken::from(token.clone(), true)),
            _ if named.contains(&index) => special.push(AddedToken::from(token.clone(), true)),
            USER_DEFINED => plain.push(AddedToken::from(token.clone(), false).normalized(false)),
            _ => {}
        }
    }
    tokenizer.add_special_tokens(&special);
    tokenizer.add_tokens(&plain);
}
