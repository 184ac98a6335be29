//! The records of self-study: conversations, messages and what is known about how they were made.
//!
//! Field names and order follow the reference system's parquet files, see [`crate::parquet`].

use serde::{Deserialize, Serialize};

use crate::top_logprobs::FlatTopLogprobs;

/// Who speaks a message.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Role {
    /// Instructions and context.
    System,
    /// The person who asks.
    User,
    /// The model that answers.
    Assistant,
}

impl Role {
    /// The name used in files and chat templates.
    pub fn as_str(self) -> &'static str {
        match self {
            Role::System => "system",
            Role::User => "user",
            Role::Assistant => "assistant",
        }
    }

    /// The role with that name; `None` for any other name.
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "system" => Some(Role::System),
            "user" => Some(Role::User),
            "assistant" => Some(Role::Assistant),
            _ => None,
        }
    }

    /// User and assistant exchanged, as agent A sees the conversation; system stays.
    pub fn flipped(self) -> Self {
        match self {
            Role::System => Role::System,
            Role::User => Role::Assistant,
            Role::Assistant => Role::User,
        }
    }
}

/// One turn of a conversation.
#[derive(Debug, Clone, PartialEq)]
pub struct Message {
    /// The text.
    pub content: String,
    /// Who speaks.
    pub role: Role,
    /// The ids the model produced, with the end-of-turn id if it ended by itself; `None` where the
    /// producer gives no ids (the text is tokenised again then).
    pub token_ids: Option<Vec<u32>>,
    /// The teacher's most likely tokens at each of `token_ids`; usually only on assistant turns.
    pub top_logprobs: Option<FlatTopLogprobs>,
}

/// What a conversation is made of.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ConversationKind {
    /// Question and answer, both written by the model.
    Conversation,
    /// "Continue the text word for word": the answer is a piece of the text itself.
    Verbatim,
    /// A sentence of the text with a gap: the answer is what was left out.
    Gap,
}

impl ConversationKind {
    /// The name used in files.
    pub fn as_str(self) -> &'static str {
        match self {
            ConversationKind::Conversation => "conversation",
            ConversationKind::Verbatim => "verbatim",
            ConversationKind::Gap => "gap",
        }
    }

    /// The kind with that name; `None` for any other name.
    pub fn from_name(name: &str) -> Option<Self> {
        match name {
            "conversation" => Some(ConversationKind::Conversation),
            "verbatim" => Some(ConversationKind::Verbatim),
            "gap" => Some(ConversationKind::Gap),
            _ => None,
        }
    }
}

/// A tool that was called before a message was written.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct ToolCall {
    /// The tool's name.
    pub name: String,
    /// Its arguments as JSON text.
    pub input: String,
    /// What it answered, or the error.
    pub output: String,
    /// Whether it succeeded.
    pub success: bool,
    /// The model's request as it was written.
    pub raw_request: String,
}

/// How a conversation was made. The first three fields are the reference system's; the others are ours
/// and are `None` in its files.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Metadata {
    /// Tools that were called.
    pub tool_calls: Vec<ToolCall>,
    /// What agent A was asked to write.
    pub seed_prompt: String,
    /// The system prompt before any tool added to it.
    pub initial_system_prompt: String,
    /// Question and answer, or verbatim piece; `None` also for a kind this version does not know.
    pub kind: Option<ConversationKind>,
    /// The seed type's name, `coverage` or `verbatim`.
    pub seed_type: Option<String>,
    /// The resource the context was drawn from.
    pub resource: Option<String>,
    /// Why each message ended (`stop`, `length`, `given`), in message order.
    pub finish_reasons: Option<Vec<String>>,
    /// Whether the answers were asked for with thinking, per round.
    pub thinking: Option<Vec<bool>>,
    /// Number of the task in the run's plan.
    pub task: Option<u64>,
}

/// One training example: what was said, with which system prompt, and how it was made.
#[derive(Debug, Clone, PartialEq)]
pub struct Conversation {
    /// The turns in order, without the system prompt.
    pub messages: Vec<Message>,
    /// The system prompt with the context that the teacher saw.
    pub system_prompt: String,
    /// How it was made.
    pub metadata: Metadata,
    /// The reference system's `type` column (it writes the word `todo`).
    pub conversation_type: Option<String>,
}

impl Conversation {
    /// The number of stored token ids over all messages.
    pub fn num_tokens(&self) -> usize {
        self.messages
            .iter()
            .filter_map(|m| m.token_ids.as_ref())
            .map(Vec::len)
            .sum()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_round_trip_and_flipping_twice_is_the_identity() {
        for role in [Role::System, Role::User, Role::Assistant] {
            assert_eq!(Role::from_name(role.as_str()), Some(role));
            assert_eq!(role.flipped().flipped(), role);
        }
        assert_eq!(Role::User.flipped(), Role::Assistant);
        assert_eq!(Role::from_name("tool"), None);
        for kind in [
            ConversationKind::Conversation,
            ConversationKind::Verbatim,
            ConversationKind::Gap,
        ] {
            assert_eq!(ConversationKind::from_name(kind.as_str()), Some(kind));
        }
    }
}
