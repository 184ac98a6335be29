//! A decoder with the shape of a real one and random weights, for measurements.

use std::convert::Infallible;

use burn::tensor::{Device, FloatDType, Tensor};
use cartridges_ops::{Matrix, PackedLayout, PackedRows, Packing};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use rayon::prelude::*;

use super::config::ModelConfig;
use super::load::{Parts, Precision};
use super::model::Decoder;

/// Half of the width of the interval that weights are drawn from: a standard deviation of 0.02.
const SPREAD: f32 = 0.034_64;
/// Values with a generator of their own.
const PIECE: usize = 1 << 16;

impl Decoder {
    /// A decoder whose matrices are random and whose norms are ones. The same seed gives the same weights,
    /// with any number of threads.
    pub fn random(config: ModelConfig, precision: Precision, seed: u64, device: &Device) -> Self {
        let mut parts = Random {
            precision,
            device,
            seed,
        };
        let tied = config.tie_word_embeddings;
        match Self::assemble(config, tied, precision, device, &mut parts) {
            Ok(decoder) => decoder,
        }
    }
}

struct Random<'a> {
    precision: Precision,
    device: &'a Device,
    /// Of the next piece.
    seed: u64,
}

impl Random<'_> {
    fn values(&mut self, count: usize) -> Vec<f32> {
        let mut values = vec![0f32; count];
        let first = self.seed;
        let pieces = values.par_chunks_mut(PIECE).enumerate();
        pieces.for_each(|(at, piece)| {
            let mut rng = ChaCha8Rng::seed_from_u64(first + at as u64);
            piece.fill_with(|| rng.random_range(-SPREAD..SPREAD));
        });
        self.seed += count.div_ceil(PIECE) as u64;
        values
    }
}

impl Parts for Random<'_> {
    type Error = Infallible;

    fn matrix(&mut self, _name: &str, shape: [usize; 2]) -> Result<Matrix, Infallible> {
        let values = self.values(shape[0] * shape[1]);
        let packed = |packing: Packing| {
            let layout = PackedLayout {
                packing,
                width: shape[1],
            };
            Matrix::packed(PackedRows::quantise(&values, layout), self.device)
        };
        Ok(match self.precision {
            Precision::Q8 => packed(Packing::Q8),
            Precision::Q4 => packed(Packing::Q4),
            Precision::Bf16 => Matrix::dense(values, shape[1], FloatDType::BF16, self.device),
            Precision::F32 => Matrix::dense(values, shape[1], FloatDType::F32, self.device),
        })
    }

    fn vector(&mut self, name: &str, len: usize) -> Result<Tensor<1>, Infallible> {
        Ok(match name.ends_with("bias") {
            true => Tensor::zeros([len], self.device),
            false => Tensor::ones([len], self.device),
        })
    }
}

#[cfg(test)]
mod tests {
    use cartridges_ops::test_device;

    use crate::decoder::{Decoder, Precision};
    use crate::hub::find_card;

    fn embeddings(seed: u64) -> Vec<f32> {
        let mut shape = find_card("smollm2-135m").unwrap().unwrap().shape.clone();
        (shape.num_layers, shape.vocab_size) = (1, 512);
        let decoder = Decoder::random(shape, Precision::F32, seed, &test_device());
        let rows = decoder.embed(&[0, 100, 511]).into_data();
        rows.try_to_vec::<f32>().unwrap()
    }

    #[test]
    fn weights_depend_on_the_seed_alone() {
        let values = embeddings(3);
        assert_eq!(values, embeddings(3));
        assert_ne!(values, embeddings(4));
        let square: f32 = values.iter().map(|x| x * x).sum();
        let deviation = (square / values.len() as f32).sqrt();
        assert!((deviation - 0.02).abs() < 1e-3, "{deviation}");
    }
}
