//! What a chunker needs of a tokenizer.

/// Turns text into token ids and back. No special tokens are added or shown.
pub trait TokenCodec {
    /// The ids of a text, without special tokens.
    fn encode(&self, text: &str) -> Vec<u32>;
    /// The text of ids. Bytes that form no character become U+FFFD.
    fn decode(&self, ids: &[u32]) -> String;
}
