//! Who may attend to whom in a packed batch.

use std::any::Any;
use std::fmt;
use std::sync::{Arc, Mutex, PoisonError};

/// A layout that contradicts itself or the tensors it is used with.
#[derive(Debug, thiserror::Error, PartialEq, Eq)]
#[error("attention layout: {0}")]
pub struct LayoutError(String);

/// A run of key rows `start .. start + len` that a [`QueryRun`] sees.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct KeyRange {
    /// First key row.
    pub start: usize,
    /// Number of key rows.
    pub len: usize,
    /// The last query row of the run stands at the last key row, the one before at the one before,
    /// and each sees the keys up to its own (bottom-right aligned). Otherwise all rows see all keys.
    pub causal: bool,
}

/// Consecutive query rows of one sequence.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct QueryRun {
    /// First query row.
    pub start: usize,
    /// Number of query rows.
    pub len: usize,
    /// The keys it sees; ranges do not overlap.
    pub keys: Vec<KeyRange>,
}

/// Which key rows each query row of a packed batch may see. Cheap to clone.
///
/// Nothing outside the ranges is ever computed by the fast bodies, and a range that
/// several neighbouring runs share (a cartridge, a common prompt) is read once for all of them.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct AttentionLayout {
    runs: Arc<[QueryRun]>,
    num_queries: usize,
    num_keys: usize,
    mask: MaskCache,
}

/// The layout as a tensor, for bodies that need one; made once for all layers. It is no part of what a
/// layout is.
#[derive(Clone, Default)]
struct MaskCache(Arc<Mutex<Option<Box<dyn Any + Send>>>>);

impl PartialEq for MaskCache {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for MaskCache {}

impl fmt::Debug for MaskCache {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("..")
    }
}

impl AttentionLayout {
    /// What `make` gave for this layout before, if it `fits`; one is kept at a time.
    pub(crate) fn cached<T: Clone + Send + 'static>(
        &self,
        fits: impl Fn(&T) -> bool,
        make: impl FnOnce() -> T,
    ) -> T {
        let mut kept = self.mask.0.lock().unwrap_or_else(PoisonError::into_inner);
        let found = kept.as_ref().and_then(|kept| kept.downcast_ref::<T>());
        if let Some(found) = found.filter(|found| fits(found)) {
            return found.clone();
        }
        let made = make();
        *kept = Some(Box::new(made.clone()));
        made
    }

    /// Checks and freezes a layout of `num_queries` query rows over `num_keys` key rows.
    ///
    /// Runs must cover the query rows in order and without gaps; ranges must lie inside the keys; a
    /// causal range must be at least as long as its run.
    pub fn new(
        runs: Vec<QueryRun>,
        num_queries: usize,
        num_keys: usize,
    ) -> Result<Self, LayoutError> {
        let mut next = 0;
        for run in &runs {
            if run.start != next || run.len == 0 {
                return Err(LayoutError(format!(
                    "query run at {} of {} rows, expected a non-empty one at {next}",
                    run.start, run.len
                )));
            }
            next += run.len;
            for range in &run.keys {
                let end = range.start.checked_add(range.len);
                if end.is_none_or(|end| end > num_keys) {
                    return Err(LayoutError(format!(
                        "key rows {}+{} lie outside the {num_keys} keys",
                        range.start, range.len
                    )));
                }
                if range.causal && range.len < run.len {
                    return Err(LayoutError(format!(
                        "causal range of {} keys is shorter than its run of {} queries",
                        range.len, run.len
                    )));
                }
            }
        }
        if next != num_queries {
            return Err(LayoutError(format!(
                "runs cover {next} of {num_queries} query rows"
            )));
        }
        Ok(Self {
            runs: runs.into(),
            num_queries,
            num_keys,
            mask: MaskCache::default(),
        })
    }

    /// Packed sequences behind one shared prefix: keys are `prefix` rows that everybody sees,
    /// then the tokens themselves, each seeing earlier-or-equal tokens of its own sequence.
    ///
    /// `lengths` are the sequences' token counts in packed order; zeros are passed over.
    pub fn packed(prefix: usize, lengths: &[usize]) -> Self {
        let mut runs = Vec::with_capacity(lengths.len());
        let mut start = 0;
        for &len in lengths.iter().filter(|len| **len > 0) {
            let mut keys = Vec::with_capacity(2);
            if prefix > 0 {
                keys.push(KeyRange {
                    start: 0,
                    len: prefix,
                    causal: false,
                });
            }
            keys.push(KeyRange {
                start: prefix + start,
                len,
                causal: true,
            });
            runs.push(QueryRun { start, len, keys });
            start += len;
        }
        Self {
            runs: runs.into(),
            num_queries: start,
            num_keys: prefix + start,
            mask: MaskCache::default(),
        }
    }

    /// The runs in row order.
    pub fn runs(&self) -> &[QueryRun] {
        &self.runs
    }

    /// Number of query rows.
    pub fn num_queries(&self) -> usize {
        self.num_queries
    }

    /// Number of key rows.
    pub fn num_keys(&self) -> usize {
        self.num_keys
    }

    /// How many leading keys of `range` the query row `query` of `run` sees.
    pub fn visible(run: &QueryRun, range: &KeyRange, query: usize) -> usize {
        if range.causal {
            range.len - (run.start + run.len - 1 - query)
        } else {
            range.len
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn packed_sequences_see_the_prefix_and_their_own_past() {
        let layout = AttentionLayout::packed(4, &[2, 0, 3]);
        assert_eq!((layout.num_queries(), layout.num_keys()), (5, 9));
        let run = &layout.runs()[1];
        assert_eq!((run.start, run.keys[1].start), (2, 6));
        assert_eq!(AttentionLayout::visible(run, &run.keys[1], 2), 1);
        assert_eq!(AttentionLayout::visible(run, &run.keys[1], 4), 3);
        assert_eq!(AttentionLayout::visible(run, &run.keys[0], 2), 4);
    }

    #[test]
    fn contradictions_are_refused() {
        let run = |start, len, keys| QueryRun { start, len, keys };
        let key = |start, len, causal| KeyRange { start, len, causal };
        assert!(AttentionLayout::new(vec![run(1, 1, vec![])], 2, 0).is_err());
        assert!(AttentionLayout::new(vec![run(0, 1, vec![key(3, 2, false)])], 1, 4).is_err());
        assert!(AttentionLayout::new(vec![run(0, 3, vec![key(0, 2, true)])], 3, 4).is_err());
        assert!(
            AttentionLayout::new(vec![run(0, 1, vec![key(usize::MAX, 2, false)])], 1, 4).is_err()
        );
        assert!(AttentionLayout::new(vec![run(0, 3, vec![key(0, 4, true)])], 3, 4).is_ok());
    }
}
