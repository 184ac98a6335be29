//! Bodies in Burn's own primitives: blocks of rows are unpacked, multiplied and dropped.

use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Backend, TensorMetadata};
use burn::tensor::{FloatDType, Shape, Slice};

use super::{BLOCK, PackedLayout, Packing};
use crate::traits::DecoderOps;

/// Values that are unpacked at a time: 32 MiB of f32.
const UNPACKED_VALUES: usize = 8 << 20;

/// The values `[rows, width]` of packed rows.
pub fn unpack<B: Backend>(
    words: IntTensor<B>,
    scales: FloatTensor<B>,
    layout: PackedLayout,
    dtype: FloatDType,
) -> FloatTensor<B> {
    let [rows, blocks]: [usize; 2] = scales.shape().dims();
    let count = layout.packing.block_words();
    let words = B::int_reshape(words, Shape::from([rows * blocks, 1, count, 1]));
    // Of every byte the bits from `from` on; flipping the top one turns two's complement into an offset.
    let part = |from: usize, flip: i64, mask: i64, offset: i64| {
        let bytes = (0..4).map(|byte| {
            let shift = (8 * byte + from) as i64;
            let shifted = B::bitwise_right_shift_scalar(words.clone(), shift.into());
            let flipped = B::bitwise_xor_scalar(shifted, flip.into());
            B::int_sub_scalar(B::bitwise_and_scalar(flipped, mask.into()), offset.into())
        });
        B::int_cat(bytes.collect(), 3)
    };
    let integers = match layout.packing {
        Packing::Q8 => part(0, 0x80, 0xFF, 128),
        Packing::Q4 => B::int_cat(vec![part(0, 0, 15, 8), part(4, 0, 15, 8)], 1),
    };
    let integers = B::int_reshape(integers, Shape::from([rows, blocks, BLOCK]));
    let integers = B::int_into_float(integers, dtype);
    let scales = B::float_reshape(scales, Shape::from([rows, blocks, 1]));
    let values = B::float_mul(integers, B::float_cast(scales, dtype));
    let values = B::float_reshape(values, Shape::from([rows, blocks * BLOCK]));
    match layout.width == blocks * BLOCK {
        true => values,
        false => B::float_slice(
            values,
            &[Slice::from(0..rows), Slice::from(0..layout.width)],
        ),
    }
}

/// The rows `from .. to` of a packed matrix, unpacked.
fn unpack_part<B: DecoderOps>(
    words: &IntTensor<B>,
    scales: &FloatTensor<B>,
    layout: PackedLayout,
    (from, to): (usize, usize),
    dtype: FloatDType,
) -> FloatTensor<B> {
    let slices = |columns: usize| [Slice::from(from..to), Slice::from(0..columns)];
    B::unpack(
        B::int_slice(words.clone(), &slices(layout.row_words())),
        B::float_slice(scales.clone(), &slices(layout.blocks())),
        layout,
        dtype,
    )
}

/// First and last row of every part that is unpacked at a time.
fn parts(rows: usize, width: usize) -> impl Iterator<Item = (usize, usize)> {
    let step = (UNPACKED_VALUES / width).max(1);
    (0..rows)
        .step_by(step)
        .map(move |from| (from, (from + step).min(rows)))
}

/// `x [n, width] · weightᵀ`, giving `[n, rows]`.
pub fn project<B: DecoderOps>(
    x: FloatTensor<B>,
    words: IntTensor<B>,
    scales: FloatTensor<B>,
    layout: PackedLayout,
) -> FloatTensor<B> {
    let [rows, _]: [usize; 2] = scales.shape().dims();
    let dtype = x.dtype().into();
    let products = parts(rows, layout.width).map(|part| {
        let weight = unpack_part::<B>(&words, &scales, layout, part, dtype);
        B::float_matmul(x.clone(), B::float_transpose(weight))
    });
    B::float_cat(products.collect(), 1)
}

/// `grad [n, rows] · weight`, giving `[n, width]`.
pub fn project_grad<B: DecoderOps>(
    grad: FloatTensor<B>,
    words: IntTensor<B>,
    scales: FloatTensor<B>,
    layout: PackedLayout,
) -> FloatTensor<B> {
    let [n, rows]: [usize; 2] = grad.shape().dims();
    let dtype = grad.dtype().into();
    let products = parts(rows, layout.width).map(|(from, to)| {
        let weight = unpack_part::<B>(&words, &scales, layout, (from, to), dtype);
        let grad = B::float_slice(grad.clone(), &[Slice::from(0..n), Slice::from(from..to)]);
        B::float_matmul(grad, weight)
    });
    match products.reduce(B::float_add) {
        Some(sum) => sum,
        None => B::float_zeros(Shape::from([n, layout.width]), &grad.device(), dtype),
    }
}
