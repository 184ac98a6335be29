//! Cutting a packed batch into pieces of attention work.

use faer::MatRef;

use super::tiles::Rows;
use crate::layout::AttentionLayout;

/// Query rows of one block: with grouped heads a few hundred rows of matrix product.
pub const BLOCK_QUERIES: usize = 64;
/// Key rows of one tile of scores.
pub const TILE_KEYS: usize = 256;

/// Query rows `lo .. hi` against the key rows `start .. start + len`.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Job {
    pub lo: usize,
    pub hi: usize,
    pub start: usize,
    /// Keys that the last row sees.
    pub len: usize,
    /// Keys that row `lo` sees; with `causal` each further row sees one more.
    pub first: usize,
    pub causal: bool,
}

impl Job {
    /// Keys that `query` sees.
    pub fn visible(&self, query: usize) -> usize {
        if self.causal {
            self.first + (query - self.lo)
        } else {
            self.len
        }
    }
}

/// What the rows `lo .. hi` have to do. Neighbouring runs that see the same full range (a shared
/// prefix) become one job, so its keys are read once for all of them.
pub fn jobs(layout: &AttentionLayout, lo: usize, hi: usize) -> Vec<Job> {
    let mut jobs: Vec<Job> = Vec::new();
    let runs = layout.runs();
    let first = runs.partition_point(|run| run.start + run.len <= lo);
    for run in runs[first..].iter().take_while(|run| run.start < hi) {
        let (from, to) = (run.start.max(lo), (run.start + run.len).min(hi));
        for range in run.keys.iter().filter(|range| range.len > 0) {
            if !range.causal
                && let Some(job) = jobs.iter_mut().find(|job| {
                    !job.causal
                        && job.hi == from
                        && job.start == range.start
                        && job.len == range.len
                })
            {
                job.hi = to;
                continue;
            }
            jobs.push(Job {
                lo: from,
                hi: to,
                start: range.start,
                len: AttentionLayout::visible(run, range, to - 1),
                first: AttentionLayout::visible(run, range, from),
                causal: range.causal,
            });
        }
    }
    jobs
}

/// One task: a block of query rows under one key/value head.
#[derive(Debug, Clone, Copy)]
pub struct Task {
    pub lo: usize,
    pub hi: usize,
    pub kv_head: usize,
}

/// All tasks of a batch; fewer query rows per block when there are few, so that every core has two
/// and none waits long for another.
pub fn tasks(num_queries: usize, kv_heads: usize) -> Vec<Task> {
    let wanted = 2 * rayon::current_num_threads();
    let block = num_queries
        .div_ceil(wanted.div_ceil(kv_heads))
        .clamp(1, BLOCK_QUERIES);
    (0..num_queries)
        .step_by(block)
        .flat_map(|lo| {
            let hi = (lo + block).min(num_queries);
            (0..kv_heads).map(move |kv_head| Task { lo, hi, kv_head })
        })
        .collect()
}

/// The shape of a batch's heads.
#[derive(Debug, Clone, Copy)]
pub struct Heads {
    pub heads: usize,
    pub kv_heads: usize,
    pub dim: usize,
}

impl Heads {
    pub fn group(&self) -> usize {
        self.heads / self.kv_heads
    }

    /// Copies the task's query rows, grouped heads one after the other, times `scale`.
    pub fn gather(&self, rows: &[f32], task: Task, scale: f32) -> Vec<f32> {
        let width = self.group() * self.dim;
        let mut out = Vec::with_capacity((task.hi - task.lo) * width);
        for row in rows[task.lo * self.heads * self.dim..task.hi * self.heads * self.dim]
            .chunks_exact(self.heads * self.dim)
        {
            let part = &row[task.kv_head * width..(task.kv_head + 1) * width];
            out.extend(part.iter().map(|x| x * scale));
        }
        out
    }

    /// Undoes [`Heads::gather`] into the rows of the whole batch.
    pub fn scatter(&self, part: &[f32], task: Task, rows: &mut [f32]) {
        let width = self.group() * self.dim;
        for (row, part) in rows[task.lo * self.heads * self.dim..task.hi * self.heads * self.dim]
            .chunks_exact_mut(self.heads * self.dim)
            .zip(part.chunks_exact(width))
        {
            row[task.kv_head * width..(task.kv_head + 1) * width].copy_from_slice(part);
        }
    }

    /// The key (or value) rows `start .. start + len` of one head.
    pub fn keys<'a>(&self, pool: &'a [f32], kv_head: usize, start: usize, len: usize) -> Rows<'a> {
        let stride = self.kv_heads * self.dim;
        let from = start * stride + kv_head * self.dim;
        let to = from + (len - 1) * stride + self.dim;
        Rows {
            values: &pool[from..to],
            len,
            width: self.dim,
            stride,
        }
    }
}

/// Rows as a matrix `[len, width]`.
pub fn matrix(rows: Rows<'_>) -> MatRef<'_, f32> {
    MatRef::from_row_major_slice_with_stride(rows.values, rows.len, rows.width, rows.stride)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_shared_prefix_is_one_job_for_all_runs_of_a_block() {
        let layout = AttentionLayout::packed(10, &[3, 4]);
        let jobs = jobs(&layout, 1, 6);
        assert_eq!(jobs.len(), 3);
        assert_eq!((jobs[0].lo, jobs[0].hi, jobs[0].len), (1, 6, 10));
        assert_eq!((jobs[1].start, jobs[1].first, jobs[1].len), (10, 2, 3));
        assert_eq!((jobs[2].start, jobs[2].first, jobs[2].len), (13, 1, 3));
        assert_eq!(jobs[2].visible(5), 3);
    }
}
