//! Products with weight rows: our own for few rows of input, the library's GEMM for many.
//!
//! With few rows the work is reading the weights once; a blocked GEMM packs them first and
//! runs small products on one thread, which costs several times as much.

use burn::backend::{DType, Flex, TensorMetadata};
use burn_flex::FlexTensor;
use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use super::bf16::Bf16;
use super::slices::{all_f32, bf16_values, contiguous, dims, tensor, values};
use super::tiles::{self, COLUMNS as OUT_BLOCK, ROWS as ROW_BLOCK, column_tasks};
use crate::portable;

/// From this many input rows on, the blocked GEMM wins.
const GEMM_ROWS: usize = 192;
/// Multiply-adds worth a task of its own.
const TASK: usize = 64 * 1024;
/// Tasks a thread gets at most, so that late threads can take from slow ones.
const TASKS_PER_THREAD: usize = 8;

pub fn linear(x: FlexTensor, weight: FlexTensor) -> FlexTensor {
    if let Some((bf16, weight)) = fast_bf16(&x, &weight) {
        let ([n, width], [out_rows, _]) = (dims::<2>(&x), dims::<2>(&weight));
        let weight = bf16_values(&weight);
        let out = bf16.linear(values(&contiguous(x)), weight, width);
        return tensor(out, [n, out_rows]);
    }
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
    column_tasks(&mut out, out_rows, block)
        .into_par_iter()
        .zip(w.par_chunks(block * width))
        .for_each(|(out, w)| Arch::new().dispatch(FewRows { x, w, out, width }));
    tensor(out, [n, out_rows])
}

/// `grad [n, out] · weight [out, in]`.
pub fn linear_grad(grad: FlexTensor, weight: FlexTensor) -> FlexTensor {
    let Some((bf16, weight)) = fast_bf16(&grad, &weight) else {
        return portable::linear_grad::<Flex>(grad, weight);
    };
    let ([n, _], [_, width]) = (dims::<2>(&grad), dims::<2>(&weight));
    let weight = bf16_values(&weight);
    let out = bf16.linear_grad(values(&contiguous(grad)), weight, width);
    tensor(out, [n, width])
}

/// The processor's bf16 products and the weights in plain order, where both apply.
fn fast_bf16(x: &FlexTensor, weight: &FlexTensor) -> Option<(Bf16, FlexTensor)> {
    let fits = all_f32(&[x]) && weight.dtype() == DType::BF16;
    let bf16 = Bf16::detect().filter(|_| fits && x.shape().num_elements() > 0)?;
    Some((bf16, weight.to_contiguous()))
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
