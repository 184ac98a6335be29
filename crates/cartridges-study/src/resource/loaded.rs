//! A resource of any kind, ready to draw contexts from.

use rand_chacha::ChaCha8Rng;

use super::contexts::Contexts;
use super::document::{Document, Resource, SharedCodec};
use super::error::ResourceError;
use super::material::Material;
use super::notes::Note;
use super::text::hex_sha256;
use crate::chunker::Chunker;
use crate::seed_prompt::{SeedPrompt, SeedPrompts};

/// How contexts and seed prompts are drawn where a resource does not say it itself.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Drawing {
    /// How contexts are cut.
    pub chunker: Chunker,
    /// What agent A is asked for.
    pub prompts: SeedPrompts,
}

/// A resource made from a [`ResourceConfig`](super::ResourceConfig).
pub struct LoadedResource {
    name: String,
    document: Document,
    contexts: Contexts,
    prompts: SeedPrompts,
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
        if drawing.prompts.is_empty() {
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
            prompts: drawing.prompts.clone(),
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
        Ok((context, self.prompts.draw(n, rng)))
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
