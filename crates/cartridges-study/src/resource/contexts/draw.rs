//! The shapes behind one door.

use rand_chacha::ChaCha8Rng;

use super::items::Items;
use super::nodes::Nodes;
use super::records::Records;
use super::sentences::SentenceRuns;
use crate::chunker::{ChunkError, Chunker, Chunks};
use crate::resource::ResourceError;
use crate::resource::document::{Document, SharedCodec};
use crate::resource::material::Shape;

/// Draws contexts from a document.
pub(in crate::resource) enum Contexts {
    Running { intro: String, chunks: Chunks },
    Items(Items),
    Records(Records),
    Nodes(Nodes),
    Sentences(SentenceRuns),
}

impl Contexts {
    /// Prepares everything that drawing needs; `name` is for errors.
    pub(in crate::resource) fn new(
        name: &str,
        document: &Document,
        shape: Shape,
        codec: SharedCodec,
        chunker: Chunker,
    ) -> Result<Self, ResourceError> {
        chunker.validate().map_err(|source| ResourceError::Chunk {
            name: name.to_owned(),
            source,
        })?;
        Ok(match shape {
            Shape::Running { intro } => Self::Running {
                intro,
                chunks: document.chunks(name, chunker)?,
            },
            Shape::Items(items) => Self::Items(Items::new(name, document, items, codec, chunker)?),
            Shape::Records {
                records,
                min_parts,
                max_parts,
                max_chars,
            } => Self::Records(Records::new(
                records,
                (min_parts, max_parts),
                max_chars,
                chunker,
            )),
            Shape::Nodes(nodes) => Self::Nodes(Nodes::new(nodes, chunker)),
            Shape::Sentences {
                intro,
                sentences,
                per_run,
                runs,
            } => Self::Sentences(SentenceRuns {
                intro,
                sentences,
                per_run,
                runs,
            }),
        })
    }

    /// A random context.
    pub(in crate::resource) fn draw(
        &self,
        document: &Document,
        rng: &mut ChaCha8Rng,
    ) -> Result<String, ChunkError> {
        match self {
            Self::Running { intro, chunks } => {
                let chunk = document.draw(chunks, rng)?;
                Ok(match intro.is_empty() {
                    true => chunk,
                    false => format!("{intro}\n\n{chunk}"),
                })
            }
            Self::Items(items) => items.draw(rng),
            Self::Records(records) => records.draw(document, rng),
            Self::Nodes(nodes) => nodes.draw(document, rng),
            Self::Sentences(runs) => runs.draw(document, rng),
        }
    }
}

/// A chunk of a piece of the document, whose tokens are counted only now.
pub(super) fn chunk_of(
    text: &str,
    document: &Document,
    chunker: Chunker,
    rng: &mut ChaCha8Rng,
) -> Result<String, ChunkError> {
    let codec = document.codec();
    let tokens = codec.encode(text);
    if tokens.len() <= chunker.max_tokens() {
        return Ok(text.to_owned());
    }
    Chunks::new(chunker, text, &tokens, codec)?.draw(text, &tokens, codec, rng)
}
