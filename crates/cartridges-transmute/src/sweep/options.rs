//! How a sweep goes.

use serde::{Deserialize, Serialize};

use crate::error::TransmuteError;
use crate::ridge::RidgeOptions;

/// What a fitted position counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Weighting {
    /// All the same.
    #[default]
    Uniform,
    /// What the prompt changes there: the divergence between teacher and student, between 0.05 and 5.
    Divergence,
}

/// The settings of a sweep.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct SweepOptions {
    /// First and last layer with a patch at `mlp.down_proj`; all layers if there is none.
    pub layers: Option<(usize, usize)>,
    /// Rank of each patch. Default 32.
    pub rank: usize,
    /// The regression.
    pub ridge: RidgeOptions,
    /// What a position counts. Default the same for all.
    pub weighting: Weighting,
    /// With what a patch is multiplied, in the order in which it is tried: the first with which the
    /// validation's divergence falls is taken, and without one the layer has no patch. Default 1, 0.5, 0.25.
    pub scales: Vec<f32>,
    /// Most tokens behind a prompt in one batch. Default 2048.
    pub batch_tokens: usize,
}

impl Default for SweepOptions {
    fn default() -> Self {
        Self {
            layers: None,
            rank: 32,
            ridge: RidgeOptions::default(),
            weighting: Weighting::Uniform,
            scales: vec![1.0, 0.5, 0.25],
            batch_tokens: 2048,
        }
    }
}

impl SweepOptions {
    /// The layers with a patch in a model of so many layers.
    ///
    /// # Errors
    /// [`TransmuteError::Field`] for a setting that means nothing.
    pub(crate) fn check(&self, layers: usize) -> Result<std::ops::Range<usize>, TransmuteError> {
        self.ridge.check()?;
        for (field, value) in [("rank", self.rank), ("batch_tokens", self.batch_tokens)] {
            if value == 0 {
                return Err(TransmuteError::field(field, "is 0, expected at least 1"));
            }
        }
        if let Some(scale) = self.scales.iter().find(|s| !(s.is_finite() && **s > 0.0)) {
            let problem = format!("hold {scale}, expected finite numbers above 0");
            return Err(TransmuteError::field("scales", problem));
        }
        let (first, last) = self.layers.unwrap_or((0, layers.saturating_sub(1)));
        if first > last || last >= layers {
            let problem = format!("are {first} to {last}, the model has 0 to {}", layers - 1);
            return Err(TransmuteError::field("layers", problem));
        }
        Ok(first..last + 1)
    }
}
