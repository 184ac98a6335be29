use std::collections::BTreeSet;

use super::*;

mod model;

fn root(n: u8) -> Root {
    Root {
        cartridges: vec![[n; 32], [9; 32]],
        ..Root::default()
    }
}

fn ids(blocks: &[u32]) -> Vec<BlockId> {
    blocks.iter().copied().map(BlockId).collect()
}

/// Tokens whose blocks are the given kinds; kinds with the same tens share their first half.
fn tokens(kinds: &[u32]) -> Vec<u32> {
    let block = |kind: u32| [[kind / 10; BLOCK_ROWS / 2], [100 + kind; BLOCK_ROWS / 2]].concat();
    kinds.iter().copied().flat_map(block).collect()
}

/// What a lookup finds, without keeping it.
fn found(tree: &mut PrefixTree, root: &Root, ids: &[u32]) -> Vec<BlockId> {
    let matched = tree.lookup(root, ids);
    let blocks = matched.blocks.clone();
    assert_eq!(matched.tokens, blocks.len() * BLOCK_ROWS);
    assert!(tree.unpin(matched).is_empty());
    blocks
}

/// Stores blocks of a sequence that found nothing.
fn put(tree: &mut PrefixTree, root: &Root, kinds: &[u32], blocks: &[u32]) -> Vec<BlockId> {
    tree.insert(root, &tokens(kinds), Match::default(), &ids(blocks))
}

#[test]
fn the_last_token_is_never_matched() {
    let mut tree = PrefixTree::new();
    let prompt = tokens(&[1, 2, 3]);
    assert_eq!(put(&mut tree, &root(0), &[1, 2, 3], &[5, 6, 7]), []);
    assert_eq!(found(&mut tree, &root(0), &prompt), ids(&[5, 6]));
    assert_eq!(found(&mut tree, &root(0), &prompt[..33]), ids(&[5, 6]));
    assert_eq!(found(&mut tree, &root(0), &prompt[..32]), ids(&[5]));
    assert_eq!(found(&mut tree, &root(0), &prompt[..1]), []);
    assert_eq!(found(&mut tree, &root(0), &[]), []);
    let longer = [&prompt[..], &[1]].concat();
    assert_eq!(found(&mut tree, &root(0), &longer), ids(&[5, 6, 7]));
    assert_eq!(found(&mut tree, &root(1), &longer), []);
    let stats = tree.stats();
    assert_eq!(
        (stats.lookups, stats.hits, stats.hit_tokens),
        (7, 4, 8 * 16)
    );
    assert_eq!((stats.stored_tokens, stats.pinned_blocks), (48, 0));
}

#[test]
fn roots_differ_in_the_order_of_cartridges_the_adapters_and_the_model() {
    let mut tree = PrefixTree::new();
    let (prompt, base) = (tokens(&[1, 2]), root(0));
    assert_eq!(put(&mut tree, &base, &[1], &[0]), []);
    let mut swapped = base.clone();
    swapped.cartridges.reverse();
    let adapters = vec![[0; 32]];
    let adapted = Root {
        adapters,
        ..base.clone()
    };
    let model = [1; 32];
    let other = Root {
        model,
        ..base.clone()
    };
    for root in [swapped, adapted, other] {
        assert_eq!(found(&mut tree, &root, &prompt), []);
    }
    assert_eq!(found(&mut tree, &base, &prompt), ids(&[0]));
}

#[test]
fn inserting_gives_back_what_is_stored_already_or_not_full() {
    let mut tree = PrefixTree::new();
    assert_eq!(put(&mut tree, &root(0), &[1, 2, 3], &[0, 1, 2]), []);
    let mut prompt = tokens(&[1, 2, 4]);
    let early = tree.lookup(&root(0), &prompt[..20]);
    assert_eq!(early.blocks, ids(&[0]));
    // Of the blocks after the match, the first is stored by now and the last is not full.
    prompt.push(7);
    let own = ids(&[8, 9, 10]);
    let (stored, unused) = tree.insert_pinned(&root(0), &prompt, early, &own);
    assert_eq!(unused, ids(&[8, 10]));
    assert_eq!(stored.blocks, ids(&[0, 1, 9]));
    assert_eq!(
        (tree.stats().pinned_blocks, tree.evictable_blocks()),
        (3, 1)
    );
    assert_eq!(tree.evict(4), ids(&[2]));
    assert!(tree.unpin(stored).is_empty());
    assert_eq!(tree.evict(4), ids(&[9, 1, 0]));
    assert_eq!(
        (tree.stats().stored_tokens, tree.stats().evicted_blocks),
        (0, 4)
    );
    tree.nodes.check();
}

#[test]
fn eviction_takes_the_least_recently_used_leaf_from_its_end() {
    let mut tree = PrefixTree::new();
    assert_eq!(put(&mut tree, &root(0), &[1, 2, 3], &[0, 1, 2]), []);
    assert_eq!(put(&mut tree, &root(0), &[1, 4, 5], &[9, 3, 4]), ids(&[9]));
    assert_eq!(put(&mut tree, &root(1), &[1, 2], &[5, 6]), []);
    assert_eq!(
        found(&mut tree, &root(0), &tokens(&[1, 2, 3, 0])),
        ids(&[0, 1, 2])
    );
    assert_eq!(tree.evict(1), ids(&[4]));
    assert_eq!(tree.evict(2), ids(&[3, 6]));
    assert_eq!(found(&mut tree, &root(1), &tokens(&[1, 2, 0])), ids(&[5]));
    assert_eq!(tree.evict(9), ids(&[2, 1, 0, 5]));
    assert_eq!(tree.evict(1), []);
    tree.nodes.check();
}

#[test]
fn what_is_read_survives_the_end_of_its_root() {
    let mut tree = PrefixTree::new();
    assert_eq!(put(&mut tree, &root(0), &[1, 2, 3], &[0, 1, 2]), []);
    assert_eq!(put(&mut tree, &root(0), &[1, 4], &[9, 3]), ids(&[9]));
    assert_eq!(put(&mut tree, &root(1), &[1], &[4]), []);
    let matched = tree.lookup(&root(0), &tokens(&[1, 2, 0]));
    let same = tree.lookup(&root(0), &tokens(&[1, 0]));
    let freed: BTreeSet<_> = tree.forget_digest(&[0; 32]).into_iter().collect();
    assert_eq!(freed, ids(&[2, 3]).into_iter().collect());
    assert_eq!(found(&mut tree, &root(0), &tokens(&[1, 2, 0])), []);
    // The same prompt may be stored anew meanwhile.
    assert_eq!(put(&mut tree, &root(0), &[1], &[5]), []);
    assert_eq!(tree.unpin(matched), ids(&[1]));
    assert_eq!(tree.unpin(same), ids(&[0]));
    assert_eq!(tree.forget(|other| *other == root(0)), ids(&[5]));
    assert_eq!(tree.forget_digest(&[9; 32]), ids(&[4]));
    assert_eq!(tree.stats().stored_tokens, 0);
    tree.nodes.check();
}
