//! Key/value memory counted in blocks of rows, under a fixed budget.

use std::collections::{BTreeMap, BTreeSet};

#[cfg(test)]
mod tests;

/// Rows of one block.
pub const BLOCK_ROWS: usize = 16;

/// A block of [`BLOCK_ROWS`] neighbouring pool rows.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct BlockId(pub(crate) u32);

impl BlockId {
    /// The block's first row in the pool.
    pub fn first_row(self) -> usize {
        self.0 as usize * BLOCK_ROWS
    }
}

/// Blocks that hold `rows` rows.
pub fn blocks_for(rows: usize) -> usize {
    rows.div_ceil(BLOCK_ROWS)
}

/// The pool row of a sequence's row `index`, if its blocks reach that far.
pub fn row_at(blocks: &[BlockId], index: usize) -> Option<usize> {
    let block = blocks.get(index / BLOCK_ROWS)?;
    Some(block.first_row() + index % BLOCK_ROWS)
}

/// The first `rows` rows of some blocks as ranges `(start, len)`, neighbouring blocks in one range.
///
/// Ends with the blocks if they hold fewer rows. A prefix that several sequences read wants a call
/// of its own, so that its ranges are the same for all of them.
pub fn row_ranges(blocks: &[BlockId], rows: usize) -> Vec<(usize, usize)> {
    debug_assert!(rows <= blocks.len() * BLOCK_ROWS);
    let mut left = rows;
    let mut ranges: Vec<(usize, usize)> = Vec::new();
    for block in blocks {
        let start = block.first_row();
        let len = left.min(BLOCK_ROWS);
        if len == 0 {
            break;
        }
        left -= len;
        match ranges.last_mut() {
            Some(last) if last.0 + last.1 == start => last.1 += len,
            _ => ranges.push((start, len)),
        }
    }
    ranges
}

/// Which blocks are free. Each of the others has one holder: a sequence, a cartridge, or the stored
/// prefixes, which count their readers themselves.
#[derive(Debug, Default)]
pub struct BlockPool {
    /// Whether each block is held.
    held: Vec<bool>,
    /// Free runs by their first block, never two that touch.
    runs: BTreeMap<u32, u32>,
    /// The same runs as `(len, start)`, to find the longest.
    by_len: BTreeSet<(u32, u32)>,
    used: usize,
    high_water: usize,
    faults: u64,
}

impl BlockPool {
    /// A pool of `blocks` free blocks.
    pub fn new(blocks: usize) -> Self {
        let mut pool = Self::default();
        pool.grow(blocks);
        pool
    }

    /// Adds `blocks` free blocks behind the last one, as far as ids reach (2³² blocks).
    pub fn grow(&mut self, blocks: usize) {
        let start = self.held.len();
        let end = start.saturating_add(blocks).min(u32::MAX as usize);
        self.held.resize(end, false);
        self.add_run(start as u32, (end - start) as u32);
    }

    /// Blocks there are, free or not.
    pub fn capacity(&self) -> usize {
        self.held.len()
    }

    /// Blocks nobody holds.
    pub fn free(&self) -> usize {
        self.held.len() - self.used
    }

    /// Blocks that are held.
    pub fn used(&self) -> usize {
        self.used
    }

    /// The most blocks that were ever used at once.
    pub fn high_water(&self) -> usize {
        self.high_water
    }

    /// Calls of [`release`](Self::release) for blocks that nobody holds. They changed nothing; any
    /// such call is a mistake of the caller.
    pub fn faults(&self) -> u64 {
        self.faults
    }

    /// Takes `n` blocks, in few runs, and right behind `last` as far as those are free; none at
    /// all if fewer are free.
    pub fn take_after(&mut self, last: Option<BlockId>, n: usize) -> Option<Vec<BlockId>> {
        if n > self.free() {
            return None;
        }
        let mut taken = Vec::with_capacity(n);
        if let Some(next) = last.and_then(|last| last.0.checked_add(1))
            && let Some(len) = self.runs.get(&next).copied()
        {
            self.cut(next, len, next, n.min(len as usize) as u32, &mut taken);
        }
        while let left @ 1.. = n - taken.len()
            && let Some((len, start)) = self.by_len.last().copied()
        {
            let want = left.min(len as usize) as u32;
            // In the middle of the longest run, so that whoever stands before it can still grow.
            self.cut(start, len, start + (len - want) / 2, want, &mut taken);
        }
        debug_assert_eq!(taken.len(), n);
        self.used += taken.len();
        self.high_water = self.high_water.max(self.used);
        Some(taken)
    }

    /// Gives a block back; tells whether it was held.
    pub fn release(&mut self, id: BlockId) -> bool {
        match self.held.get_mut(id.0 as usize) {
            Some(held) if *held => {
                *held = false;
                self.used -= 1;
                self.add_run(id.0, 1);
                true
            }
            _ => {
                self.faults += 1;
                debug_assert!(false, "release of block {}, which nobody holds", id.0);
                false
            }
        }
    }

    /// Gives blocks back.
    pub fn release_all(&mut self, ids: impl IntoIterator<Item = BlockId>) {
        for id in ids {
            self.release(id);
        }
    }

    /// Takes all blocks away if nobody holds any; tells whether it did.
    pub fn clear(&mut self) -> bool {
        let unused = self.used == 0;
        if unused {
            self.held.clear();
            self.runs.clear();
            self.by_len.clear();
        }
        unused
    }

    /// Takes `want` blocks from `at` on out of the free run `(start, len)`.
    fn cut(&mut self, start: u32, len: u32, at: u32, want: u32, taken: &mut Vec<BlockId>) {
        self.runs.remove(&start);
        self.by_len.remove(&(len, start));
        self.put_run(start, at - start);
        self.put_run(at + want, start + len - at - want);
        for id in at..at + want {
            self.held[id as usize] = true;
            taken.push(BlockId(id));
        }
    }

    /// Adds free blocks, as one run with the free neighbours.
    fn add_run(&mut self, mut start: u32, mut len: u32) {
        if len == 0 {
            return;
        }
        if let Some((before, n)) = self.runs.range(..start).next_back().map(|(s, n)| (*s, *n))
            && before + n == start
        {
            self.runs.remove(&before);
            self.by_len.remove(&(n, before));
            start = before;
            len += n;
        }
        if let Some(n) = self.runs.remove(&(start + len)) {
            self.by_len.remove(&(n, start + len));
            len += n;
        }
        self.put_run(start, len);
    }

    fn put_run(&mut self, start: u32, len: u32) {
        if len > 0 {
            self.runs.insert(start, len);
            self.by_len.insert((len, start));
        }
    }
}
