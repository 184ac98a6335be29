//! Kernels for CUDA, Vulkan, Metal, DirectX 12 and WebGPU, written once in CubeCL.
//!
//! What a decoder does most often is small: one row through norms, rotations and products. Composed of Burn's
//! primitives that is some sixty launches a layer, and a product of one row is tuned among twenty kernels
//! that are compiled for it. Here it is one launch for each operation, and nothing is tuned. Sums are kept in
//! f32 whatever the elements are. Kernels bind at most eight buffers, as many as WebGPU promises.

mod attention;
mod products;
mod rows;

use burn::backend::TensorMetadata;
use burn::tensor::{DType, Shape};
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::ops::numeric::empty_device_contiguous_dtype;
use burn_cubecl::tensor::CubeTensor;
use cubecl::ir::{ElemType, FloatKind};
use cubecl::prelude::*;

pub use attention::{attention_forward, attention_grad};
pub use products::{project, project_packed, unpack};
pub use rows::{rms_norm, rms_norm_grad, rotary, swiglu, swiglu_grad, write_rows};

/// The most cubes along one axis of a launch that every device takes.
const MAX_CUBES: usize = 65_535;

/// Units of a cube in kernels that go over all elements.
const UNITS: u32 = 256;

/// The element type for a kernel, of the types that the kernels are written for.
fn element(dtype: DType) -> Option<ElemType> {
    match dtype {
        DType::F32 => Some(ElemType::Float(FloatKind::F32)),
        DType::F16 => Some(ElemType::Float(FloatKind::F16)),
        DType::BF16 => Some(ElemType::Float(FloatKind::BF16)),
        _ => None,
    }
}

/// The element type that all tensors share, if the kernels are written for it and there is something to do.
fn common(tensors: &[&CubeTensor]) -> Option<ElemType> {
    let dtype = tensors[0].dtype;
    let same = tensors
        .iter()
        .all(|t| t.dtype == dtype && t.shape().num_elements() > 0);
    element(dtype).filter(|_| same)
}

fn dims<const N: usize>(tensor: &CubeTensor) -> [usize; N] {
    tensor.shape().dims()
}

/// An uninitialised tensor without gaps between its rows, on the device of another.
fn empty(like: &CubeTensor, shape: impl Into<Shape>, dtype: DType) -> CubeTensor {
    empty_device_contiguous_dtype(
        like.client.clone(),
        like.device.clone(),
        shape.into(),
        dtype,
    )
}

/// A tensor as a buffer without gaps.
fn buffer(tensor: CubeTensor) -> BufferArg {
    into_contiguous(tensor).into_buffer_arg()
}

/// Cubes for `count` items in two axes; a kernel must pass over positions from `count` on.
fn cubes(count: usize) -> CubeCount {
    let x = count.min(MAX_CUBES);
    CubeCount::Static(x as u32, count.div_ceil(x) as u32, 1)
}

/// Cubes of [`UNITS`] units for a kernel over `elements`, which must pass over positions from there on.
fn elementwise(elements: usize) -> (CubeCount, CubeDim) {
    (
        cubes(elements.div_ceil(UNITS as usize)),
        CubeDim::new_1d(UNITS),
    )
}

/// The sum of `value` over the units of a cube, of which there are `units`, a power of two.
#[cube]
fn cube_sum(value: f32, #[comptime] units: usize) -> f32 {
    let mut parts = Shared::<[f32]>::new_slice(units);
    let unit = UNIT_POS as usize;
    parts[unit] = value;
    sync_cube();
    add_up(&mut parts, 0usize, unit, units);
    parts[0]
}

/// Adds the `count` parts from `first` on into the first of them, all units of the cube together; `at` is the
/// unit's own place among them, and `count` a power of two.
#[cube]
fn add_up(parts: &mut Shared<[f32]>, first: usize, at: usize, #[comptime] count: usize) {
    #[unroll]
    for step in 0..comptime!(count.ilog2()) {
        let half = comptime!(count >> (step + 1));
        if at < half {
            let other = parts[first + at + half];
            parts[first + at] += other;
        }
        sync_cube();
    }
}

/// Sums of a unit, at zero.
#[cube]
fn zeros(#[comptime] count: usize) -> Array<f32> {
    let mut sums = Array::<f32>::new(count);
    #[unroll]
    for i in 0..count {
        sums[i] = 0f32;
    }
    sums
}
