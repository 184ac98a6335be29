//! A text with its tokens, and what every resource offers.

use std::sync::Arc;

use rand_chacha::ChaCha8Rng;

use super::error::ResourceError;
use super::notes::Note;
use crate::chunker::{ChunkError, Chunker, Chunks, TokenCodec, window_text};
use crate::seed_prompt::SeedPrompt;

/// A codec that a resource can keep.
pub type SharedCodec = Arc<dyn TokenCodec + Send + Sync>;

/// A text with its tokens.
#[derive(Clone)]
pub struct Document {
    text: String,
    tokens: Vec<u32>,
    codec: SharedCodec,
}

impl Document {
    /// Tokenises a text; `name` is for the error if there is nothing in it.
    pub fn new(name: &str, text: String, codec: SharedCodec) -> Result<Self, ResourceError> {
        let empty = || ResourceError::Empty {
            name: name.to_owned(),
        };
        if text.trim().is_empty() {
            return Err(empty());
        }
        let tokens = codec.encode(&text);
        if tokens.is_empty() {
            return Err(empty());
        }
        Ok(Self {
            text,
            tokens,
            codec,
        })
    }

    /// The whole text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Its token ids.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// The codec that made them.
    pub fn codec(&self) -> &dyn TokenCodec {
        &*self.codec
    }

    /// The text of a token window, without broken characters at its ends; the original text where
    /// the window is everything.
    pub fn window_text(&self, window: std::ops::Range<usize>) -> String {
        if window.start == 0 && window.end >= self.tokens.len() {
            return self.text.clone();
        }
        window_text(self.codec(), &self.tokens, window)
    }

    /// Prepares chunks of the text; `name` is for the error.
    pub(super) fn chunks(&self, name: &str, chunker: Chunker) -> Result<Chunks, ResourceError> {
        Chunks::new(chunker, &self.text, &self.tokens, self.codec()).map_err(|source| {
            ResourceError::Chunk {
                name: name.to_owned(),
                source,
            }
        })
    }

    /// A random chunk.
    pub(super) fn draw(&self, chunks: &Chunks, rng: &mut ChaCha8Rng) -> Result<String, ChunkError> {
        chunks.draw(&self.text, &self.tokens, self.codec(), rng)
    }
}

/// Something to study.
pub trait Resource: Send + Sync {
    /// A short name, stored with every conversation.
    fn name(&self) -> &str;

    /// One context and `n` seed prompts that share it.
    fn sample(
        &self,
        rng: &mut ChaCha8Rng,
        n: usize,
    ) -> Result<(String, Vec<SeedPrompt>), ResourceError>;

    /// The text as a whole, for walking through it systematically; `None` if it has no order.
    fn document(&self) -> Option<&Document>;

    /// A digest of everything that `sample` draws from.
    fn fingerprint(&self) -> String;

    /// How often contexts are drawn from it, beside the other resources of a run.
    fn weight(&self) -> f64 {
        1.0
    }

    /// What was left out when it was loaded, or read in an unusual way.
    fn notes(&self) -> &[Note] {
        &[]
    }
}
