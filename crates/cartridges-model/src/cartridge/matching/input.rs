//! The head to be matched, and its checks.

use super::error::MatchError;

/// One key/value head of one layer, seen by its reference queries. Matrices are row-major.
#[derive(Debug, Clone, Copy)]
pub struct HeadInput<'a> {
    /// Head dimension `d`.
    pub head_dim: usize,
    /// Keys of the document after RoPE, `[T, d]`.
    pub keys: &'a [f32],
    /// Values of the document, `[T, d]`.
    pub values: &'a [f32],
    /// Reference queries after RoPE, `[n, d]`: those of all query heads that share this
    /// key/value head, stacked, at positions where they stand behind the document.
    pub queries: &'a [f32],
    /// Slots `p` of the cartridge.
    pub slots: usize,
    /// Weight of every query, `[n]`, at least 0; `None` counts all the same.
    pub weights: Option<&'a [f32]>,
}

impl HeadInput<'_> {
    /// Tokens `T` of the document.
    pub fn tokens(&self) -> usize {
        self.keys.len().checked_div(self.head_dim).unwrap_or(0)
    }

    /// Number `n` of reference queries.
    pub fn query_count(&self) -> usize {
        self.queries.len().checked_div(self.head_dim).unwrap_or(0)
    }

    pub(super) fn validate(&self) -> Result<(), MatchError> {
        let d = self.head_dim;
        if d == 0 {
            return Err(MatchError::NoHeadDim);
        }
        if self.slots == 0 {
            return Err(MatchError::NoSlots);
        }
        for (what, data) in [("keys", self.keys), ("queries", self.queries)] {
            if !data.len().is_multiple_of(d) {
                return Err(MatchError::Length {
                    what,
                    expected: format!("a multiple of head_dim {d}"),
                    found: data.len(),
                });
            }
        }
        if self.values.len() != self.keys.len() {
            return Err(MatchError::Length {
                what: "values",
                expected: format!("{} as keys have", self.keys.len()),
                found: self.values.len(),
            });
        }
        if self.tokens() < 2 {
            return Err(MatchError::TooFewTokens {
                tokens: self.tokens(),
            });
        }
        if self.query_count() == 0 {
            return Err(MatchError::NoQueries);
        }
        for (what, data) in [
            ("keys", self.keys),
            ("values", self.values),
            ("queries", self.queries),
        ] {
            check_finite(what, data)?;
        }
        if let Some(weights) = self.weights {
            self.validate_weights(weights)?;
        }
        Ok(())
    }

    fn validate_weights(&self, weights: &[f32]) -> Result<(), MatchError> {
        if weights.len() != self.query_count() {
            return Err(MatchError::Length {
                what: "weights",
                expected: format!("one per query, {}", self.query_count()),
                found: weights.len(),
            });
        }
        check_finite("weights", weights)?;
        if let Some(index) = weights.iter().position(|&w| w < 0.0) {
            return Err(MatchError::NegativeWeight {
                index,
                value: weights[index],
            });
        }
        if weights.iter().all(|&w| w == 0.0) {
            return Err(MatchError::ZeroWeights);
        }
        Ok(())
    }
}

/// Errors with the first number of `data` that is not finite.
pub(super) fn check_finite(what: &'static str, data: &[f32]) -> Result<(), MatchError> {
    match data.iter().position(|x| !x.is_finite()) {
        None => Ok(()),
        Some(index) => Err(MatchError::NotFinite {
            what,
            index,
            value: f64::from(data[index]),
        }),
    }
}
