//! Prompt prefixes whose blocks of keys and values can be read again.

mod nodes;
#[cfg(test)]
mod tests;

use crate::blocks::{BLOCK_ROWS, BlockId};
use nodes::Nodes;

/// What stands before a prompt and decides, with its tokens, what its keys and values are.
#[derive(Debug, Clone, Default, PartialEq, Eq, Hash)]
pub struct Root {
    /// Digests of the cartridges, in order.
    pub cartridges: Vec<[u8; 32]>,
    /// Digests of the adapters, in order.
    pub adapters: Vec<[u8; 32]>,
    /// Fingerprint of the model.
    pub model: [u8; 32],
}

/// Stored blocks at the beginning of a prompt. They stay stored until this is given to
/// [`PrefixTree::unpin`].
#[must_use = "its blocks cannot be evicted before it is unpinned"]
#[derive(Debug, Default)]
pub struct Match {
    /// The blocks, in token order.
    pub blocks: Vec<BlockId>,
    /// Tokens in them.
    pub tokens: usize,
    /// The node of the last block.
    end: Option<usize>,
}

/// Counts of a [`PrefixTree`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct PrefixStats {
    /// Calls of [`PrefixTree::lookup`].
    pub lookups: u64,
    /// Those that found at least one block.
    pub hits: u64,
    /// Tokens found by all of them together.
    pub hit_tokens: u64,
    /// Blocks that were evicted.
    pub evicted_blocks: u64,
    /// Tokens stored now.
    pub stored_tokens: usize,
    /// Blocks that cannot be evicted now, because somebody reads them.
    pub pinned_blocks: usize,
}

/// A cache of prompt prefixes in whole blocks: a radix tree for each [`Root`].
///
/// The tree owns the blocks it has adopted and gives each back exactly once: from
/// [`evict`](Self::evict), [`forget`](Self::forget) or [`unpin`](Self::unpin).
#[derive(Debug, Default)]
pub struct PrefixTree {
    nodes: Nodes,
    /// Without what `nodes` counts.
    stats: PrefixStats,
}

impl PrefixTree {
    /// An empty tree.
    pub fn new() -> Self {
        Self::default()
    }

    /// Counts so far.
    pub fn stats(&self) -> PrefixStats {
        PrefixStats {
            stored_tokens: self.nodes.stored_blocks * BLOCK_ROWS,
            pinned_blocks: self.nodes.pinned_blocks,
            ..self.stats
        }
    }

    /// Blocks that [`evict`](Self::evict) could give back now.
    pub fn evictable_blocks(&self) -> usize {
        self.nodes.stored_blocks - self.nodes.pinned_blocks
    }

    /// The longest stored beginning of `ids` behind `root`, without the last token, whose logits
    /// are to be computed. Pins it.
    pub fn lookup(&mut self, root: &Root, ids: &[u32]) -> Match {
        let (keys, _) = ids[..ids.len().saturating_sub(1)].as_chunks();
        self.stats.lookups += 1;
        let Some(start) = self.nodes.root(root) else {
            return Match::default();
        };
        let (end, found) = self.nodes.walk(start, keys);
        self.stats.hits += u64::from(found > 0);
        self.stats.hit_tokens += (found * BLOCK_ROWS) as u64;
        self.pin(end)
    }

    /// Stores what a sequence behind `root` has computed, and ends its match: `own` are its blocks
    /// after `matched`, and together they hold the first of `ids`. Gives the blocks that are the
    /// caller's now: those of tokens that are stored in another block already, those that `ids`
    /// does not fill, and those of [`unpin`](Self::unpin).
    #[must_use = "the blocks are the caller's now"]
    pub fn insert(
        &mut self,
        root: &Root,
        ids: &[u32],
        matched: Match,
        own: &[BlockId],
    ) -> Vec<BlockId> {
        let (stored, mut unused) = self.insert_pinned(root, ids, matched, own);
        unused.extend(self.unpin(stored));
        unused
    }

    /// Like [`insert`](Self::insert) for a sequence that goes on reading: the match that takes the
    /// place of the old one holds all full blocks, as they are stored.
    ///
    /// If the root was forgotten since the lookup, nothing is stored and the old match comes back.
    pub fn insert_pinned(
        &mut self,
        root: &Root,
        ids: &[u32],
        matched: Match,
        own: &[BlockId],
    ) -> (Match, Vec<BlockId>) {
        let (keys, _) = ids.as_chunks();
        let old = matched.blocks.len();
        let full = keys.len().min(old + own.len());
        let start = match self.nodes.root(root) {
            Some(start) => start,
            None if old == 0 && full > 0 => self.nodes.add_root(root),
            None => return (matched, own.to_vec()),
        };
        // A forgotten block must not be stored a second time.
        let live = |end| self.nodes.root_of(end) == start;
        if !matched.end.is_none_or(live) {
            return (matched, own.to_vec());
        }
        let (mut end, found) = self.nodes.walk(start, &keys[..full]);
        debug_assert!(found >= old, "the match is not of these tokens");
        if found < old {
            return (matched, own.to_vec());
        }
        if found < full {
            let new = &own[found - old..full - old];
            end = self.nodes.add_leaf(end, &keys[found..full], new);
        }
        let stored = self.pin(end);
        let mut unused = [&own[..found - old], &own[full - old..]].concat();
        unused.extend(self.unpin(matched));
        (stored, unused)
    }

    /// Ends a match. Gives the blocks that nobody can find any more because their root was
    /// forgotten meanwhile; mostly none.
    #[must_use = "the blocks are the caller's now"]
    pub fn unpin(&mut self, matched: Match) -> Vec<BlockId> {
        match matched.end {
            Some(end) => self.nodes.unpin(end),
            None => Vec::new(),
        }
    }

    /// Removes up to `n` blocks: those of the least recently used leaves that nobody reads, the
    /// last tokens first.
    #[must_use = "the blocks are the caller's now"]
    pub fn evict(&mut self, n: usize) -> Vec<BlockId> {
        let mut freed = Vec::new();
        while freed.len() < n {
            let more = self.nodes.evict(n - freed.len());
            if more.is_empty() {
                break;
            }
            freed.extend(more);
        }
        self.stats.evicted_blocks += freed.len() as u64;
        freed
    }

    /// Removes everything behind the roots that `goes` names, as when a cartridge goes away. What
    /// is pinned cannot be found any more and comes back from [`unpin`](Self::unpin).
    #[must_use = "the blocks are the caller's now"]
    pub fn forget(&mut self, goes: impl FnMut(&Root) -> bool) -> Vec<BlockId> {
        self.nodes.forget(goes)
    }

    /// [`forget`](Self::forget) for all roots with this cartridge or adapter.
    #[must_use = "the blocks are the caller's now"]
    pub fn forget_digest(&mut self, digest: &[u8; 32]) -> Vec<BlockId> {
        self.forget(|root| root.cartridges.contains(digest) || root.adapters.contains(digest))
    }

    fn pin(&mut self, end: usize) -> Match {
        let blocks = self.nodes.pin(end);
        Match {
            tokens: blocks.len() * BLOCK_ROWS,
            end: (!blocks.is_empty()).then_some(end),
            blocks,
        }
    }
}
