//! Batches that go through a model together.

use burn::tensor::Tensor;
use cartridges_model::adapter::{BatchAdapters, Target};
use cartridges_model::decoder::{Decoder, Half, LayerBatch, RotaryAngles};

use super::batch::Batch;
use crate::error::TransmuteError;

/// Keys and values of a cartridge, per layer.
pub(crate) type Past = [(Tensor<3>, Tensor<3>)];

/// The residual states of some batches on their way through a model, half a layer at a time.
#[derive(Debug, Clone)]
pub(crate) struct Stream<'a> {
    decoder: &'a Decoder,
    past: &'a Past,
    pub(crate) batches: Vec<Batch>,
    angles: Vec<RotaryAngles>,
    /// `[rows, hidden]` of each batch, before `place`.
    states: Vec<Tensor<2>>,
    /// What the map at `place` reads, per batch, where [`Self::read`] has computed it.
    read: Vec<Tensor<2>>,
    place: (usize, Half),
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
            read: Vec::new(),
            place: (0, Half::Attention),
        }
    }

    pub(crate) fn decoder(&self) -> &'a Decoder {
        self.decoder
    }

    /// The map that it is at: all states are those before the half of a layer that ends in it.
    pub(crate) fn target(&self) -> Target {
        let (layer, half) = self.place;
        half.target(layer)
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
        self.rows(batch, self.state(batch))
    }

    /// Of `x [rows, any]` the rows that are looked at.
    pub(crate) fn rows(&self, batch: usize, x: Tensor<2>) -> Tensor<2> {
        x.select(0, self.batches[batch].index.clone())
    }

    /// Computes what the map at the stream's place reads once for all that ask before the next step.
    pub(crate) fn read(&mut self) {
        self.read = (0..self.batches.len()).map(|b| self.features(b)).collect();
    }

    /// What the map at the stream's place reads, for all rows of a batch.
    pub(crate) fn features(&self, batch: usize) -> Tensor<2> {
        if let Some(read) = self.read.get(batch) {
            return read.clone();
        }
        let (number, half) = self.place;
        let layer = &self.decoder.layers()[number];
        let about = self.about(number, batch, BatchAdapters::NONE);
        match half {
            Half::Attention => layer.attend(self.state(batch), about, |_, k, v| {
                self.extend(number, k, v)
            }),
            Half::Mlp => layer.gate(self.state(batch), about),
        }
    }

    /// The states of a batch behind the stream's place, from its [`Self::features`].
    pub(crate) fn after(
        &self,
        batch: usize,
        features: Tensor<2>,
        adapters: &BatchAdapters,
    ) -> Tensor<2> {
        let (number, half) = self.place;
        let about = self.about(number, batch, adapters);
        self.decoder.layers()[number].add(half, self.state(batch), features, about)
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

    /// All batches through the next half of a layer, with adapters at the map in which it ends.
    pub(crate) fn step(&mut self, adapters: &BatchAdapters) {
        for batch in 0..self.batches.len() {
            self.states[batch] = self.after(batch, self.features(batch), adapters);
        }
        self.read.clear();
        self.place = match self.place {
            (layer, Half::Attention) => (layer, Half::Mlp),
            (layer, Half::Mlp) => (layer + 1, Half::Attention),
        };
    }

    /// All batches through a whole layer, with adapters at the maps in which its halves end.
    pub(crate) fn advance(&mut self, adapters: &BatchAdapters) {
        self.step(adapters);
        self.step(adapters);
    }

    /// The rows that are looked at after the last layer and the final norm, from where the stream is.
    pub(crate) fn finish(mut self, adapters: &BatchAdapters) -> Vec<Tensor<2>> {
        while self.place.0 < self.decoder.config().num_layers {
            self.step(adapters);
        }
        let rows = (0..self.batches.len()).map(|batch| self.looked_at(batch));
        rows.map(|rows| self.decoder.final_norm(rows, adapters))
            .collect()
    }
}

/// The values of a tensor in f32.
pub(crate) fn values<const D: usize>(tensor: Tensor<D>) -> Result<Vec<f32>, TransmuteError> {
    let data = tensor.into_data().convert::<f32>();
    let values = data.try_to_vec::<f32>();
    values.map_err(|error| TransmuteError::field("a tensor", format!("cannot be read: {error:?}")))
}
