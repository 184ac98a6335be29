//! Norms, rotations, SwiGLU and the writing of rows, one launch each.

use std::sync::Arc;

use burn::backend::TensorMetadata;
use burn::backend::ops::IntTensorOps;
use burn::tensor::TensorData;
use burn_cubecl::CubeBackend;
use burn_cubecl::kernel::into_contiguous;
use burn_cubecl::tensor::CubeTensor;
use cubecl::ir::ElemType;
use cubecl::prelude::*;

use super::{UNITS, buffer, common, cube_sum, cubes, dims, elementwise, empty};
use crate::portable;

/// Rows that are written one range after another, without a list of them on the device.
const FEW_RANGES: usize = 2;

#[cube(launch)]
fn rms_norm_kernel<T: Float>(
    x: &[T],
    gamma: &[T],
    out: &mut [T],
    rows: usize,
    width: usize,
    eps: f32,
    #[comptime] units: usize,
    #[define(T)] _element: ElemType,
) {
    let row = CUBE_POS as usize;
    if row >= rows {
        terminate!();
    }
    let start = row * width;
    let mut squares = 0f32;
    let mut i = UNIT_POS as usize;
    while i < width {
        let value = f32::cast_from(x[start + i]);
        squares += value * value;
        i += units;
    }
    let mean = cube_sum(squares, units) / width as f32;
    let scale = 1f32 / (mean + eps).sqrt();
    let mut i = UNIT_POS as usize;
    while i < width {
        let value = f32::cast_from(x[start + i]) * scale * f32::cast_from(gamma[i]);
        out[start + i] = T::cast_from(value);
        i += units;
    }
}

pub fn rms_norm(x: CubeTensor, gamma: CubeTensor, eps: f64) -> CubeTensor {
    let Some(element) = common(&[&x, &gamma]) else {
        return portable::rms_norm::<CubeBackend>(x, gamma, eps);
    };
    let [rows, width] = dims(&x);
    let out = empty(&x, [rows, width], x.dtype);
    rms_norm_kernel::launch(
        &out.client,
        cubes(rows),
        CubeDim::new_1d(UNITS),
        buffer(x),
        buffer(gamma),
        out.clone().into_buffer_arg(),
        rows,
        width,
        eps as f32,
        UNITS as usize,
        element,
    );
    out
}

/// `dx = r·gγ − x · r³/h · Σ(gγ·x)`, with `r` the inverse RMS.
#[cube(launch)]
fn rms_norm_grad_kernel<T: Float>(
    x: &[T],
    gamma: &[T],
    grad: &[T],
    out: &mut [T],
    rows: usize,
    width: usize,
    eps: f32,
    #[comptime] units: usize,
    #[define(T)] _element: ElemType,
) {
    let row = CUBE_POS as usize;
    if row >= rows {
        terminate!();
    }
    let start = row * width;
    let mut squares = 0f32;
    let mut dot = 0f32;
    let mut i = UNIT_POS as usize;
    while i < width {
        let value = f32::cast_from(x[start + i]);
        let scaled = f32::cast_from(grad[start + i]) * f32::cast_from(gamma[i]);
        squares += value * value;
        dot += value * scaled;
        i += units;
    }
    let mean = cube_sum(squares, units) / width as f32;
    let r = 1f32 / (mean + eps).sqrt();
    let along = cube_sum(dot, units) * r * r * r / width as f32;
    let mut i = UNIT_POS as usize;
    while i < width {
        let value = f32::cast_from(x[start + i]);
        let scaled = f32::cast_from(grad[start + i]) * f32::cast_from(gamma[i]);
        out[start + i] = T::cast_from(scaled * r - value * along);
        i += units;
    }
}

pub fn rms_norm_grad(x: CubeTensor, gamma: CubeTensor, grad: CubeTensor, eps: f64) -> CubeTensor {
    let Some(element) = common(&[&x, &gamma, &grad]) else {
        return portable::rms_norm_grad::<CubeBackend>(x, gamma, grad, eps);
    };
    let [rows, width] = dims(&x);
    let out = empty(&x, [rows, width], x.dtype);
    rms_norm_grad_kernel::launch(
        &out.client,
        cubes(rows),
        CubeDim::new_1d(UNITS),
        buffer(x),
        buffer(gamma),
        buffer(grad),
        out.clone().into_buffer_arg(),
        rows,
        width,
        eps as f32,
        UNITS as usize,
        element,
    );
    out
}

/// A unit turns one pair; `sign` is −1 to turn back.
#[cube(launch)]
fn rotary_kernel<T: Float>(
    x: &[T],
    cos: &[T],
    sin: &[T],
    out: &mut [T],
    pairs: usize,
    heads: usize,
    half: usize,
    sign: f32,
    #[define(T)] _element: ElemType,
) {
    let pair = ABSOLUTE_POS as usize;
    if pair >= pairs {
        terminate!();
    }
    let column = pair % half;
    let head = pair / half;
    let angle = head / heads * half + column;
    let first = head * half * 2 + column;
    let a = f32::cast_from(x[first]);
    let b = f32::cast_from(x[first + half]);
    let c = f32::cast_from(cos[angle]);
    let s = f32::cast_from(sin[angle]) * sign;
    out[first] = T::cast_from(a * c - b * s);
    out[first + half] = T::cast_from(b * c + a * s);
}

pub fn rotary(x: CubeTensor, cos: CubeTensor, sin: CubeTensor, inverse: bool) -> CubeTensor {
    let Some(element) = common(&[&x, &cos, &sin]) else {
        return portable::rotary::<CubeBackend>(x, cos, sin, inverse);
    };
    let [n, heads, d] = dims(&x);
    let out = empty(&x, [n, heads, d], x.dtype);
    let pairs = n * heads * d / 2;
    let (count, dim) = elementwise(pairs);
    rotary_kernel::launch(
        &out.client,
        count,
        dim,
        buffer(x),
        buffer(cos),
        buffer(sin),
        out.clone().into_buffer_arg(),
        pairs,
        heads,
        d / 2,
        if inverse { -1.0 } else { 1.0 },
        element,
    );
    out
}

#[cube(launch)]
fn swiglu_kernel<T: Float>(
    gate: &[T],
    up: &[T],
    out: &mut [T],
    elements: usize,
    #[define(T)] _element: ElemType,
) {
    let i = ABSOLUTE_POS as usize;
    if i >= elements {
        terminate!();
    }
    let g = f32::cast_from(gate[i]);
    let silu = g / (1f32 + (-g).exp());
    out[i] = T::cast_from(silu * f32::cast_from(up[i]));
}

pub fn swiglu(gate: CubeTensor, up: CubeTensor) -> CubeTensor {
    let Some(element) = common(&[&gate, &up]) else {
        return portable::swiglu::<CubeBackend>(gate, up);
    };
    let out = empty(&gate, gate.shape(), gate.dtype);
    let elements = out.shape().num_elements();
    let (count, dim) = elementwise(elements);
    swiglu_kernel::launch(
        &out.client,
        count,
        dim,
        buffer(gate),
        buffer(up),
        out.clone().into_buffer_arg(),
        elements,
        element,
    );
    out
}

#[cube(launch)]
fn swiglu_grad_kernel<T: Float>(
    gate: &[T],
    up: &[T],
    grad: &[T],
    d_gate: &mut [T],
    d_up: &mut [T],
    elements: usize,
    #[define(T)] _element: ElemType,
) {
    let i = ABSOLUTE_POS as usize;
    if i >= elements {
        terminate!();
    }
    let g = f32::cast_from(gate[i]);
    let upstream = f32::cast_from(grad[i]);
    let s = 1f32 / (1f32 + (-g).exp());
    let silu = g * s;
    d_gate[i] = T::cast_from(upstream * f32::cast_from(up[i]) * (s + silu * (1f32 - s)));
    d_up[i] = T::cast_from(upstream * silu);
}

pub fn swiglu_grad(gate: CubeTensor, up: CubeTensor, grad: CubeTensor) -> (CubeTensor, CubeTensor) {
    let Some(element) = common(&[&gate, &up, &grad]) else {
        return portable::swiglu_grad::<CubeBackend>(gate, up, grad);
    };
    let d_gate = empty(&gate, gate.shape(), gate.dtype);
    let d_up = empty(&gate, gate.shape(), gate.dtype);
    let elements = gate.shape().num_elements();
    let (count, dim) = elementwise(elements);
    swiglu_grad_kernel::launch(
        &d_gate.client,
        count,
        dim,
        buffer(gate),
        buffer(up),
        buffer(grad),
        d_gate.clone().into_buffer_arg(),
        d_up.clone().into_buffer_arg(),
        elements,
        element,
    );
    (d_gate, d_up)
}

#[cube(launch)]
fn write_rows_kernel<T: Float>(
    pool: &mut [T],
    at: &[i32],
    rows: &[T],
    elements: usize,
    width: usize,
    #[define(T)] _element: ElemType,
) {
    let i = ABSOLUTE_POS as usize;
    if i >= elements {
        terminate!();
    }
    let row = at[i / width] as usize;
    pool[row * width + i % width] = rows[i];
}

pub fn write_rows(pool: CubeTensor, at: Arc<[usize]>, rows: CubeTensor) -> CubeTensor {
    let ranges = at.chunk_by(|a, b| a + 1 == *b).count();
    let Some(element) = common(&[&pool, &rows]).filter(|_| ranges > FEW_RANGES) else {
        return portable::write_rows::<CubeBackend>(pool, at, rows);
    };
    let pool = match pool.can_mut() && pool.is_contiguous() {
        true => pool,
        false => into_contiguous(pool.copy()),
    };
    let [r, heads, d] = dims(&rows);
    let list: Vec<i32> = at.iter().map(|row| *row as i32).collect();
    let list = CubeBackend::int_from_data(TensorData::new(list, [r]), &pool.device);
    let elements = r * heads * d;
    let (count, dim) = elementwise(elements);
    write_rows_kernel::launch(
        &pool.client,
        count,
        dim,
        pool.clone().into_buffer_arg(),
        list.into_buffer_arg(),
        buffer(rows),
        elements,
        heads * d,
        element,
    );
    pool
}
