//! A resource of any kind, ready to draw contexts from.

use rand_chacha::ChaCha8Rng;

use super::contexts::Contexts;
use super::document::{Document, Resource, SharedCodec};
use super::error::ResourceError;
use super::material::Material;
use super::notes::Note;
use super::text::hex_sha256;
use crate::chunker::Chunker;
use crate::seed_prompt::{SeedPrompt, SeedType, generate_many};

/// How contexts and seed prompts are drawn where a resource does not say it itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Drawing {
    /// How contexts are cut.
    pub chunker: Chunker,
    /// Kinds of messages agent A is asked for.
    pub seed_types: Vec<SeedType>,
}

impl Default for Drawing {
    fn default() -> Self {
        Self {
            chunker: Chunker::default(),
            seed_types: SeedType::ALL.to_vec(),
        }
    }
}

/// A resource made from a [`ResourceConfig`](super::ResourceConfig).
pub struct LoadedResource {
    name: String,
    document: Document,
    contexts: Contexts,
    seed_types: Vec<SeedType>,
    notes: Vec<Note>,
}

impl LoadedResource {
    pub(super) fn new(
        material: Material,
        codec: SharedCodec,
        drawing: &Drawing,
    ) -> Result<Self, ResourceError> {
        let Material {
            name,
            text,
            shape,
            notes,
        } = material;
        if drawing.seed_types.is_empty() {
            return Err(ResourceError::NoSeedTypes { name });
        }
        let document = Document::new(&name, text, codec.clone())?;
        let contexts = Contexts::new(&name, &document, shape, codec, drawing.chunker)?;
        let notes = notes.finish();
        for note in &notes {
            tracing::warn!(resource = name, "{note}");
        }
        Ok(Self {
            name,
            document,
            contexts,
            seed_types: drawing.seed_types.clone(),
            notes,
        })
    }
}

impl Resource for LoadedResource {
    fn name(&self) -> &str {
        &self.name
    }

    fn sample(
        &self,
        rng: &mut ChaCha8Rng,
        n: usize,
    ) -> Result<(String, Vec<SeedPrompt>), ResourceError> {
        let context =
            self.contexts
                .draw(&self.document, rng)
                .map_err(|source| ResourceError::Chunk {
                    name: self.name.clone(),
                    source,
                })?;
        Ok((context, generate_many(&self.seed_types, n, rng)))
    }

    fn document(&self) -> Option<&Document> {
        Some(&self.document)
    }

    fn fingerprint(&self) -> String {
        hex_sha256(self.document.text().as_bytes())
    }

    fn notes(&self) -> &[Note] {
        &self.notes
    }
}
