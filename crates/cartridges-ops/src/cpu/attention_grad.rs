//! Gradients of attention; the probabilities are recomputed tile by tile from the log-sums.

use burn::backend::Flex;
use burn_flex::FlexTensor;
use faer::linalg::matmul::matmul;
use faer::{Accum, MatMut, MatRef, Par};
use rayon::prelude::*;

use super::attention::{product, seen};
use super::blocks::{Heads, Job, TILE_KEYS, Task, jobs, matrix, tasks};
use super::simd::{self, vectorize};
use super::slices::{all_f32, contiguous, dims, tensor, values};
use super::tiles::Rows;
use crate::layout::AttentionLayout;
use crate::portable;

pub fn attention_grad(
    q: FlexTensor,
    k: FlexTensor,
    v: FlexTensor,
    out: FlexTensor,
    log_sum: FlexTensor,
    grad: FlexTensor,
    layout: AttentionLayout,
) -> (FlexTensor, FlexTensor, FlexTensor) {
    if !all_f32(&[&q, &k, &v, &out, &log_sum, &grad]) {
        return portable::attention_grad::<Flex>(q, k, v, out, log_sum, grad, layout);
    }
    let [n, heads, dim] = dims::<3>(&q);
    let [m, kv_heads, _] = dims::<3>(&k);
    let shape = Heads {
        heads,
        kv_heads,
        dim,
    };
    let [q, k, v, out, log_sum, grad] = [q, k, v, out, log_sum, grad].map(contiguous);
    let inputs = Inputs {
        q: values(&q),
        k: values(&k),
        v: values(&v),
        out: values(&out),
        log_sum: values(&log_sum),
        grad: values(&grad),
    };
    let tasks = tasks(n, kv_heads);
    let parts: Vec<Part> = tasks
        .par_iter()
        .map(|task| grad_block(shape, &inputs, &layout, *task))
        .collect();
    let mut dq = vec![0f32; n * heads * dim];
    let mut dk = vec![0f32; m * kv_heads * dim];
    let mut dv = vec![0f32; m * kv_heads * dim];
    for (task, part) in tasks.iter().zip(&parts) {
        shape.scatter(&part.dq, *task, &mut dq);
        for (job, job_dk, job_dv) in &part.keys {
            add_rows(&mut dk, job_dk, shape, job.start, task.kv_head);
            add_rows(&mut dv, job_dv, shape, job.start, task.kv_head);
        }
    }
    (
        tensor(dq, [n, heads, dim]),
        tensor(dk, [m, kv_heads, dim]),
        tensor(dv, [m, kv_heads, dim]),
    )
}

struct Inputs<'a> {
    q: &'a [f32],
    k: &'a [f32],
    v: &'a [f32],
    out: &'a [f32],
    log_sum: &'a [f32],
    grad: &'a [f32],
}

/// What one block adds to the gradients: its own query rows, and key rows per job.
struct Part {
    dq: Vec<f32>,
    keys: Vec<(Job, Vec<f32>, Vec<f32>)>,
}

fn add_rows(total: &mut [f32], part: &[f32], shape: Heads, start: usize, kv_head: usize) {
    let stride = shape.kv_heads * shape.dim;
    for (i, row) in part.chunks_exact(shape.dim).enumerate() {
        let at = (start + i) * stride + kv_head * shape.dim;
        for (t, x) in total[at..at + shape.dim].iter_mut().zip(row) {
            *t += x;
        }
    }
}

fn grad_block(shape: Heads, inputs: &Inputs, layout: &AttentionLayout, task: Task) -> Part {
    let d = shape.dim;
    let group = shape.group();
    let scale = 1.0 / (d as f32).sqrt();
    let q = shape.gather(inputs.q, task, scale);
    let grad = shape.gather(inputs.grad, task, 1.0);
    let out = shape.gather(inputs.out, task, 1.0);
    let log_sum = Heads { dim: 1, ..shape }.gather(inputs.log_sum, task, 1.0);
    let rows = log_sum.len();
    let delta: Vec<f32> = vectorize(
        #[inline(always)]
        || {
            let pairs = out.chunks_exact(d).zip(grad.chunks_exact(d));
            pairs.map(|(o, g)| simd::dot(o, g)).collect()
        },
    );
    let mut dq = vec![0f32; rows * d];
    let mut p = vec![0f32; rows * TILE_KEYS];
    let mut ds = vec![0f32; rows * TILE_KEYS];
    let mut keys = Vec::new();
    for job in jobs(layout, task.lo, task.hi) {
        let (from, to) = ((job.lo - task.lo) * group, (job.hi - task.lo) * group);
        let count = to - from;
        let job_q = &q[from * d..to * d];
        let job_grad = &grad[from * d..to * d];
        let mut job_dk = vec![0f32; job.len * d];
        let mut job_dv = vec![0f32; job.len * d];
        for tile in (0..job.len).step_by(TILE_KEYS) {
            let width = TILE_KEYS.min(job.len - tile);
            let (p, ds) = (&mut p[..count * width], &mut ds[..count * width]);
            let tile_keys = shape.keys(inputs.k, task.kv_head, job.start + tile, width);
            let tile_values = shape.keys(inputs.v, task.kv_head, job.start + tile, width);
            product(p, Rows::packed(job_q, d), tile_keys);
            product(ds, Rows::packed(job_grad, d), tile_values);
            vectorize(
                #[inline(always)]
                || {
                    let tiles = p.chunks_exact_mut(width).zip(ds.chunks_exact_mut(width));
                    for (row, (p, ds)) in tiles.enumerate() {
                        let seen = seen(&job, group, row, tile, width);
                        let (shift, delta) = (log_sum[from + row], delta[from + row]);
                        for (p, ds) in p[..seen].iter_mut().zip(&mut ds[..seen]) {
                            *p = simd::exp(*p - shift);
                            *ds = *p * (*ds - delta);
                        }
                        p[seen..].fill(0.0);
                        ds[seen..].fill(0.0);
                    }
                },
            );
            let p = MatRef::from_row_major_slice(p, count, width);
            let ds = MatRef::from_row_major_slice(ds, count, width);
            let turn = |out: &mut [f32], weights: MatRef<'_, f32>, rows: &[f32]| {
                matmul(
                    MatMut::from_row_major_slice_mut(out, width, d),
                    Accum::Replace,
                    weights.transpose(),
                    MatRef::from_row_major_slice(rows, count, d),
                    1.0,
                    Par::Seq,
                );
            };
            let at = tile * d..(tile + width) * d;
            turn(&mut job_dv[at.clone()], p, job_grad);
            // q carries the scale already, so this is the whole of dk.
            turn(&mut job_dk[at], ds, job_q);
            matmul(
                MatMut::from_row_major_slice_mut(&mut dq[from * d..to * d], count, d),
                Accum::Add,
                ds,
                matrix(tile_keys),
                scale,
                Par::Seq,
            );
        }
        keys.push((job, job_dk, job_dv));
    }
    Part { dq, keys }
}
