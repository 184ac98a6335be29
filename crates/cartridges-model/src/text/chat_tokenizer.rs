//! The tokenizer with everything a chat needs: special tokens, template, message markers.

use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, OnceLock};

use serde_json::{Map, json};
use tokenizers::{DecoderWrapper, Tokenizer};

use super::byte_alphabet;
use super::chat_template::{ChatMessage, ChatTemplate, RenderOptions};
use super::error::TextError;
use super::fingerprint;
use super::message_ids::{self, MessageIds};
use super::stream_decoder::StreamDecoder;

/// The usual splitting rules backtrack three times over a run of blanks, and the regex engine
/// gives up after ten million steps.
const LONGEST_BLANK_RUN: usize = 1 << 20;

/// A special token by name.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct NamedToken {
    pub(super) id: Option<u32>,
    pub(super) text: String,
}

/// The special tokens that templates know by name.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct SpecialTokens {
    pub(super) bos: Option<NamedToken>,
    pub(super) eos: Option<NamedToken>,
    pub(super) pad: Option<NamedToken>,
    pub(super) unknown: Option<NamedToken>,
}

impl SpecialTokens {
    fn template_variables(&self) -> Map<String, serde_json::Value> {
        [
            ("bos_token", &self.bos),
            ("eos_token", &self.eos),
            ("pad_token", &self.pad),
            ("unk_token", &self.unknown),
        ]
        .into_iter()
        .filter_map(|(name, token)| token.as_ref().map(|t| (name.to_string(), json!(t.text))))
        .collect()
    }
}

/// What a loader found.
pub(super) struct Parts {
    pub(super) tokenizer: Tokenizer,
    pub(super) specials: SpecialTokens,
    pub(super) template: Option<String>,
    /// Templates that exist under a name, none of them the default.
    pub(super) named_templates: Vec<(String, String)>,
    /// Ids at which generation stops besides eos.
    pub(super) more_stop_ids: Vec<u32>,
    /// Put before text that is encoded with specials, where no post-processor does it.
    pub(super) prefix_id: Option<u32>,
}

/// Text to ids and back, conversations to ids, and the ids around each message.
///
/// Load one with `from_folder` (Hugging Face layout) or `from_gguf`. Cloning is cheap.
#[derive(Debug, Clone)]
pub struct ChatTokenizer {
    tokenizer: Arc<Tokenizer>,
    specials: SpecialTokens,
    template: Option<ChatTemplate>,
    named_templates: Vec<(String, String)>,
    more_stop_ids: Vec<u32>,
    prefix_id: Option<u32>,
    byte_level: bool,
    vocab_size: usize,
    markers: OnceLock<Result<MessageIds, String>>,
    vocabulary_fingerprint: OnceLock<String>,
}

impl ChatTokenizer {
    pub(super) fn from_parts(parts: Parts) -> Result<Self, TextError> {
        let byte_level = matches!(
            parts.tokenizer.get_decoder(),
            Some(DecoderWrapper::ByteLevel(_))
        );
        let highest = parts.tokenizer.get_vocab(true).into_values().max();
        Ok(Self {
            tokenizer: Arc::new(parts.tokenizer),
            specials: parts.specials,
            template: parts
                .template
                .as_deref()
                .map(ChatTemplate::new)
                .transpose()?,
            named_templates: parts.named_templates,
            more_stop_ids: parts.more_stop_ids,
            prefix_id: parts.prefix_id,
            byte_level,
            vocab_size: highest.map_or(0, |id| id as usize + 1),
            markers: OnceLock::new(),
            vocabulary_fingerprint: OnceLock::new(),
        })
    }

    /// The same tokenizer with another chat template.
    ///
    /// # Errors
    /// Those of [`ChatTemplate::new`].
    pub fn with_template(mut self, source: &str) -> Result<Self, TextError> {
        self.template = Some(ChatTemplate::new(source)?);
        self.markers = OnceLock::new();
        Ok(self)
    }

    /// The same tokenizer with one of the templates that the model brings under a name.
    ///
    /// # Errors
    /// [`TextError::UnknownTemplate`], and those of [`ChatTemplate::new`].
    pub fn with_named_template(self, name: &str) -> Result<Self, TextError> {
        let found = self.named_templates.iter().find(|(known, _)| known == name);
        match found.map(|(_, source)| source.clone()) {
            Some(source) => self.with_template(&source),
            None => Err(TextError::UnknownTemplate {
                name: name.to_string(),
                available: self.template_names().join(", "),
            }),
        }
    }

    /// Names of the templates that the model brings, if they have names.
    pub fn template_names(&self) -> Vec<&str> {
        self.named_templates
            .iter()
            .map(|(name, _)| name.as_str())
            .collect()
    }

    /// The chat template in use.
    pub fn template(&self) -> Option<&ChatTemplate> {
        self.template.as_ref()
    }

    /// Text to ids. Special tokens written out in the text become their ids, as in Hugging Face.
    /// `add_special` adds what the tokenizer puts around a text (often a bos token, or nothing).
    ///
    /// # Errors
    /// [`TextError::Encode`] if the tokenizer fails, or for more than 2^20 blanks in a row.
    pub fn encode(&self, text: &str, add_special: bool) -> Result<Vec<u32>, TextError> {
        let failed = |message: String| TextError::Encode { message };
        let blanks = longest_blank_run(text);
        if blanks > LONGEST_BLANK_RUN {
            return Err(failed(format!(
                "it has a run of {blanks} blanks; at most {LONGEST_BLANK_RUN} can be split"
            )));
        }
        // The regex engine panics when a splitting rule (which comes from a file) backtracks
        // beyond its limit.
        let encoding = catch_unwind(AssertUnwindSafe(|| {
            self.tokenizer
                .encode_fast(text, add_special)
                .map_err(|error| failed(error.to_string()))
        }))
        .unwrap_or_else(|_| {
            Err(failed(
                "the splitting rule gives up on this text".to_string(),
            ))
        })?;
        let prefix = self.prefix_id.filter(|_| add_special);
        Ok(prefix
            .into_iter()
            .chain(encoding.get_ids().iter().copied())
            .collect())
    }

    /// Ids to text. Ids without a token (padding rows of the vocabulary) give no text, and bytes
    /// that are not UTF-8 give U+FFFD. `skip_special` leaves special tokens out.
    ///
    /// # Errors
    /// [`TextError::Decode`] if the tokenizer's decoder fails.
    pub fn decode(&self, ids: &[u32], skip_special: bool) -> Result<String, TextError> {
        self.tokenizer
            .decode(ids, skip_special)
            .map_err(|error| TextError::Decode {
                message: error.to_string(),
            })
    }

    /// A decoder for ids that arrive one by one.
    pub fn stream_decoder(&self, skip_special: bool) -> StreamDecoder {
        StreamDecoder::new(Arc::clone(&self.tokenizer), self.byte_level, skip_special)
    }

    /// The token as the vocabulary writes it (byte-level tokens in their printable alphabet).
    pub fn token_text(&self, id: u32) -> Option<String> {
        self.tokenizer.id_to_token(id)
    }

    /// The bytes a token stands for in a text; a special token's name; none for an id without token.
    pub fn token_bytes(&self, id: u32) -> Vec<u8> {
        let Some(token) = self.token_text(id) else {
            return Vec::new();
        };
        if self.is_added(id) {
            return token.into_bytes();
        }
        if self.byte_level {
            return byte_alphabet::token_bytes(&token);
        }
        // SentencePiece: single bytes by number, and blanks drawn as a low line.
        let number = token.strip_prefix("<0x").and_then(|t| t.strip_suffix('>'));
        match number.and_then(|n| u8::from_str_radix(n, 16).ok()) {
            Some(byte) => vec![byte],
            None => token.replace('\u{2581}', " ").into_bytes(),
        }
    }

    /// The id of a token as the vocabulary writes it.
    pub fn token_id(&self, token: &str) -> Option<u32> {
        self.tokenizer.token_to_id(token)
    }

    /// Whether an id is a special (control) token, which decoding can leave out.
    pub fn is_special(&self, id: u32) -> bool {
        let added = self.tokenizer.get_added_vocabulary();
        added
            .simple_id_to_token(id)
            .is_some_and(|token| added.is_special_token(&token))
    }

    /// Whether an id is an added token: special or user-defined, matched as a whole in text.
    pub fn is_added(&self, id: u32) -> bool {
        self.tokenizer
            .get_added_vocabulary()
            .simple_id_to_token(id)
            .is_some()
    }

    /// One more than the highest id that has a token. The model's embedding may have more rows.
    pub fn vocab_size(&self) -> usize {
        self.vocab_size
    }

    /// Id of the token that begins a text, if the model names one.
    pub fn bos_id(&self) -> Option<u32> {
        self.specials.bos.as_ref().and_then(|token| token.id)
    }

    /// Id of the token that ends a text, if the model names one.
    pub fn eos_id(&self) -> Option<u32> {
        self.specials.eos.as_ref().and_then(|token| token.id)
    }

    /// Id of the padding token, if the model names one.
    pub fn pad_id(&self) -> Option<u32> {
        self.specials.pad.as_ref().and_then(|token| token.id)
    }

    /// Ids at which generation stops: eos, those of `generation_config.json`, and the token that
    /// ends a turn in the chat template (left out where the template has no such token). Sorted,
    /// without repeats.
    pub fn stop_ids(&self) -> Vec<u32> {
        let turn_end = self
            .message_ids()
            .ok()
            .and_then(|markers| markers.end.last().copied());
        let mut ids: Vec<u32> = self
            .more_stop_ids
            .iter()
            .copied()
            .chain(self.eos_id())
            .chain(turn_end)
            .collect();
        ids.sort_unstable();
        ids.dedup();
        ids
    }

    /// A conversation as the text that the model was trained on.
    ///
    /// # Errors
    /// [`TextError::NoTemplate`] without a template, and those of [`ChatTemplate::render`].
    pub fn render(
        &self,
        messages: &[ChatMessage],
        options: &RenderOptions,
    ) -> Result<String, TextError> {
        let template = self
            .template
            .as_ref()
            .ok_or_else(|| TextError::NoTemplate {
                hint: match self.template_names() {
                    names if names.is_empty() => String::new(),
                    names => format!(" that is the default (named ones: {})", names.join(", ")),
                },
            })?;
        template.render(messages, options, &self.specials.template_variables())
    }

    /// A conversation as ids. Nothing is added beyond what the template writes.
    ///
    /// # Errors
    /// Those of [`Self::render`] and [`Self::encode`].
    pub fn encode_chat(
        &self,
        messages: &[ChatMessage],
        options: &RenderOptions,
    ) -> Result<Vec<u32>, TextError> {
        self.encode(&self.render(messages, options)?, false)
    }

    /// The ids around each message, derived from the template by probe conversations at the
    /// first call.
    ///
    /// # Errors
    /// [`TextError::NoTemplate`]; [`TextError::MessageLayout`] if the template's turns cannot be
    /// written as `start content end`.
    pub fn message_ids(&self) -> Result<&MessageIds, TextError> {
        if self.template.is_none() {
            self.render(&[], &RenderOptions::default())?;
        }
        self.markers
            .get_or_init(|| {
                message_ids::derive(self).map_err(|error| match error {
                    TextError::MessageLayout { message } => message,
                    other => other.to_string(),
                })
            })
            .as_ref()
            .map_err(|message| TextError::MessageLayout {
                message: message.clone(),
            })
    }

    /// The ids that the template appends for `add_generation_prompt`: the assistant's header
    /// and, depending on the keywords, more (Qwen3 without thinking: an empty think block).
    ///
    /// # Errors
    /// Those of [`Self::render`] and [`Self::encode`]; [`TextError::MessageLayout`] if the
    /// template changes earlier text when it appends the header.
    pub fn generation_header(
        &self,
        keywords: &Map<String, serde_json::Value>,
    ) -> Result<Vec<u32>, TextError> {
        message_ids::generation_header(self, keywords)
    }

    /// SHA-256 (hex) over ids, tokens, merges and chat template. Equal for the Hugging Face and
    /// the GGUF form of a tokenizer if their vocabularies and templates are.
    ///
    /// # Errors
    /// [`TextError::Encode`] if the vocabulary cannot be listed.
    pub fn fingerprint(&self) -> Result<String, TextError> {
        let template = self.template.as_ref().map(ChatTemplate::source);
        Ok(fingerprint::full_fingerprint(
            &self.vocabulary_fingerprint()?,
            template,
        ))
    }

    /// SHA-256 (hex) over ids, tokens and merges: what decides whether ids mean the same.
    ///
    /// # Errors
    /// [`TextError::Encode`] if the vocabulary cannot be listed.
    pub fn vocabulary_fingerprint(&self) -> Result<String, TextError> {
        if let Some(known) = self.vocabulary_fingerprint.get() {
            return Ok(known.clone());
        }
        let computed = fingerprint::vocabulary_fingerprint(&self.tokenizer)?;
        Ok(self.vocabulary_fingerprint.get_or_init(|| computed).clone())
    }
}

/// The most white-space characters in a row, in bytes.
fn longest_blank_run(text: &str) -> usize {
    let (mut longest, mut start) = (0, 0);
    for (at, character) in text.char_indices() {
        if !character.is_whitespace() {
            longest = longest.max(at - start);
            start = at + character.len_utf8();
        }
    }
    longest.max(text.len() - start)
}
