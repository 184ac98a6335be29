//! Why a text cannot be cut.

/// A text that cannot be cut into windows.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ChunkError {
    /// The limits make no sense.
    #[error(
        "chunks of {min} to {max} tokens: min_tokens_per_chunk must be at least 1 and at most \
         max_tokens_per_chunk"
    )]
    Limits {
        /// Lower limit.
        min: usize,
        /// Upper limit.
        max: usize,
    },
    /// Chunks without a character.
    #[error("chunk_size must be at least 1 character")]
    ChunkSize,
    /// There is nothing to cut.
    #[error("the text has no tokens")]
    Empty,
}
