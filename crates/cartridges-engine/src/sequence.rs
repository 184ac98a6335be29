//! A sequence's tokens, and where their keys and values are.

use std::sync::Arc;

use cartridges_model::adapter::ThoughtAdapter;
use cartridges_ops::{KeyRange, QueryRun};

use crate::blocks::{BlockId, blocks_for, row_at, row_ranges};
use crate::radix::{Match, Root};

/// What stands before a sequence's tokens and works on them.
#[derive(Debug, Default)]
pub struct Before {
    /// What tells it from others.
    pub root: Root,
    /// Row ranges `(start, len)` of the cartridges, in order.
    pub ranges: Vec<(usize, usize)>,
    /// The adapters. They stay alive here when the engine forgets them.
    pub adapters: Vec<Arc<ThoughtAdapter>>,
}

/// A sequence in memory: cartridges, then stored blocks that others may read too, then its own.
#[derive(Debug)]
pub struct Sequence {
    /// What stands before the tokens.
    pub before: Before,
    slots: usize,
    /// Stored blocks at the beginning of `tokens`.
    pub matched: Match,
    /// Blocks of the tokens after those.
    pub own: Vec<BlockId>,
    /// Prompt and answer so far.
    pub tokens: Vec<u32>,
    /// Leading tokens that have keys and values.
    pub filled: usize,
    /// Whether its prompt was stored for others to read.
    pub stored: bool,
}

impl Sequence {
    /// A sequence of which only the match is filled.
    pub fn new(before: Before, matched: Match, own: Vec<BlockId>, tokens: Vec<u32>) -> Self {
        Self {
            slots: before.ranges.iter().map(|range| range.1).sum(),
            before,
            filled: matched.tokens,
            stored: false,
            matched,
            own,
            tokens,
        }
    }

    /// Tokens that have not gone through the model.
    pub fn unfilled(&self) -> usize {
        self.tokens.len() - self.filled
    }

    /// Blocks that are missing for the first `tokens` tokens.
    pub fn missing_blocks(&self, tokens: usize) -> usize {
        blocks_for(tokens.saturating_sub(self.matched.tokens)).saturating_sub(self.own.len())
    }

    /// Rotary position of token `index`.
    pub fn position(&self, index: usize) -> usize {
        self.slots + index
    }

    /// Pool rows of the next `count` tokens, whose blocks must be there.
    pub fn rows(&self, count: usize) -> impl Iterator<Item = usize> {
        let first = self.filled - self.matched.tokens;
        (first..first + count).map(|index| match row_at(&self.own, index) {
            Some(row) => row,
            None => unreachable!("a sequence was fed before it had blocks"),
        })
    }

    /// What the next `count` tokens see; their queries are the rows `query ..` of the batch.
    ///
    /// One run for each piece of neighbouring rows that the tokens go to.
    pub fn runs(&self, count: usize, query: usize) -> Vec<QueryRun> {
        let plain = |(start, len)| KeyRange {
            start,
            len,
            causal: false,
        };
        let stored = row_ranges(&self.matched.blocks, self.matched.tokens);
        let mut seen: Vec<KeyRange> = self
            .before
            .ranges
            .iter()
            .copied()
            .chain(stored)
            .map(plain)
            .collect();
        let from = self.filled - self.matched.tokens;
        let to = from + count;
        let mut runs = Vec::new();
        let mut at = 0;
        for (start, len) in row_ranges(&self.own, to) {
            let (lo, hi) = (at.max(from), at + len);
            if lo < hi {
                let mut keys = seen.clone();
                keys.push(KeyRange {
                    start,
                    len,
                    causal: true,
                });
                runs.push(QueryRun {
                    start: query + lo - from,
                    len: hi - lo,
                    keys,
                });
            }
            seen.push(plain((start, len)));
            at = hi;
        }
        runs
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blocks::BlockPool;

    #[test]
    fn tokens_see_all_before_them_wherever_the_blocks_lie() {
        let mut pool = BlockPool::new(12);
        let blocks = pool.take_after(None, 12).unwrap();
        let own = vec![blocks[2], blocks[3], blocks[7], blocks[5]];
        let mut sequence = Sequence::new(
            Before {
                ranges: vec![(160, 9)],
                ..Before::default()
            },
            Match::default(),
            own.clone(),
            (0..60).collect(),
        );
        sequence.filled = 20;
        let runs = sequence.runs(40, 100);
        // Pieces: blocks 2 and 3 (tokens 20..32), block 7 (32..48), block 5 (48..60).
        let shape: Vec<_> = runs.iter().map(|r| (r.start, r.len)).collect();
        assert_eq!(shape, [(100, 12), (112, 16), (128, 12)]);
        let rows: Vec<usize> = sequence.rows(40).collect();
        for (i, row) in rows.iter().enumerate() {
            let token = 20 + i;
            assert_eq!(*row, row_at(&own, token).unwrap());
            let query = 100 + i;
            let run = runs
                .iter()
                .find(|r| (r.start..r.start + r.len).contains(&query))
                .unwrap();
            let mut seen: Vec<usize> = Vec::new();
            for range in &run.keys {
                let hidden = if range.causal {
                    run.start + run.len - 1 - query
                } else {
                    0
                };
                seen.extend(range.start..range.start + range.len - hidden);
            }
            let mut wanted: Vec<usize> = (160..169).collect();
            wanted.extend((0..=token).map(|t| row_at(&own, t).unwrap()));
            assert_eq!(seen, wanted, "token {token}");
        }
        assert_eq!(sequence.position(20), 29);
        assert_eq!(sequence.missing_blocks(64), 0);
        assert_eq!(sequence.missing_blocks(65), 1);
    }
}
