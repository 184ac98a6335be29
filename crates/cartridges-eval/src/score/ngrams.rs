//! Counts of the runs of `n` neighbours in a sequence.

use std::collections::HashMap;
use std::hash::Hash;

/// How often each run occurs.
pub(super) type Counts<'a, T> = HashMap<&'a [T], usize>;

/// Counts of the runs of `n` items; `n` is at least 1.
pub(super) fn counts<T: Eq + Hash>(items: &[T], n: usize) -> Counts<'_, T> {
    let mut counts = HashMap::new();
    for run in items.windows(n) {
        *counts.entry(run).or_insert(0) += 1;
    }
    counts
}

/// Number of all runs.
pub(super) fn total<T>(counts: &Counts<'_, T>) -> usize {
    counts.values().sum()
}

/// Number of runs that both have, each as often as in the one that has fewer of it.
pub(super) fn shared<T: Eq + Hash>(one: &Counts<'_, T>, other: &Counts<'_, T>) -> usize {
    one.iter()
        .map(|(run, count)| other.get(run).map_or(0, |there| *count.min(there)))
        .sum()
}
