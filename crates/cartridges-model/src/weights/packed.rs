//! GGML's symmetric blocks as packed rows, without a change of value.

use cartridges_ops::{BLOCK, PackedLayout, PackedRows, Packing};
use half::f16;
use rayon::prelude::*;

use super::Dtype;

/// Blocks of a stored matrix that packed rows can hold as they are.
#[derive(Debug, Clone, Copy)]
pub(super) struct Blocks {
    dtype: Dtype,
    layout: PackedLayout,
}

impl Blocks {
    /// The blocks of a matrix of `dtype` with rows of `width` values, if they are no larger than
    /// `packing` and have what it has: integers around zero and one f16 scale per 32 values.
    pub(super) fn of(dtype: Dtype, packing: Packing, width: usize) -> Option<Self> {
        let packing = match (dtype, packing) {
            (Dtype::Q8_0 | Dtype::Q5_0, Packing::Q8) => Packing::Q8,
            (Dtype::Q4_0, _) => Packing::Q4,
            _ => return None,
        };
        let whole = width > 0 && width.is_multiple_of(BLOCK);
        let layout = PackedLayout { packing, width };
        whole.then_some(Self { dtype, layout })
    }

    /// The rows in `bytes`, row `i` from where `stored(i)` says. The error is the index of the first
    /// value that is not finite, and that value.
    pub(super) fn take(
        self,
        bytes: &[u8],
        stored: impl Fn(usize) -> usize + Sync,
    ) -> Result<PackedRows, (usize, f32)> {
        let Self { dtype, layout } = self;
        let row_bytes = layout.blocks() * dtype.block_bytes();
        let rows = bytes.len() / row_bytes;
        let mut words = vec![0i32; rows * layout.row_words()];
        let mut scales = vec![f16::ZERO; rows * layout.blocks()];
        let bad = words
            .par_chunks_exact_mut(layout.row_words())
            .zip(scales.par_chunks_exact_mut(layout.blocks()))
            .enumerate()
            .filter_map(|(row, (words, scales))| {
                let raw =
                    bytes[stored(row) * row_bytes..][..row_bytes].chunks_exact(dtype.block_bytes());
                let words = words.chunks_exact_mut(layout.packing.block_words());
                for ((raw, words), scale) in raw.zip(words).zip(scales.iter_mut()) {
                    *scale = f16::from_le_bytes([raw[0], raw[1]]);
                    match dtype {
                        Dtype::Q5_0 => five_bits(&raw[2..], words),
                        _ => copy(&raw[2..], words),
                    }
                }
                let block = scales.iter().position(|scale| !scale.is_finite())?;
                Some((row * layout.width + block * BLOCK, scales[block].to_f32()))
            })
            .min_by_key(|bad| bad.0);
        match bad {
            None => Ok(PackedRows::from_blocks(layout, words, scales)),
            Some(bad) => Err(bad),
        }
    }
}

fn copy(bytes: &[u8], words: &mut [i32]) {
    for (word, bytes) in words.iter_mut().zip(bytes.as_chunks::<4>().0) {
        *word = i32::from_le_bytes(*bytes);
    }
}

/// Signed bytes of integers from −16 to 15, stored as fifth bits and nibbles.
fn five_bits(bytes: &[u8], words: &mut [i32]) {
    let integer = |i: usize| {
        let fifth = (bytes[i / 8] >> (i % 8)) & 1;
        let nibble = (bytes[4 + i % 16] >> (4 * (i / 16))) & 15;
        (nibble | fifth << 4).wrapping_sub(16)
    };
    for (w, word) in words.iter_mut().enumerate() {
        *word = i32::from_le_bytes(std::array::from_fn(|b| integer(4 * w + b)));
    }
}
