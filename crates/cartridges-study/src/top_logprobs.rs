//! Top-k log-probabilities: dense as a model gives them, flat as they are stored.
//!
//! Per position the most likely candidates are kept until their mass reaches a threshold, so that a
//! sure token costs one entry and an open one all k. Stored values are the model's natural
//! log-probabilities, not renormalised.
//!
//! The reference keeps only the best candidate where the threshold is never reached, which throws
//! most away exactly where there is most to learn. Here all k are kept in that case.

/// A log-probability may exceed zero by this much: half-precision teachers round.
pub const POSITIVE_TOLERANCE: f32 = 1e-2;

/// Fill value of the log-probabilities in [`FlatTopLogprobs::reconstruct`], as in the reference.
pub const RECONSTRUCT_FILL: f32 = -1000.0;

/// The largest dense matrix that [`FlatTopLogprobs::reconstruct`] makes, in entries.
pub const MAX_DENSE_ENTRIES: usize = 1 << 28;

/// Numbers that are not top-k log-probabilities.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
pub enum TopLogprobsError {
    /// The mass threshold lies outside (0, 1].
    #[error("min_prob_mass is {0}, expected a number greater than 0 and at most 1")]
    Threshold(f64),
    /// The arrays do not form a matrix.
    #[error("{field} has {found} entries, expected {expected}")]
    Length {
        /// Which array.
        field: &'static str,
        /// Its length.
        found: usize,
        /// The length it must have.
        expected: usize,
    },
    /// A value is NaN or greater than zero.
    #[error("log-probability {value} at entry {entry} is not a number of at most 0")]
    Value {
        /// Position in the array.
        entry: usize,
        /// The value.
        value: f32,
    },
    /// A row of a dense matrix is not sorted.
    #[error("row {row} is not sorted by falling log-probability")]
    Order {
        /// The row.
        row: usize,
    },
    /// An entry points behind the last position, or a position has more than k entries.
    #[error(
        "entry {entry} belongs to position {position}, which the shape {rows}x{k} has no room for"
    )]
    Position {
        /// Position in the arrays.
        entry: usize,
        /// The position it names.
        position: u32,
        /// Positions in the shape.
        rows: usize,
        /// Candidates per position in the shape.
        k: usize,
    },
    /// The dense form would be larger than [`MAX_DENSE_ENTRIES`].
    #[error("the dense form of {rows}x{k} entries is too large")]
    TooLarge {
        /// Positions.
        rows: usize,
        /// Candidates per position.
        k: usize,
    },
}

/// Dense top-k: k candidates at each of `rows` positions, most likely first.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct DenseTopLogprobs {
    /// Candidates per position.
    pub k: usize,
    /// Vocabulary ids `[rows, k]`, row after row.
    pub token_ids: Vec<u32>,
    /// Natural log-probabilities `[rows, k]`, falling within a row.
    pub logprobs: Vec<f32>,
}

impl DenseTopLogprobs {
    /// The number of positions.
    pub fn rows(&self) -> usize {
        self.token_ids.len().checked_div(self.k).unwrap_or(0)
    }

    /// Checks that the arrays form a `[rows, k]` matrix of sorted log-probabilities.
    pub fn check(&self, rows: usize) -> Result<(), TopLogprobsError> {
        // A product that overflows equals no length, so it is reported as such.
        let expected = rows.saturating_mul(self.k);
        for (field, found) in [
            ("token_ids", self.token_ids.len()),
            ("logprobs", self.logprobs.len()),
        ] {
            if found != expected {
                return Err(TopLogprobsError::Length {
                    field,
                    found,
                    expected,
                });
            }
        }
        check_values(&self.logprobs)?;
        for row in 0..rows {
            let values = &self.logprobs[row * self.k..(row + 1) * self.k];
            if values.windows(2).any(|w| w[0] < w[1]) {
                return Err(TopLogprobsError::Order { row });
            }
        }
        Ok(())
    }

    /// Keeps per row the candidates up to and with the first at which the running mass reaches
    /// `min_prob_mass` (in (0, 1]), or all k if it never does.
    pub fn flatten(&self, min_prob_mass: f64) -> Result<FlatTopLogprobs, TopLogprobsError> {
        check_threshold(min_prob_mass)?;
        let rows = self.rows();
        self.check(rows)?;
        let mut flat = FlatTopLogprobs {
            shape: (rows, self.k),
            ..FlatTopLogprobs::default()
        };
        for row in 0..rows {
            let mut mass = 0.0;
            for column in row * self.k..(row + 1) * self.k {
                flat.token_idx.push(row as u32);
                flat.token_id.push(self.token_ids[column]);
                flat.logprobs.push(self.logprobs[column]);
                mass += f64::from(self.logprobs[column]).exp();
                if mass >= min_prob_mass {
                    break;
                }
            }
        }
        Ok(flat)
    }
}

/// Flat (sparse) top-k: entry `i` says that at position `token_idx[i]` of the message's ids the
/// candidate `token_id[i]` has log-probability `logprobs[i]`.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct FlatTopLogprobs {
    /// Position of each entry in the message's `token_ids`, `[entries]`.
    pub token_idx: Vec<u32>,
    /// Vocabulary id of each entry, `[entries]`.
    pub token_id: Vec<u32>,
    /// Natural log-probability of each entry, `[entries]`.
    pub logprobs: Vec<f32>,
    /// (positions, k) of the dense matrix.
    pub shape: (usize, usize),
}

impl FlatTopLogprobs {
    /// The number of entries.
    pub fn len(&self) -> usize {
        self.token_idx.len()
    }

    /// Whether there is no entry.
    pub fn is_empty(&self) -> bool {
        self.token_idx.is_empty()
    }

    /// Checks lengths, values and that every entry has room in the shape.
    pub fn check(&self) -> Result<(), TopLogprobsError> {
        let expected = self.token_idx.len();
        for (field, found) in [
            ("token_id", self.token_id.len()),
            ("logprobs", self.logprobs.len()),
        ] {
            if found != expected {
                return Err(TopLogprobsError::Length {
                    field,
                    found,
                    expected,
                });
            }
        }
        check_values(&self.logprobs)?;
        let (rows, k) = self.shape;
        // Entries come position after position; counting runs needs no memory per position.
        let mut previous = None;
        let mut run = 0usize;
        for (entry, &position) in self.token_idx.iter().enumerate() {
            run = if previous == Some(position) {
                run + 1
            } else {
                1
            };
            let backwards = previous.is_some_and(|p| p > position);
            previous = Some(position);
            if position as usize >= rows || run > k || backwards {
                return Err(TopLogprobsError::Position {
                    entry,
                    position,
                    rows,
                    k,
                });
            }
        }
        Ok(())
    }

    /// The dense matrix: kept entries in the leading columns, the rest [`RECONSTRUCT_FILL`] with
    /// id −1. Ids are signed here because of that fill.
    pub fn reconstruct(&self) -> Result<Reconstructed, TopLogprobsError> {
        self.check()?;
        let (rows, k) = self.shape;
        let entries = rows
            .checked_mul(k)
            .filter(|&n| n <= MAX_DENSE_ENTRIES)
            .ok_or(TopLogprobsError::TooLarge { rows, k })?;
        let mut dense = Reconstructed {
            k,
            token_ids: vec![-1; entries],
            logprobs: vec![RECONSTRUCT_FILL; entries],
        };
        let mut previous = None;
        let mut column = 0;
        for (entry, &position) in self.token_idx.iter().enumerate() {
            column = if previous == Some(position) {
                column + 1
            } else {
                0
            };
            previous = Some(position);
            let at = position as usize * k + column;
            dense.token_ids[at] = i64::from(self.token_id[entry]);
            dense.logprobs[at] = self.logprobs[entry];
        }
        Ok(dense)
    }
}

/// What [`FlatTopLogprobs::reconstruct`] gives.
#[derive(Debug, Clone, PartialEq)]
pub struct Reconstructed {
    /// Candidates per position.
    pub k: usize,
    /// Vocabulary ids `[rows, k]`, −1 where nothing was kept.
    pub token_ids: Vec<i64>,
    /// Natural log-probabilities `[rows, k]`, [`RECONSTRUCT_FILL`] where nothing was kept.
    pub logprobs: Vec<f32>,
}

/// Checks that a mass threshold lies in (0, 1].
pub fn check_threshold(min_prob_mass: f64) -> Result<(), TopLogprobsError> {
    if min_prob_mass > 0.0 && min_prob_mass <= 1.0 {
        Ok(())
    } else {
        Err(TopLogprobsError::Threshold(min_prob_mass))
    }
}

fn check_values(logprobs: &[f32]) -> Result<(), TopLogprobsError> {
    // Minus infinity is a probability of zero and fine; the comparison is false for NaN.
    match logprobs
        .iter()
        .position(|&v| v.is_nan() || v > POSITIVE_TOLERANCE)
    {
        None => Ok(()),
        Some(entry) => Err(TopLogprobsError::Value {
            entry,
            value: logprobs[entry],
        }),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// The worked example of the reference description, section 12.1.
    fn example() -> DenseTopLogprobs {
        let probabilities = [0.90f32, 0.08, 0.015, 0.995, 0.003, 0.001, 0.40, 0.30, 0.10];
        DenseTopLogprobs {
            k: 3,
            token_ids: vec![11, 12, 13, 21, 22, 23, 31, 32, 33],
            logprobs: probabilities.iter().map(|p| p.ln()).collect(),
        }
    }

    #[test]
    fn flattening_keeps_all_candidates_where_the_mass_is_not_reached() {
        let flat = example().flatten(0.99).unwrap();
        assert_eq!(flat.token_idx, [0, 0, 0, 1, 2, 2, 2]);
        assert_eq!(flat.token_id, [11, 12, 13, 21, 31, 32, 33]);
        assert_eq!(flat.shape, (3, 3));
        assert_eq!(flat.logprobs[3], 0.995f32.ln());
    }

    #[test]
    fn reconstruction_fills_what_was_dropped() {
        let dense = example().flatten(0.99).unwrap().reconstruct().unwrap();
        assert_eq!(dense.token_ids, [11, 12, 13, 21, -1, -1, 31, 32, 33]);
        assert_eq!(dense.logprobs[4], -1000.0);
        assert_eq!(dense.logprobs[0], 0.90f32.ln());
    }

    #[test]
    fn the_threshold_must_lie_in_zero_to_one() {
        for bad in [0.0, -0.5, 1.0001, f64::NAN, f64::INFINITY] {
            assert!(matches!(
                example().flatten(bad),
                Err(TopLogprobsError::Threshold(_))
            ));
        }
        assert_eq!(example().flatten(1.0).unwrap().len(), 9);
        assert_eq!(example().flatten(1e-9).unwrap().len(), 3);
    }

    #[test]
    fn malformed_matrices_are_refused() {
        let mut dense = example();
        dense.logprobs.swap(0, 1);
        assert_eq!(dense.flatten(0.99), Err(TopLogprobsError::Order { row: 0 }));
        let mut dense = example();
        dense.logprobs[8] = f32::NAN;
        assert!(matches!(
            dense.flatten(0.99),
            Err(TopLogprobsError::Value { entry: 8, .. })
        ));
        let mut dense = example();
        dense.token_ids.push(1);
        assert!(dense.flatten(0.99).is_err());
        let mut flat = example().flatten(0.99).unwrap();
        flat.token_idx[6] = 3;
        assert!(matches!(
            flat.reconstruct(),
            Err(TopLogprobsError::Position { entry: 6, .. })
        ));
        let huge = FlatTopLogprobs {
            shape: (usize::MAX, 2),
            ..FlatTopLogprobs::default()
        };
        assert!(matches!(
            huge.reconstruct(),
            Err(TopLogprobsError::TooLarge { .. })
        ));
    }

    #[test]
    fn nothing_flattens_to_nothing() {
        let flat = DenseTopLogprobs::default().flatten(0.99).unwrap();
        assert!(flat.is_empty());
        assert_eq!(flat.shape, (0, 0));
    }

    proptest! {
        #[test]
        fn kept_entries_are_leading_and_reach_the_mass_or_are_all(
            rows in 0usize..6,
            k in 1usize..6,
            values in proptest::collection::vec(-8.0f32..0.0, 36),
            threshold in 0.01f64..=1.0,
        ) {
            let mut logprobs = values[..rows * k].to_vec();
            for row in logprobs.chunks_mut(k) {
                row.sort_by(|a, b| b.total_cmp(a));
            }
            let dense = DenseTopLogprobs { k, token_ids: (0..(rows * k) as u32).collect(), logprobs };
            let flat = dense.flatten(threshold).unwrap();
            flat.check().unwrap();
            for row in 0..rows {
                let kept = flat.token_idx.iter().filter(|&&i| i as usize == row).count();
                let mass = |n: usize| -> f64 {
                    dense.logprobs[row * k..row * k + n].iter().map(|&v| f64::from(v).exp()).sum()
                };
                prop_assert!(kept >= 1 && kept <= k);
                prop_assert!(kept == k || mass(kept) >= threshold);
                prop_assert!(mass(kept - 1) < threshold);
            }
        }
    }
}
