//! Random windows of a text, measured in characters.

use rand::{Rng, RngExt};
use serde::{Deserialize, Serialize};

use super::ChunkError;

/// Characters that a token stands for in ordinary English text, about.
const CHARACTERS_PER_TOKEN: usize = 4;

/// Windows of a fixed number of characters.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct CharacterChunker {
    /// Length of a window in characters (default 1000). A shorter text is always taken whole.
    pub chunk_size: usize,
}

impl Default for CharacterChunker {
    fn default() -> Self {
        Self { chunk_size: 1000 }
    }
}

impl CharacterChunker {
    /// Checks the length.
    pub fn validate(&self) -> Result<(), ChunkError> {
        if self.chunk_size == 0 {
            return Err(ChunkError::ChunkSize);
        }
        Ok(())
    }

    /// About how many tokens a window has.
    pub fn estimated_tokens(&self) -> usize {
        self.chunk_size.div_ceil(CHARACTERS_PER_TOKEN)
    }

    /// A random window of `text`, which has `num_chars` characters; its start is uniform over all
    /// that fit.
    pub fn window<'a>(
        &self,
        text: &'a str,
        num_chars: usize,
        rng: &mut impl Rng,
    ) -> Result<&'a str, ChunkError> {
        self.validate()?;
        if num_chars == 0 {
            return Err(ChunkError::Empty);
        }
        if self.chunk_size >= num_chars {
            return Ok(text);
        }
        let start = rng.random_range(0..=num_chars - self.chunk_size);
        let tail = &text[byte_of(text, start)..];
        Ok(&tail[..byte_of(tail, self.chunk_size)])
    }
}

/// The byte offset of a character; the length of the text if it has fewer.
fn byte_of(text: &str, character: usize) -> usize {
    text.char_indices()
        .nth(character)
        .map_or(text.len(), |(at, _)| at)
}

#[cfg(test)]
mod tests {
    use super::*;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;
    use std::collections::BTreeSet;

    #[test]
    fn windows_count_characters_and_start_everywhere() {
        let chunker = CharacterChunker { chunk_size: 3 };
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let seen: BTreeSet<&str> = (0..200)
            .map(|_| chunker.window("aé😀bß", 5, &mut rng).unwrap())
            .collect();
        assert_eq!(seen, BTreeSet::from(["aé😀", "é😀b", "😀bß"]));
        assert_eq!(chunker.window("ab", 2, &mut rng), Ok("ab"));
        assert_eq!(chunker.window("", 0, &mut rng), Err(ChunkError::Empty));
        let none = CharacterChunker { chunk_size: 0 };
        assert_eq!(none.window("ab", 2, &mut rng), Err(ChunkError::ChunkSize));
    }
}
