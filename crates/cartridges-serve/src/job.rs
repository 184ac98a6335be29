//! What is to be generated.

use serde::{Deserialize, Serialize};

/// Who speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Instructions that stand before a conversation.
    System,
    /// The person.
    User,
    /// The model.
    Assistant,
}

impl Role {
    /// The name that chat templates use.
    pub fn as_str(self) -> &'static str {
        match self {
            Role::System => "system",
            Role::User => "user",
            Role::Assistant => "assistant",
        }
    }
}

/// One message of a conversation.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Message {
    /// Who speaks.
    pub role: Role,
    /// The text.
    pub content: String,
}

/// What is to be continued.
#[derive(Debug, Clone, PartialEq)]
pub enum Prompt {
    /// A conversation, rendered with the model's chat template: with the generation prompt if the
    /// last message is the user's, else so that the last message is continued.
    Chat {
        /// At least one message.
        messages: Vec<Message>,
        /// More variables for the template (`enable_thinking`).
        template_keywords: serde_json::Map<String, serde_json::Value>,
    },
    /// Plain text, tokenised with the tokenizer's own special tokens.
    Text(String),
    /// Token ids; not empty, but not checked against the vocabulary.
    Ids(Vec<u32>),
}

/// Where a cartridge comes from.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Source {
    /// The server's own folder.
    Local,
    /// The Hugging Face hub.
    HuggingFace,
    /// Weights & Biases.
    Wandb,
}

impl Source {
    /// The name in requests.
    pub fn as_str(self) -> &'static str {
        match self {
            Source::Local => "local",
            Source::HuggingFace => "huggingface",
            Source::Wandb => "wandb",
        }
    }
}

/// A cartridge that a request asks for.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CartridgeSpec {
    /// The local name: letters, digits, `.`, `_` and `-`, at most 128; never a path.
    pub id: String,
    /// The name as the client wrote it, which a remote source needs (`owner/name`).
    pub requested: String,
    /// Where it comes from.
    pub source: Source,
    /// Whether a copy that is already here is to be replaced.
    pub force_redownload: bool,
}

/// A form that the answer must have.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Constraint {
    /// Any JSON object.
    JsonObject,
    /// JSON that fits this JSON Schema (the schema's own text).
    JsonSchema(String),
}

/// One answer to generate.
#[derive(Debug, Clone, PartialEq)]
pub struct Job {
    /// What is continued.
    pub prompt: Prompt,
    /// Cartridges before the prompt, in this order.
    pub cartridges: Vec<CartridgeSpec>,
    /// Name of a thought adapter; same letters as a cartridge id.
    pub adapter: Option<String>,
    /// Most tokens to generate; `None`: as many as fit.
    pub max_new_tokens: Option<usize>,
    /// Sampling temperature; 0 is greedy.
    pub temperature: f32,
    /// Nucleus sampling; 1 is off.
    pub top_p: f32,
    /// Only the most likely this many; 0 is off.
    pub top_k: usize,
    /// Only tokens at least this likely compared with the likeliest; 0 is off.
    pub min_p: f32,
    /// The same job with the same seed gives the same answer; `None`: any.
    pub seed: Option<u64>,
    /// Texts that end the answer; they are not part of it.
    pub stop: Vec<String>,
    /// Whether the model's end-of-turn tokens are ordinary tokens.
    pub ignore_eos: bool,
    /// How many log-probs per position; `Some(0)`: only that of the chosen token.
    pub top_logprobs: Option<usize>,
    /// A form the answer must have.
    pub constraint: Option<Constraint>,
    /// Who asks; jobs of different clients take turns.
    pub client: String,
}
