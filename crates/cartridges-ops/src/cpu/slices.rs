//! Getting at the numbers of a CPU tensor and making tensors from them.

use std::sync::Arc;

use burn::backend::{DType, Flex, TensorMetadata};
use burn::tensor::{Shape, TensorData};
use burn_flex::FlexTensor;
use half::bf16;

/// Whether the fast f32 loops apply to all of these.
pub fn all_f32(tensors: &[&FlexTensor]) -> bool {
    tensors.iter().all(|t| t.dtype() == DType::F32)
}

/// The tensor with its rows in plain order; free when it already is.
pub fn contiguous(tensor: FlexTensor) -> FlexTensor {
    if tensor.as_slice::<f32>().is_some() {
        tensor
    } else {
        tensor.to_contiguous()
    }
}

/// The values of a tensor that [`contiguous`] has made.
pub fn values(tensor: &FlexTensor) -> &[f32] {
    match tensor.as_slice::<f32>() {
        Some(values) => values,
        None => unreachable!("contiguous f32 tensors have a slice"),
    }
}

/// The bf16 values of a tensor in plain order.
pub fn bf16_values(tensor: &FlexTensor) -> &[bf16] {
    match tensor.as_slice::<bf16>() {
        Some(values) => values,
        None => unreachable!("contiguous bf16 tensors have a slice"),
    }
}

/// A tensor from its values.
pub fn tensor(values: Vec<f32>, shape: impl Into<Shape>) -> FlexTensor {
    FlexTensor::from_data(TensorData::new(values, shape.into()))
}

/// The dimensions.
pub fn dims<const N: usize>(tensor: &FlexTensor) -> [usize; N] {
    tensor.shape().dims()
}

/// Overwrites rows of a pool, in place when the pool has no other owner.
pub fn write_rows(mut pool: FlexTensor, at: Arc<[usize]>, rows: FlexTensor) -> FlexTensor {
    if !all_f32(&[&pool, &rows]) || pool.as_slice::<f32>().is_none() {
        return crate::portable::write_rows::<Flex>(pool, at, rows);
    }
    let [_, heads, d] = dims::<3>(&pool);
    let rows = contiguous(rows);
    let width = heads * d;
    let offset = pool.layout().start_offset();
    let target = pool.storage_mut::<f32>();
    for (row, to) in values(&rows).chunks_exact(width).zip(at.iter()) {
        let from = offset + to * width;
        target[from..from + width].copy_from_slice(row);
    }
    pool
}
