//! Sparse distillation targets: a few candidates per row with the teacher's mass on each, and where
//! wanted the mass on all other tokens together.

use std::sync::Arc;

/// Targets that do not fit the rows or the vocabulary.
#[derive(Debug, thiserror::Error, PartialEq)]
#[error("top-k targets: {0}")]
pub struct TargetsError(String);

/// Below this the student's mass on the rest counts as this much, and has no gradient.
pub const REST_FLOOR: f64 = 1e-6;

/// Candidates `(row, token id, weight)` sorted by row. Cheap to clone.
#[derive(Debug, Clone)]
pub struct TopkTargets {
    entries: Arc<[(u32, u32, f32)]>,
    num_rows: usize,
    /// Per row the weight on all tokens that are no candidates; `None` if no row has any.
    rest: Option<Arc<[f32]>>,
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
            rest: None,
        })
    }

    /// The same with a tail bucket: `rest[row]` is the teacher's weight on all tokens together that
    /// are no candidates of the row; 0 leaves the row as it was.
    ///
    /// # Errors
    /// If there is not one finite weight of at least 0 per row.
    pub fn with_rest(mut self, rest: Vec<f32>) -> Result<Self, TargetsError> {
        if rest.len() != self.num_rows {
            return Err(TargetsError(format!(
                "{} tail weights for {} rows",
                rest.len(),
                self.num_rows
            )));
        }
        if let Some(weight) = rest.iter().find(|w| !(w.is_finite() && **w >= 0.0)) {
            return Err(TargetsError(format!("tail weight {weight}")));
        }
        self.rest = rest.iter().any(|w| *w > 0.0).then(|| rest.into());
        Ok(self)
    }

    /// All entries, sorted by row.
    pub fn entries(&self) -> &[(u32, u32, f32)] {
        &self.entries
    }

    /// The entries of one row.
    pub fn row(&self, row: u32) -> &[(u32, u32, f32)] {
        let from = self.entries.partition_point(|e| e.0 < row);
        let to = self.entries.partition_point(|e| e.0 <= row);
        &self.entries[from..to]
    }

    /// Per row the weight on all tokens that are no candidates; `None` if no row has any.
    pub fn rest(&self) -> Option<&[f32]> {
        self.rest.as_deref()
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
            rest: (self.rest.as_ref()).map(|rest| rest[start..start + len].into()),
        }
    }
}
