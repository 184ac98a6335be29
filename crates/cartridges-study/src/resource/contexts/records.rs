//! Contexts from some parts of one of many records.

use rand::RngExt;
use rand::seq::index;
use rand_chacha::ChaCha8Rng;

use super::draw::chunk_of;
use crate::chunker::{CharacterChunker, ChunkError, Chunker};
use crate::resource::document::Document;
use crate::resource::material::{Part, Record};

/// Records with parts. A record is drawn, then how many of its parts, then which; they stand in the
/// order of the text.
pub(in crate::resource) struct Records {
    records: Vec<Record>,
    parts: (usize, usize),
    max_chars: Option<usize>,
    chunker: Chunker,
}

impl Records {
    pub(super) fn new(
        records: Vec<Record>,
        parts: (usize, usize),
        max_chars: Option<usize>,
        chunker: Chunker,
    ) -> Self {
        Self {
            records: records
                .into_iter()
                .filter(|r| !r.parts.is_empty())
                .collect(),
            parts,
            max_chars,
            chunker,
        }
    }

    pub(super) fn draw(
        &self,
        document: &Document,
        rng: &mut ChaCha8Rng,
    ) -> Result<String, ChunkError> {
        if self.records.is_empty() {
            return Err(ChunkError::Empty);
        }
        let record = &self.records[rng.random_range(0..self.records.len())];
        let most = self.parts.1.clamp(1, record.parts.len());
        let fewest = self.parts.0.clamp(1, most);
        let count = rng.random_range(fewest..=most);
        let mut chosen = index::sample(rng, record.parts.len(), count).into_vec();
        chosen.sort_unstable();
        let mut out = record.header.clone();
        for at in chosen {
            let part = self.part(&record.parts[at], document, rng)?;
            if !out.is_empty() {
                out.push_str("\n\n");
            }
            out.push_str(&part);
        }
        if !record.footer.is_empty() {
            out.push('\n');
            out.push_str(&record.footer);
        }
        Ok(out)
    }

    /// A part between its lines; one that is too long becomes a chunk between ellipses.
    fn part(
        &self,
        part: &Part,
        document: &Document,
        rng: &mut ChaCha8Rng,
    ) -> Result<String, ChunkError> {
        let whole = document.text().get(part.body.clone()).unwrap_or_default();
        let mut body = whole.to_owned();
        if let Some(chunk_size) = self.max_chars {
            let num_chars = body.chars().count();
            body = CharacterChunker { chunk_size }
                .window(&body, num_chars.max(1), rng)?
                .to_owned();
        }
        let mut body = chunk_of(&body, document, self.chunker, rng)?;
        if body.len() < whole.len() {
            let before = if whole.starts_with(&body) { "" } else { "... " };
            let after = if whole.ends_with(&body) { "" } else { " ..." };
            body = format!("{before}{body}{after}");
        }
        let lines = [part.open.as_str(), &body, &part.close];
        let lines: Vec<&str> = lines.into_iter().filter(|l| !l.is_empty()).collect();
        Ok(lines.join("\n"))
    }
}
