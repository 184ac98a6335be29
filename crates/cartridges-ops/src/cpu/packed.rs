//! Products with packed weight rows, which are unpacked on the way: into registers for a few rows of
//! input, into the cache for many.

use std::array;
use std::borrow::Cow;

use burn::backend::{DType, Flex};
use burn::tensor::FloatDType;
use burn_flex::FlexTensor;
use faer::linalg::matmul::matmul;
use faer::{Accum, MatMut, MatRef, Par};
use half::f16;
use half::slice::HalfFloatSliceExt;
use pulp::Simd;
use rayon::prelude::*;

use super::blocks::matrix;
use super::simd::prefetch;
use super::slices::{all_f32, contiguous, dims, tensor, values};
use super::tiles::{COLUMNS, ROWS, Rows, column_tasks, products, rows_per_task};
use super::unpack::{Blocks, Unpack, UnpackRows, WithUnpack, Words};
use crate::packed::{self, BLOCK, PackedLayout, Packing};

/// From this many input rows on, the library's blocked product wins over tiles in registers.
const MANY_ROWS: usize = 96;
/// Weight rows, or columns of the gradient, of one task of the library's product.
const PANEL: usize = 256;
/// Words that come from memory while others are multiplied.
const AHEAD: usize = 2048;
/// Values of the contraction that are unpacked at a time: a panel stays in the second cache.
const DEPTH: usize = 1024;

/// The blocks in plain order, if the fast loops apply to them.
fn blocks<'a>(
    words: &'a FlexTensor,
    scales: &'a FlexTensor,
    layout: PackedLayout,
) -> Option<Blocks<'a>> {
    if words.dtype() != DType::I32 || scales.dtype() != DType::F16 {
        return None;
    }
    Some(Blocks {
        words: words.as_slice::<i32>()?,
        scales: scales.as_slice::<f16>()?,
        layout,
    })
}

pub fn unpack(
    words: FlexTensor,
    scales: FlexTensor,
    layout: PackedLayout,
    dtype: FloatDType,
) -> FlexTensor {
    let blocks = blocks(&words, &scales, layout).filter(|_| dtype == FloatDType::F32);
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
    let blocks = blocks(&words, &scales, layout).filter(|_| all_f32(&[&x]));
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
    let stride = weight.layout.blocks() * BLOCK;
    let padded = padded(x, stride);
    let x = Rows::packed(&padded, stride);
    let task_rows = rows_per_task(rows, stride * x.len.max(1));
    column_tasks(&mut out, rows, task_rows)
        .into_par_iter()
        .enumerate()
        .for_each_init(
            || vec![0f32; COLUMNS * weight.layout.blocks()],
            |scales, (task, out)| {
                let first = task * task_rows;
                FewRows {
                    x,
                    weight,
                    first,
                    scales,
                    out,
                }
                .dispatch();
            },
        );
    out
}

/// The rows with zeros up to the end of their last block.
fn padded(x: Rows<'_>, stride: usize) -> Cow<'_, [f32]> {
    if x.width == stride {
        return Cow::Borrowed(x.values);
    }
    let mut out = vec![0f32; x.len * stride];
    for (at, out) in out.chunks_exact_mut(stride).enumerate() {
        out[..x.width].copy_from_slice(x.row(at));
    }
    Cow::Owned(out)
}

/// `out[r][o] = w_(first + o) · x_r`, where the rows of `x` are whole blocks.
struct FewRows<'a> {
    x: Rows<'a>,
    weight: Blocks<'a>,
    first: usize,
    /// Room for the scales of [`COLUMNS`] rows.
    scales: &'a mut [f32],
    out: Vec<&'a mut [f32]>,
}

impl WithUnpack for FewRows<'_> {
    #[inline(always)]
    fn with_unpack<U: Unpack>(self, unpack: U) {
        match self.weight.layout.packing {
            _ if !U::IN_REGISTERS => self.through_cache(unpack),
            Packing::Q8 => self.in_registers::<U, [i32; 8]>(unpack),
            Packing::Q4 => self.in_registers::<U, [i32; 4]>(unpack),
        }
    }
}

impl FewRows<'_> {
    #[inline(always)]
    fn in_registers<U: Unpack, W: Words>(self, unpack: U) {
        let Self {
            x,
            weight,
            first,
            scales,
            mut out,
        } = self;
        let count = out.first().map_or(0, |part| part.len());
        for from in (0..count).step_by(COLUMNS) {
            let len = COLUMNS.min(count - from);
            let (words, halves) = weight.part(first + from, len);
            let scales = &mut scales[..halves.len()];
            halves.convert_to_f32_slice(scales);
            let here = Packed {
                words: W::blocks(words),
                scales,
            };
            let mut ahead = weight.ahead(first + from + len, AHEAD, words.len());
            for ((_, x), out) in x.parts(ROWS).zip(out.chunks_mut(ROWS)) {
                let ahead = std::mem::take(&mut ahead);
                let put = |o: usize, r: usize, value| out[r][from + o] = value;
                match (len, x.len) {
                    (4, 4) => tile::<U, W, 4, 4>(unpack, here, x, ahead, put),
                    (4, 3) => tile::<U, W, 4, 3>(unpack, here, x, ahead, put),
                    (4, 2) => tile::<U, W, 4, 2>(unpack, here, x, ahead, put),
                    (4, 1) => tile::<U, W, 4, 1>(unpack, here, x, ahead, put),
                    _ => one_by_one(unpack, here, x, put),
                }
            }
        }
    }

    #[inline(always)]
    fn through_cache<U: Unpack>(self, unpack: U) {
        let Self {
            x,
            weight,
            first,
            mut out,
            ..
        } = self;
        let count = out.first().map_or(0, |part| part.len());
        let mut unpacked = vec![0f32; COLUMNS * x.width];
        for from in (0..count).step_by(COLUMNS) {
            let len = COLUMNS.min(count - from);
            let unpacked = &mut unpacked[..len * x.width];
            let rows = UnpackRows {
                weight,
                first: first + from,
                blocks: (0, weight.layout.blocks()),
                out: unpacked,
            };
            rows.with_unpack(unpack);
            let here = Rows::packed(&*unpacked, x.width);
            for ((_, x), out) in x.parts(ROWS).zip(out.chunks_mut(ROWS)) {
                let put = |o: usize, r: usize, value| out[r][from + o] = value;
                products(unpack.simd(), here, x, &[], put);
            }
        }
    }
}

/// Packed weight rows with their scales in f32.
#[derive(Clone, Copy)]
struct Packed<'a, W> {
    words: &'a [W],
    scales: &'a [f32],
}

impl<W> Packed<'_, W> {
    /// Row `at` of `blocks` blocks.
    #[inline(always)]
    fn row(&self, at: usize, blocks: usize) -> Self {
        let here = at * blocks..(at + 1) * blocks;
        Self {
            words: &self.words[here.clone()],
            scales: &self.scales[here],
        }
    }
}

/// The products of any number of rows.
#[inline(always)]
fn one_by_one<U: Unpack, W: Words>(
    unpack: U,
    weight: Packed<'_, W>,
    x: Rows<'_>,
    mut put: impl FnMut(usize, usize, f32),
) {
    let blocks = x.width / BLOCK;
    for o in 0..weight.scales.len() / blocks {
        for (r, x) in x.parts(1) {
            let here = weight.row(o, blocks);
            tile::<U, W, 1, 1>(unpack, here, x, &[], |_, _, value| put(o, r, value));
        }
    }
}

/// Hands `put(o, r, weight_o · x_r)` every product of `O` with `R` rows, and calls `ahead` into the
/// cache meanwhile.
#[inline(always)]
fn tile<U: Unpack, W: Words, const O: usize, const R: usize>(
    unpack: U,
    weight: Packed<'_, W>,
    x: Rows<'_>,
    ahead: &[i32],
    mut put: impl FnMut(usize, usize, f32),
) {
    let simd = unpack.simd();
    let blocks = x.width / BLOCK;
    let weight: [_; O] = array::from_fn(|o| weight.row(o, blocks));
    let x: [_; R] = array::from_fn(|r| &x.row(r).as_chunks::<BLOCK>().0[..blocks]);
    let mut sums = [[simd.splat_f32s(0.0); R]; O];
    for at in 0..blocks {
        prefetch(ahead, at, blocks);
        for o in 0..O {
            let block = weight[o].words[at].unpack(unpack, weight[o].scales[at]);
            for r in 0..R {
                let x = <U::Simd as Simd>::as_simd_f32s(&x[r][at]).0;
                for (weight, x) in U::vectors(&block).iter().zip(x) {
                    sums[o][r] = simd.mul_add_e_f32s(*weight, *x, sums[o][r]);
                }
            }
        }
    }
    for (o, sums) in sums.into_iter().enumerate() {
        for (r, sum) in sums.into_iter().enumerate() {
            put(o, r, simd.reduce_sum_f32s(sum));
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
    let blocks = blocks(&words, &scales, layout).filter(|_| all_f32(&[&grad]));
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
