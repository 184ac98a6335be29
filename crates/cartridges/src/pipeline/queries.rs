//! What matching asks a text with.

use anyhow::Result;
use cartridges_model::LanguageModel;
use cartridges_study::conversation::{Conversation, ConversationKind};

/// Tokens of conversations whose queries matching looks at, as a share of the repeated text. Only the
/// repeated text asks for everything that the text says; with many conversations beside it, keys that few
/// of them ask for are lost (`docs/quickstart-notes.md` has the numbers).
const TALK_SHARE: f64 = 0.1;

/// Sequences whose queries matching looks at: the text once more, word for word, and some conversations,
/// evenly spread over all.
///
/// # Errors
/// If the model has no chat template.
pub fn reference_queries(
    model: &LanguageModel,
    text: &str,
    conversations: &[Conversation],
) -> Result<Vec<Vec<u32>>> {
    let markers = model.text.message_ids()?;
    let turn = |question: &[u32], answer: &[u32]| {
        let mut ids = markers.user.clone();
        ids.extend_from_slice(question);
        if !ids.ends_with(&markers.end) {
            ids.extend_from_slice(&markers.end);
        }
        ids.extend_from_slice(&markers.extra_end);
        ids.extend_from_slice(&markers.assistant);
        ids.extend_from_slice(answer);
        ids
    };
    let encode = |text: &str| model.text.encode(text, false);
    let repeated = turn(
        &encode("Repeat the information above word for word.")?,
        &encode(text)?,
    );
    let limit = (TALK_SHARE * repeated.len() as f64) as usize;
    // The pieces repeat the text as well, so they would add nothing.
    let mut talks = Vec::new();
    for conversation in conversations
        .iter()
        .filter(|c| c.metadata.kind != Some(ConversationKind::Verbatim))
    {
        if let [question, answer, ..] = conversation.messages.as_slice() {
            let ids = |m: &cartridges_study::conversation::Message| match &m.token_ids {
                Some(ids) => Ok(ids.clone()),
                None => encode(&m.content),
            };
            talks.push(turn(&ids(question)?, &ids(answer)?));
        }
    }
    let tokens: usize = talks.iter().map(Vec::len).sum();
    let every = tokens.div_ceil(limit.max(1)).max(1);
    let mut room = limit;
    let mut sequences = vec![repeated];
    for talk in talks.into_iter().skip(every / 2).step_by(every) {
        if talk.len() <= room {
            room -= talk.len();
            sequences.push(talk);
        }
    }
    Ok(sequences)
}
