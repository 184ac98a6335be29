//! Products with weight rows: our own for few rows of input, the library's GEMM for many.
//!
//! With few rows the work is reading the weights once; a blocked GEMM packs them first and
//! runs small products on one thread, which costs several times as much.

use burn::backend::Flex;
use burn_flex::FlexTensor;
use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use super::slices::{all_f32, contiguous, dims, tensor, values};
use super::tiles::{self, COLUMNS as OUT_BLOCK, ROWS as ROW_BLOCK};
use crate::portable;

/// From this many input rows on, the blocked GEMM wins.
const GEMM_ROWS: usize = 192;
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
            // The next weight rows come from memory while these are multiplied.
            let next = &w[((block + 1) * step).min(w.len())..((block + 2) * step).min(w.len())];
            let mut ahead = next.chunks(next.len().div_ceil(tiles).max(1));
            for (x, out) in x.chunks(ROW_BLOCK * width).zip(out.chunks_mut(ROW_BLOCK)) {
                let ahead = ahead.next().unwrap_or_default();
                tiles::products(simd, here, x, width, ahead, |o, r, value| {
                    out[r][block * OUT_BLOCK + o] = value;
                });
            }
        }
    }
}
