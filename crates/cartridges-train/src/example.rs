//! From a conversation to token ids and targets (the reference's converter, without its tables).

use cartridges_model::text::{ChatTokenizer, MessageIds, TextError};
use cartridges_study::conversation::{Conversation, ConversationKind, Message, Role};

use crate::config::{Targets, TrainConfig, TrainOn};

/// One candidate for one position.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Target {
    /// Position of the predicted token in the example; it is predicted from the position before.
    pub position: u32,
    /// The candidate, or [`Target::REST`].
    pub id: u32,
    /// The teacher's mass on it, times the example's weight.
    pub weight: f32,
}

impl Target {
    /// Stands for all tokens together that are no candidates of the position: the tail bucket.
    pub const REST: u32 = u32::MAX;

    /// A teacher's rest below this is rounding and makes no bucket.
    const LEAST_REST: f64 = 1e-6;
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
            Targets::Logits => with_distribution(conversation, text, markers, config)?,
            Targets::Tokens => with_tokens(conversation, text, markers, config.train_on)?,
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
            .chain(example.targets.iter().map(|t| &t.id))
            .filter(|id| **id != Target::REST);
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

/// What the student reads of a conversation before it answers `messages`: as in training, up to where the
/// answer begins.
///
/// # Errors
/// If the tokenizer fails.
pub fn prompt_ids(messages: &[Message], text: &ChatTokenizer) -> Result<Vec<u32>, ExampleError> {
    let markers = text.message_ids()?;
    let mut ids = Vec::new();
    for message in messages {
        let content = content_ids(message, text)?;
        markers.push_turn(&mut ids, message.role.as_str(), &content, false)?;
    }
    ids.extend_from_slice(markers.start(Role::Assistant.as_str())?);
    Ok(ids)
}

/// A message's stored ids, or those of its text.
fn content_ids(message: &Message, text: &ChatTokenizer) -> Result<Vec<u32>, ExampleError> {
    Ok(match &message.token_ids {
        Some(ids) => ids.clone(),
        None => text.encode(&message.content, false)?,
    })
}

/// Every stored candidate is a target, whoever spoke; a user's message without any is one of its own
/// tokens where the user's words are trained on.
fn with_distribution(
    conversation: &Conversation,
    text: &ChatTokenizer,
    markers: &MessageIds,
    config: &TrainConfig,
) -> Result<Example, ExampleError> {
    let mut example = Example::default();
    let last = conversation.messages.len().saturating_sub(1);
    for (i, message) in conversation.messages.iter().enumerate() {
        let content = content_ids(message, text)?;
        let turn =
            markers.push_turn(&mut example.ids, message.role.as_str(), &content, i == last)?;
        let base = turn.start as u32;
        let own_words = message.role == Role::User && config.train_on == TrainOn::Both;
        if message.top_logprobs.is_none() && own_words {
            example.push_tokens(turn.start, turn.end);
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
    if config.tail_bucket {
        example.targets = with_rest(&example.targets);
    }
    Ok(example)
}

/// Every id of the trained turns is a target with all the mass, its end included.
fn with_tokens(
    conversation: &Conversation,
    text: &ChatTokenizer,
    markers: &MessageIds,
    train_on: TrainOn,
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
        let trained = match message.role {
            Role::Assistant => true,
            Role::User => train_on == TrainOn::Both,
            Role::System => false,
        };
        if trained {
            example.push_tokens(from, example.ids.len());
        }
    }
    Ok(example)
}

/// The same targets with the mass that each position's candidates leave over.
fn with_rest(targets: &[Target]) -> Vec<Target> {
    let mut all = Vec::with_capacity(targets.len());
    for position in targets.chunk_by(|a, b| a.position == b.position) {
        all.extend_from_slice(position);
        let rest = 1.0 - position.iter().map(|t| f64::from(t.weight)).sum::<f64>();
        if rest > Target::LEAST_REST {
            all.push(Target {
                position: position[0].position,
                id: Target::REST,
                weight: rest as f32,
            });
        }
    }
    all
}

impl Example {
    /// The ids at `from .. to` become targets with all the mass.
    fn push_tokens(&mut self, from: usize, to: usize) {
        let tokens = (from..to).map(|position| Target {
            position: position as u32,
            id: self.ids[position],
            weight: 1.0,
        });
        self.targets.extend(tokens);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::path::Path;

    use cartridges_study::conversation::{Message, Metadata};
    use cartridges_study::top_logprobs::FlatTopLogprobs;

    const VOCABULARY: usize = 1 << 17;

    fn tokenizer() -> ChatTokenizer {
        let folder = concat!(
            env!("CARGO_MANIFEST_DIR"),
            "/../../tests/fixtures/tokenizers/smollm2"
        );
        ChatTokenizer::from_folder(Path::new(folder)).unwrap()
    }

    /// A question of three ids and an answer of two: one sure, one with mass left over.
    fn conversation(markers: &MessageIds) -> Conversation {
        let message = |role, ids: &[u32], top_logprobs| Message {
            content: String::new(),
            role,
            token_ids: Some([ids, &markers.end].concat()),
            top_logprobs,
        };
        let top = FlatTopLogprobs {
            token_idx: vec![0, 1, 1],
            token_id: vec![301, 302, 303],
            logprobs: vec![0.0, 0.5f32.ln(), 0.25f32.ln()],
            shape: (3, 2),
        };
        Conversation {
            messages: vec![
                message(Role::User, &[201, 202, 203], None),
                message(Role::Assistant, &[301, 302], Some(top)),
            ],
            system_prompt: String::new(),
            metadata: Metadata::default(),
            conversation_type: None,
        }
    }

    fn made(change: impl Fn(&mut TrainConfig)) -> Example {
        let text = tokenizer();
        let mut config = TrainConfig::default();
        change(&mut config);
        let all = [conversation(text.message_ids().unwrap())];
        let (mut made, left_out) = examples(&all, &text, VOCABULARY, &config).unwrap();
        assert_eq!((made.len(), left_out), (1, 0));
        made.remove(0)
    }

    fn targets(example: &Example) -> Vec<(u32, u32, f32)> {
        let targets = example.targets.iter();
        targets.map(|t| (t.position, t.id, t.weight)).collect()
    }

    #[test]
    fn the_users_words_are_targets_where_both_are_trained_on() {
        let text = tokenizer();
        let markers = text.message_ids().unwrap();
        let assistant = targets(&made(|_| ()));
        assert_eq!(assistant.len(), 3);
        let both = made(|c| c.train_on = TrainOn::Both);
        // The header is no target, the end of the turn is.
        let first = markers.user.len() as u32;
        let question = [&[201, 202, 203], markers.end.as_slice()].concat();
        let mut wanted: Vec<(u32, u32, f32)> = (question.iter().zip(first..))
            .map(|(id, position)| (position, *id, 1.0))
            .collect();
        wanted.extend(assistant);
        assert_eq!(targets(&both), wanted);
        for target in &both.targets[..question.len()] {
            assert_eq!(both.ids[target.position as usize], target.id);
        }
    }

    #[test]
    fn whoever_is_not_trained_on_has_no_targets() {
        let text = tokenizer();
        let markers = text.message_ids().unwrap();
        let tokens = |train_on| {
            let example = made(|c| {
                c.targets = Targets::Tokens;
                c.train_on = train_on;
            });
            example.targets.len()
        };
        // The contents are empty, so that only the ends of the turns are left.
        let end = markers.end.len() + markers.extra_end.len();
        assert_eq!(tokens(TrainOn::Assistant), end);
        assert_eq!(tokens(TrainOn::Both), 2 * end);
    }

    #[test]
    fn the_mass_left_over_becomes_a_target() {
        let plain = targets(&made(|_| ()));
        let example = made(|c| c.tail_bucket = true);
        let bucket = (plain[2].0, Target::REST, 0.25);
        assert_eq!(targets(&example), [plain, vec![bucket]].concat());
    }
}
