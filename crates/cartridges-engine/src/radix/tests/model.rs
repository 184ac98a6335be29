//! The tree against a map of all prefixes.

use std::collections::BTreeMap;

use proptest::prelude::*;

use super::*;
use crate::blocks::{BlockPool, blocks_for};

#[derive(Debug, Clone)]
enum Op {
    /// Begins a sequence.
    Open {
        root: u8,
        kinds: Vec<u32>,
        more: usize,
        store: bool,
    },
    /// Ends one, and stores it or not.
    Close {
        which: usize,
        store: bool,
    },
    Evict(usize),
    Forget(u8),
}

fn op() -> impl Strategy<Value = Op> {
    let kinds = prop::collection::vec(prop::sample::select(vec![1u32, 2, 3, 11]), 0..6);
    prop_oneof![
        5 => (0u8..2, kinds, 1usize..16, any::<bool>())
            .prop_map(|(root, kinds, more, store)| Op::Open { root, kinds, more, store }),
        4 => (any::<usize>(), any::<bool>()).prop_map(|(which, store)| Op::Close { which, store }),
        2 => (0usize..8).prop_map(Op::Evict),
        1 => (0u8..2).prop_map(Op::Forget),
    ]
}

/// A sequence as the engine would hold it.
struct Sequence {
    root: u8,
    ids: Vec<u32>,
    matched: Match,
    own: Vec<BlockId>,
}

/// Every stored prefix in its own right, with its last block.
type Model = BTreeMap<(u8, Vec<u32>), BlockId>;

fn longest(model: &Model, root: u8, ids: &[u32], limit: usize) -> Vec<BlockId> {
    let at = |n: usize| model.get(&(root, ids[..n * BLOCK_ROWS].to_vec())).copied();
    (1..=limit).map_while(at).collect()
}

/// Gives the sequence's own blocks that the model does not hold afterwards.
fn store(model: &mut Model, one: &Sequence) -> Vec<BlockId> {
    let (old, full) = (one.matched.blocks.len(), one.ids.len() / BLOCK_ROWS);
    if longest(model, one.root, &one.ids, old) != one.matched.blocks {
        // Forgotten meanwhile.
        return one.own.clone();
    }
    for n in old + 1..=full {
        let key = (one.root, one.ids[..n * BLOCK_ROWS].to_vec());
        model.entry(key).or_insert(one.own[n - 1 - old]);
    }
    let stored: BTreeSet<_> = model.values().collect();
    let unused = one.own.iter().filter(|id| !stored.contains(id));
    unused.copied().collect()
}

/// The tree, the pool it shares with the sequences, and what both should hold.
struct World {
    pool: BlockPool,
    tree: PrefixTree,
    model: Model,
    running: Vec<Sequence>,
}

impl World {
    fn pinned(&self) -> BTreeSet<BlockId> {
        let blocks = self.running.iter().flat_map(|one| &one.matched.blocks);
        blocks.copied().collect()
    }

    fn open(&mut self, r: u8, kinds: &[u32], more: usize, now: bool) {
        let mut ids = tokens(kinds);
        ids.extend((0..more as u32).map(|i| 1000 + i));
        let matched = self.tree.lookup(&root(r), &ids);
        let limit = (ids.len() - 1) / BLOCK_ROWS;
        assert_eq!(matched.blocks, longest(&self.model, r, &ids, limit));
        let wanted = blocks_for(ids.len()) - matched.blocks.len();
        let Some(own) = self.pool.take_after(None, wanted) else {
            self.pool.release_all(self.tree.unpin(matched));
            return;
        };
        let mut one = Sequence {
            root: r,
            ids,
            matched,
            own,
        };
        if now {
            store(&mut self.model, &one);
            let old = std::mem::take(&mut one.matched);
            let tree = &mut self.tree;
            let (stored, unused) = tree.insert_pinned(&root(r), &one.ids, old, &one.own);
            let full = one.ids.len() / BLOCK_ROWS;
            assert_eq!(stored.blocks, longest(&self.model, r, &one.ids, full));
            assert_eq!(blocks_for(one.ids.len()) - full, unused.len());
            one.matched = stored;
            one.own = unused;
        }
        self.running.push(one);
    }

    fn close(&mut self, which: usize, keep: bool) {
        let mut one = self.running.swap_remove(which % self.running.len());
        let mut expected: BTreeSet<_> = one.own.iter().copied().collect();
        if keep {
            expected = store(&mut self.model, &one).into_iter().collect();
        }
        let mut known = self.pinned();
        known.extend(self.model.values());
        expected.extend(one.matched.blocks.iter().filter(|id| !known.contains(id)));
        let matched = std::mem::take(&mut one.matched);
        let freed = if keep {
            let root = root(one.root);
            self.tree.insert(&root, &one.ids, matched, &one.own)
        } else {
            [one.own, self.tree.unpin(matched)].concat()
        };
        assert_eq!(freed.len(), expected.len());
        assert_eq!(freed.iter().copied().collect::<BTreeSet<_>>(), expected);
        self.pool.release_all(freed);
    }

    fn evict(&mut self, n: usize) {
        let pinned = self.pinned();
        let could = self.model.values().filter(|id| !pinned.contains(id));
        let could = could.count();
        assert_eq!(self.tree.evictable_blocks(), could);
        let freed = self.tree.evict(n);
        assert_eq!(freed.len(), n.min(could));
        for id in freed {
            assert!(!pinned.contains(&id));
            let at = self.model.iter().find(|(_, stored)| **stored == id);
            let (r, ids) = at.unwrap().0.clone();
            self.model.remove(&(r, ids.clone()));
            let mut left = self.model.keys();
            assert!(!left.any(|(other, longer)| *other == r && longer.starts_with(&ids)));
            assert!(self.pool.release(id));
        }
    }

    fn forget(&mut self, r: u8) {
        let mut gone = BTreeSet::new();
        self.model.retain(|(root, _), id| {
            if *root == r {
                gone.insert(*id);
            }
            *root != r
        });
        let freed: BTreeSet<_> = self
            .tree
            .forget(|other| *other == root(r))
            .into_iter()
            .collect();
        assert_eq!(freed, &gone - &self.pinned());
        self.pool.release_all(freed);
    }
}

proptest! {
    #[test]
    fn agrees_with_a_map_of_all_prefixes(ops in prop::collection::vec(op(), 0..120)) {
        let mut world = World {
            pool: BlockPool::new(64),
            tree: PrefixTree::new(),
            model: Model::new(),
            running: Vec::new(),
        };
        for op in ops {
            match op {
                Op::Open { root, kinds, more, store } => world.open(root, &kinds, more, store),
                Op::Close { which, store } if !world.running.is_empty() => {
                    world.close(which, store);
                }
                Op::Close { .. } => {}
                Op::Evict(n) => world.evict(n),
                Op::Forget(root) => world.forget(root),
            }
            world.tree.nodes.check();
        }
        let World { mut pool, mut tree, running, .. } = world;
        for one in running {
            pool.release_all(one.own);
            pool.release_all(tree.unpin(one.matched));
        }
        pool.release_all(tree.evict(usize::MAX));
        prop_assert_eq!((pool.used(), pool.faults()), (0, 0));
        prop_assert_eq!(tree.stats().stored_tokens, 0);
    }
}
