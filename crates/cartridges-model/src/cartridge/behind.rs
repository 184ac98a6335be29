//! A cartridge as the past of a batch.

use burn::tensor::Tensor;

use crate::decoder::KvSource;

/// Keys and values that stand before the rows of a batch, per layer `[p, kv_heads, head_dim]`. Without
/// layers nothing does.
#[derive(Debug, Clone, Default)]
pub struct Behind(pub Vec<(Tensor<3>, Tensor<3>)>);

impl KvSource for Behind {
    fn extend(&mut self, layer: usize, k: Tensor<3>, v: Tensor<3>) -> (Tensor<3>, Tensor<3>) {
        match self.0.get(layer) {
            None => (k, v),
            Some((keys, values)) => (
                Tensor::cat(vec![keys.clone(), k], 0),
                Tensor::cat(vec![values.clone(), v], 0),
            ),
        }
    }
}
