//! What can be wrong with a head that is to be matched.

use thiserror::Error;

/// Why a head could not be matched, or keys not be rotated.
#[derive(Debug, Clone, PartialEq, Error)]
pub enum MatchError {
    /// The head has no dimensions.
    #[error("head_dim is 0, expected at least 1")]
    NoHeadDim,
    /// Zero slots were asked for.
    #[error("slots is 0, expected at least 1")]
    NoSlots,
    /// There is nothing to match.
    #[error("blocks are none, expected at least 1")]
    NoBlocks,
    /// The document is too short to be matched.
    #[error("keys hold {tokens} token(s), expected at least 2")]
    TooFewTokens {
        /// Tokens (rows of `keys`) that were given.
        tokens: usize,
    },
    /// There are no reference queries.
    #[error("queries are empty, expected at least 1 reference query")]
    NoQueries,
    /// A slice does not have the length its shape asks for.
    #[error("{what} hold {found} numbers, expected {expected}")]
    Length {
        /// Name of the field.
        what: &'static str,
        /// The rule that was broken, in words.
        expected: String,
        /// Numbers that were given.
        found: usize,
    },
    /// A number is NaN or infinite.
    #[error("{what}[{index}] is {value}, expected a finite number")]
    NotFinite {
        /// Name of the field.
        what: &'static str,
        /// Position in the flat slice.
        index: usize,
        /// The offending number.
        value: f64,
    },
    /// Query weights have to be non-negative and not all zero.
    #[error("weights[{index}] is {value}, expected 0 or more")]
    NegativeWeight {
        /// Position in `weights`.
        index: usize,
        /// The offending weight.
        value: f32,
    },
    /// All query weights are zero.
    #[error("weights are all zero, expected at least one above zero")]
    ZeroWeights,
    /// An attention score left the range of `f32`.
    #[error("the attention scores of query {query} overflow f32: keys or queries are too large")]
    ScoreOverflow {
        /// Row of the query.
        query: usize,
    },
    /// An option is outside its range.
    #[error("option {option} is {value}, expected {expected}")]
    BadOption {
        /// Name of the option.
        option: &'static str,
        /// The value that was given.
        value: f64,
        /// The allowed range, in words.
        expected: &'static str,
    },
    /// A linear system stayed indefinite although its ridge was raised again and again.
    #[error(
        "the least squares system for {what} ({size} x {size}) is not positive definite even with ridge {ridge:e}"
    )]
    NotSolvable {
        /// What was to be solved for.
        what: &'static str,
        /// Rows of the system.
        size: usize,
        /// The last ridge that was tried.
        ridge: f64,
    },
}
