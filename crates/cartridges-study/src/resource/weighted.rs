//! A list of resources, as it stands in a configuration.

use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use super::config::ResourceConfig;
use super::document::{Document, Resource, SharedCodec};
use super::error::ResourceError;
use super::loaded::Drawing;
use super::notes::Note;
use crate::chunker::Chunker;
use crate::seed_prompt::{SeedPrompt, SeedPrompts, SeedType};

/// A resource of a list: its own fields stand beside those of its type.
///
/// ```toml
/// [[resources]]
/// type = "pdf"
/// path = "manual.pdf"
/// weight = 2.0
/// chunker = { type = "section" }
/// ```
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct WeightedResource {
    /// How often contexts are drawn from it, beside the others (default 1).
    #[serde(default = "one")]
    pub weight: f64,
    /// Its name (default: that of its file).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub name: Option<String>,
    /// How its contexts are cut (default: as those of the whole run).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub chunker: Option<Chunker>,
    /// Kinds of messages agent A is asked for (default: as in the whole run).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub seed_types: Option<Vec<SeedType>>,
    /// What it is. The fields of the type refuse unknown ones.
    #[serde(flatten)]
    pub source: ResourceConfig,
}

fn one() -> f64 {
    1.0
}

impl From<ResourceConfig> for WeightedResource {
    fn from(source: ResourceConfig) -> Self {
        Self {
            weight: 1.0,
            name: None,
            chunker: None,
            seed_types: None,
            source,
        }
    }
}

impl WeightedResource {
    /// Loads it; `drawing` is for what it does not say itself.
    ///
    /// # Errors
    /// If the weight is not a positive number, or as [`ResourceConfig::load`].
    pub fn load(
        &self,
        codec: SharedCodec,
        drawing: &Drawing,
    ) -> Result<Box<dyn Resource>, ResourceError> {
        if !(self.weight.is_finite() && self.weight > 0.0) {
            return Err(ResourceError::Field {
                kind: self.source.kind(),
                field: "weight",
                found: self.weight.to_string(),
                expected: "a number above 0",
            });
        }
        let drawing = Drawing {
            chunker: self.chunker.unwrap_or(drawing.chunker),
            prompts: SeedPrompts {
                types: self
                    .seed_types
                    .as_ref()
                    .unwrap_or(&drawing.prompts.types)
                    .clone(),
                own: drawing.prompts.own.clone(),
            },
        };
        let inner = self
            .source
            .load_named(self.name.as_deref(), codec, &drawing)?;
        Ok(Box::new(Weighted {
            inner,
            weight: self.weight,
        }))
    }
}

/// Loads all resources of a list.
///
/// # Errors
/// The first that cannot be loaded.
pub fn load_all(
    resources: &[WeightedResource],
    codec: &SharedCodec,
    drawing: &Drawing,
) -> Result<Vec<Box<dyn Resource>>, ResourceError> {
    resources
        .iter()
        .map(|resource| resource.load(codec.clone(), drawing))
        .collect()
}

struct Weighted {
    inner: Box<dyn Resource>,
    weight: f64,
}

impl Resource for Weighted {
    fn name(&self) -> &str {
        self.inner.name()
    }

    fn sample(
        &self,
        rng: &mut ChaCha8Rng,
        n: usize,
    ) -> Result<(String, Vec<SeedPrompt>), ResourceError> {
        self.inner.sample(rng, n)
    }

    fn document(&self) -> Option<&Document> {
        self.inner.document()
    }

    fn fingerprint(&self) -> String {
        self.inner.fingerprint()
    }

    fn weight(&self) -> f64 {
        self.weight
    }

    fn notes(&self) -> &[Note] {
        self.inner.notes()
    }
}
