//! Random windows of a text, measured in tokens.

use rand::{Rng, RngExt};
use serde::{Deserialize, Serialize};

use super::{ChunkError, TokenCodec};

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
mod tests {
    use super::*;
    use crate::chunker::test_codec::ByteCodec;
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
