//! A tokenizer for models that have none, such as random ones.

use super::byte_alphabet::characters;
use super::{CHATML_TEMPLATE, ChatTokenizer, TextError};
use crate::weights::TokenizerParts;

/// Tokens that are not control tokens: the bytes and one pair.
const PLAIN: usize = 257;

impl ChatTokenizer {
    /// A tokenizer of single bytes and `th`, with ChatML's template and its three control tokens; the rest
    /// of the `vocab_size` tokens are never used.
    ///
    /// # Errors
    /// If `vocab_size` is less than 260.
    pub fn of_bytes(vocab_size: usize) -> Result<Self, TextError> {
        let mut tokens: Vec<String> = characters().map(String::from).into();
        tokens.push("th".to_owned());
        let control = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"];
        tokens.extend(control.map(str::to_owned));
        if vocab_size < tokens.len() {
            return Err(TextError::SmallVocabulary {
                needed: tokens.len(),
                found: vocab_size,
            });
        }
        let mut token_types = vec![1; PLAIN];
        token_types.resize(tokens.len(), 3);
        // Unused ones are no control tokens: many of those are slow to look for.
        token_types.resize(vocab_size, 1);
        tokens.extend((tokens.len()..vocab_size).map(|id| format!("<|unused{id}|>")));
        Self::from_gguf(&TokenizerParts {
            model: "gpt2".to_owned(),
            pre: Some("qwen2".to_owned()),
            tokens,
            merges: vec!["t h".to_owned()],
            token_types,
            eos_id: Some(259),
            chat_template: Some(CHATML_TEMPLATE.to_owned()),
            ..TokenizerParts::default()
        })
    }
}

#[cfg(test)]
mod tests {
    use super::ChatTokenizer;

    #[test]
    fn text_comes_back_and_small_vocabularies_are_refused() {
        let text = ChatTokenizer::of_bytes(300).unwrap();
        assert_eq!(text.vocab_size(), 300);
        let ids = text.encode("the café", false).unwrap();
        assert_eq!(ids[0], 256);
        assert_eq!(text.decode(&ids, false).unwrap(), "the café");
        let error = ChatTokenizer::of_bytes(100).unwrap_err();
        assert!(error.to_string().contains("100"), "{error}");
    }
}
