//! A text made ready for drawing chunks from it.

use rand::Rng;

use super::section::{Block, blocks};
use super::{ChunkError, Chunker, TokenCodec, window_text};

/// What a chunker has to know of a text, found once.
pub struct Chunks {
    chunker: Chunker,
    num_tokens: usize,
    num_chars: usize,
    blocks: Vec<Block>,
}

impl Chunks {
    /// Looks at a text and its tokens.
    ///
    /// # Errors
    /// If the chunker's limits make no sense.
    pub fn new(
        chunker: Chunker,
        text: &str,
        tokens: &[u32],
        codec: &dyn TokenCodec,
    ) -> Result<Self, ChunkError> {
        chunker.validate()?;
        Ok(Self {
            chunker,
            num_tokens: tokens.len(),
            num_chars: match chunker {
                Chunker::Character(_) => text.chars().count(),
                _ => 0,
            },
            blocks: match chunker {
                Chunker::Section(chunker) => blocks(text, chunker.max_tokens_per_chunk, codec),
                _ => Vec::new(),
            },
        })
    }

    /// A random chunk. `text`, `tokens` and `codec` are those given to [`Chunks::new`].
    ///
    /// # Errors
    /// If the text is empty.
    pub fn draw(
        &self,
        text: &str,
        tokens: &[u32],
        codec: &dyn TokenCodec,
        rng: &mut impl Rng,
    ) -> Result<String, ChunkError> {
        match self.chunker {
            Chunker::Token(chunker) => {
                let window = chunker.window(tokens, rng)?;
                if window == (0..tokens.len()) {
                    return Ok(text.to_owned());
                }
                Ok(window_text(codec, tokens, window))
            }
            Chunker::Character(chunker) => {
                Ok(chunker.window(text, self.num_chars, rng)?.to_owned())
            }
            Chunker::Section(chunker) => chunker.chunk(text, &self.blocks, codec, rng),
        }
    }

    /// How many of the longest chunks the text fills, at least 1.
    pub fn num_chunks(&self) -> usize {
        self.num_tokens
            .div_ceil(self.chunker.max_tokens().max(1))
            .max(1)
    }
}
