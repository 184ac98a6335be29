//! Rotary positions (Su et al., arXiv 2104.09864) in the half-split layout of Hugging Face weights.

use burn::tensor::{Device, Tensor, TensorData};
use cartridges_ops::rotary;

use super::config::ModelConfig;

/// Cosines and sines for the rows of one batch, each `[n, head_dim / 2]`.
#[derive(Debug, Clone)]
pub struct RotaryAngles {
    cos: Tensor<2>,
    sin: Tensor<2>,
}

impl RotaryAngles {
    /// Rotates `x [n, heads, head_dim]` to its rows' positions.
    pub fn apply(&self, x: Tensor<3>) -> Tensor<3> {
        rotary(x, &self.cos, &self.sin)
    }
}

/// The angular frequencies of a model, in radians per position.
#[derive(Debug, Clone)]
pub struct RotaryTable {
    frequencies: Vec<f64>,
}

impl RotaryTable {
    /// The table that the config describes.
    pub fn new(config: &ModelConfig) -> Self {
        Self {
            frequencies: config.rope_frequencies(),
        }
    }

    /// The `head_dim / 2` frequencies.
    pub fn frequencies(&self) -> &[f64] {
        &self.frequencies
    }

    /// Angles for tokens at `positions`, computed in f64 and stored as f32.
    pub fn angles(&self, positions: &[u32], device: &Device) -> RotaryAngles {
        let half = self.frequencies.len();
        let mut cos = Vec::with_capacity(positions.len() * half);
        let mut sin = Vec::with_capacity(positions.len() * half);
        for &position in positions {
            for frequency in &self.frequencies {
                let (s, c) = (f64::from(position) * frequency).sin_cos();
                cos.push(c as f32);
                sin.push(s as f32);
            }
        }
        let upload =
            |values| Tensor::from_data(TensorData::new(values, [positions.len(), half]), device);
        RotaryAngles {
            cos: upload(cos),
            sin: upload(sin),
        }
    }
}
