//! The nodes of prefix trees: who reads them, and in which order they may go.

use std::collections::{BTreeSet, HashMap};

use super::Root;
use crate::blocks::{BLOCK_ROWS, BlockId};

/// Tokens of one block.
pub type Key = [u32; BLOCK_ROWS];

/// Blocks of one stretch of tokens, which come and are pinned together.
#[derive(Debug, Default)]
pub struct Node {
    /// None for a root and for a vacant place.
    parent: Option<usize>,
    /// One for each block; none in a root.
    keys: Vec<Key>,
    blocks: Vec<BlockId>,
    /// By their first block.
    children: HashMap<Key, usize>,
    /// Matches that end here or further down.
    pins: usize,
    last_used: u64,
    /// Of a root that can be found.
    root: Option<Root>,
}

/// All nodes of all trees, named by their place.
#[derive(Debug, Default)]
pub struct Nodes {
    nodes: Vec<Node>,
    /// Places to use again.
    vacant: Vec<usize>,
    roots: HashMap<Root, usize>,
    /// Unpinned leaves as `(last_used, place)`, the least recently used first.
    evictable: BTreeSet<(u64, usize)>,
    clock: u64,
    pub stored_blocks: usize,
    pub pinned_blocks: usize,
}

impl Nodes {
    /// The root, if anything is stored behind it.
    pub fn root(&self, root: &Root) -> Option<usize> {
        self.roots.get(root).copied()
    }

    /// A root with nothing behind it yet; it lives until its last child goes.
    pub fn add_root(&mut self, root: &Root) -> usize {
        let at = self.add(Node {
            root: Some(root.clone()),
            ..Node::default()
        });
        self.roots.insert(root.clone(), at);
        at
    }

    /// Follows `keys` down from a root as far as they are stored; gives the node where they end,
    /// after splitting it if it goes on, and how many there are.
    pub fn walk(&mut self, start: usize, keys: &[Key]) -> (usize, usize) {
        let (mut at, mut found) = (start, 0);
        while let Some(key) = keys.get(found)
            && let Some(child) = self.nodes[at].children.get(key).copied()
        {
            let stored = &self.nodes[child].keys;
            let pairs = stored.iter().zip(&keys[found..]);
            let same = pairs.take_while(|(a, b)| a == b).count();
            found += same;
            if same < stored.len() {
                return (self.split(child, same), found);
            }
            at = child;
        }
        (at, found)
    }

    /// Puts the first blocks of a node into a new node above it. The node keeps its place for the
    /// rest, because matches name it.
    fn split(&mut self, at: usize, len: usize) -> usize {
        let node = &mut self.nodes[at];
        let (lower_keys, lower_blocks) = (node.keys.split_off(len), node.blocks.split_off(len));
        let upper = Node {
            parent: node.parent,
            children: HashMap::from([(lower_keys[0], at)]),
            keys: std::mem::replace(&mut node.keys, lower_keys),
            blocks: std::mem::replace(&mut node.blocks, lower_blocks),
            pins: node.pins,
            last_used: node.last_used,
            root: None,
        };
        let (parent, first) = (upper.parent, upper.keys[0]);
        let upper = self.add(upper);
        self.nodes[at].parent = Some(upper);
        if let Some(parent) = parent {
            self.nodes[parent].children.insert(first, upper);
        }
        upper
    }

    /// Hangs a leaf below a node that has no child with its first key; gives its place.
    pub fn add_leaf(&mut self, parent: usize, keys: &[Key], blocks: &[BlockId]) -> usize {
        let leaf = self.add(Node {
            parent: Some(parent),
            keys: keys.to_vec(),
            blocks: blocks.to_vec(),
            ..Node::default()
        });
        self.unlist(parent);
        self.nodes[parent].children.insert(keys[0], leaf);
        self.stored_blocks += blocks.len();
        leaf
    }

    /// Pins the way to a node; gives its blocks.
    pub fn pin(&mut self, end: usize) -> Vec<BlockId> {
        self.clock += 1;
        let mut blocks = Vec::new();
        let mut at = end;
        while let Some(parent) = self.nodes[at].parent {
            self.unlist(at);
            let node = &mut self.nodes[at];
            node.last_used = self.clock;
            node.pins += 1;
            if node.pins == 1 {
                self.pinned_blocks += node.blocks.len();
            }
            blocks.extend(node.blocks.iter().rev());
            at = parent;
        }
        blocks.reverse();
        blocks
    }

    /// Takes a pin from the way to a node; gives the blocks that cannot be found any more because
    /// their root is forgotten.
    pub fn unpin(&mut self, end: usize) -> Vec<BlockId> {
        self.clock += 1;
        let mut freed = Vec::new();
        let forgotten = self.nodes[self.root_of(end)].root.is_none();
        let mut at = end;
        while let Some(parent) = self.nodes[at].parent {
            let node = &mut self.nodes[at];
            node.pins -= 1;
            node.last_used = self.clock;
            if node.pins == 0 {
                self.pinned_blocks -= node.blocks.len();
                if forgotten {
                    // Nothing hangs below: all that is not pinned went with the root.
                    freed.extend(self.remove(at));
                } else {
                    self.list(at);
                }
            }
            at = parent;
        }
        freed
    }

    /// Removes up to `n` blocks of the least recently used unpinned leaf, from its end.
    pub fn evict(&mut self, n: usize) -> Vec<BlockId> {
        let Some((_, at)) = self.evictable.first().copied() else {
            return Vec::new();
        };
        let node = &mut self.nodes[at];
        let mut freed = if node.blocks.len() > n {
            let keep = node.blocks.len() - n;
            node.keys.truncate(keep);
            self.stored_blocks -= n;
            node.blocks.split_off(keep)
        } else {
            self.remove(at)
        };
        freed.reverse();
        freed
    }

    /// Makes roots impossible to find and removes what is not pinned behind them.
    pub fn forget(&mut self, mut goes: impl FnMut(&Root) -> bool) -> Vec<BlockId> {
        let gone = self.roots.extract_if(|root, _| goes(root));
        let gone: Vec<usize> = gone.map(|(_, at)| at).collect();
        let mut freed = Vec::new();
        for start in gone {
            self.nodes[start].root = None;
            let mut order = vec![start];
            let mut next = 0;
            while let Some(at) = order.get(next).copied() {
                order.extend(self.nodes[at].children.values());
                next += 1;
            }
            // Children before their parents; the root goes with the last of them.
            for at in order.into_iter().skip(1).rev() {
                if self.nodes[at].pins == 0 {
                    freed.extend(self.remove(at));
                }
            }
        }
        freed
    }

    /// The root above a node.
    pub fn root_of(&self, mut at: usize) -> usize {
        while let Some(parent) = self.nodes[at].parent {
            at = parent;
        }
        at
    }

    fn add(&mut self, node: Node) -> usize {
        match self.vacant.pop() {
            Some(at) => {
                self.nodes[at] = node;
                at
            }
            None => {
                self.nodes.push(node);
                self.nodes.len() - 1
            }
        }
    }

    /// Removes an unpinned leaf, and its root if that is empty then; gives the leaf's blocks.
    fn remove(&mut self, at: usize) -> Vec<BlockId> {
        self.unlist(at);
        let node = std::mem::take(&mut self.nodes[at]);
        debug_assert!(node.children.is_empty() && node.pins == 0);
        self.vacant.push(at);
        self.stored_blocks -= node.blocks.len();
        if let (Some(parent), Some(first)) = (node.parent, node.keys.first()) {
            self.nodes[parent].children.remove(first);
            if self.nodes[parent].parent.is_some() {
                self.list(parent);
            } else if self.nodes[parent].children.is_empty() {
                if let Some(root) = std::mem::take(&mut self.nodes[parent]).root {
                    self.roots.remove(&root);
                }
                self.vacant.push(parent);
            }
        }
        node.blocks
    }

    /// Notes a node as evictable if it is an unpinned leaf.
    fn list(&mut self, at: usize) {
        let node = &self.nodes[at];
        if node.pins == 0 && node.children.is_empty() {
            self.evictable.insert((node.last_used, at));
        }
    }

    fn unlist(&mut self, at: usize) {
        self.evictable.remove(&(self.nodes[at].last_used, at));
    }

    /// Everything that has to hold at any time.
    #[cfg(test)]
    pub fn check(&self) {
        let (mut stored, mut pinned) = (0, 0);
        for (at, node) in self.nodes.iter().enumerate() {
            if self.vacant.contains(&at) {
                assert!(node.parent.is_none() && node.children.is_empty() && node.pins == 0);
                continue;
            }
            assert_eq!(node.keys.len(), node.blocks.len());
            let Some(parent) = node.parent else {
                assert!(node.blocks.is_empty() && !node.children.is_empty());
                let found = node.root.as_ref().and_then(|root| self.root(root));
                assert_eq!(found, node.root.as_ref().map(|_| at));
                continue;
            };
            assert_eq!(self.nodes[parent].children.get(&node.keys[0]), Some(&at));
            for (key, child) in &node.children {
                assert_eq!(
                    (key, self.nodes[*child].parent),
                    (&self.nodes[*child].keys[0], Some(at))
                );
                assert!(self.nodes[*child].pins <= node.pins);
                assert!(self.nodes[*child].last_used <= node.last_used);
            }
            let listed = self.evictable.contains(&(node.last_used, at));
            assert_eq!(listed, node.pins == 0 && node.children.is_empty());
            stored += node.blocks.len();
            pinned += if node.pins > 0 { node.blocks.len() } else { 0 };
        }
        assert_eq!((stored, pinned), (self.stored_blocks, self.pinned_blocks));
        assert!(self.evictable.len() <= self.nodes.len());
    }
}
