//! What differs between servers: what a request looks like, and what its reply says.

use serde_json::{Map, Value};

use super::fleet::Answer;
use super::transport::Call;
use super::{
    ChatMessage, ChatRequest, ClientError, DenseTopLogprobs, FinishReason, Sample, ScoreRequest,
};
use crate::conversation::Role;

/// A server's interface.
pub(super) trait Protocol: Send + Sync {
    /// The request for an answer.
    fn complete(&self, request: &ChatRequest) -> Result<Call, ClientError>;

    /// Reads the answer.
    fn read_completion(
        &self,
        request: &ChatRequest,
        body: &[u8],
    ) -> Result<Answer<Sample>, ClientError>;

    /// Whether given answers can be scored; if not, why.
    fn can_score(&self) -> Result<(), ClientError>;

    /// The request for the distribution along a given answer, which is not empty.
    fn score(&self, request: &ScoreRequest) -> Result<Call, ClientError>;

    /// Reads the distribution.
    fn read_score(
        &self,
        request: &ScoreRequest,
        body: &[u8],
    ) -> Result<Answer<DenseTopLogprobs>, ClientError>;

    /// The request that tells what the server runs.
    fn identify(&self) -> Call;

    /// Checks that it runs the right model.
    fn check_identity(&self, body: &[u8]) -> Result<(), ClientError>;
}

/// Renders and tokenises conversations for servers that take token ids.
pub trait PromptCodec: Send + Sync {
    /// The ids of a conversation in the model's chat template, up to where the answer begins.
    ///
    /// # Errors
    /// The template or the tokenizer refuses it.
    fn encode(
        &self,
        messages: &[ChatMessage],
        enable_thinking: Option<bool>,
        assistant_prefix: Option<&str>,
    ) -> Result<Vec<u32>, ClientError>;
}

/// A reply as JSON.
pub(super) fn parse<'a, T: serde::Deserialize<'a>>(body: &'a [u8]) -> Result<T, ClientError> {
    serde_json::from_slice(body).map_err(|error| bad(error.to_string()))
}

pub(super) fn bad(message: impl Into<String>) -> ClientError {
    ClientError::BadReply(message.into())
}

/// Candidates per position, if any are asked for.
pub(super) fn wanted(request: &ChatRequest) -> Option<usize> {
    request.top_logprobs.filter(|&k| k > 0)
}

/// The messages as JSON, with the answer's beginning as an unfinished last one.
pub(super) fn messages(request: &ChatRequest) -> Value {
    let one = |role: Role, content: &str| {
        let mut message = Map::new();
        message.insert("role".into(), role.as_str().into());
        message.insert("content".into(), content.into());
        Value::Object(message)
    };
    let given = request.messages.iter().map(|m| one(m.role, &m.content));
    let begun = request.assistant_prefix.as_deref();
    given
        .chain(begun.map(|text| one(Role::Assistant, text)))
        .collect()
}

/// A temperature as it was written, without the digits that single precision adds.
pub(super) fn temperature(value: f32) -> Value {
    Value::from((f64::from(value) * 1e6).round() / 1e6)
}

/// A seed that every server takes.
pub(super) fn seed(value: u64) -> u64 {
    value & 0x7fff_ffff
}

/// The reason that a server names.
pub(super) fn finish(reason: Option<&str>) -> Result<FinishReason, ClientError> {
    match reason {
        Some("stop") => Ok(FinishReason::Stop),
        Some("length") => Ok(FinishReason::Length),
        Some(other) => Err(bad(format!("the answer ended with {other:?}"))),
        None => Err(bad("the answer has not ended: no finish reason")),
    }
}

/// Checks that an answer has no more tokens than were allowed.
pub(super) fn check_length(tokens: usize, request: &ChatRequest) -> Result<(), ClientError> {
    let allowed = request.max_completion_tokens;
    match tokens <= allowed {
        true => Ok(()),
        false => Err(bad(format!("{tokens} tokens where {allowed} were allowed"))),
    }
}

/// Puts `extra` into `body`: objects are merged, everything else is replaced.
pub(super) fn merge(body: &mut Map<String, Value>, extra: &Map<String, Value>) {
    for (name, value) in extra {
        match (body.get_mut(name), value) {
            (Some(Value::Object(inner)), Value::Object(more)) => merge(inner, more),
            _ => {
                body.insert(name.clone(), value.clone());
            }
        }
    }
}
