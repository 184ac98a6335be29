//! Contexts from one of many items.

use rand::RngExt;
use rand_chacha::ChaCha8Rng;

use crate::chunker::{ChunkError, Chunker, Chunks};
use crate::resource::ResourceError;
use crate::resource::document::{Document, SharedCodec};
use crate::resource::material::Item;

/// Items, each a text of its own. One is drawn as often as it has chunks, so that a long item is read
/// as thoroughly as a short one.
pub(in crate::resource) struct Items {
    items: Vec<Prepared>,
    num_chunks: usize,
}

struct Prepared {
    header: String,
    document: Document,
    chunks: Chunks,
    max_tokens: usize,
}

impl Items {
    pub(super) fn new(
        name: &str,
        document: &Document,
        items: Vec<Item>,
        codec: SharedCodec,
        chunker: Chunker,
    ) -> Result<Self, ResourceError> {
        let mut prepared = Vec::with_capacity(items.len());
        for item in items {
            let text = document.text().get(item.body).unwrap_or_default();
            // Nothing can be drawn from an empty one; its header stands in the document.
            if text.trim().is_empty() {
                continue;
            }
            let document = Document::new(name, text.to_owned(), codec.clone())?;
            prepared.push(Prepared {
                header: item.header,
                chunks: document.chunks(name, chunker)?,
                document,
                max_tokens: chunker.max_tokens(),
            });
        }
        Ok(Self {
            num_chunks: prepared.iter().map(|item| item.chunks.num_chunks()).sum(),
            items: prepared,
        })
    }

    pub(super) fn draw(&self, rng: &mut ChaCha8Rng) -> Result<String, ChunkError> {
        if self.num_chunks == 0 {
            return Err(ChunkError::Empty);
        }
        let mut at = rng.random_range(0..self.num_chunks);
        for item in &self.items {
            let n = item.chunks.num_chunks();
            if at < n {
                // What fits is not cut, whatever length is drawn.
                let body = match item.document.tokens().len() <= item.max_tokens {
                    true => item.document.text().to_owned(),
                    false => item.document.draw(&item.chunks, rng)?,
                };
                return Ok(format!("{}\n\n{body}", item.header));
            }
            at -= n;
        }
        Err(ChunkError::Empty)
    }
}
