//! The matrices of a frozen model: plain or packed.

use burn::backend::Dispatch;
use burn::tensor::{DType, Device, FloatDType, Int, Tensor, TensorData};

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
    /// Rows and columns.
    pub fn dims(&self) -> [usize; 2] {
        match self {
            Self::Dense(tensor) => tensor.dims(),
            Self::Packed(packed) => [packed.scales.dims()[0], packed.layout.width],
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
        }
    }
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
