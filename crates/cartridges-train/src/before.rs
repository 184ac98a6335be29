//! The cartridges before a packed row.

use burn::tensor::Tensor;
use cartridges_model::cartridge::Cartridge;
use cartridges_ops::{AttentionLayout, KeyRange, QueryRun};

/// Cartridges one after the other, at least one, and which of them each example of a row sees.
#[derive(Debug, Clone, Copy)]
pub struct Before<'a> {
    pub cartridges: &'a [&'a Cartridge],
    /// Numbers of cartridges, per example.
    pub seen: &'a [Vec<usize>],
}

impl Before<'_> {
    pub fn num_layers(&self) -> usize {
        self.cartridges[0].num_layers()
    }

    /// Slots that an example sees; its first token stands at that position.
    pub fn slots(&self, example: usize) -> usize {
        let seen = self.seen[example].iter();
        seen.map(|i| self.cartridges[*i].slots()).sum()
    }

    /// Keys are all cartridges, then the tokens.
    pub fn layout(&self, lengths: &[usize]) -> AttentionLayout {
        let mut starts = Vec::with_capacity(self.cartridges.len());
        let mut slots = 0;
        for cartridge in self.cartridges {
            starts.push(slots);
            slots += cartridge.slots();
        }
        let mut runs = Vec::with_capacity(lengths.len());
        let mut start = 0;
        for (example, &len) in lengths.iter().enumerate().filter(|(_, len)| **len > 0) {
            let seen = self.seen[example].iter().map(|i| KeyRange {
                start: starts[*i],
                len: self.cartridges[*i].slots(),
                causal: false,
            });
            let own = KeyRange {
                start: slots + start,
                len,
                causal: true,
            };
            runs.push(QueryRun {
                start,
                len,
                keys: seen.chain([own]).collect(),
            });
            start += len;
        }
        match AttentionLayout::new(runs, start, slots + start) {
            Ok(layout) => layout,
            Err(error) => unreachable!("a packed row has a layout: {error}"),
        }
    }

    /// The trainable tensors of every cartridge, one cartridge after the other.
    pub fn trainable(&self) -> Vec<Tensor<3>> {
        let all = self.cartridges.iter();
        all.flat_map(|cartridge| cartridge.trainable()).collect()
    }

    /// Keys and values of a layer, `[Σ p, kv_heads, head_dim]`, with `pick(i)` in the place of trainable
    /// tensor `i`.
    pub fn layer_with(
        &self,
        layer: usize,
        mut pick: impl FnMut(usize) -> Tensor<3>,
    ) -> (Tensor<3>, Tensor<3>) {
        let count = self.num_layers();
        let (keys, values): (Vec<_>, Vec<_>) = (self.cartridges.iter().enumerate())
            .map(|(number, cartridge)| {
                let first = 2 * count * number + layer;
                cartridge.layer_with(layer, pick(first), pick(first + count))
            })
            .unzip();
        let joined = |mut all: Vec<Tensor<3>>| match all.len() {
            1 => all.remove(0),
            _ => Tensor::cat(all, 0),
        };
        (joined(keys), joined(values))
    }
}
