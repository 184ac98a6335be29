//! Products with weight rows: our own for few rows of input, the library's GEMM for many.
//!
//! With few rows the work is reading the weights once; a blocked GEMM packs them first and
//! runs small products on one thread, which costs several times as much.

use burn::backend::Flex;
use burn_flex::FlexTensor;
use rayon::prelude::*;

use super::simd::{LANES, vectorize};
use super::slices::{all_f32, contiguous, dims, tensor, values};
use crate::portable;

/// From this many input rows on, the blocked GEMM wins.
const GEMM_ROWS: usize = 24;
/// Input rows that share one pass over a weight row.
const ROW_BLOCK: usize = 4;
/// Weight rows that share one pass over the input rows.
const OUT_BLOCK: usize = 4;
/// Multiply-adds worth a task of its own.
const TASK: usize = 64 * 1024;

pub fn linear(x: FlexTensor, weight: FlexTensor) -> FlexTensor {
    let [n, width] = dims::<2>(&x);
    if n >= GEMM_ROWS || !all_f32(&[&x, &weight]) || weight.as_slice::<f32>().is_none() {
        return portable::linear::<Flex>(x, weight);
    }
    let [out_rows, _] = dims::<2>(&weight);
    let x = contiguous(x);
    let (x, w) = (values(&x), values(&weight));
    let block = TASK.div_ceil(width * n).next_multiple_of(OUT_BLOCK);
    // Filled as [out, n] so that tasks own contiguous parts, then turned.
    let mut turned = vec![0f32; out_rows * n];
    turned
        .par_chunks_mut(block * n)
        .zip(w.par_chunks(block * width))
        .for_each(|(out, w)| vectorize(|| few_rows(x, w, out, n, width)));
    if n == 1 {
        return tensor(turned, [1, out_rows]);
    }
    let mut out = vec![0f32; n * out_rows];
    for (r, row) in out.chunks_exact_mut(out_rows).enumerate() {
        for (o, value) in row.iter_mut().enumerate() {
            *value = turned[o * n + r];
        }
    }
    tensor(out, [n, out_rows])
}

/// `out[o, r] = w_o · x_r` for the weight rows in `w`.
#[inline(always)]
fn few_rows(x: &[f32], w: &[f32], out: &mut [f32], n: usize, width: usize) {
    for (w, out) in w
        .chunks(OUT_BLOCK * width)
        .zip(out.chunks_mut(OUT_BLOCK * n))
    {
        let outs = w.len() / width;
        let mut r = 0;
        while r < n {
            let rows = ROW_BLOCK.min(n - r);
            let x = &x[r * width..(r + rows) * width];
            match (outs, rows) {
                (4, 4) => tile::<4, 4>(x, w, width, |o, i, v| out[o * n + r + i] = v),
                (4, 1) => tile::<4, 1>(x, w, width, |o, i, v| out[o * n + r + i] = v),
                (4, 2) => tile::<4, 2>(x, w, width, |o, i, v| out[o * n + r + i] = v),
                (4, 3) => tile::<4, 3>(x, w, width, |o, i, v| out[o * n + r + i] = v),
                _ => {
                    for o in 0..outs {
                        for i in 0..rows {
                            tile::<1, 1>(&x[i * width..], &w[o * width..], width, |_, _, v| {
                                out[o * n + r + i] = v;
                            });
                        }
                    }
                }
            }
            r += rows;
        }
    }
}

/// All products of `O` weight rows with `R` input rows, held in registers.
#[inline(always)]
fn tile<const O: usize, const R: usize>(
    x: &[f32],
    w: &[f32],
    width: usize,
    mut put: impl FnMut(usize, usize, f32),
) {
    let mut acc = [[[0f32; LANES]; R]; O];
    let full = width - width % LANES;
    let mut at = 0;
    while at < full {
        for o in 0..O {
            let w = &w[o * width + at..o * width + at + LANES];
            for r in 0..R {
                let x = &x[r * width + at..r * width + at + LANES];
                for i in 0..LANES {
                    acc[o][r][i] += w[i] * x[i];
                }
            }
        }
        at += LANES;
    }
    for o in 0..O {
        for r in 0..R {
            let mut sum: f32 = acc[o][r].iter().sum();
            for i in full..width {
                sum += w[o * width + i] * x[r * width + i];
            }
            put(o, r, sum);
        }
    }
}
