//! What a GGUF file says about its tokenizer.

/// The tokenizer metadata of a GGUF file (`tokenizer.ggml.*` and `tokenizer.chat_template`),
/// copied out as it stands; nothing here is interpreted.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct TokenizerParts {
    /// `tokenizer.ggml.model`: `gpt2` for byte-level BPE, `llama` for SentencePiece.
    pub model: String,
    /// `tokenizer.ggml.pre`: the name of the pre-tokenizer's splitting rule.
    pub pre: Option<String>,
    /// `tokenizer.ggml.tokens`: the text of every token; the index is its id.
    pub tokens: Vec<String>,
    /// `tokenizer.ggml.merges`: `left right` pairs in the order of their rank; empty if absent.
    pub merges: Vec<String>,
    /// `tokenizer.ggml.token_type`: one per token (1 normal, 2 unknown, 3 control, 4 user-defined,
    /// 5 unused, 6 byte); empty if absent.
    pub token_types: Vec<i32>,
    /// `tokenizer.ggml.bos_token_id`.
    pub bos_id: Option<u32>,
    /// `tokenizer.ggml.eos_token_id`.
    pub eos_id: Option<u32>,
    /// `tokenizer.ggml.unknown_token_id`.
    pub unknown_id: Option<u32>,
    /// `tokenizer.ggml.padding_token_id`.
    pub pad_id: Option<u32>,
    /// `tokenizer.ggml.add_bos_token`: text starts with the bos token.
    pub add_bos: Option<bool>,
    /// `tokenizer.ggml.add_space_prefix`: SentencePiece text starts with a space.
    pub add_space_prefix: Option<bool>,
    /// `tokenizer.chat_template`: a Jinja template.
    pub chat_template: Option<String>,
}
