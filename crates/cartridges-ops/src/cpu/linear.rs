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
use super::tiles::{COLUMNS, ROWS, Rows, column_tasks, products, rows_per_task};
use crate::portable;

/// From this many input rows on, the blocked GEMM wins.
const GEMM_ROWS: usize = 192;

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
    let (x, w) = (Rows::packed(values(&x), width), values(&weight));
    let block = rows_per_task(out_rows, width * n);
    let mut out = vec![0f32; n * out_rows];
    column_tasks(&mut out, out_rows, block)
        .into_par_iter()
        .zip(w.par_chunks(block * width))
        .for_each(|(out, w)| {
            let w = Rows::packed(w, width);
            Arch::new().dispatch(FewRows { x, w, out });
        });
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

/// `out[r][o] = w_o · x_r`.
struct FewRows<'a> {
    x: Rows<'a>,
    w: Rows<'a>,
    out: Vec<&'a mut [f32]>,
}

impl WithSimd for FewRows<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let Self { x, w, mut out } = self;
        let tiles = x.len.div_ceil(ROWS);
        for (first, here) in w.parts(COLUMNS) {
            // The next weight rows come from memory while these are multiplied.
            let mut ahead = w.pieces(first + COLUMNS, COLUMNS, tiles);
            for ((_, x), out) in x.parts(ROWS).zip(out.chunks_mut(ROWS)) {
                let ahead = ahead.next().unwrap_or_default();
                products(simd, here, x, ahead, |o, r, value| {
                    out[r][first + o] = value
                });
            }
        }
    }
}
