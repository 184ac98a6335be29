//! What the engine refuses.

use cartridges_model::text::TextError;

/// A request that cannot be served, or a batch that was stopped.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// A prompt without tokens has nothing to continue.
    #[error("request {0} has an empty prompt")]
    EmptyPrompt(usize),
    /// An id outside the model's vocabulary.
    #[error("request {request}: token id {id} is outside the model's vocabulary")]
    TokenId {
        /// Index of the request.
        request: usize,
        /// The id.
        id: u32,
    },
    /// Cartridge, prompt and answer together exceed the model's positions.
    #[error(
        "request {request} needs {needed} positions (cartridges, prompt and answer together) but \
         the model has {limit}; shorten the prompt or ask for fewer new tokens"
    )]
    TooLong {
        /// Index of the request.
        request: usize,
        /// Positions needed.
        needed: usize,
        /// The model's `max_position_embeddings`.
        limit: usize,
    },
    /// The key/value pool cannot hold one request even when everything else is out of it.
    #[error("one request needs {needed} rows of key/value memory but the limit is {limit}")]
    PoolTooSmall {
        /// Rows needed.
        needed: usize,
        /// The limit of the engine's options.
        limit: usize,
    },
    /// A cartridge for a model of another shape.
    #[error("the cartridge has {found} but the model has {expected}")]
    CartridgeShape {
        /// Layers, heads and head size of the cartridge.
        found: String,
        /// Those of the model.
        expected: String,
    },
    /// A cartridge that has been removed.
    #[error("request {0} names a cartridge that was removed from the engine")]
    UnknownCartridge(usize),
    /// A sampling setting outside its range.
    #[error("request {request}: {problem}")]
    Sampling {
        /// Index of the request.
        request: usize,
        /// Which setting and what it may be.
        problem: String,
    },
    /// The model gave NaN or infinite scores.
    #[error("the model gave scores that are not finite; its weights or the cartridge are damaged")]
    NotFinite,
    /// The numbers could not be read back from the device.
    #[error("reading from the device failed: {0}")]
    Device(String),
    /// Ids could not be turned into text.
    #[error(transparent)]
    Text(#[from] TextError),
    /// The caller's callback asked to stop.
    #[error("stopped")]
    Stopped,
}
