//! Keys and values of everything that is in use, under one budget.

use std::sync::Arc;

use burn::tensor::{Device, Tensor};
use cartridges_model::decoder::{KvSource, ModelConfig};
use cartridges_ops::write_rows;

use crate::blocks::{BLOCK_ROWS, BlockId, BlockPool};
use crate::radix::{Match, PrefixTree, Root};

/// Blocks that the tensors grow by at least.
const GROWTH: usize = 16;

/// Rows of keys and values of every layer, `[capacity, kv_heads, head_dim]`, which of them are free,
/// and which hold prompt prefixes that may be read again.
pub struct KvMemory {
    keys: Vec<Option<Tensor<3>>>,
    values: Vec<Option<Tensor<3>>>,
    blocks: BlockPool,
    /// Stored prefixes.
    pub tree: PrefixTree,
    limit: usize,
    heads: usize,
    dim: usize,
    device: Device,
}

impl KvMemory {
    /// Empty memory that grows up to `rows` rows, rounded down to whole blocks.
    pub fn new(config: &ModelConfig, device: &Device, rows: usize) -> Self {
        Self {
            keys: vec![None; config.num_layers],
            values: vec![None; config.num_layers],
            blocks: BlockPool::new(0),
            tree: PrefixTree::new(),
            limit: rows / BLOCK_ROWS,
            heads: config.num_kv_heads,
            dim: config.head_dim,
            device: device.clone(),
        }
    }

    /// Rows the tensors have now.
    pub fn capacity(&self) -> usize {
        self.blocks.capacity() * BLOCK_ROWS
    }

    /// Blocks there may be.
    pub fn limit(&self) -> usize {
        self.limit
    }

    /// The accounting: what sequences, cartridges and stored prefixes hold.
    pub fn blocks(&self) -> &BlockPool {
        &self.blocks
    }

    /// Whether the tensors of all layers are there; not so after a panic while one was written.
    pub fn is_whole(&self) -> bool {
        let empty = self.capacity() == 0;
        let mut all = self.keys.iter().chain(&self.values);
        empty || all.all(Option::is_some)
    }

    /// Takes `n` blocks, behind `last` if possible: free ones, new ones if there may be more, or
    /// those of stored prefixes that nobody reads.
    pub fn take_after(&mut self, last: Option<BlockId>, n: usize) -> Option<Vec<BlockId>> {
        let spare = self.blocks.free() + (self.limit - self.blocks.capacity().min(self.limit));
        if n > spare + self.tree.evictable_blocks() {
            return None;
        }
        if n > self.blocks.free() {
            let wanted = (n - self.blocks.free())
                .max(self.blocks.capacity() / 2)
                .max(GROWTH);
            self.grow(wanted.min(self.limit - self.blocks.capacity()));
        }
        if n > self.blocks.free() {
            let freed = self.tree.evict(n - self.blocks.free());
            self.blocks.release_all(freed);
        }
        self.blocks.take_after(last, n)
    }

    /// Gives blocks back.
    pub fn release(&mut self, blocks: impl IntoIterator<Item = BlockId>) {
        self.blocks.release_all(blocks);
    }

    /// Ends the reading of stored blocks.
    pub fn unpin(&mut self, matched: Match) {
        let gone = self.tree.unpin(matched);
        self.blocks.release_all(gone);
    }

    /// Stores the full blocks of `ids`, of which `matched` and then `own` hold the keys and values.
    pub fn store(&mut self, root: &Root, ids: &[u32], matched: Match, own: &[BlockId]) {
        let unused = self.tree.insert(root, ids, matched, own);
        self.blocks.release_all(unused);
    }

    /// The same for a sequence that goes on reading; gives its new match and own blocks.
    pub fn store_and_go_on(
        &mut self,
        root: &Root,
        ids: &[u32],
        matched: Match,
        own: &[BlockId],
    ) -> (Match, Vec<BlockId>) {
        let total = matched.blocks.len() + own.len();
        let (matched, unused) = self.tree.insert_pinned(root, ids, matched, own);
        // The last own blocks, which are not full, stay the sequence's.
        let kept = total - matched.blocks.len();
        let tail: Vec<BlockId> = own[own.len() - kept..].to_vec();
        let gone = unused.into_iter().filter(|block| !tail.contains(block));
        self.blocks.release_all(gone);
        (matched, tail)
    }

    /// Drops stored prefixes that nobody reads. Where nothing else is held, the tensors go too: what
    /// follows finds the memory as at first, down to where blocks lie and so to the last digit.
    pub fn forget_unread(&mut self) {
        let freed = self.tree.evict(usize::MAX);
        self.blocks.release_all(freed);
        if self.blocks.clear() {
            self.keys.fill(None);
            self.values.fill(None);
        }
    }

    /// Drops everything stored behind a cartridge or with an adapter.
    pub fn forget_digest(&mut self, digest: &[u8; 32]) {
        let freed = self.tree.forget_digest(digest);
        self.blocks.release_all(freed);
    }

    fn grow(&mut self, blocks: usize) {
        if blocks == 0 {
            return;
        }
        let fresh = || Tensor::zeros([blocks * BLOCK_ROWS, self.heads, self.dim], &self.device);
        for rows in self.keys.iter_mut().chain(&mut self.values) {
            *rows = Some(match rows.take() {
                Some(old) => Tensor::cat(vec![old, fresh()], 0),
                None => fresh(),
            });
        }
        self.blocks.grow(blocks);
    }

    /// Writes keys and values `[r, kv_heads, head_dim]` of one layer to the rows `at` and gives all
    /// rows of that layer.
    pub fn write(
        &mut self,
        layer: usize,
        at: &Arc<[usize]>,
        k: Tensor<3>,
        v: Tensor<3>,
    ) -> (Tensor<3>, Tensor<3>) {
        let put = |slot: &mut Option<Tensor<3>>, rows: Tensor<3>| {
            // Taken out, so that this is the only owner and it is changed in place.
            let all = slot
                .take()
                .unwrap_or_else(|| Tensor::zeros([0, self.heads, self.dim], &self.device));
            let all = write_rows(all, at, rows);
            *slot = Some(all.clone());
            all
        };
        (
            put(&mut self.keys[layer], k),
            put(&mut self.values[layer], v),
        )
    }
}

/// The memory as the past of one batch whose new rows go to `at`.
pub struct MemoryPast<'a> {
    pub memory: &'a mut KvMemory,
    pub at: Arc<[usize]>,
}

impl KvSource for MemoryPast<'_> {
    fn extend(&mut self, layer: usize, k: Tensor<3>, v: Tensor<3>) -> (Tensor<3>, Tensor<3>) {
        self.memory.write(layer, &self.at, k, v)
    }
}
