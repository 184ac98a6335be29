//! Sparse distillation targets: a few candidates per row with the teacher's mass on each.

use std::sync::Arc;

/// Targets that do not fit the rows or the vocabulary.
#[derive(Debug, thiserror::Error, PartialEq)]
#[error("top-k targets: {0}")]
pub struct TargetsError(String);

/// Candidates `(row, token id, weight)` sorted by row. Cheap to clone.
#[derive(Debug, Clone)]
pub struct TopkTargets {
    entries: Arc<[(u32, u32, f32)]>,
    num_rows: usize,
}

impl TopkTargets {
    /// Checks `(row, token id, weight)` entries over `num_rows` rows and a vocabulary of
    /// `vocab_size`; rows must not decrease, weights be finite and not negative.
    pub fn new(
        entries: Vec<(u32, u32, f32)>,
        num_rows: usize,
        vocab_size: usize,
    ) -> Result<Self, TargetsError> {
        let mut last = 0;
        for &(row, id, weight) in &entries {
            if row < last || row as usize >= num_rows {
                return Err(TargetsError(format!(
                    "row {row} is out of order or beyond the {num_rows} rows"
                )));
            }
            last = row;
            if id as usize >= vocab_size {
                return Err(TargetsError(format!(
                    "token id {id} is outside the vocabulary of {vocab_size}"
                )));
            }
            if !(weight.is_finite() && weight >= 0.0) {
                return Err(TargetsError(format!("weight {weight} of token {id}")));
            }
        }
        Ok(Self {
            entries: entries.into(),
            num_rows,
        })
    }

    /// All entries, sorted by row.
    pub fn entries(&self) -> &[(u32, u32, f32)] {
        &self.entries
    }

    /// Number of rows the entries refer to.
    pub fn num_rows(&self) -> usize {
        self.num_rows
    }

    /// The entries of rows `start .. start + len`, with rows counted from `start`.
    pub fn slice(&self, start: usize, len: usize) -> Self {
        let from = self.entries.partition_point(|e| (e.0 as usize) < start);
        let to = self
            .entries
            .partition_point(|e| (e.0 as usize) < start + len);
        Self {
            entries: self.entries[from..to]
                .iter()
                .map(|&(row, id, w)| (row - start as u32, id, w))
                .collect(),
            num_rows: len,
        }
    }
}
