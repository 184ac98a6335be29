//! Products with packed weight rows: a few rows are unpacked into the cache, multiplied and dropped.

use burn::backend::{DType, Flex};
use burn::tensor::FloatDType;
use burn_flex::FlexTensor;
use faer::linalg::matmul::matmul;
use faer::{Accum, MatMut, MatRef, Par};
use half::f16;
use half::slice::HalfFloatSliceExt;
use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use super::blocks::matrix;
use super::simd::vectorize;
use super::slices::{all_f32, contiguous, dims, tensor, values};
use super::tiles::{COLUMNS, ROWS, Rows, column_tasks, products, rows_per_task};
use crate::packed::{self, BLOCK, PackedLayout, Packing};

/// From this many input rows on, the library's blocked product wins over tiles in registers.
const MANY_ROWS: usize = 96;
/// Weight rows, or columns of the gradient, of one task of the library's product.
const PANEL: usize = 256;
/// Values of the contraction that are unpacked at a time: a panel stays in the second cache.
const DEPTH: usize = 1024;

/// The blocks of a matrix.
#[derive(Clone, Copy)]
struct Blocks<'a> {
    words: &'a [i32],
    scales: &'a [f16],
    layout: PackedLayout,
}

impl<'a> Blocks<'a> {
    /// The blocks in plain order, if the fast loops apply to them.
    fn new(words: &'a FlexTensor, scales: &'a FlexTensor, layout: PackedLayout) -> Option<Self> {
        if words.dtype() != DType::I32 || scales.dtype() != DType::F16 {
            return None;
        }
        Some(Self {
            words: words.as_slice::<i32>()?,
            scales: scales.as_slice::<f16>()?,
            layout,
        })
    }

    fn rows(&self) -> usize {
        self.scales.len() / self.layout.blocks()
    }

    /// Unpacks the blocks `from .. to` of as many rows as there is room for, from row `first` on.
    fn unpack_rows(&self, first: usize, (from, to): (usize, usize), out: &mut [f32]) {
        vectorize(
            #[inline(always)]
            || {
                for (row, out) in out.chunks_exact_mut((to - from) * BLOCK).enumerate() {
                    self.unpack(first + row, (from, to), out);
                }
            },
        );
    }

    /// Unpacks the blocks `from .. to` of row `at`.
    #[inline(always)]
    fn unpack(&self, at: usize, (from, to): (usize, usize), out: &mut [f32]) {
        let count = self.layout.packing.block_words();
        let first = at * self.layout.blocks();
        let words = &self.words[(first + from) * count..(first + to) * count];
        let mut scales = [0f32; 32];
        for (start, packed) in self.scales[first + from..first + to].chunks(32).enumerate() {
            let scales = &mut scales[..packed.len()];
            packed.convert_to_f32_slice(scales);
            let words = &words[32 * start * count..];
            let out = out[32 * start * BLOCK..].as_chunks_mut::<BLOCK>().0;
            match self.layout.packing {
                Packing::Q8 => {
                    for ((words, scale), out) in
                        words.as_chunks::<8>().0.iter().zip(scales).zip(out)
                    {
                        q8(words, *scale, out);
                    }
                }
                Packing::Q4 => {
                    for ((words, scale), out) in
                        words.as_chunks::<4>().0.iter().zip(scales).zip(out)
                    {
                        q4(words, *scale, out);
                    }
                }
            }
        }
    }
}

#[inline(always)]
fn q8(words: &[i32; 8], scale: f32, out: &mut [f32; BLOCK]) {
    let bytes = words.map(i32::to_le_bytes);
    for (byte, out) in bytes.as_flattened().iter().zip(out) {
        *out = f32::from(*byte as i8) * scale;
    }
}

#[inline(always)]
fn q4(words: &[i32; 4], scale: f32, out: &mut [f32; BLOCK]) {
    let bytes = words.map(i32::to_le_bytes);
    let (low, high) = out.split_at_mut(BLOCK / 2);
    for ((byte, low), high) in bytes.as_flattened().iter().zip(low).zip(high) {
        *low = f32::from((byte & 15) as i8 - 8) * scale;
        *high = f32::from((byte >> 4) as i8 - 8) * scale;
    }
}

pub fn unpack(
    words: FlexTensor,
    scales: FlexTensor,
    layout: PackedLayout,
    dtype: FloatDType,
) -> FlexTensor {
    let blocks = Blocks::new(&words, &scales, layout).filter(|_| dtype == FloatDType::F32);
    let Some(blocks) = blocks else {
        return packed::unpack::<Flex>(words, scales, layout, dtype);
    };
    let (width, whole) = (layout.width, layout.blocks());
    let mut out = vec![0f32; blocks.rows() * width];
    out.par_chunks_mut(width).enumerate().for_each_init(
        || vec![0f32; whole * BLOCK],
        |row, (at, out)| {
            blocks.unpack_rows(at, (0, whole), row);
            out.copy_from_slice(&row[..width]);
        },
    );
    tensor(out, [blocks.rows(), width])
}

pub fn project_packed(
    x: FlexTensor,
    words: FlexTensor,
    scales: FlexTensor,
    layout: PackedLayout,
) -> FlexTensor {
    let blocks = Blocks::new(&words, &scales, layout).filter(|_| all_f32(&[&x]));
    let Some(blocks) = blocks else {
        return packed::project::<Flex>(x, words, scales, layout);
    };
    let [n, width] = dims::<2>(&x);
    let x = contiguous(x);
    let x = Rows::packed(values(&x), width);
    let out = match n < MANY_ROWS {
        true => few_rows(x, blocks),
        false => many_rows(x, blocks),
    };
    tensor(out, [n, blocks.rows()])
}

/// `[n, rows]` by tiles that stay in registers.
fn few_rows(x: Rows<'_>, weight: Blocks<'_>) -> Vec<f32> {
    let rows = weight.rows();
    let mut out = vec![0f32; x.len * rows];
    let task_rows = rows_per_task(rows, x.width * x.len.max(1));
    let stride = weight.layout.blocks() * BLOCK;
    column_tasks(&mut out, rows, task_rows)
        .into_par_iter()
        .enumerate()
        .for_each_init(
            || vec![0f32; COLUMNS * stride],
            |unpacked, (task, out)| {
                Arch::new().dispatch(FewRows {
                    x,
                    weight,
                    first: task * task_rows,
                    unpacked,
                    out,
                });
            },
        );
    out
}

/// `out[r][o] = w_(first + o) · x_r`.
struct FewRows<'a> {
    x: Rows<'a>,
    weight: Blocks<'a>,
    first: usize,
    unpacked: &'a mut [f32],
    out: Vec<&'a mut [f32]>,
}

impl WithSimd for FewRows<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self {
            x,
            weight,
            first,
            unpacked,
            mut out,
        } = self;
        let whole = weight.layout.blocks();
        let stride = whole * BLOCK;
        let count = out.first().map_or(0, |part| part.len());
        for from in (0..count).step_by(COLUMNS) {
            let len = COLUMNS.min(count - from);
            for (o, unpacked) in unpacked.chunks_exact_mut(stride).take(len).enumerate() {
                weight.unpack(first + from + o, (0, whole), unpacked);
            }
            let here = Rows {
                values: &*unpacked,
                len,
                width: x.width,
                stride,
            };
            for ((_, x), out) in x.parts(ROWS).zip(out.chunks_mut(ROWS)) {
                products(simd, here, x, &[], |o, r, value| out[r][from + o] = value);
            }
        }
    }
}

/// Rows or columns of a task: few enough that every thread has some, a multiple of a block.
fn panel(count: usize) -> usize {
    let share = count.div_ceil(2 * rayon::current_num_threads());
    share.next_multiple_of(BLOCK).clamp(2 * BLOCK, PANEL)
}

/// The blocks of each stretch of [`DEPTH`] values.
fn depths(blocks: usize) -> impl Iterator<Item = (usize, usize)> {
    let step = DEPTH / BLOCK;
    (0..blocks)
        .step_by(step)
        .map(move |from| (from, (from + step).min(blocks)))
}

/// `[n, rows]` by the library's product with panels of weight rows.
fn many_rows(x: Rows<'_>, weight: Blocks<'_>) -> Vec<f32> {
    let rows = weight.rows();
    let mut out = vec![0f32; x.len * rows];
    let panel = panel(rows);
    column_tasks(&mut out, rows, panel)
        .into_par_iter()
        .enumerate()
        .for_each_init(
            || (vec![0f32; panel * DEPTH], vec![0f32; x.len * panel]),
            |(unpacked, sums), (task, out)| {
                let first = task * panel;
                let count = panel.min(rows - first);
                let sums = &mut sums[..x.len * count];
                for (from, to) in depths(weight.layout.blocks()) {
                    let stride = (to - from) * BLOCK;
                    let unpacked = &mut unpacked[..count * stride];
                    weight.unpack_rows(first, (from, to), unpacked);
                    let (low, high) = (from * BLOCK, (to * BLOCK).min(x.width));
                    let here = Rows {
                        values: &*unpacked,
                        len: count,
                        width: high - low,
                        stride,
                    };
                    let right = matrix(here).transpose();
                    add_product(sums, from == 0, x.columns(low, high), right);
                }
                hand_out(sums, out);
            },
        );
    out
}

/// Adds `left [n, d] · right [d, count]` to `sums [n, count]`, or puts it there if it is the first.
fn add_product(sums: &mut [f32], is_first: bool, left: Rows<'_>, right: MatRef<'_, f32>) {
    let accumulate = match is_first {
        true => Accum::Replace,
        false => Accum::Add,
    };
    matmul(
        MatMut::from_row_major_slice_mut(sums, left.len, right.ncols()),
        accumulate,
        matrix(left),
        right,
        1.0,
        Par::Seq,
    );
}

/// Copies the rows of a task to where they belong.
fn hand_out(sums: &[f32], out: Vec<&mut [f32]>) {
    let mut sums = sums;
    for out in out {
        let (row, rest) = sums.split_at(out.len());
        out.copy_from_slice(row);
        sums = rest;
    }
}

/// `grad [n, rows] · weight [rows, width]`.
pub fn project_packed_grad(
    grad: FlexTensor,
    words: FlexTensor,
    scales: FlexTensor,
    layout: PackedLayout,
) -> FlexTensor {
    let blocks = Blocks::new(&words, &scales, layout).filter(|_| all_f32(&[&grad]));
    let Some(weight) = blocks else {
        return packed::project_grad::<Flex>(grad, words, scales, layout);
    };
    let ([n, rows], width) = (dims::<2>(&grad), layout.width);
    let grad = contiguous(grad);
    let grad = Rows::packed(values(&grad), rows);
    let mut out = vec![0f32; n * width];
    let panel = panel(width);
    column_tasks(&mut out, width, panel)
        .into_par_iter()
        .enumerate()
        .for_each_init(
            || (vec![0f32; panel * DEPTH], vec![0f32; n * panel]),
            |(unpacked, sums), (task, out)| {
                let first = task * panel;
                let count = panel.min(width - first);
                let sums = &mut sums[..n * count];
                let here = (first / BLOCK, (first + count).div_ceil(BLOCK));
                let stride = (here.1 - here.0) * BLOCK;
                for from in (0..rows).step_by(DEPTH) {
                    let to = (from + DEPTH).min(rows);
                    let unpacked = &mut unpacked[..(to - from) * stride];
                    weight.unpack_rows(from, here, unpacked);
                    let panel = Rows {
                        values: &*unpacked,
                        len: to - from,
                        width: count,
                        stride,
                    };
                    add_product(sums, from == 0, grad.columns(from, to), matrix(panel));
                }
                hand_out(sums, out);
            },
        );
    tensor(out, [n, width])
}
