//! The whole decoder: embedding, layers, final norm, head.

use burn::tensor::{Device, Int, Tensor, TensorData};
use cartridges_ops::{AttentionLayout, Matrix, rms_norm};

use super::config::ModelConfig;
use super::layer::{Layer, LayerBatch};
use super::load::Precision;
use super::rope::{RotaryAngles, RotaryTable};
use crate::adapter::{BatchAdapters, Target};

/// One packed batch: what goes through the decoder in one pass.
#[derive(Debug, Clone, Copy)]
pub struct Packed<'a> {
    /// Token ids of all sequences, one row each.
    pub ids: &'a [u32],
    /// Absolute rotary position of each row; requests behind `p` cartridge slots start at `p`.
    pub positions: &'a [u32],
    /// Which keys each run of rows sees.
    pub layout: &'a AttentionLayout,
    /// Adapters of the rows.
    pub adapters: &'a BatchAdapters,
}

/// Where keys and values of earlier tokens come from.
pub trait KvSource {
    /// Gets the new rows' keys and values of `layer`, `[n, kv_heads, head_dim]`, and gives all rows
    /// that the batch's layout refers to, `[m, kv_heads, head_dim]`.
    fn extend(&mut self, layer: usize, k: Tensor<3>, v: Tensor<3>) -> (Tensor<3>, Tensor<3>);

    /// Gets the queries of `layer`, `[n, heads, head_dim]`, after rope. Most sources do not care.
    fn observe(&mut self, layer: usize, q: &Tensor<3>) {
        let _ = (layer, q);
    }
}

/// No earlier tokens: the batch sees itself only.
#[derive(Debug, Clone, Copy, Default)]
pub struct NoPast;

impl KvSource for NoPast {
    fn extend(&mut self, _layer: usize, k: Tensor<3>, v: Tensor<3>) -> (Tensor<3>, Tensor<3>) {
        (k, v)
    }
}

/// A frozen language model on one device. It is never tracked by autodiff; gradients flow through it
/// to whatever tracked tensors a [`KvSource`] brings in.
#[derive(Debug, Clone)]
pub struct Decoder {
    pub(super) config: ModelConfig,
    pub(super) embedding: Matrix,
    pub(super) layers: Vec<Layer>,
    pub(super) norm: Tensor<1>,
    /// `None` when the head is the embedding table.
    pub(super) head: Option<Matrix>,
    pub(super) rotary: RotaryTable,
    pub(super) precision: Precision,
    pub(super) device: Device,
}

impl Decoder {
    /// The model's shape.
    pub fn config(&self) -> &ModelConfig {
        &self.config
    }

    /// Where the weights live.
    pub fn device(&self) -> &Device {
        &self.device
    }

    /// The layers in order.
    pub fn layers(&self) -> &[Layer] {
        &self.layers
    }

    /// The rotary frequencies.
    pub fn rotary(&self) -> &RotaryTable {
        &self.rotary
    }

    /// Bytes that the matrices take.
    pub fn resident_bytes(&self) -> usize {
        let table = self.head.as_ref().map(|_| self.embedding.resident_bytes());
        self.bytes_per_pass() + table.unwrap_or(0)
    }

    /// Bytes of the matrices that every pass reads: all but an embedding table that is not the head.
    pub fn bytes_per_pass(&self) -> usize {
        let layers = self.layers.iter().flat_map(Layer::matrices);
        let all = layers.chain([self.head()]);
        all.map(Matrix::resident_bytes).sum()
    }

    /// How the matrices are kept.
    pub fn precision(&self) -> Precision {
        self.precision
    }

    /// Embedding rows of `ids`, `[n, hidden]`.
    ///
    /// # Panics
    /// If an id is outside the vocabulary; [`Decoder::check_ids`] tells beforehand.
    pub fn embed(&self, ids: &[u32]) -> Tensor<2> {
        let data: Vec<i32> = ids.iter().map(|id| *id as i32).collect();
        let index = Tensor::<1, Int>::from_data(TensorData::new(data, [ids.len()]), &self.device);
        self.embedding.rows(index, self.norm.dtype().into())
    }

    /// The first id that is outside the vocabulary, if any.
    pub fn check_ids(&self, ids: &[u32]) -> Result<(), u32> {
        match ids
            .iter()
            .find(|id| **id as usize >= self.config.vocab_size)
        {
            Some(id) => Err(*id),
            None => Ok(()),
        }
    }

    /// Rotary angles for rows at `positions`.
    pub fn angles(&self, positions: &[u32]) -> RotaryAngles {
        self.rotary.angles(positions, &self.device)
    }

    /// Residual stream after the last layer, before the final norm: `[n, hidden]`.
    pub fn hidden(&self, batch: Packed<'_>, past: &mut dyn KvSource) -> Tensor<2> {
        let angles = self.angles(batch.positions);
        let mut x = self.embed(batch.ids);
        for (index, layer) in self.layers.iter().enumerate() {
            let about = LayerBatch {
                layer: index,
                config: &self.config,
                angles: &angles,
                layout: batch.layout,
                adapters: batch.adapters,
            };
            x = layer.forward(x, about, |q, k, v| {
                past.observe(index, q);
                past.extend(index, k, v)
            });
        }
        x
    }

    /// The final norm, `[n, hidden]` to `[n, hidden]`, with what the rows' adapters add to it.
    pub fn final_norm(&self, hidden: Tensor<2>, adapters: &BatchAdapters) -> Tensor<2> {
        let normed = rms_norm(hidden, &self.norm, self.config.rms_norm_eps);
        match adapters.is_empty() {
            true => normed,
            false => adapters.add(Target::FinalNorm, &normed, normed.clone()),
        }
    }

    /// The output head `[vocab, hidden]`.
    pub fn head(&self) -> &Matrix {
        self.head.as_ref().unwrap_or(&self.embedding)
    }

    /// Logits `[n, vocab]` of normed hidden states `[n, hidden]`, with what the rows' adapters add to
    /// them.
    pub fn logits(&self, normed: Tensor<2>, adapters: &BatchAdapters) -> Tensor<2> {
        let logits = self.head().project(normed.clone());
        match adapters.is_empty() {
            true => logits,
            false => adapters.add(Target::LmHead, &normed, logits),
        }
    }
}
