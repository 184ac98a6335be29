//! What the engine refuses.

use cartridges_model::text::TextError;

use crate::constraint::ConstraintError;

/// What is wrong with one request. Others are not touched by it.
#[derive(Debug, Clone, thiserror::Error)]
pub enum RequestError {
    /// A prompt without tokens has nothing to continue.
    #[error("it has an empty prompt")]
    EmptyPrompt,
    /// An id outside the model's vocabulary.
    #[error("token id {0} is outside the model's vocabulary")]
    TokenId(u32),
    /// Cartridge, prompt and answer together exceed the model's positions.
    #[error(
        "{needed} positions are needed (cartridges, prompt and answer together) but the model has \
         {limit}; shorten the prompt or ask for fewer new tokens"
    )]
    TooLong {
        /// Positions needed.
        needed: usize,
        /// The model's `max_position_embeddings`.
        limit: usize,
    },
    /// The key/value memory cannot hold the request even when everything else is out of it.
    #[error("{needed} rows of key/value memory are needed but the limit is {limit}")]
    TooLarge {
        /// Rows needed, in whole blocks.
        needed: usize,
        /// The limit of the engine's options, without what cartridges take.
        limit: usize,
    },
    /// Too many requests are waiting.
    #[error("{0} requests are waiting already; try again later")]
    QueueFull(usize),
    /// A cartridge that is not in the engine.
    #[error("it names a cartridge that was removed from the engine")]
    UnknownCartridge,
    /// An adapter that is not in the engine.
    #[error("it names an adapter that was removed from the engine")]
    UnknownAdapter,
    /// A sampling setting outside its range: which, and what it may be.
    #[error("{0}")]
    Sampling(String),
    /// The model gave NaN or infinite scores.
    #[error("the model gave scores that are not finite; its weights or the cartridge are damaged")]
    NotFinite,
    /// Ids could not be turned into text.
    #[error("{0}")]
    Text(String),
    /// A mistake of the program.
    #[error("the program failed while it worked on this request")]
    Panicked,
    /// The required form of the answer cannot be met.
    #[error("{0}")]
    Constraint(String),
}

impl From<ConstraintError> for RequestError {
    fn from(error: ConstraintError) -> Self {
        Self::Constraint(error.to_string())
    }
}

impl From<TextError> for RequestError {
    fn from(error: TextError) -> Self {
        Self::Text(error.to_string())
    }
}

/// An engine that cannot do what it was asked for.
#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    /// One request of a batch.
    #[error("request {index}: {error}")]
    Request {
        /// Index of the request.
        index: usize,
        /// What is wrong with it.
        #[source]
        error: RequestError,
    },
    /// A cartridge for a model of another shape.
    #[error("the cartridge has {found} but the model has {expected}")]
    CartridgeShape {
        /// Layers, heads and head size of the cartridge.
        found: String,
        /// Those of the model.
        expected: String,
    },
    /// There is no room for a cartridge.
    #[error(
        "the cartridge needs {needed} rows of key/value memory, of which {limit} are there in all"
    )]
    NoRoom {
        /// Rows needed.
        needed: usize,
        /// The limit of the engine's options.
        limit: usize,
    },
    /// The numbers could not be read back from the device.
    #[error("reading from the device failed: {0}")]
    Device(String),
    /// A mistake of the program.
    #[error("the engine panicked")]
    Panicked,
    /// The caller's callback asked to stop.
    #[error("stopped")]
    Stopped,
}
