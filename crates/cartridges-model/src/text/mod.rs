//! Text in and out of a model: tokenizer, chat template, message markers, streaming decoder.

mod byte_alphabet;
mod byte_tokenizer;
mod chat_template;
mod chat_tokenizer;
mod error;
mod fingerprint;
mod folder;
mod from_gguf;
mod message_ids;
mod python_json;
mod python_methods;
mod stream_decoder;

#[cfg(test)]
mod tests;

pub use chat_template::{CHATML_TEMPLATE, ChatMessage, ChatTemplate, RenderOptions};
pub use chat_tokenizer::ChatTokenizer;
pub use error::TextError;
pub use message_ids::MessageIds;
pub use stream_decoder::StreamDecoder;
