//! Why decoding is not constrained.

use super::schema::{MAX_DEPTH, MAX_SCHEMA_BYTES};

/// Why decoding cannot be constrained, or cannot go on.
#[derive(Debug, thiserror::Error)]
pub enum ConstraintError {
    /// A vocabulary the library cannot hold.
    #[error("the vocabulary has {found} {what}, expected 1 to {limit}")]
    Vocabulary {
        /// Tokens, or bytes of all tokens.
        what: &'static str,
        /// How many.
        found: usize,
        /// The most there may be.
        limit: usize,
    },
    /// Nothing could end a document.
    #[error("constrained decoding needs the id of at least one stop token")]
    NoStopId,
    /// A stop token outside the vocabulary.
    #[error("stop token id {id} is outside the vocabulary of {size} tokens")]
    StopId {
        /// The id.
        id: u32,
        /// Tokens of the vocabulary.
        size: usize,
    },
    /// A schema whose text is too long.
    #[error("the JSON schema has {bytes} bytes, the limit is {MAX_SCHEMA_BYTES}")]
    SchemaTooLong {
        /// Its length.
        bytes: usize,
    },
    /// A schema that is not JSON.
    #[error("the JSON schema is not JSON: {0}")]
    SchemaSyntax(#[source] serde_json::Error),
    /// A schema that is a list, a word or a number.
    #[error("the JSON schema is not an object")]
    SchemaNotObject,
    /// Values within values within values.
    #[error("the JSON schema is nested more than {MAX_DEPTH} levels deep")]
    SchemaTooDeep,
    /// A keyword that is not part of JSON Schema but of the library below.
    #[error("the JSON schema has the key {0}, which is not accepted")]
    SchemaKey(&'static str),
    /// A number that would cost too much.
    #[error("the JSON schema has {keyword} {value}, the limit is {limit}")]
    SchemaSize {
        /// `minItems`, `maximum` or another keyword with a number.
        keyword: String,
        /// Its value.
        value: String,
        /// The largest value, up or down.
        limit: f64,
    },
    /// A schema that nothing satisfies, that is too complex, or with a feature that is not
    /// supported.
    #[error("the JSON schema cannot be used: {0}")]
    Schema(String),
    /// No token of the vocabulary can follow.
    #[error("no token of the vocabulary can continue the document as the JSON schema demands")]
    NoToken,
    /// A step that cost more than it may.
    #[error("the constraint failed: {0}")]
    Step(String),
    /// Fewer logits than tokens.
    #[error("there are {found} logits for a vocabulary of {size} tokens")]
    Logits {
        /// Logits given.
        found: usize,
        /// Tokens of the vocabulary.
        size: usize,
    },
    /// All tokens that may follow were excluded beforehand.
    #[error("every token that can continue the document has a logit of -inf")]
    Excluded,
    /// A token that may not follow.
    #[error("token id {0} cannot continue the document")]
    Refused(u32),
}

/// The library's message without its traces and without advice for grammars written by hand.
pub fn in_short(message: &str) -> String {
    let lines = message.lines().take_while(|line| !line.starts_with('<'));
    let words: Vec<&str> = lines.flat_map(str::split_whitespace).collect();
    let words = words.join(" ");
    let message = words.split("; consider").next().unwrap_or_default();
    message.chars().take(300).collect()
}
