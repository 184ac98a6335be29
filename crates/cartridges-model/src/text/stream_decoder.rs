//! Ids in, text out, one id at a time.

use std::sync::Arc;

use tokenizers::Tokenizer;

use super::byte_alphabet::token_bytes;
use super::error::TextError;

/// A UTF-8 character is at most four bytes, so more undecided tokens than this are not one.
const LONGEST_PENDING: usize = 8;

/// Turns a stream of ids into text and never cuts a character in two.
///
/// The pieces, joined, equal the decoding of all ids at once for byte-level tokenizers. Each
/// step costs the length of one token (byte-level) or of the last few tokens (other kinds),
/// never of the whole stream. Ids without a token (padding rows of the vocabulary) give no text.
#[derive(Debug, Clone)]
pub struct StreamDecoder {
    tokenizer: Arc<Tokenizer>,
    skip_special: bool,
    state: State,
}

#[derive(Debug, Clone)]
enum State {
    /// Bytes of a character that is not complete yet (at most three).
    Bytes(Vec<u8>),
    /// Ids still needed as context, and what they decode to without the newest ones.
    Window {
        ids: Vec<u32>,
        shown: String,
        context: usize,
    },
}

impl StreamDecoder {
    pub(super) fn new(tokenizer: Arc<Tokenizer>, byte_level: bool, skip_special: bool) -> Self {
        let state = if byte_level {
            State::Bytes(Vec::new())
        } else {
            State::Window {
                ids: Vec::new(),
                shown: String::new(),
                context: 0,
            }
        };
        Self {
            tokenizer,
            skip_special,
            state,
        }
    }

    /// Adds one id and returns the text that became complete with it, often empty.
    ///
    /// # Errors
    /// [`TextError::Decode`] if the tokenizer's decoder fails.
    pub fn push(&mut self, id: u32) -> Result<String, TextError> {
        let Some(token) = self.tokenizer.id_to_token(id) else {
            return Ok(String::new());
        };
        if self.skip_special
            && self
                .tokenizer
                .get_added_vocabulary()
                .is_special_token(&token)
        {
            return Ok(String::new());
        }
        match &mut self.state {
            State::Bytes(pending) => {
                pending.extend_from_slice(&token_bytes(&token));
                Ok(take_complete(pending))
            }
            State::Window {
                ids,
                shown,
                context,
            } => {
                ids.push(id);
                let text = decode(&self.tokenizer, ids, self.skip_special)?;
                let undecided = text.ends_with(char::REPLACEMENT_CHARACTER)
                    && ids.len() - *context < LONGEST_PENDING;
                if undecided || text.len() <= shown.len() {
                    return Ok(String::new());
                }
                let new = remainder(&text, shown);
                // The newest ids stay as context: some decoders treat the first token specially.
                ids.drain(..*context);
                *context = ids.len();
                *shown = decode(&self.tokenizer, ids, self.skip_special)?;
                Ok(new)
            }
        }
    }

    /// Ends the stream and returns what was held back; a character that never became complete
    /// is shown as U+FFFD.
    ///
    /// # Errors
    /// [`TextError::Decode`] if the tokenizer's decoder fails.
    pub fn finish(&mut self) -> Result<String, TextError> {
        match &mut self.state {
            State::Bytes(pending) => {
                let bytes = std::mem::take(pending);
                Ok(String::from_utf8_lossy(&bytes).into_owned())
            }
            State::Window {
                ids,
                shown,
                context,
            } => {
                let text = decode(&self.tokenizer, ids, self.skip_special)?;
                let rest = remainder(&text, shown);
                ids.clear();
                shown.clear();
                *context = 0;
                Ok(rest)
            }
        }
    }
}

fn decode(tokenizer: &Tokenizer, ids: &[u32], skip_special: bool) -> Result<String, TextError> {
    tokenizer
        .decode(ids, skip_special)
        .map_err(|error| TextError::Decode {
            message: error.to_string(),
        })
}

/// The part of `text` after the longest prefix it shares with `shown`.
fn remainder(text: &str, shown: &str) -> String {
    let shared = text
        .char_indices()
        .zip(shown.chars())
        .find(|((_, a), b)| a != b)
        .map_or(shown.len().min(text.len()), |((at, _), _)| at);
    text.get(shared..).unwrap_or_default().to_string()
}

/// Removes everything but an incomplete last character; what can never become valid is U+FFFD,
/// in the same places as when all bytes are decoded at once.
fn take_complete(pending: &mut Vec<u8>) -> String {
    let mut text = String::new();
    let mut rest: &[u8] = pending;
    let keep = loop {
        match std::str::from_utf8(rest) {
            Ok(valid) => {
                text.push_str(valid);
                break 0;
            }
            Err(error) => {
                let (valid, tail) = rest.split_at(error.valid_up_to());
                text.push_str(&String::from_utf8_lossy(valid));
                match error.error_len() {
                    Some(bad) => {
                        text.push(char::REPLACEMENT_CHARACTER);
                        rest = tail.get(bad..).unwrap_or_default();
                    }
                    None => break tail.len(),
                }
            }
        }
    };
    let done = pending.len() - keep;
    pending.drain(..done);
    text
}
