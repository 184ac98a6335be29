use proptest::prelude::*;

use super::*;

fn ids(blocks: &[u32]) -> Vec<BlockId> {
    blocks.iter().copied().map(BlockId).collect()
}

#[test]
fn ranges_coalesce_neighbours_and_stop_at_the_length() {
    assert_eq!(
        row_ranges(&ids(&[3, 4, 9, 8]), 50),
        [(48, 32), (144, 16), (128, 2)]
    );
    assert_eq!(row_ranges(&ids(&[3, 4]), 17), [(48, 17)]);
    assert_eq!(row_ranges(&ids(&[3, 4]), 16), [(48, 16)]);
    assert_eq!(row_ranges(&ids(&[3]), 0), []);
    assert_eq!(row_at(&ids(&[3, 9]), 17), Some(145));
    assert_eq!(row_at(&ids(&[3, 9]), 32), None);
    assert_eq!([0, 1, 16, 17].map(blocks_for), [0, 1, 1, 2]);
}

#[test]
fn sequences_that_grow_in_turn_keep_to_one_range() {
    let mut pool = BlockPool::new(64);
    let mut sequences: Vec<_> = (0..4).filter_map(|_| pool.take_after(None, 2)).collect();
    for _ in 0..4 {
        for blocks in &mut sequences {
            let more = pool.take_after(blocks.last().copied(), 1);
            blocks.extend(more.into_iter().flatten());
        }
    }
    for blocks in &sequences {
        assert_eq!(blocks.len(), 6);
        assert_eq!(row_ranges(blocks, 96).len(), 1, "{blocks:?}");
    }
}

#[test]
fn taking_is_all_or_nothing() {
    let mut pool = BlockPool::new(4);
    let three = pool.take_after(None, 3).unwrap();
    assert_eq!(pool.take_after(None, 2), None);
    assert_eq!((pool.used(), pool.free()), (3, 1));
    pool.grow(1);
    assert_eq!(pool.take_after(None, 2).unwrap().len(), 2);
    assert_eq!(pool.take_after(None, 0).unwrap(), []);
    pool.release_all(three);
    assert_eq!((pool.used(), pool.high_water(), pool.capacity()), (2, 5, 5));
}

#[test]
#[cfg_attr(debug_assertions, should_panic(expected = "release of block"))]
fn a_second_release_changes_nothing() {
    let mut pool = BlockPool::new(2);
    let id = pool.take_after(None, 1).unwrap()[0];
    assert!(pool.release(id));
    assert!(!pool.release(id));
    assert_eq!((pool.faults(), pool.free()), (1, 2));
    assert_eq!(pool.take_after(None, 2).unwrap().len(), 2);
}

#[derive(Debug, Clone)]
enum Op {
    Take(usize, Option<usize>),
    Release(usize),
    Grow(usize),
}

fn op() -> impl Strategy<Value = Op> {
    prop_oneof![
        3 => (0usize..8, prop::option::of(any::<usize>())).prop_map(|(n, at)| Op::Take(n, at)),
        4 => any::<usize>().prop_map(Op::Release),
        1 => (0usize..4).prop_map(Op::Grow),
    ]
}

proptest! {
    #[test]
    fn accounting_agrees_with_a_list_of_holders(
        start in 0usize..40,
        ops in prop::collection::vec(op(), 0..200),
    ) {
        let mut pool = BlockPool::new(start);
        let mut capacity = start;
        let mut held: Vec<BlockId> = Vec::new();
        let mut most = 0;
        for op in ops {
            match op {
                Op::Take(n, at) => {
                    let last = at.filter(|_| !held.is_empty()).map(|at| held[at % held.len()]);
                    let used: BTreeSet<_> = held.iter().copied().collect();
                    let taken = pool.take_after(last, n);
                    prop_assert_eq!(taken.is_some(), n <= capacity - used.len());
                    let taken = taken.unwrap_or_default();
                    let next = last.map(|last| BlockId(last.0 + 1));
                    if let Some(next) = next
                        && !taken.is_empty()
                        && (next.0 as usize) < capacity
                        && !used.contains(&next)
                    {
                        prop_assert_eq!(taken[0], next);
                    }
                    for id in taken {
                        prop_assert!((id.0 as usize) < capacity && !held.contains(&id));
                        held.push(id);
                    }
                }
                Op::Release(at) if !held.is_empty() => {
                    let id = held.swap_remove(at % held.len());
                    prop_assert!(pool.release(id));
                }
                Op::Release(_) => {}
                Op::Grow(n) => {
                    pool.grow(n);
                    capacity += n;
                }
            }
            let used: BTreeSet<_> = held.iter().copied().collect();
            most = most.max(used.len());
            prop_assert_eq!(pool.used(), used.len());
            prop_assert_eq!(pool.free(), capacity - used.len());
            prop_assert_eq!(pool.high_water(), most);
        }
        pool.release_all(held);
        prop_assert_eq!((pool.used(), pool.faults()), (0, 0));
        // What came back in any order is one run again.
        let all = pool.take_after(None, capacity).unwrap();
        prop_assert_eq!(row_ranges(&all, capacity * BLOCK_ROWS).len(), capacity.min(1));
    }

    #[test]
    fn ranges_are_the_rows_in_order(
        blocks in prop::collection::vec(0u32..12, 0..12),
        cut in 0usize..BLOCK_ROWS,
    ) {
        let blocks = ids(&blocks);
        let rows = (blocks.len() * BLOCK_ROWS).saturating_sub(cut);
        let ranges = row_ranges(&blocks, rows);
        let flat: Vec<_> = ranges.iter().flat_map(|(start, len)| *start..start + len).collect();
        let expected: Vec<_> = (0..rows).filter_map(|i| row_at(&blocks, i)).collect();
        prop_assert_eq!(flat, expected);
        prop_assert!(ranges.windows(2).all(|pair| pair[0].0 + pair[0].1 != pair[1].0));
    }
}
