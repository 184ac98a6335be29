//! The matrices of a frozen model: plain or packed, whole or in parts.

use burn::backend::Dispatch;
use burn::tensor::{DType, Device, FloatDType, Int, Tensor, TensorData};
use half::bf16;
use rayon::prelude::*;

use crate::device::largest_buffer;
use crate::packed::{PackedLayout, PackedRows};
use crate::traits::DecoderOps;

/// A frozen matrix `[out, in]` as checkpoints store linear maps. No gradient reaches its values.
#[derive(Debug, Clone)]
#[allow(clippy::large_enum_variant)] // a model has a few hundred of them
pub enum Matrix {
    /// One number per element.
    Dense(Tensor<2>),
    /// Blocks of small integers, which are unpacked where they are used.
    Packed(PackedMatrix),
    /// Rows of one matrix below each other: a table that is too large for one buffer of its device.
    Parts(Vec<Matrix>),
}

/// A matrix in blocks on a device.
#[derive(Debug, Clone)]
pub struct PackedMatrix {
    layout: PackedLayout,
    /// `[rows, words of a row]`.
    words: Tensor<2, Int>,
    /// `[rows, blocks]`, f16 where the device has it.
    scales: Tensor<2>,
}

impl From<Tensor<2>> for Matrix {
    fn from(tensor: Tensor<2>) -> Self {
        Self::Dense(tensor)
    }
}

impl From<PackedMatrix> for Matrix {
    fn from(packed: PackedMatrix) -> Self {
        Self::Packed(packed)
    }
}

impl Matrix {
    /// The matrix of plain `values [rows, width]` on `device`, kept as `dtype`; in parts where the device
    /// has no buffer that is large enough.
    ///
    /// # Panics
    /// If `values` are not whole rows.
    pub fn dense(values: Vec<f32>, width: usize, dtype: FloatDType, device: &Device) -> Self {
        Self::dense_within(largest_buffer(device), values, width, dtype, device)
    }

    fn dense_within(
        limit: usize,
        values: Vec<f32>,
        width: usize,
        dtype: FloatDType,
        device: &Device,
    ) -> Self {
        let dtype = DType::from(dtype);
        assert_eq!(values.len() % width, 0, "whole rows");
        let part = |values: Vec<f32>| {
            let shape = [values.len() / width, width];
            let data = match dtype {
                DType::BF16 => TensorData::new(rounded(&values), shape),
                _ => TensorData::new(values, shape),
            };
            Self::Dense(Tensor::from_data(data, (device, dtype)))
        };
        let at_a_time = rows_within(limit, width * dtype.size()).saturating_mul(width);
        match values.len() <= at_a_time {
            true => part(values),
            false => {
                let parts = values.chunks(at_a_time);
                Self::Parts(parts.map(|values| part(values.to_vec())).collect())
            }
        }
    }

    /// The matrix of packed `rows` on `device`; in parts where the device has no buffer that is large
    /// enough.
    pub fn packed(rows: PackedRows, device: &Device) -> Self {
        Self::packed_within(largest_buffer(device), rows, device)
    }

    fn packed_within(limit: usize, rows: PackedRows, device: &Device) -> Self {
        let at_a_time = rows_within(limit, rows.layout().row_words() * size_of::<i32>());
        match rows.rows() <= at_a_time {
            true => PackedMatrix::new(rows, device).into(),
            false => {
                let parts = rows.split(at_a_time);
                Self::Parts(
                    parts
                        .map(|rows| PackedMatrix::new(rows, device).into())
                        .collect(),
                )
            }
        }
    }

    /// Rows and columns.
    pub fn dims(&self) -> [usize; 2] {
        match self {
            Self::Dense(tensor) => tensor.dims(),
            Self::Packed(packed) => [packed.scales.dims()[0], packed.layout.width],
            Self::Parts(parts) => {
                let rows = parts.iter().map(|part| part.dims()[0]).sum();
                [rows, parts.first().map_or(0, |part| part.dims()[1])]
            }
        }
    }

    /// Bytes that it takes on its device.
    pub fn resident_bytes(&self) -> usize {
        let bytes = |elements: usize, dtype: DType| elements * dtype.size();
        match self {
            Self::Dense(tensor) => bytes(tensor.shape().num_elements(), tensor.dtype()),
            Self::Packed(packed) => {
                let PackedMatrix { words, scales, .. } = packed;
                bytes(words.shape().num_elements(), words.dtype())
                    + bytes(scales.shape().num_elements(), scales.dtype())
            }
            Self::Parts(parts) => parts.iter().map(Self::resident_bytes).sum(),
        }
    }

    /// `x [n, in]` times its transpose, giving `[n, out]`. Backward keeps the matrix only.
    pub fn project(&self, x: Tensor<2>) -> Tensor<2> {
        match self {
            Self::Dense(tensor) => crate::linear(x, tensor),
            Self::Packed(packed) => {
                let (words, scales, layout) = packed.parts();
                Tensor::from_dispatch(Dispatch::project_packed(
                    x.into_dispatch(),
                    words.into_dispatch(),
                    scales.into_dispatch(),
                    layout,
                ))
            }
            Self::Parts(parts) => Tensor::cat(
                parts.iter().map(|part| part.project(x.clone())).collect(),
                1,
            ),
        }
    }

    /// Gradient of [`Matrix::project`] for `x`: `grad [n, out]` times the matrix, giving `[n, in]`.
    pub(crate) fn project_grad(&self, grad: Tensor<2>) -> Tensor<2> {
        match self {
            Self::Dense(tensor) => Tensor::from_dispatch(Dispatch::project_grad(
                grad.into_dispatch(),
                tensor.clone().into_dispatch(),
            )),
            Self::Packed(packed) => {
                let (words, scales, layout) = packed.parts();
                Tensor::from_dispatch(Dispatch::project_packed_grad(
                    grad.into_dispatch(),
                    words.into_dispatch(),
                    scales.into_dispatch(),
                    layout,
                ))
            }
            Self::Parts(parts) => {
                let mut sum = Tensor::zeros([grad.dims()[0], self.dims()[1]], &grad.device());
                let mut from = 0;
                for part in parts {
                    let [rows, _] = part.dims();
                    sum = sum + part.project_grad(grad.clone().narrow(1, from, rows));
                    from += rows;
                }
                sum
            }
        }
    }

    /// The rows `at` as numbers of type `dtype`, `[at, in]`.
    pub fn rows(&self, at: Tensor<1, Int>, dtype: FloatDType) -> Tensor<2> {
        match self {
            Self::Dense(tensor) => tensor.clone().select(0, at).cast(dtype),
            Self::Packed(packed) => Tensor::from_dispatch(Dispatch::unpack(
                packed.words.clone().select(0, at.clone()).into_dispatch(),
                packed.scales.clone().select(0, at).into_dispatch(),
                packed.layout,
                dtype,
            )),
            Self::Parts(parts) => {
                let mut found =
                    Tensor::zeros([at.dims()[0], self.dims()[1]], (&at.device(), dtype.into()));
                let mut from = 0;
                for part in parts {
                    let rows = part.dims()[0] as i64;
                    let inside = at.clone() - from;
                    let here = inside.clone().greater_equal_elem(0);
                    let here = here.bool_and(inside.clone().lower_elem(rows));
                    let of_part = part.rows(inside.clamp(0, rows - 1), dtype);
                    found = found.mask_where(here.unsqueeze_dim(1), of_part);
                    from += rows;
                }
                found
            }
        }
    }
}

/// How many rows of `row_bytes` a buffer of `limit` bytes holds; one at least.
fn rows_within(limit: usize, row_bytes: usize) -> usize {
    (limit / row_bytes).max(1)
}

fn rounded(values: &[f32]) -> Vec<bf16> {
    values
        .par_iter()
        .map(|value| bf16::from_f32(*value))
        .collect()
}

impl PackedMatrix {
    /// The rows on `device`.
    pub fn new(rows: PackedRows, device: &Device) -> Self {
        let count = rows.rows();
        let PackedRows {
            layout,
            words,
            scales,
        } = rows;
        let words = TensorData::new(words, [count, layout.row_words()]);
        let words = Tensor::from_data(words, (device, DType::I32));
        let shape = [count, layout.blocks()];
        let scales = match device.supports_dtype(DType::F16) {
            true => Tensor::from_data(TensorData::new(scales, shape), (device, DType::F16)),
            false => {
                let scales: Vec<f32> = scales.into_iter().map(half::f16::to_f32).collect();
                Tensor::from_data(TensorData::new(scales, shape), (device, DType::F32))
            }
        };
        Self {
            layout,
            words,
            scales,
        }
    }

    /// The parts as the operations take them: words, scales and what they mean.
    pub(crate) fn parts(&self) -> (Tensor<2, Int>, Tensor<2>, PackedLayout) {
        (self.words.clone(), self.scales.clone(), self.layout)
    }
}

#[cfg(test)]
mod tests {
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;
    use crate::{Packing, TopkTargets, test_device, topk_cross_entropy};

    #[test]
    fn a_table_in_parts_is_the_whole_table() {
        let device = test_device();
        let mut rng = ChaCha8Rng::seed_from_u64(1);
        let (rows, width) = (23, 40);
        let mut random =
            |len: usize| -> Vec<f32> { (0..len).map(|_| rng.random_range(-1.0..1.0)).collect() };
        let (values, x) = (random(rows * width), random(3 * width));
        let x = Tensor::<2>::from_data(TensorData::new(x, [3, width]), &device);
        let packed = |packing| PackedRows::quantise(&values, PackedLayout { packing, width });
        let dense =
            |limit| Matrix::dense_within(limit, values.clone(), width, FloatDType::F32, &device);
        let q = |limit, packing| Matrix::packed_within(limit, packed(packing), &device);
        let limit = 7 * width * 4;
        let pairs = [
            (dense(usize::MAX), dense(limit)),
            (q(usize::MAX, Packing::Q8), q(limit / 4, Packing::Q8)),
            (q(usize::MAX, Packing::Q4), q(limit / 8, Packing::Q4)),
        ];
        for (whole, parts) in pairs {
            assert!(matches!(&parts, Matrix::Parts(parts) if parts.len() > 2));
            assert_eq!(parts.dims(), [rows, width]);
            assert_eq!(parts.resident_bytes(), whole.resident_bytes());
            let same = |a: Tensor<2>, b: Tensor<2>| {
                a.into_data().assert_approx_eq::<f32>(
                    &b.into_data(),
                    burn::tensor::Tolerance::absolute(1e-5),
                );
            };
            same(parts.project(x.clone()), whole.project(x.clone()));
            let at = Tensor::<1, Int>::from_data([22, 0, 7, 6, 13, 7], &device);
            let look = |m: &Matrix| m.rows(at.clone(), FloatDType::F32);
            same(look(&parts), look(&whole));
            let targets = TopkTargets::new(vec![(0, 3, 0.5), (0, 22, 0.4), (2, 8, 1.0)], 3, rows);
            let targets = targets.unwrap();
            let (loss, grad) = topk_cross_entropy(x.clone(), &parts, &targets);
            let (wanted, wanted_grad) = topk_cross_entropy(x.clone(), &whole, &targets);
            assert!((loss - wanted).abs() < 1e-5 * wanted);
            same(grad, wanted_grad);
        }
    }
}
