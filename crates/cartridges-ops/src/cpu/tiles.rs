//! Products small enough to be held in registers from start to end.

use std::{array, slice};

use pulp::Simd;

use super::simd::prefetch;

/// Rows of the right side that share one pass over the left side.
pub const ROWS: usize = 4;
/// Rows of the left side that share one pass over the right side.
pub const COLUMNS: usize = 4;

/// For every task the part of each row of `out` that it fills, `count` values wide.
pub fn column_tasks(out: &mut [f32], width: usize, count: usize) -> Vec<Vec<&mut [f32]>> {
    let rows = out.len() / width;
    let mut tasks: Vec<Vec<&mut [f32]>> = (0..width.div_ceil(count))
        .map(|_| Vec::with_capacity(rows))
        .collect();
    for row in out.chunks_exact_mut(width) {
        for (part, task) in row.chunks_mut(count).zip(&mut tasks) {
            task.push(part);
        }
    }
    tasks
}

/// Rows of a task: few enough that every thread has some and late threads can take from slow ones, enough
/// to be worth a task. `work` is in multiply-adds per row.
pub fn rows_per_task(rows: usize, work: usize) -> usize {
    const LEAST_WORK: usize = 64 * 1024;
    const TASKS_PER_THREAD: usize = 8;
    let share = rows.div_ceil(TASKS_PER_THREAD * rayon::current_num_threads());
    share
        .max(LEAST_WORK.div_ceil(work))
        .next_multiple_of(COLUMNS)
}

/// Rows of equal width, `stride` values apart.
#[derive(Debug, Clone, Copy)]
pub struct Rows<'a, T = f32> {
    pub values: &'a [T],
    pub len: usize,
    pub width: usize,
    pub stride: usize,
}

impl<'a, T: Copy> Rows<'a, T> {
    /// Rows that follow one another.
    #[inline(always)]
    pub fn packed(values: &'a [T], width: usize) -> Self {
        let (len, stride) = (values.len() / width, width);
        Self {
            values,
            len,
            width,
            stride,
        }
    }

    #[inline(always)]
    pub fn row(&self, at: usize) -> &'a [T] {
        &self.values[at * self.stride..at * self.stride + self.width]
    }

    /// `len` rows from `start` on, fewer at the end.
    #[inline(always)]
    pub fn part(&self, start: usize, len: usize) -> Self {
        Self {
            values: &self.values[start * self.stride..],
            len: len.min(self.len - start),
            ..*self
        }
    }

    /// The values `from .. to` of every row.
    #[inline(always)]
    pub fn columns(&self, from: usize, to: usize) -> Self {
        Self {
            values: &self.values[from..],
            width: to - from,
            ..*self
        }
    }

    /// The values of the `len` rows from `start` on, fewer at the end, in `pieces` of about one length.
    #[inline(always)]
    pub fn pieces(&self, start: usize, len: usize, pieces: usize) -> slice::Chunks<'a, T> {
        let end = self.values.len();
        let from = (start * self.stride).min(end);
        let values = &self.values[from..(from + len * self.stride).min(end)];
        values.chunks(values.len().div_ceil(pieces).max(1))
    }

    /// All rows in parts of `len`, each with its first row's number.
    #[inline(always)]
    pub fn parts(self, len: usize) -> impl Iterator<Item = (usize, Self)> {
        (0..self.len)
            .step_by(len)
            .map(move |start| (start, self.part(start, len)))
    }
}

/// Hands `put(o, r, left_o · right_r)` every product of at most [`COLUMNS`] with at most [`ROWS`] rows,
/// and calls `ahead` into the cache meanwhile.
#[inline(always)]
pub fn products<S: Simd>(
    simd: S,
    left: Rows<'_>,
    right: Rows<'_>,
    ahead: &[f32],
    mut put: impl FnMut(usize, usize, f32),
) {
    match (left.len, right.len) {
        (4, 4) => tile::<S, 4, 4>(simd, left, right, ahead, put),
        (4, 3) => tile::<S, 4, 3>(simd, left, right, ahead, put),
        (4, 2) => tile::<S, 4, 2>(simd, left, right, ahead, put),
        (4, 1) => tile::<S, 4, 1>(simd, left, right, ahead, put),
        _ => {
            for (o, left) in left.parts(1) {
                for (r, right) in right.parts(1) {
                    tile::<S, 1, 1>(simd, left, right, &[], |_, _, value| put(o, r, value));
                }
            }
        }
    }
}

#[inline(always)]
fn tile<S: Simd, const O: usize, const R: usize>(
    simd: S,
    left: Rows<'_>,
    right: Rows<'_>,
    ahead: &[f32],
    mut put: impl FnMut(usize, usize, f32),
) {
    let left: [_; O] = array::from_fn(|o| S::as_simd_f32s(left.row(o)));
    let right: [_; R] = array::from_fn(|r| S::as_simd_f32s(right.row(r)));
    let steps = left[0].0.len();
    let left_vectors: [_; O] = array::from_fn(|o| &left[o].0[..steps]);
    let right_vectors: [_; R] = array::from_fn(|r| &right[r].0[..steps]);
    let mut sums = [[simd.splat_f32s(0.0); R]; O];
    for at in 0..steps {
        prefetch(ahead, at, steps);
        for o in 0..O {
            for r in 0..R {
                sums[o][r] =
                    simd.mul_add_e_f32s(left_vectors[o][at], right_vectors[r][at], sums[o][r]);
            }
        }
    }
    for o in 0..O {
        for r in 0..R {
            let tail: f32 = left[o].1.iter().zip(right[r].1).map(|(a, b)| a * b).sum();
            put(o, r, simd.reduce_sum_f32s(sums[o][r]) + tail);
        }
    }
}

/// `out_r += Σ_j weights_rj · values_j` for at most [`ROWS`] rows of weights.
#[inline(always)]
pub fn weighted_sums<S: Simd>(simd: S, weights: Rows<'_>, values: Rows<'_>, out: &mut [f32]) {
    match weights.len {
        4 => sums::<S, 4>(simd, weights, values, out),
        3 => sums::<S, 3>(simd, weights, values, out),
        2 => sums::<S, 2>(simd, weights, values, out),
        _ => {
            for ((_, weights), out) in weights.parts(1).zip(out.chunks_exact_mut(values.width)) {
                sums::<S, 1>(simd, weights, values, out);
            }
        }
    }
}

#[inline(always)]
fn sums<S: Simd, const R: usize>(simd: S, weights: Rows<'_>, values: Rows<'_>, out: &mut [f32]) {
    let width = values.width;
    let weights: [_; R] = array::from_fn(|r| weights.row(r));
    let vectors = S::as_simd_f32s(&out[..width]).0.len();
    let tail = width - S::as_simd_f32s(&out[..width]).1.len();
    let mut column = 0;
    while column + 2 <= vectors {
        columns::<S, R, 2>(simd, weights, values, out, column);
        column += 2;
    }
    if column < vectors {
        columns::<S, R, 1>(simd, weights, values, out, column);
    }
    for r in 0..R {
        for at in tail..width {
            let sum: f32 = (0..values.len)
                .map(|j| weights[r][j] * values.row(j)[at])
                .sum();
            out[r * width + at] += sum;
        }
    }
}

/// The vectors `column .. column + C` of all sums.
#[inline(always)]
#[allow(clippy::needless_range_loop)] // fixed arrays that are to stay in registers
fn columns<S: Simd, const R: usize, const C: usize>(
    simd: S,
    weights: [&[f32]; R],
    values: Rows<'_>,
    out: &mut [f32],
    column: usize,
) {
    let mut sums = [[simd.splat_f32s(0.0); C]; R];
    for j in 0..values.len {
        let row = &S::as_simd_f32s(values.row(j)).0[column..column + C];
        for r in 0..R {
            let weight = simd.splat_f32s(weights[r][j]);
            for c in 0..C {
                sums[r][c] = simd.mul_add_e_f32s(weight, row[c], sums[r][c]);
            }
        }
    }
    for (row, sums) in out.chunks_exact_mut(values.width).zip(sums) {
        let row = &mut S::as_mut_simd_f32s(row).0[column..column + C];
        for c in 0..C {
            row[c] = simd.add_f32s(row[c], sums[c]);
        }
    }
}
