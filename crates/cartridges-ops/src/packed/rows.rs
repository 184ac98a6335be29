//! Packed rows in the host's memory: how numbers become blocks.

use half::f16;
use rayon::prelude::*;

/// Values of one block.
pub const BLOCK: usize = 32;

/// How the values of a block are stored. Both kinds are symmetric: a value is an integer times the
/// block's scale, which is an f16.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Packing {
    /// Signed bytes, value `i` in byte `i` of the block (little endian words); GGML's Q8_0.
    Q8,
    /// Integers −8 to 7 stored as 0 to 15: the low nibble of byte `i` is value `i`, the high one value
    /// `i + 16`; GGML's Q4_0.
    Q4,
}

impl Packing {
    /// 32-bit words of one block.
    pub const fn block_words(self) -> usize {
        match self {
            Self::Q8 => 8,
            Self::Q4 => 4,
        }
    }

    /// Bytes of one block with its scale as f16.
    pub const fn block_bytes(self) -> usize {
        4 * self.block_words() + 2
    }
}

/// What the operations have to know of a packed matrix besides its tensors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct PackedLayout {
    /// How a block is stored.
    pub packing: Packing,
    /// Values of a row. The last block is filled up with values that are never read.
    pub width: usize,
}

impl PackedLayout {
    /// Blocks of a row.
    pub fn blocks(self) -> usize {
        self.width.div_ceil(BLOCK)
    }

    /// Words of a row.
    pub fn row_words(self) -> usize {
        self.blocks() * self.packing.block_words()
    }
}

/// Packed rows: the words `[rows, blocks · words]` and the scales `[rows, blocks]`.
#[derive(Debug, Clone, PartialEq)]
pub struct PackedRows {
    pub(crate) layout: PackedLayout,
    pub(crate) words: Vec<i32>,
    pub(crate) scales: Vec<f16>,
}

impl PackedRows {
    /// Rows whose blocks are there already.
    ///
    /// # Panics
    /// If `words` and `scales` are not whole rows, or not equally many.
    pub fn from_blocks(layout: PackedLayout, words: Vec<i32>, scales: Vec<f16>) -> Self {
        assert_eq!(scales.len() % layout.blocks(), 0, "whole rows of scales");
        assert_eq!(
            words.len(),
            scales.len() * layout.packing.block_words(),
            "words of as many blocks as there are scales"
        );
        Self {
            layout,
            words,
            scales,
        }
    }

    /// Packs finite `values [rows, width]`.
    ///
    /// The integer nearest to `value / scale` is taken. The scale is that of GGML: the greatest
    /// magnitude over 127 for [`Packing::Q8`]; for [`Packing::Q4`] the value of greatest magnitude over
    /// −8, so that this one is hit (and its opposite would be cut to 7). So a value is off by at most
    /// half a scale, and by at most one scale where Q4 cuts.
    ///
    /// # Panics
    /// If `values` are not whole rows.
    pub fn quantise(values: &[f32], layout: PackedLayout) -> Self {
        let PackedLayout { packing, width } = layout;
        assert_eq!(values.len() % width, 0, "whole rows");
        let rows = values.len() / width;
        let mut words = vec![0; rows * layout.row_words()];
        let mut scales = vec![f16::ZERO; rows * layout.blocks()];
        words
            .par_chunks_mut(layout.row_words())
            .zip(scales.par_chunks_mut(layout.blocks()))
            .zip(values.par_chunks(width))
            .for_each(|((words, scales), values)| {
                let blocks = words.chunks_exact_mut(packing.block_words()).zip(scales);
                for ((words, scale), values) in blocks.zip(values.chunks(BLOCK)) {
                    let mut block = [0f32; BLOCK];
                    block[..values.len()].copy_from_slice(values);
                    *scale = match packing {
                        Packing::Q8 => quantise_q8(&block, words),
                        Packing::Q4 => quantise_q4(&block, words),
                    };
                }
            });
        Self {
            layout,
            words,
            scales,
        }
    }

    /// What the blocks mean: width and packing.
    pub fn layout(&self) -> PackedLayout {
        self.layout
    }

    /// The rows in order, at most `rows` at a time.
    pub(crate) fn split(&self, rows: usize) -> impl Iterator<Item = Self> + '_ {
        let words = self.words.chunks(rows * self.layout.row_words());
        let scales = self.scales.chunks(rows * self.layout.blocks());
        words.zip(scales).map(|(words, scales)| Self {
            layout: self.layout,
            words: words.to_vec(),
            scales: scales.to_vec(),
        })
    }

    /// The number of rows.
    pub fn rows(&self) -> usize {
        self.scales.len() / self.layout.blocks()
    }

    /// The values `[rows, width]` that the blocks stand for: integer times scale, in f32.
    pub fn values(&self) -> Vec<f32> {
        let PackedLayout { packing, width } = self.layout;
        let mut out = Vec::with_capacity(self.rows() * width);
        let words = self.words.chunks_exact(self.layout.row_words());
        let scales = self.scales.chunks_exact(self.layout.blocks());
        for (words, scales) in words.zip(scales) {
            let blocks = words.chunks_exact(packing.block_words()).zip(scales);
            let row = blocks.flat_map(|(words, scale)| {
                let scale = scale.to_f32();
                integers(words, packing).map(|q| scale * q as f32)
            });
            out.extend(row.take(width));
        }
        out
    }
}

/// The integers of a block.
fn integers(words: &[i32], packing: Packing) -> [i32; BLOCK] {
    let byte = |i: usize| words[i / 4].to_le_bytes()[i % 4];
    std::array::from_fn(|i| match packing {
        Packing::Q8 => i32::from(byte(i) as i8),
        Packing::Q4 => i32::from((byte(i % 16) >> (4 * (i / 16))) & 15) - 8,
    })
}

/// The nearest f16 that is not infinite.
fn scale_of(scale: f32) -> f16 {
    f16::from_f32(scale).clamp(f16::MIN, f16::MAX)
}

/// `value / scale`, and zero for a block without a scale.
fn inverse(scale: f16) -> f32 {
    match scale == f16::ZERO {
        true => 0.0,
        false => scale.to_f32().recip(),
    }
}

fn quantise_q8(values: &[f32; BLOCK], words: &mut [i32]) -> f16 {
    let greatest = values.iter().fold(0f32, |max, x| max.max(x.abs()));
    let scale = scale_of(greatest / 127.0);
    let inverse = inverse(scale);
    for (word, values) in words.iter_mut().zip(values.as_chunks::<4>().0) {
        let bytes = values.map(|x| (x * inverse).round().clamp(-127.0, 127.0) as i8 as u8);
        *word = i32::from_le_bytes(bytes);
    }
    scale
}

fn quantise_q4(values: &[f32; BLOCK], words: &mut [i32]) -> f16 {
    let greatest = values
        .iter()
        .fold(0f32, |max, x| if x.abs() > max.abs() { *x } else { max });
    let scale = scale_of(greatest / -8.0);
    let inverse = inverse(scale);
    let nibble = |x: f32| ((x * inverse).round().clamp(-8.0, 7.0) + 8.0) as u8;
    for (w, word) in words.iter_mut().enumerate() {
        let bytes = std::array::from_fn(|b| {
            let at = 4 * w + b;
            nibble(values[at]) | nibble(values[at + 16]) << 4
        });
        *word = i32::from_le_bytes(bytes);
    }
    scale
}
