//! Random windows of a text, measured in tokens.

use rand::{Rng, RngExt};
use serde::{Deserialize, Serialize};

/// Turns text into token ids and back. No special tokens are added or shown.
pub trait TokenCodec {
    /// The ids of a text, without special tokens.
    fn encode(&self, text: &str) -> Vec<u32>;
    /// The text of ids. Bytes that form no character become U+FFFD.
    fn decode(&self, ids: &[u32]) -> String;
}

/// A text that cannot be cut into windows.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChunkError {
    /// The limits make no sense.
    #[error(
        "chunks of {min} to {max} tokens: min_tokens_per_chunk must be at least 1 and at most \
         max_tokens_per_chunk"
    )]
    Limits {
        /// Lower limit.
        min: usize,
        /// Upper limit.
        max: usize,
    },
    /// There is nothing to cut.
    #[error("the text has no tokens")]
    Empty,
}

/// The length of the windows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct TokenChunker {
    /// Shortest window in tokens (default 512). Equal to the maximum: every window has that length.
    pub min_tokens_per_chunk: usize,
    /// Longest window in tokens (default 1024). A shorter text is always taken whole.
    pub max_tokens_per_chunk: usize,
}

impl Default for TokenChunker {
    fn default() -> Self {
        Self {
            min_tokens_per_chunk: 512,
            max_tokens_per_chunk: 1024,
        }
    }
}

impl TokenChunker {
    /// Checks the limits.
    pub fn validate(&self) -> Result<(), ChunkError> {
        let (min, max) = (self.min_tokens_per_chunk, self.max_tokens_per_chunk);
        if min == 0 || min > max {
            return Err(ChunkError::Limits { min, max });
        }
        Ok(())
    }

    /// A random window of `tokens`: its length is uniform between the limits, its start uniform over
    /// all that fit. The whole text is taken if the drawn length exceeds it.
    pub fn window(
        &self,
        tokens: &[u32],
        rng: &mut impl Rng,
    ) -> Result<std::ops::Range<usize>, ChunkError> {
        self.validate()?;
        if tokens.is_empty() {
            return Err(ChunkError::Empty);
        }
        let length = rng.random_range(self.min_tokens_per_chunk..=self.max_tokens_per_chunk);
        if length >= tokens.len() {
            return Ok(0..tokens.len());
        }
        let start = rng.random_range(0..=tokens.len() - length);
        Ok(start..start + length)
    }
}

/// The text of a window. A window that cuts through a character loses the broken ends; one that lies
/// inside a single character grows until it holds a whole one.
pub fn window_text(
    codec: &dyn TokenCodec,
    tokens: &[u32],
    window: std::ops::Range<usize>,
) -> String {
    let (mut start, mut end) = (window.start.min(tokens.len()), window.end.min(tokens.len()));
    loop {
        let decoded = codec.decode(&tokens[start..end]);
        // A replacement character at the very beginning or end of the text belongs to the text.
        let mut text = decoded.as_str();
        if start > 0 {
            text = text.trim_start_matches(char::REPLACEMENT_CHARACTER);
        }
        if end < tokens.len() {
            text = text.trim_end_matches(char::REPLACEMENT_CHARACTER);
        }
        if !text.is_empty() || start >= end || (start == 0 && end == tokens.len()) {
            return text.to_owned();
        }
        start = start.saturating_sub(1);
        end = (end + 1).min(tokens.len());
    }
}

#[cfg(test)]
pub(crate) mod test_codec {
    use super::TokenCodec;

    /// One token per byte, so that characters can be cut.
    pub(crate) struct ByteCodec;

    impl TokenCodec for ByteCodec {
        fn encode(&self, text: &str) -> Vec<u32> {
            text.bytes().map(u32::from).collect()
        }

        fn decode(&self, ids: &[u32]) -> String {
            let bytes: Vec<u8> = ids.iter().map(|&id| id as u8).collect();
            String::from_utf8_lossy(&bytes).into_owned()
        }
    }

    /// One token per word with the white space before it; ids are interned at first sight.
    #[derive(Default)]
    pub(crate) struct WordCodec {
        words: std::sync::Mutex<Vec<String>>,
    }

    impl TokenCodec for WordCodec {
        fn encode(&self, text: &str) -> Vec<u32> {
            let mut words = self.words.lock().unwrap();
            let mut ids = Vec::new();
            let mut rest = text;
            while !rest.is_empty() {
                let word_at = rest
                    .find(|c: char| !c.is_whitespace())
                    .unwrap_or(rest.len());
                let end = rest[word_at..]
                    .find(char::is_whitespace)
                    .map_or(rest.len(), |n| word_at + n);
                let (word, tail) = rest.split_at(end);
                rest = tail;
                let id = words.iter().position(|w| w == word).unwrap_or_else(|| {
                    words.push(word.to_owned());
                    words.len() - 1
                });
                ids.push(id as u32);
            }
            ids
        }

        fn decode(&self, ids: &[u32]) -> String {
            let words = self.words.lock().unwrap();
            ids.iter().map(|&id| words[id as usize].as_str()).collect()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::test_codec::ByteCodec;
    use super::*;
    use proptest::prelude::*;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    #[test]
    fn lengths_and_starts_cover_their_ranges() {
        let chunker = TokenChunker {
            min_tokens_per_chunk: 2,
            max_tokens_per_chunk: 4,
        };
        let tokens: Vec<u32> = (0..7).collect();
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let mut seen = std::collections::BTreeSet::new();
        for _ in 0..2000 {
            let window = chunker.window(&tokens, &mut rng).unwrap();
            assert!((2..=4).contains(&window.len()) && window.end <= 7);
            seen.insert((window.len(), window.start));
        }
        // Lengths 2, 3, 4 have 6, 5 and 4 starts.
        assert_eq!(seen.len(), 15);
    }

    #[test]
    fn tiny_texts_are_taken_whole_and_empty_ones_refused() {
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let chunker = TokenChunker::default();
        assert_eq!(chunker.window(&[1, 2, 3, 4, 5], &mut rng), Ok(0..5));
        assert_eq!(chunker.window(&[], &mut rng), Err(ChunkError::Empty));
        let bad = TokenChunker {
            min_tokens_per_chunk: 9,
            max_tokens_per_chunk: 8,
        };
        assert!(bad.window(&[1], &mut rng).is_err());
    }

    #[test]
    fn a_window_inside_one_character_grows_to_it() {
        let tokens = ByteCodec.encode("a😀b");
        assert_eq!(window_text(&ByteCodec, &tokens, 2..3), "a😀");
        assert_eq!(window_text(&ByteCodec, &tokens, 0..3), "a");
    }

    proptest! {
        #[test]
        fn windows_are_slices_of_the_text_without_broken_ends(
            text in "\\PC{1,40}", a in 0usize..200, b in 0usize..200,
        ) {
            let tokens = ByteCodec.encode(&text);
            let (a, b) = (a % tokens.len(), b % tokens.len());
            let chunk = window_text(&ByteCodec, &tokens, a.min(b)..a.max(b) + 1);
            prop_assert!(text.contains(&chunk));
            prop_assert!(!chunk.is_empty());
        }
    }
}
