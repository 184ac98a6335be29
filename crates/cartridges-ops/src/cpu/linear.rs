//! Products with weight rows: our own for few rows of input, the library's GEMM for many.
//!
//! With few rows the work is reading the weights once; a blocked GEMM packs them first and
//! runs small products on one thread, which costs several times as much.

use std::array;

use burn::backend::Flex;
use burn_flex::FlexTensor;
use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use super::simd::{LINE, prefetch};
use super::slices::{all_f32, contiguous, dims, tensor, values};
use crate::portable;

/// From this many input rows on, the blocked GEMM wins.
const GEMM_ROWS: usize = 192;
/// Input rows that share one pass over a weight row.
const ROW_BLOCK: usize = 4;
/// Weight rows that share one pass over the input rows.
const OUT_BLOCK: usize = 4;
/// Multiply-adds worth a task of its own.
const TASK: usize = 64 * 1024;
/// Tasks a thread gets at most, so that late threads can take from slow ones.
const TASKS_PER_THREAD: usize = 8;

pub fn linear(x: FlexTensor, weight: FlexTensor) -> FlexTensor {
    let [n, width] = dims::<2>(&x);
    if n >= GEMM_ROWS || !all_f32(&[&x, &weight]) || weight.as_slice::<f32>().is_none() {
        return portable::linear::<Flex>(x, weight);
    }
    let [out_rows, _] = dims::<2>(&weight);
    let x = contiguous(x);
    let (x, w) = (values(&x), values(&weight));
    let least = TASK.div_ceil(width * n);
    let share = out_rows.div_ceil(TASKS_PER_THREAD * rayon::current_num_threads());
    let block = least.max(share).next_multiple_of(OUT_BLOCK);
    let mut out = vec![0f32; n * out_rows];
    // Every task owns one column block: a part of each output row.
    let mut columns: Vec<_> = w
        .chunks(block * width)
        .map(|w| (w, Vec::with_capacity(n)))
        .collect();
    for row in out.chunks_exact_mut(out_rows) {
        for (part, (_, parts)) in row.chunks_mut(block).zip(&mut columns) {
            parts.push(part);
        }
    }
    columns.into_par_iter().for_each(|(w, out)| {
        Arch::new().dispatch(FewRows { x, w, out, width });
    });
    tensor(out, [n, out_rows])
}

/// `out[r][o] = w_o · x_r` for the weight rows in `w`.
struct FewRows<'a> {
    x: &'a [f32],
    w: &'a [f32],
    out: Vec<&'a mut [f32]>,
    width: usize,
}

impl WithSimd for FewRows<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self {
            x,
            w,
            mut out,
            width,
        } = self;
        let step = OUT_BLOCK * width;
        let tiles = out.len().div_ceil(ROW_BLOCK);
        for (block, here) in w.chunks(step).enumerate() {
            let outs = here.len() / width;
            // The next weight rows come from memory while these are multiplied.
            let next = &w[((block + 1) * step).min(w.len())..((block + 2) * step).min(w.len())];
            let mut ahead = next.chunks(next.len().div_ceil(tiles).max(1));
            for (x, out) in x.chunks(ROW_BLOCK * width).zip(out.chunks_mut(ROW_BLOCK)) {
                let ahead = ahead.next().unwrap_or_default();
                let put = |o: usize, r: usize, value| out[r][block * OUT_BLOCK + o] = value;
                match (outs, x.len() / width) {
                    (4, 4) => tile::<S, 4, 4>(simd, x, here, ahead, width, put),
                    (4, 3) => tile::<S, 4, 3>(simd, x, here, ahead, width, put),
                    (4, 2) => tile::<S, 4, 2>(simd, x, here, ahead, width, put),
                    (4, 1) => tile::<S, 4, 1>(simd, x, here, ahead, width, put),
                    _ => single::<S>(simd, x, here, width, put),
                }
            }
        }
    }
}

/// All products of `O` weight rows with `R` input rows, held in registers; calls `ahead` into the
/// cache meanwhile.
#[inline(always)]
fn tile<S: Simd, const O: usize, const R: usize>(
    simd: S,
    x: &[f32],
    w: &[f32],
    ahead: &[f32],
    width: usize,
    mut put: impl FnMut(usize, usize, f32),
) {
    let w: [_; O] = array::from_fn(|o| S::as_simd_f32s(&w[o * width..(o + 1) * width]));
    let x: [_; R] = array::from_fn(|r| S::as_simd_f32s(&x[r * width..(r + 1) * width]));
    let steps = w[0].0.len();
    let w_vectors: [_; O] = array::from_fn(|o| &w[o].0[..steps]);
    let x_vectors: [_; R] = array::from_fn(|r| &x[r].0[..steps]);
    let mut sums = [[simd.splat_f32s(0.0); R]; O];
    let lines = ahead.len().div_ceil(LINE * steps.max(1));
    for at in 0..steps {
        for line in at * lines..(at + 1) * lines {
            prefetch(ahead, line * LINE);
        }
        for o in 0..O {
            for r in 0..R {
                sums[o][r] = simd.mul_add_e_f32s(w_vectors[o][at], x_vectors[r][at], sums[o][r]);
            }
        }
    }
    for o in 0..O {
        for r in 0..R {
            let tail: f32 = w[o].1.iter().zip(x[r].1).map(|(w, x)| w * x).sum();
            put(o, r, simd.reduce_sum_f32s(sums[o][r]) + tail);
        }
    }
}

/// The same, one product at a time, for what does not fill a tile.
#[inline(always)]
fn single<S: Simd>(
    simd: S,
    x: &[f32],
    w: &[f32],
    width: usize,
    mut put: impl FnMut(usize, usize, f32),
) {
    for (o, w) in w.chunks_exact(width).enumerate() {
        for (r, x) in x.chunks_exact(width).enumerate() {
            tile::<S, 1, 1>(simd, x, w, &[], width, |_, _, value| put(o, r, value));
        }
    }
}
