//! Rows of keys and values that all sequences share.

use std::sync::Arc;

use burn::tensor::{Device, Tensor};
use cartridges_model::decoder::{KvSource, ModelConfig};
use cartridges_ops::write_rows;

/// A run of pool rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Rows {
    pub start: usize,
    pub len: usize,
}

/// Keys and values of every layer, `[capacity, kv_heads, head_dim]`, and which rows are free.
pub struct KvPool {
    keys: Vec<Option<Tensor<3>>>,
    values: Vec<Option<Tensor<3>>>,
    free: Vec<Rows>,
    capacity: usize,
    limit: usize,
    heads: usize,
    dim: usize,
    device: Device,
}

impl KvPool {
    /// An empty pool that grows up to `limit` rows.
    pub fn new(config: &ModelConfig, device: &Device, limit: usize) -> Self {
        Self {
            keys: vec![None; config.num_layers],
            values: vec![None; config.num_layers],
            free: Vec::new(),
            capacity: 0,
            limit,
            heads: config.num_kv_heads,
            dim: config.head_dim,
            device: device.clone(),
        }
    }

    /// Rows there are now.
    pub fn capacity(&self) -> usize {
        self.capacity
    }

    /// Rows there may be.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// Takes `len` neighbouring rows, growing the pool if it may.
    pub fn take(&mut self, len: usize) -> Option<Rows> {
        if let Some(rows) = self.take_free(len) {
            return Some(rows);
        }
        let tail = self
            .free
            .last()
            .filter(|r| r.start + r.len == self.capacity)
            .map_or(0, |r| r.len);
        let least = self.capacity + len - tail;
        if least > self.limit {
            return None;
        }
        self.grow(
            least
                .next_multiple_of(256)
                .max(self.capacity * 3 / 2)
                .min(self.limit),
        );
        self.take_free(len)
    }

    fn take_free(&mut self, len: usize) -> Option<Rows> {
        let at = self.free.iter().position(|rows| rows.len >= len)?;
        let rows = Rows {
            start: self.free[at].start,
            len,
        };
        self.free[at].start += len;
        self.free[at].len -= len;
        if self.free[at].len == 0 {
            self.free.remove(at);
        }
        Some(rows)
    }

    /// Gives rows back.
    pub fn release(&mut self, rows: Rows) {
        if rows.len == 0 {
            return;
        }
        let at = self.free.partition_point(|r| r.start < rows.start);
        self.free.insert(at, rows);
        if at + 1 < self.free.len()
            && self.free[at].start + self.free[at].len == self.free[at + 1].start
        {
            self.free[at].len += self.free.remove(at + 1).len;
        }
        if at > 0 && self.free[at - 1].start + self.free[at - 1].len == self.free[at].start {
            self.free[at - 1].len += self.free.remove(at).len;
        }
    }

    fn grow(&mut self, capacity: usize) {
        let added = capacity - self.capacity;
        let fresh = || Tensor::zeros([added, self.heads, self.dim], &self.device);
        for pool in self.keys.iter_mut().chain(&mut self.values) {
            *pool = Some(match pool.take() {
                Some(old) => Tensor::cat(vec![old, fresh()], 0),
                None => fresh(),
            });
        }
        let start = self.capacity;
        self.capacity = capacity;
        self.release(Rows { start, len: added });
    }

    /// Writes keys and values `[r, kv_heads, head_dim]` of one layer to the rows `at` and gives the
    /// whole pool of that layer.
    pub fn write(
        &mut self,
        layer: usize,
        at: &Arc<[usize]>,
        k: Tensor<3>,
        v: Tensor<3>,
    ) -> (Tensor<3>, Tensor<3>) {
        let put = |slot: &mut Option<Tensor<3>>, rows: Tensor<3>| {
            // Taken out, so that this is the pool's only owner and it is changed in place.
            let pool = slot
                .take()
                .unwrap_or_else(|| Tensor::zeros([0, self.heads, self.dim], &self.device));
            let pool = write_rows(pool, at, rows);
            *slot = Some(pool.clone());
            pool
        };
        (
            put(&mut self.keys[layer], k),
            put(&mut self.values[layer], v),
        )
    }
}

/// The pool as the past of one batch whose new rows go to `at`.
pub struct PoolPast<'a> {
    pub pool: &'a mut KvPool,
    pub at: Arc<[usize]>,
}

impl KvSource for PoolPast<'_> {
    fn extend(&mut self, layer: usize, k: Tensor<3>, v: Tensor<3>) -> (Tensor<3>, Tensor<3>) {
        self.pool.write(layer, &self.at, k, v)
    }
}
