//! Row-wise operations: norms, rotary positions, the gated activation.

use burn::backend::Flex;
use burn_flex::FlexTensor;
use rayon::prelude::*;

use super::simd::{self, vectorize};
use super::slices::{all_f32, contiguous, dims, tensor, values};
use crate::portable;

/// Values that one rayon task works on, so that small tensors stay on one thread.
const TASK: usize = 16 * 1024;

fn rows_per_task(width: usize) -> usize {
    TASK.div_ceil(width.max(1))
}

pub fn rms_norm(x: FlexTensor, gamma: FlexTensor, eps: f64) -> FlexTensor {
    if !all_f32(&[&x, &gamma]) {
        return portable::rms_norm::<Flex>(x, gamma, eps);
    }
    let [n, h] = dims::<2>(&x);
    let (x, gamma) = (contiguous(x), contiguous(gamma));
    let (input, gamma) = (values(&x), values(&gamma));
    let mut out = vec![0f32; n * h];
    let block = rows_per_task(h) * h;
    out.par_chunks_mut(block)
        .zip(input.par_chunks(block))
        .for_each(|(out, x)| {
            vectorize(
                #[inline(always)]
                || {
                    for (out, x) in out.chunks_exact_mut(h).zip(x.chunks_exact(h)) {
                        let scale = inverse_rms(x, eps);
                        for ((o, x), g) in out.iter_mut().zip(x).zip(gamma) {
                            *o = x * scale * g;
                        }
                    }
                },
            )
        });
    tensor(out, [n, h])
}

#[inline(always)]
fn inverse_rms(x: &[f32], eps: f64) -> f32 {
    let mean = f64::from(simd::dot(x, x)) / x.len() as f64;
    (1.0 / (mean + eps).sqrt()) as f32
}

pub fn rms_norm_grad(x: FlexTensor, gamma: FlexTensor, grad: FlexTensor, eps: f64) -> FlexTensor {
    if !all_f32(&[&x, &gamma, &grad]) {
        return portable::rms_norm_grad::<Flex>(x, gamma, grad, eps);
    }
    let [n, h] = dims::<2>(&x);
    let (x, gamma, grad) = (contiguous(x), contiguous(gamma), contiguous(grad));
    let (input, gamma, grad) = (values(&x), values(&gamma), values(&grad));
    let mut out = vec![0f32; n * h];
    let block = rows_per_task(h) * h;
    out.par_chunks_mut(block)
        .zip(input.par_chunks(block))
        .zip(grad.par_chunks(block))
        .for_each(|((out, x), grad)| {
            vectorize(
                #[inline(always)]
                || {
                    let rows = x.chunks_exact(h).zip(grad.chunks_exact(h));
                    for (out, (x, grad)) in out.chunks_exact_mut(h).zip(rows) {
                        let r = inverse_rms(x, eps);
                        for ((o, g), w) in out.iter_mut().zip(grad).zip(gamma) {
                            *o = g * w * r;
                        }
                        // Σ(gγ·r·x) · r²/h = Σ(gγx) · r³/h
                        let along = simd::dot(out, x) * r * r / h as f32;
                        for (o, x) in out.iter_mut().zip(x) {
                            *o -= x * along;
                        }
                    }
                },
            )
        });
    tensor(out, [n, h])
}

pub fn rotary(x: FlexTensor, cos: FlexTensor, sin: FlexTensor, inverse: bool) -> FlexTensor {
    if !all_f32(&[&x, &cos, &sin]) {
        return portable::rotary::<Flex>(x, cos, sin, inverse);
    }
    let [n, heads, d] = dims::<3>(&x);
    let half = d / 2;
    let (x, cos, sin) = (contiguous(x), contiguous(cos), contiguous(sin));
    let (input, cos, sin) = (values(&x), values(&cos), values(&sin));
    let sign = if inverse { -1f32 } else { 1f32 };
    let mut out = vec![0f32; n * heads * d];
    let rows = rows_per_task(heads * d);
    out.par_chunks_mut(rows * heads * d)
        .zip(input.par_chunks(rows * heads * d))
        .zip(cos.par_chunks(rows * half).zip(sin.par_chunks(rows * half)))
        .for_each(|((out, x), (cos, sin))| {
            vectorize(
                #[inline(always)]
                || {
                    let angles = cos.chunks_exact(half).zip(sin.chunks_exact(half));
                    let rows = out
                        .chunks_exact_mut(heads * d)
                        .zip(x.chunks_exact(heads * d));
                    for ((out, x), (cos, sin)) in rows.zip(angles) {
                        for (out, x) in out.chunks_exact_mut(d).zip(x.chunks_exact(d)) {
                            let (o1, o2) = out.split_at_mut(half);
                            let (x1, x2) = x.split_at(half);
                            for i in 0..half {
                                let s = sin[i] * sign;
                                o1[i] = x1[i] * cos[i] - x2[i] * s;
                                o2[i] = x2[i] * cos[i] + x1[i] * s;
                            }
                        }
                    }
                },
            )
        });
    tensor(out, [n, heads, d])
}

pub fn swiglu(gate: FlexTensor, up: FlexTensor) -> FlexTensor {
    if !all_f32(&[&gate, &up]) {
        return portable::swiglu::<Flex>(gate, up);
    }
    let shape = dims::<2>(&gate);
    let (gate, up) = (contiguous(gate), contiguous(up));
    let (gate, up) = (values(&gate), values(&up));
    let mut out = vec![0f32; gate.len()];
    out.par_chunks_mut(TASK)
        .zip(gate.par_chunks(TASK).zip(up.par_chunks(TASK)))
        .for_each(|(out, (gate, up))| {
            vectorize(
                #[inline(always)]
                || {
                    for ((o, &g), &u) in out.iter_mut().zip(gate).zip(up) {
                        *o = g / (1.0 + simd::exp(-g)) * u;
                    }
                },
            )
        });
    tensor(out, shape)
}

pub fn swiglu_grad(gate: FlexTensor, up: FlexTensor, grad: FlexTensor) -> (FlexTensor, FlexTensor) {
    if !all_f32(&[&gate, &up, &grad]) {
        return portable::swiglu_grad::<Flex>(gate, up, grad);
    }
    let shape = dims::<2>(&gate);
    let (gate, up, grad) = (contiguous(gate), contiguous(up), contiguous(grad));
    let (gate, up, grad) = (values(&gate), values(&up), values(&grad));
    let mut d_gate = vec![0f32; gate.len()];
    let mut d_up = vec![0f32; gate.len()];
    d_gate
        .par_chunks_mut(TASK)
        .zip(d_up.par_chunks_mut(TASK))
        .zip(gate.par_chunks(TASK).zip(up.par_chunks(TASK)))
        .zip(grad.par_chunks(TASK))
        .for_each(|(((d_gate, d_up), (gate, up)), grad)| {
            vectorize(
                #[inline(always)]
                || {
                    for i in 0..gate.len() {
                        let s = 1.0 / (1.0 + simd::exp(-gate[i]));
                        let silu = gate[i] * s;
                        d_gate[i] = grad[i] * up[i] * (s + silu * (1.0 - s));
                        d_up[i] = grad[i] * silu;
                    }
                },
            )
        });
    (tensor(d_gate, shape), tensor(d_up, shape))
}
