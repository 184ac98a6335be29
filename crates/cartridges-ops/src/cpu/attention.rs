//! Attention with an online softmax over tiles of keys (Milakov & Gimelshein 2018; Dao et al. 2022).

use burn::backend::Flex;
use burn_flex::FlexTensor;
use faer::linalg::matmul::matmul;
use faer::{Accum, MatMut, MatRef, Par};
use pulp::{Arch, Simd, WithSimd};
use rayon::prelude::*;

use super::blocks::{Heads, Job, TILE_KEYS, Task, jobs, matrix, tasks};
use super::simd::{self, vectorize};
use super::slices::{all_f32, contiguous, dims, tensor, values};
use super::tiles::{self, Rows};
use crate::layout::AttentionLayout;
use crate::portable;

/// Up to this many rows (queries × grouped heads) a job goes without the library's packed products.
const FEW_ROWS: usize = 8;

pub fn attention_forward(
    q: FlexTensor,
    k: FlexTensor,
    v: FlexTensor,
    layout: AttentionLayout,
) -> (FlexTensor, FlexTensor) {
    if !all_f32(&[&q, &k, &v]) {
        return portable::attention_forward::<Flex>(q, k, v, layout);
    }
    let [n, heads, dim] = dims::<3>(&q);
    let [_, kv_heads, _] = dims::<3>(&k);
    let shape = Heads {
        heads,
        kv_heads,
        dim,
    };
    let (q, k, v) = (contiguous(q), contiguous(k), contiguous(v));
    let (qs, ks, vs) = (values(&q), values(&k), values(&v));
    let tasks = tasks(n, kv_heads);
    let parts: Vec<_> = tasks
        .par_iter()
        .map(|task| forward_block(shape, qs, ks, vs, &layout, *task))
        .collect();
    let mut out = vec![0f32; n * heads * dim];
    let mut log_sum = vec![0f32; n * heads];
    let sums = Heads { dim: 1, ..shape };
    for (task, (part_out, part_sum)) in tasks.iter().zip(&parts) {
        shape.scatter(part_out, *task, &mut out);
        sums.scatter(part_sum, *task, &mut log_sum);
    }
    (tensor(out, [n, heads, dim]), tensor(log_sum, [n, heads]))
}

/// Output `[rows, d]` and log-sums `[rows]` of one block, rows being queries × grouped heads.
fn forward_block(
    shape: Heads,
    q: &[f32],
    k: &[f32],
    v: &[f32],
    layout: &AttentionLayout,
    task: Task,
) -> (Vec<f32>, Vec<f32>) {
    let d = shape.dim;
    let q = shape.gather(q, task, 1.0 / (d as f32).sqrt());
    let rows = q.len() / d;
    let mut out = vec![0f32; rows * d];
    let mut max = vec![f32::NEG_INFINITY; rows];
    let mut sum = vec![0f32; rows];
    let mut scores = vec![0f32; rows * TILE_KEYS];
    for job in jobs(layout, task.lo, task.hi) {
        let group = shape.group();
        let (from, to) = ((job.lo - task.lo) * group, (job.hi - task.lo) * group);
        for tile in (0..job.len).step_by(TILE_KEYS) {
            let width = TILE_KEYS.min(job.len - tile);
            let scores = &mut scores[..(to - from) * width];
            let keys = shape.keys(k, task.kv_head, job.start + tile, width);
            let queries = Rows::packed(&q[from * d..to * d], d);
            let few = queries.len <= FEW_ROWS;
            if few {
                Arch::new().dispatch(FewScores {
                    scores,
                    queries,
                    keys,
                });
            } else {
                product(scores, queries, keys);
            }
            vectorize(
                #[inline(always)]
                || {
                    softmax_tile(
                        scores,
                        width,
                        tile,
                        &job,
                        group,
                        &mut max[from..to],
                        &mut sum[from..to],
                        &mut out[from * d..to * d],
                        d,
                    )
                },
            );
            let values = shape.keys(v, task.kv_head, job.start + tile, width);
            let out = &mut out[from * d..to * d];
            if few {
                Arch::new().dispatch(FewSums {
                    weights: Rows::packed(scores, width),
                    values,
                    out,
                });
            } else {
                matmul(
                    MatMut::from_row_major_slice_mut(out, to - from, d),
                    Accum::Add,
                    MatRef::from_row_major_slice(scores, to - from, width),
                    matrix(values),
                    1.0,
                    Par::Seq,
                );
            }
        }
    }
    vectorize(
        #[inline(always)]
        || {
            for ((out, max), sum) in out.chunks_exact_mut(d).zip(&mut max).zip(&sum) {
                // A row that may see nothing gets zeros.
                let scale = if *sum > 0.0 { 1.0 / sum } else { 0.0 };
                for x in out {
                    *x *= scale;
                }
                *max += sum.ln();
            }
        },
    );
    (out, max)
}

/// `scores [rows, keys] = queries · keysᵀ`.
pub fn product(scores: &mut [f32], queries: Rows<'_>, keys: Rows<'_>) {
    matmul(
        MatMut::from_row_major_slice_mut(scores, queries.len, keys.len),
        Accum::Replace,
        matrix(queries),
        matrix(keys).transpose(),
        1.0,
        Par::Seq,
    );
}

/// [`product`] for few queries, where packing them costs more than the products.
struct FewScores<'a> {
    scores: &'a mut [f32],
    queries: Rows<'a>,
    keys: Rows<'a>,
}

impl WithSimd for FewScores<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let width = self.keys.len;
        for (key, keys) in self.keys.parts(tiles::COLUMNS) {
            for (row, queries) in self.queries.parts(tiles::ROWS) {
                tiles::products(simd, keys, queries, &[], |o, r, value| {
                    self.scores[(row + r) * width + key + o] = value;
                });
            }
        }
    }
}

/// `out [rows, d] += weights [rows, keys] · values` for few rows.
struct FewSums<'a> {
    weights: Rows<'a>,
    values: Rows<'a>,
    out: &'a mut [f32],
}

impl WithSimd for FewSums<'_> {
    type Output = ();

    #[inline(always)]
    fn with_simd<S: Simd>(self, simd: S) {
        let parts = self.out.chunks_mut(tiles::ROWS * self.values.width);
        for ((_, weights), out) in self.weights.parts(tiles::ROWS).zip(parts) {
            tiles::weighted_sums(simd, weights, self.values, out);
        }
    }
}

/// How many of the tile's keys `row` of the job sees.
#[inline(always)]
pub fn seen(job: &Job, group: usize, row: usize, tile: usize, width: usize) -> usize {
    job.visible(job.lo + row / group)
        .saturating_sub(tile)
        .min(width)
}

/// Turns one tile of scores into weights relative to the new running maxima and rescales what has
/// been summed so far.
#[inline(always)]
#[allow(clippy::too_many_arguments)] // one inner loop, cut out for its compilation target
fn softmax_tile(
    scores: &mut [f32],
    width: usize,
    tile: usize,
    job: &Job,
    group: usize,
    max: &mut [f32],
    sum: &mut [f32],
    out: &mut [f32],
    d: usize,
) {
    for (row, scores) in scores.chunks_exact_mut(width).enumerate() {
        let seen = seen(job, group, row, tile, width);
        let (visible, hidden) = scores.split_at_mut(seen);
        hidden.fill(0.0);
        if visible.is_empty() {
            continue;
        }
        let new_max = simd::max(visible).max(max[row]);
        let keep = simd::exp(max[row] - new_max);
        sum[row] = sum[row] * keep + simd::exp_sum(visible, new_max);
        max[row] = new_max;
        if keep != 1.0 {
            for x in &mut out[row * d..(row + 1) * d] {
                *x *= keep;
            }
        }
    }
}
