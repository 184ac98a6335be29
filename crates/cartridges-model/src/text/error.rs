//! What can go wrong between text and token ids.

use std::path::PathBuf;

/// Errors of the tokenizer and of the chat template.
#[derive(Debug, thiserror::Error)]
pub enum TextError {
    /// A tokenizer file could not be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// A tokenizer file is larger than any real one.
    #[error("{path} is larger than the {limit} bytes that such a file may have")]
    FileTooLarge {
        /// The file.
        path: PathBuf,
        /// The most bytes accepted.
        limit: u64,
    },
    /// A file is not what its name promises.
    #[error("{path}: {message}")]
    File {
        /// The file.
        path: PathBuf,
        /// What was expected and what was found.
        message: String,
    },
    /// A field of a JSON file has the wrong type or value.
    #[error("{path}: field `{field}`: {message}")]
    Field {
        /// The file.
        path: PathBuf,
        /// The field's name.
        field: &'static str,
        /// What was expected and what was found.
        message: String,
    },
    /// GGUF tokenizer metadata that contradicts itself.
    #[error("GGUF key `{key}`: {message}")]
    Gguf {
        /// The metadata key.
        key: &'static str,
        /// What was expected and what was found.
        message: String,
    },
    /// A tokenizer kind that is not byte-level BPE.
    #[error(
        "GGUF key `tokenizer.ggml.model` is `{model}`; only `gpt2` (byte-level BPE) can be rebuilt \
         from a GGUF file, use the model's Hugging Face folder instead"
    )]
    UnsupportedGgufModel {
        /// The kind found.
        model: String,
    },
    /// A pre-tokenizer whose splitting rule is not known here.
    #[error(
        "GGUF key `tokenizer.ggml.pre` names the unknown pre-tokenizer `{name}` (known: {known}); \
         use the model's Hugging Face folder instead"
    )]
    UnsupportedPreTokenizer {
        /// The name found.
        name: String,
        /// The names understood.
        known: String,
    },
    /// Text that the tokenizer could not encode.
    #[error("cannot encode text: {message}")]
    Encode {
        /// The tokenizer's reason.
        message: String,
    },
    /// Ids that the tokenizer could not decode.
    #[error("cannot decode ids: {message}")]
    Decode {
        /// The tokenizer's reason.
        message: String,
    },
    /// The model brings no chat template.
    #[error(
        "the model has no chat template{hint}; choose one explicitly (for example the ChatML template)"
    )]
    NoTemplate {
        /// Names of templates that exist but were not chosen, or nothing.
        hint: String,
    },
    /// A named template that the model does not have.
    #[error("the model has no chat template named `{name}` (it has: {available})")]
    UnknownTemplate {
        /// The name asked for.
        name: String,
        /// The names there are.
        available: String,
    },
    /// The template's source is larger than any real one.
    #[error("the chat template is {found} bytes long; at most {limit} are accepted")]
    TemplateTooLarge {
        /// Its length in bytes.
        found: usize,
        /// The most bytes accepted.
        limit: usize,
    },
    /// The template does not parse, or fails while it renders.
    #[error("chat template, line {line}: {message}")]
    Template {
        /// Line of the template, from 1; 0 when the engine does not tell.
        line: usize,
        /// The engine's reason.
        message: String,
    },
    /// The template itself refused the conversation (`raise_exception`).
    #[error("the chat template refuses this conversation: {message}")]
    TemplateRaised {
        /// The template's words.
        message: String,
    },
    /// The rendered conversation is too long.
    #[error("the rendered conversation is longer than {limit} bytes")]
    OutputTooLarge {
        /// The most bytes rendered.
        limit: usize,
    },
    /// A keyword that the renderer sets itself.
    #[error("template keyword `{name}` is set by the renderer and cannot be passed")]
    ReservedKeyword {
        /// The keyword.
        name: String,
    },
    /// Two options that exclude each other.
    #[error("add_generation_prompt and continue_final_message exclude each other")]
    ConflictingOptions,
    /// `continue_final_message` without a message to continue.
    #[error("cannot continue the final message: {message}")]
    FinalMessage {
        /// What is missing.
        message: String,
    },
    /// The template's turns do not have the form `start content end`.
    #[error("cannot derive message markers from the chat template: {message}")]
    MessageLayout {
        /// What the probe conversation showed.
        message: String,
    },
    /// A vocabulary that does not hold the bytes and control tokens.
    #[error("a vocabulary of {found} tokens has no room for the {needed} that every text needs")]
    SmallVocabulary {
        /// Bytes, one pair and control tokens.
        needed: usize,
        /// The vocabulary.
        found: usize,
    },
}
