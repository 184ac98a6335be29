//! Contexts of a few runs of consecutive sentences.

use std::ops::Range;

use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use crate::chunker::ChunkError;
use crate::resource::document::Document;

/// Runs of sentences from all over the text, a blank line between them.
pub(in crate::resource) struct SentenceRuns {
    pub(super) intro: String,
    pub(super) sentences: Vec<Range<usize>>,
    pub(super) per_run: (usize, usize),
    pub(super) runs: (usize, usize),
}

impl SentenceRuns {
    pub(super) fn draw(
        &self,
        document: &Document,
        rng: &mut ChaCha8Rng,
    ) -> Result<String, ChunkError> {
        if self.sentences.is_empty() {
            return Err(ChunkError::Empty);
        }
        let between = |(low, high): (usize, usize), most: usize, rng: &mut ChaCha8Rng| {
            let high = high.clamp(1, most);
            rng.random_range(low.clamp(1, high)..=high)
        };
        let mut out = self.intro.clone();
        for _ in 0..between(self.runs, usize::MAX, rng) {
            let length = between(self.per_run, self.sentences.len(), rng);
            let start = rng.random_range(0..=self.sentences.len() - length);
            let range = self.sentences[start].start..self.sentences[start + length - 1].end;
            let text = document.text().get(range).unwrap_or_default();
            if !out.is_empty() {
                out.push_str("\n\n");
            }
            out.push_str(text.trim());
        }
        Ok(out)
    }
}
