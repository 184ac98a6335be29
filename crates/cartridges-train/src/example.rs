//! From a conversation to token ids and targets (the reference's converter, without its tables).

use cartridges_model::text::{ChatTokenizer, MessageIds, TextError};
use cartridges_study::conversation::{Conversation, ConversationKind, Role};

use crate::config::{Targets, TrainConfig};

/// One candidate for one position.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Target {
    /// Position of the predicted token in the example; it is predicted from the position before.
    pub position: u32,
    /// The candidate.
    pub id: u32,
    /// The teacher's mass on it, times the example's weight.
    pub weight: f32,
}

/// A conversation as the student sees it: no system prompt, no document, no BOS.
#[derive(Debug, Clone, PartialEq, Default)]
pub struct Example {
    /// Token ids.
    pub ids: Vec<u32>,
    /// Candidates, sorted by position.
    pub targets: Vec<Target>,
    /// Weight of this example's positions.
    pub weight: f32,
}

/// A conversation that cannot be trained on.
#[derive(Debug, thiserror::Error)]
pub enum ExampleError {
    /// The tokenizer failed.
    #[error(transparent)]
    Text(#[from] TextError),
    /// An id is not in the model's vocabulary.
    #[error(
        "conversation {row}: token id {id} is outside the model's vocabulary of {vocab_size}; was \
         the data made with another model?"
    )]
    TokenId {
        /// Row in the data set.
        row: usize,
        /// The id.
        id: u32,
        /// Rows of the embedding table.
        vocab_size: usize,
    },
    /// Nothing to train on.
    #[error(
        "none of the {0} conversations has targets; with targets = \"logits\" the data must carry \
         the teacher's log-probs (try targets = \"tokens\")"
    )]
    NoTargets(usize),
}

/// Turns conversations into examples; those without targets are left out. Gives the examples and how
/// many conversations were left out.
///
/// # Errors
/// [`ExampleError`], which names the conversation.
pub fn examples(
    conversations: &[Conversation],
    text: &ChatTokenizer,
    vocab_size: usize,
    config: &TrainConfig,
) -> Result<(Vec<Example>, usize), ExampleError> {
    let markers = text.message_ids()?;
    let mut made = Vec::with_capacity(conversations.len());
    for (row, conversation) in conversations.iter().enumerate() {
        let mut example = match config.targets {
            Targets::Logits => with_distribution(conversation, text, markers)?,
            Targets::Tokens => with_tokens(conversation, text, markers)?,
        };
        example.weight = match conversation.metadata.kind {
            Some(ConversationKind::Verbatim) => config.verbatim_weight,
            _ => 1.0,
        };
        for target in &mut example.targets {
            target.weight *= example.weight;
        }
        let ids = example
            .ids
            .iter()
            .chain(example.targets.iter().map(|t| &t.id));
        if let Some(&id) = ids.into_iter().find(|id| **id as usize >= vocab_size) {
            return Err(ExampleError::TokenId {
                row,
                id,
                vocab_size,
            });
        }
        if !example.targets.is_empty() {
            made.push(example);
        }
    }
    if made.is_empty() {
        return Err(ExampleError::NoTargets(conversations.len()));
    }
    let left_out = conversations.len() - made.len();
    Ok((made, left_out))
}

/// Every stored candidate is a target, whoever spoke.
fn with_distribution(
    conversation: &Conversation,
    text: &ChatTokenizer,
    markers: &MessageIds,
) -> Result<Example, ExampleError> {
    let mut example = Example::default();
    let last = conversation.messages.len().saturating_sub(1);
    for (i, message) in conversation.messages.iter().enumerate() {
        example
            .ids
            .extend_from_slice(markers.start(message.role.as_str())?);
        let base = example.ids.len() as u32;
        match &message.token_ids {
            Some(ids) => example.ids.extend_from_slice(ids),
            None => example.ids.extend(text.encode(&message.content, false)?),
        }
        if i < last {
            // An answer that hit its limit has no end of its own.
            if !example.ids.ends_with(&markers.end) {
                example.ids.extend_from_slice(&markers.end);
            }
            example.ids.extend_from_slice(&markers.extra_end);
        }
        if let Some(top) = &message.top_logprobs {
            let entries = top.token_idx.iter().zip(&top.token_id).zip(&top.logprobs);
            example
                .targets
                .extend(entries.map(|((row, id), logprob)| Target {
                    position: base + row,
                    id: *id,
                    weight: logprob.exp(),
                }));
        }
    }
    example.targets.sort_by_key(|t| t.position);
    Ok(example)
}

/// Every id of the assistant's turns is a target with all the mass, its end included.
fn with_tokens(
    conversation: &Conversation,
    text: &ChatTokenizer,
    markers: &MessageIds,
) -> Result<Example, ExampleError> {
    let mut example = Example::default();
    for message in &conversation.messages {
        example
            .ids
            .extend_from_slice(markers.start(message.role.as_str())?);
        let from = example.ids.len();
        example.ids.extend(text.encode(&message.content, false)?);
        example.ids.extend_from_slice(&markers.end);
        example.ids.extend_from_slice(&markers.extra_end);
        if message.role == Role::Assistant {
            let all = (from..example.ids.len()).map(|position| Target {
                position: position as u32,
                id: example.ids[position],
                weight: 1.0,
            });
            example.targets.extend(all.collect::<Vec<_>>());
        }
    }
    Ok(example)
}
