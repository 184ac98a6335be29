//! Teacher and student ids of conversations.

use cartridges_model::text::{ChatMessage, ChatTokenizer, MessageIds, RenderOptions};
use cartridges_study::conversation::{Conversation, Role};
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use crate::error::TransmuteError;
use crate::statistics::CorpusId;

/// What stands before a conversation when the patched model is used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum StudentContext {
    /// What the chat template writes without a system message.
    #[default]
    None,
    /// A system message with the first so many tokens of the prompt.
    Window(usize),
    /// A cartridge, and no tokens: conversations behind one begin with their first message.
    Cartridge,
}

/// How conversations are paired.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct PairOptions {
    /// What the student sees instead of the prompt. Default nothing.
    pub student: StudentContext,
    /// So many first rows of a sequence are no fit positions: the model puts its attention sink there, a
    /// huge activation that teacher and student have at different tokens. Default 4.
    pub sink: usize,
}

impl Default for PairOptions {
    fn default() -> Self {
        Self {
            student: StudentContext::None,
            sink: 4,
        }
    }
}

/// The turns of one conversation: ids that teacher and student have in common.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Turns {
    /// Which corpus it belongs to.
    pub corpus: CorpusId,
    /// From the first message's header to the end of the last message.
    pub ids: Vec<u32>,
    /// Where in `ids` the next token is one of the assistant's, in ascending order: these are fitted.
    pub fit: Vec<usize>,
    /// The first row of `ids` that may be looked at.
    pub first: usize,
}

/// Conversations with the same prompt.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Group {
    /// What the teacher has before the turns.
    pub teacher: Vec<u32>,
    /// What the student has before them.
    pub student: Vec<u32>,
    /// The turns.
    pub turns: Vec<Turns>,
}

/// All conversations, by prompt in the order of first appearance.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Pairs {
    /// The groups.
    pub groups: Vec<Group>,
    /// Conversations without a position to fit.
    pub left_out: usize,
}

impl Pairs {
    /// Positions to fit.
    pub fn positions(&self) -> usize {
        let turns = self.groups.iter().flat_map(|group| &group.turns);
        turns.map(|turns| turns.fit.len()).sum()
    }

    /// Takes one conversation of `nth` out, for validation, chosen at random with a fixed seed: data that
    /// go through their subjects in turn would lose some of them otherwise. `nth` 0 takes none.
    pub fn split_off(&mut self, nth: usize) -> Self {
        let mut taken = Self::default();
        let count: usize = self.groups.iter().map(|group| group.turns.len()).sum();
        let mut chosen: Vec<bool> = (0..count).map(|i| nth > 0 && i < count / nth).collect();
        chosen.shuffle(&mut ChaCha8Rng::seed_from_u64(0));
        let mut chosen = chosen.into_iter();
        for group in &mut self.groups {
            let turns = std::mem::take(&mut group.turns).into_iter();
            let (mine, rest): (Vec<Turns>, Vec<Turns>) =
                turns.partition(|_| chosen.next() == Some(true));
            group.turns = rest;
            if !mine.is_empty() {
                taken.groups.push(Group {
                    teacher: group.teacher.clone(),
                    student: group.student.clone(),
                    turns: mine,
                });
            }
        }
        self.groups.retain(|group| !group.turns.is_empty());
        taken
    }
}

/// Pairs conversations, each with its corpus. The teacher has the conversation's prompt as its system
/// message; without one both see the same.
///
/// # Errors
/// [`TransmuteError::Text`] if the template cannot write the conversation, [`TransmuteError::Alignment`] if
/// it writes the turns in another way behind a system message, [`TransmuteError::TokenId`] if an id is not
/// in the model's vocabulary.
pub fn pair<'a>(
    conversations: impl IntoIterator<Item = (CorpusId, &'a Conversation)>,
    text: &ChatTokenizer,
    vocab_size: usize,
    options: &PairOptions,
) -> Result<Pairs, TransmuteError> {
    let markers = text.message_ids()?;
    let mut pairs = Pairs::default();
    let mut prompts: Vec<&str> = Vec::new();
    for (row, (corpus, conversation)) in conversations.into_iter().enumerate() {
        let mut turns = turns(corpus, conversation, text, markers)?;
        if let Some(&id) = turns.ids.iter().find(|id| **id as usize >= vocab_size) {
            return Err(TransmuteError::TokenId {
                row,
                id,
                vocab_size,
            });
        }
        let prompt = conversation.system_prompt.as_str();
        let at = match prompts.iter().position(|known| *known == prompt) {
            Some(at) => at,
            None => {
                prompts.push(prompt);
                pairs.groups.push(group(prompt, text, markers, options)?);
                prompts.len() - 1
            }
        };
        let group = &mut pairs.groups[at];
        let before = group.student.len().min(group.teacher.len());
        turns.first = options.sink.saturating_sub(before);
        turns.fit.retain(|row| *row >= turns.first);
        match turns.fit.is_empty() {
            true => pairs.left_out += 1,
            false => group.turns.push(turns),
        }
    }
    pairs.groups.retain(|group| !group.turns.is_empty());
    Ok(pairs)
}

fn group(
    prompt: &str,
    text: &ChatTokenizer,
    markers: &MessageIds,
    options: &PairOptions,
) -> Result<Group, TransmuteError> {
    let system = |prompt: &str| match prompt.is_empty() {
        true => before_turns(None, text, markers),
        false => before_turns(Some(prompt), text, markers),
    };
    Ok(Group {
        teacher: system(prompt)?,
        student: match options.student {
            StudentContext::None => system("")?,
            StudentContext::Cartridge => Vec::new(),
            StudentContext::Window(tokens) => {
                let mut ids = text.encode(prompt, false)?;
                ids.truncate(tokens);
                system(&text.decode(&ids, false)?)?
            }
        },
        turns: Vec::new(),
    })
}

/// What the template writes before the first turn.
fn before_turns(
    system: Option<&str>,
    text: &ChatTokenizer,
    markers: &MessageIds,
) -> Result<Vec<u32>, TransmuteError> {
    const PROBE: &str = "probe";
    let mut messages: Vec<ChatMessage> = system.map(ChatMessage::system).into_iter().collect();
    messages.push(ChatMessage::user(PROBE));
    let written = text.encode_chat(&messages, &RenderOptions::default())?;
    let probe = text.encode(PROBE, false)?;
    let turn = [markers.user.as_slice(), &probe, &markers.end].concat();
    let whole = [turn.as_slice(), &markers.extra_end].concat();
    let before = written
        .strip_suffix(whole.as_slice())
        .or_else(|| written.strip_suffix(turn.as_slice()));
    before.map(<[u32]>::to_vec).ok_or(TransmuteError::Alignment)
}

/// The turns as ids: stored ids where there are some, the text's otherwise.
fn turns(
    corpus: CorpusId,
    conversation: &Conversation,
    text: &ChatTokenizer,
    markers: &MessageIds,
) -> Result<Turns, TransmuteError> {
    let (mut ids, mut fit) = (Vec::new(), Vec::new());
    let last = conversation.messages.len().saturating_sub(1);
    for (i, message) in conversation.messages.iter().enumerate() {
        let content = match &message.token_ids {
            Some(stored) => stored.clone(),
            None => text.encode(&message.content, false)?,
        };
        let turn = markers.push_turn(&mut ids, message.role.as_str(), &content, i == last)?;
        if message.role == Role::Assistant {
            fit.extend((turn.start.max(1)..turn.end).map(|next| next - 1));
        }
    }
    Ok(Turns {
        corpus,
        ids,
        fit,
        first: 0,
    })
}
