//! Batches that go through a model layer by layer, together.

use burn::tensor::Tensor;
use cartridges_model::adapter::BatchAdapters;
use cartridges_model::decoder::{Decoder, LayerBatch, RotaryAngles};

use super::batch::Batch;
use crate::error::TransmuteError;

/// Keys and values of a cartridge, per layer.
pub(crate) type Past = [(Tensor<3>, Tensor<3>)];

/// The residual states of some batches before a layer.
#[derive(Debug, Clone)]
pub(crate) struct Stream<'a> {
    decoder: &'a Decoder,
    past: &'a Past,
    pub(crate) batches: Vec<Batch>,
    angles: Vec<RotaryAngles>,
    /// `[rows, hidden]` of each batch, before layer `layer`.
    states: Vec<Tensor<2>>,
    layer: usize,
}

impl<'a> Stream<'a> {
    /// The batches before the first layer, behind the keys and values `past`.
    pub(crate) fn new(decoder: &'a Decoder, past: &'a Past, batches: Vec<Batch>) -> Self {
        Self {
            states: batches.iter().map(|b| decoder.embed(&b.ids)).collect(),
            angles: batches
                .iter()
                .map(|b| decoder.angles(&b.positions))
                .collect(),
            decoder,
            past,
            batches,
            layer: 0,
        }
    }

    pub(crate) fn decoder(&self) -> &'a Decoder {
        self.decoder
    }

    /// The state of a batch, `[rows, hidden]`.
    pub(crate) fn state(&self, batch: usize) -> Tensor<2> {
        self.states[batch].clone()
    }

    /// What `layer` makes of a batch's states `x`.
    pub(crate) fn layer(
        &self,
        layer: usize,
        batch: usize,
        x: Tensor<2>,
        adapters: &BatchAdapters,
    ) -> Tensor<2> {
        let about = self.about(layer, batch, adapters);
        self.decoder.layers()[layer].forward(x, about, |_, k, v| self.extend(layer, k, v))
    }

    /// The rows that are looked at, `[n, hidden]`.
    pub(crate) fn looked_at(&self, batch: usize) -> Tensor<2> {
        let index = self.batches[batch].index.clone();
        self.states[batch].clone().select(0, index)
    }

    /// What the next layer makes of a batch: the residual stream without what `down_proj` adds, and what
    /// `down_proj` reads.
    pub(crate) fn parts(&self, batch: usize) -> (Tensor<2>, Tensor<2>) {
        let about = self.about(self.layer, batch, BatchAdapters::NONE);
        let layer = &self.decoder.layers()[self.layer];
        let extend = |_: &Tensor<3>, k, v| self.extend(self.layer, k, v);
        layer.before_down(self.state(batch), about, extend)
    }

    fn extend(&self, layer: usize, k: Tensor<3>, v: Tensor<3>) -> (Tensor<3>, Tensor<3>) {
        match self.past.get(layer) {
            None => (k, v),
            Some((keys, values)) => (
                Tensor::cat(vec![keys.clone(), k], 0),
                Tensor::cat(vec![values.clone(), v], 0),
            ),
        }
    }

    fn about<'b>(
        &'b self,
        layer: usize,
        batch: usize,
        adapters: &'b BatchAdapters,
    ) -> LayerBatch<'b> {
        LayerBatch {
            layer,
            config: self.decoder.config(),
            angles: &self.angles[batch],
            layout: &self.batches[batch].layout,
            adapters,
        }
    }

    /// All batches through the next layer, with adapters.
    pub(crate) fn advance(&mut self, adapters: &BatchAdapters) {
        for batch in 0..self.batches.len() {
            self.states[batch] = self.layer(self.layer, batch, self.state(batch), adapters);
        }
        self.layer += 1;
    }

    /// All batches through the next layer, whose outputs are known.
    pub(crate) fn advance_to(&mut self, states: Vec<Tensor<2>>) {
        self.states = states;
        self.layer += 1;
    }

    /// The rows that are looked at after the last layer and the final norm, from where the stream is.
    pub(crate) fn finish(mut self, adapters: &BatchAdapters) -> Vec<Tensor<2>> {
        while self.layer < self.decoder.config().num_layers {
            self.advance(adapters);
        }
        let rows = (0..self.batches.len()).map(|batch| self.looked_at(batch));
        rows.map(|rows| self.decoder.final_norm(rows, BatchAdapters::NONE))
            .collect()
    }
}

/// The values of a tensor in f32.
pub(crate) fn values<const D: usize>(tensor: Tensor<D>) -> Result<Vec<f32>, TransmuteError> {
    let data = tensor.into_data().convert::<f32>();
    let values = data.try_to_vec::<f32>();
    values.map_err(|error| TransmuteError::field("a tensor", format!("cannot be read: {error:?}")))
}
