//! The ids around a message, read off the chat template.
//!
//! Nothing here knows any model. Probe conversations with recognisable contents are rendered;
//! what stands between two contents is the end of one turn and the start of the next, and what
//! follows the last content is the end alone, so the two can be told apart. Only turns in the
//! middle of a conversation are used for starts: templates like to treat the first turn (bos,
//! default system prompt) and the last one (empty think block) in their own way.

use std::ops::Range;

use serde::Serialize;
use serde_json::Map;

use super::chat_template::{ChatMessage, RenderOptions};
use super::chat_tokenizer::ChatTokenizer;
use super::error::TextError;

/// Ids that open and close the messages of a conversation, without bos and without any default
/// system prompt. A message is `start(role) + content + end`; `extra_end` follows if another
/// message does.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct MessageIds {
    /// Before a system message; none if the template has no system turns of their own.
    pub system: Option<Vec<u32>>,
    /// Before a user message.
    pub user: Vec<u32>,
    /// Before an assistant message.
    pub assistant: Vec<u32>,
    /// Ends a message; its last id is the token that the model emits to end its turn.
    pub end: Vec<u32>,
    /// What the template writes between `end` and the next message.
    pub extra_end: Vec<u32>,
}

impl MessageIds {
    /// The start of a message of the given role.
    ///
    /// # Errors
    /// [`TextError::MessageLayout`] for a role other than system, user and assistant, and for
    /// system messages if the template has none.
    pub fn start(&self, role: &str) -> Result<&[u32], TextError> {
        match (role, &self.system) {
            ("user", _) => Ok(&self.user),
            ("assistant", _) => Ok(&self.assistant),
            ("system", Some(system)) => Ok(system),
            ("system", None) => Err(layout("the template has no system turns of their own")),
            _ => Err(layout(format!(
                "messages of role `{role}` have no derived markers"
            ))),
        }
    }

    /// Adds a message of a conversation to `ids`; gives where its content stands, its end included. The
    /// last one stays open.
    ///
    /// # Errors
    /// As [`MessageIds::start`].
    pub fn push_turn(
        &self,
        ids: &mut Vec<u32>,
        role: &str,
        content: &[u32],
        is_last: bool,
    ) -> Result<Range<usize>, TextError> {
        ids.extend_from_slice(self.start(role)?);
        let start = ids.len();
        ids.extend_from_slice(content);
        // An answer that hit its limit has no end of its own.
        if !is_last && !ids.ends_with(&self.end) {
            ids.extend_from_slice(&self.end);
        }
        let range = start..ids.len();
        if !is_last {
            ids.extend_from_slice(&self.extra_end);
        }
        Ok(range)
    }
}

// Plain letters, so that no template trims, splits or escapes them; none contains another.
const SYSTEM: &str = "QZXSYSPROBEXZQ";
const USER: [&str; 3] = ["QZXUSERAPROBEXZQ", "QZXUSERBPROBEXZQ", "QZXUSERCPROBEXZQ"];
const ASSISTANT: [&str; 2] = ["QZXASSTAPROBEXZQ", "QZXASSTBPROBEXZQ"];

fn layout(message: impl Into<String>) -> TextError {
    TextError::MessageLayout {
        message: message.into(),
    }
}

/// Renders `(role, content)` pairs without a generation prompt.
fn render(tokenizer: &ChatTokenizer, turns: &[(&str, &str)]) -> Result<String, TextError> {
    let messages: Vec<ChatMessage> = turns
        .iter()
        .map(|(role, content)| ChatMessage::new(*role, *content))
        .collect();
    tokenizer.render(&messages, &RenderOptions::default())
}

/// The only place where a probe content stands.
fn locate(text: &str, content: &str) -> Result<usize, TextError> {
    let mut places = text.match_indices(content);
    match (places.next(), places.next()) {
        (Some((at, _)), None) => Ok(at),
        (None, _) => Err(layout("the template leaves out the content of a message")),
        (Some(_), Some(_)) => Err(layout("the template repeats the content of a message")),
    }
}

fn before<'t>(text: &'t str, content: &str) -> Result<&'t str, TextError> {
    Ok(text.get(..locate(text, content)?).unwrap_or_default())
}

fn after<'t>(text: &'t str, content: &str) -> Result<&'t str, TextError> {
    Ok(text
        .get(locate(text, content)? + content.len()..)
        .unwrap_or_default())
}

fn between<'t>(text: &'t str, left: &str, right: &str) -> Result<&'t str, TextError> {
    let from = locate(text, left)? + left.len();
    let to = locate(text, right)?;
    text.get(from..to)
        .ok_or_else(|| layout("the template changes the order of the messages"))
}

/// What a gap between two contents has left after the end of the first one's turn.
fn start_in<'t>(gap: &'t str, end: &str, role: &str) -> Result<&'t str, TextError> {
    match gap.strip_prefix(end) {
        Some("") => Err(layout(format!(
            "nothing marks the start of a message of role `{role}`"
        ))),
        Some(start) => Ok(start),
        None => Err(layout(format!(
            "a message before one of role `{role}` is not followed by {end:?} but by {gap:?}"
        ))),
    }
}

pub(super) fn derive(tokenizer: &ChatTokenizer) -> Result<MessageIds, TextError> {
    let turns = [
        ("user", USER[0]),
        ("assistant", ASSISTANT[0]),
        ("user", USER[1]),
        ("assistant", ASSISTANT[1]),
        ("user", USER[2]),
    ];
    let text = render(tokenizer, &turns)?;
    let end = after(&text, USER[2])?;
    let shorter = render(tokenizer, turns.get(..4).unwrap_or_default())?;
    let assistant_end = after(&shorter, ASSISTANT[1])?;
    if end != assistant_end {
        return Err(layout(format!(
            "user messages end with {end:?}, assistant messages with {assistant_end:?}; \
             one end for both is needed"
        )));
    }
    let assistant = start_in(between(&text, USER[0], ASSISTANT[0])?, end, "assistant")?;
    let again = start_in(between(&text, USER[1], ASSISTANT[1])?, end, "assistant")?;
    let user = start_in(between(&text, ASSISTANT[0], USER[1])?, end, "user")?;
    let user_again = start_in(between(&text, ASSISTANT[1], USER[2])?, end, "user")?;
    if assistant != again || user != user_again {
        return Err(layout(
            "earlier and later messages of one role start differently",
        ));
    }
    let system = system_start(tokenizer, user, end)?;

    let mut end_ids = tokenizer.encode(end, false)?;
    let special = end_ids.iter().position(|id| tokenizer.is_special(*id));
    let Some(last) = special.or_else(|| end_ids.iter().position(|id| tokenizer.is_added(*id)))
    else {
        return Err(layout(format!(
            "no special token ends a message (its end is {end:?})"
        )));
    };
    let extra_end = end_ids.split_off(last + 1);
    Ok(MessageIds {
        system: system
            .map(|start| tokenizer.encode(&start, false))
            .transpose()?,
        user: tokenizer.encode(user, false)?,
        assistant: tokenizer.encode(assistant, false)?,
        end: end_ids,
        extra_end,
    })
}

/// The start of a system turn: in the middle of a conversation if the template allows that, else
/// at its beginning, where bos and fixed text may stand before the content.
fn system_start(
    tokenizer: &ChatTokenizer,
    user: &str,
    end: &str,
) -> Result<Option<String>, TextError> {
    let turns = [
        ("user", USER[0]),
        ("assistant", ASSISTANT[0]),
        ("system", SYSTEM),
        ("user", USER[1]),
    ];
    // A refusal or another form here only means that the second probe has to tell.
    let in_the_middle = render(tokenizer, &turns).and_then(|text| {
        let start = start_in(between(&text, ASSISTANT[0], SYSTEM)?, end, "system")?.to_string();
        let next = start_in(between(&text, SYSTEM, USER[1])?, end, "user")?;
        Ok((next == user).then_some(start))
    });
    if let Ok(Some(start)) = in_the_middle {
        return Ok(Some(start));
    }
    let turns = [
        ("system", SYSTEM),
        ("user", USER[0]),
        ("assistant", ASSISTANT[0]),
    ];
    let text = match render(tokenizer, &turns) {
        Ok(text) => text,
        Err(TextError::TemplateRaised { .. }) => return Ok(None),
        Err(error) => return Err(error),
    };
    // Some templates put the system text into the first user turn: no turn of its own.
    let own_turn = between(&text, SYSTEM, USER[0])
        .and_then(|gap| start_in(gap, end, "user"))
        .is_ok_and(|start| start == user);
    if !own_turn {
        return Ok(None);
    }
    let lead = before(&text, SYSTEM)?;
    let like_user = user.replacen("user", "system", 1);
    if like_user != user && lead.contains(&like_user) {
        return Ok(Some(like_user));
    }
    let bos = tokenizer
        .bos_id()
        .and_then(|id| tokenizer.token_text(id))
        .unwrap_or_default();
    let start = if user.starts_with(&bos) {
        lead
    } else {
        lead.strip_prefix(&bos).unwrap_or(lead)
    };
    Ok((!start.is_empty()).then(|| start.to_string()))
}

pub(super) fn generation_header(
    tokenizer: &ChatTokenizer,
    keywords: &Map<String, serde_json::Value>,
) -> Result<Vec<u32>, TextError> {
    let messages = [ChatMessage::user(USER[0])];
    let mut options = RenderOptions {
        keywords: keywords.clone(),
        ..RenderOptions::default()
    };
    let without = tokenizer.render(&messages, &options)?;
    options.add_generation_prompt = true;
    let with = tokenizer.render(&messages, &options)?;
    match with.strip_prefix(&without) {
        Some(header) => tokenizer.encode(header, false),
        None => Err(layout("the generation prompt changes the text before it")),
    }
}
