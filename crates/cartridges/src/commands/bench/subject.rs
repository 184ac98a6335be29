//! What is measured: a real model, or random weights in the shape of one.

use std::sync::Arc;

use anyhow::{Context, Result, bail};
use cartridges_model::LanguageModel;
use cartridges_model::hub::{cards, find_card};
use clap::Args;

use crate::opening::{ModelArgs, Runtime};

/// Seed of random weights.
const SEED: u64 = 1;

/// A model, or a shape.
#[derive(Debug, Clone, Args)]
pub struct SubjectArgs {
    #[command(flatten)]
    model: ModelArgs,
    /// Random weights in the shape of a known model such as smollm2-135m, qwen3-0.6b or qwen3-4b: nothing is
    /// fetched.
    #[arg(long, value_name = "NAME", conflicts_with = "model")]
    shape: Option<String>,
}

impl SubjectArgs {
    /// The model; of random weights with `layers` layers instead of as many as the known model has.
    ///
    /// # Errors
    /// If the model cannot be opened, or no known model has the name.
    pub(super) fn open(
        &self,
        runtime: &Runtime,
        layers: Option<usize>,
    ) -> Result<Arc<LanguageModel>> {
        let Some(name) = &self.shape else {
            return self.model.open(runtime);
        };
        let Some(card) = find_card(name)? else {
            let known: Vec<&str> = cards()?.iter().map(|card| card.name.as_str()).collect();
            bail!("no known model {name}; there are {}", known.join(", "));
        };
        let mut shape = card.shape.clone();
        shape.num_layers = layers.unwrap_or(shape.num_layers);
        let shape = shape.checked()?;
        let id = format!("random weights in the shape of {}", card.name);
        let precision = self.model.precision.plain(runtime.choice);
        let model = LanguageModel::random(&id, shape, precision, SEED, &runtime.device);
        Ok(Arc::new(model.with_context(|| id.clone())?))
    }
}
