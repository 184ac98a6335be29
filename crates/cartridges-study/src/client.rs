//! The trait through which self-study talks to a model.
//!
//! An implementation may run the model in this process or ask a server. It gets requests in batches
//! whose messages begin alike (the same system prompt), so that a prefix can be shared.
//!
//! [`HttpClient`] asks one or more servers; [`ClientConfig`] says which.

mod candidates;
mod config;
mod failure;
mod fleet;
mod fleet_config;
mod http_client;
mod openai;
mod protocol;
mod routing;
mod sglang;
mod statistics;
#[cfg(test)]
pub(crate) mod tests;
mod tokasaurus;
mod transport;

pub use crate::top_logprobs::DenseTopLogprobs;
pub use config::{
    ApiKey, CartridgeSource, ClientConfig, ClientConfigError, DEFAULT_MODEL, MaxTokensField,
    OpenAiConfig, RemoteCartridge, SglangConfig, ThinkingField, TokasaurusConfig,
};
pub use fleet_config::FleetConfig;
pub use http_client::HttpClient;
pub use protocol::PromptCodec;
pub use statistics::{FleetStatistics, ServerStatistics};
pub(crate) use transport::chain;

use crate::conversation::Role;
use crate::top_logprobs::TopLogprobsError;

/// One message of a request.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub struct ChatMessage {
    /// Who speaks.
    pub role: Role,
    /// The text.
    pub content: String,
}

impl ChatMessage {
    /// A message of `role`.
    pub fn new(role: Role, content: impl Into<String>) -> Self {
        Self {
            role,
            content: content.into(),
        }
    }
}

/// A request for one answer.
#[derive(Debug, Clone, PartialEq)]
pub struct ChatRequest {
    /// The conversation so far, rendered with the model's chat template.
    pub messages: Vec<ChatMessage>,
    /// Sampling temperature; 0 is greedy.
    pub temperature: f32,
    /// The answer is cut after this many tokens.
    pub max_completion_tokens: usize,
    /// How many candidates with log-probabilities to return per position; `None` for none.
    pub top_logprobs: Option<usize>,
    /// The template's thinking switch; `None` leaves it out. Models without one ignore it.
    pub enable_thinking: Option<bool>,
    /// Seed of this request's sampling; the same request gives the same answer.
    pub seed: u64,
    /// Text the answer is made to begin with. It is not part of the returned sample.
    pub assistant_prefix: Option<String>,
}

/// Why an answer ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum FinishReason {
    /// The model ended its turn.
    Stop,
    /// The token limit was reached.
    Length,
    /// This request could not be answered (the others of its batch could), for this reason.
    Failed(ClientError),
}

impl FinishReason {
    /// The name used in files.
    pub fn as_str(&self) -> &'static str {
        match self {
            FinishReason::Stop => "stop",
            FinishReason::Length => "length",
            FinishReason::Failed(_) => "failed",
        }
    }
}

/// One answer.
#[derive(Debug, Clone, PartialEq)]
pub struct Sample {
    /// The text without end-of-turn markers.
    pub text: String,
    /// The generated ids, with the end-of-turn id if the model ended its turn.
    pub token_ids: Vec<u32>,
    /// The candidates at each of `token_ids`, if they were asked for: k per row, most likely first,
    /// natural logs of the unscaled (temperature 1) distribution.
    pub top_logprobs: Option<DenseTopLogprobs>,
    /// Why it ended.
    pub finish: FinishReason,
}

/// A request for the model's distribution along a given answer (teacher forcing).
#[derive(Debug, Clone, PartialEq)]
pub struct ScoreRequest {
    /// The conversation up to the answer, rendered with the chat template and the assistant's header.
    pub messages: Vec<ChatMessage>,
    /// The answer's ids.
    pub continuation_ids: Vec<u32>,
    /// How many candidates to return per position.
    pub top_logprobs: usize,
}

/// A batch that was not answered.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ClientError {
    /// The caller asked to stop; nothing is wrong and nothing is retried.
    #[error("stopped")]
    Stopped,
    /// The client cannot do what was asked.
    #[error("the client does not support {0}")]
    Unsupported(String),
    /// The model or its server did not answer.
    #[error("no answer: {message}")]
    Unavailable {
        /// A short name, such as `timed out`, by which failures are counted.
        cause: &'static str,
        /// What happened.
        message: String,
    },
    /// The answer does not fit the request.
    #[error("the answer does not fit the request: {0}")]
    BadReply(String),
    /// Generating failed.
    #[error("generation failed: {0}")]
    Failed(String),
}

impl ClientError {
    /// A short name by which failures are counted.
    pub fn cause(&self) -> &'static str {
        match self {
            ClientError::Stopped => "stopped",
            ClientError::Unsupported(_) => "unsupported",
            ClientError::Unavailable { cause, .. } => cause,
            ClientError::BadReply(_) => "bad reply",
            ClientError::Failed(_) => "generation failed",
        }
    }
}

impl From<TopLogprobsError> for ClientError {
    fn from(error: TopLogprobsError) -> Self {
        ClientError::BadReply(format!("top_logprobs: {error}"))
    }
}

/// A model that answers conversations.
pub trait ChatClient {
    /// Called before each step whose results are kept together. What a step gives must not depend on the
    /// steps before it, even in the last digit, so that a run that was killed gives what it would have
    /// given: a client with a memory forgets. By default there is none.
    fn begin_step(&mut self) {}

    /// Answers `requests`, one sample each in the same order. `on_done(i)` is called once for request
    /// `i` as soon as it is answered, in any order; it is for progress only.
    fn complete(
        &mut self,
        requests: &[ChatRequest],
        on_done: &mut dyn FnMut(usize),
    ) -> Result<Vec<Sample>, ClientError>;

    /// The `top_logprobs` most likely tokens at each position of the given answers, one dense matrix
    /// `[continuation_ids.len(), top_logprobs]` per request in the same order. Row `i` is the
    /// distribution that the model has for `continuation_ids[i]`, having seen those before it.
    fn score(&mut self, requests: &[ScoreRequest]) -> Result<Vec<DenseTopLogprobs>, ClientError>;
}

/// Checks a reply to [`ChatClient::complete`] against its requests.
pub fn check_samples(requests: &[ChatRequest], samples: &[Sample]) -> Result<(), ClientError> {
    check_count(requests.len(), samples.len())?;
    for (request, sample) in requests.iter().zip(samples) {
        if matches!(sample.finish, FinishReason::Failed(_)) {
            continue;
        }
        match (&sample.top_logprobs, request.top_logprobs) {
            (Some(dense), Some(_)) => dense.check(sample.token_ids.len())?,
            (None, Some(k)) if k > 0 && !sample.token_ids.is_empty() => {
                return Err(ClientError::BadReply(format!(
                    "{k} top log-probabilities were asked for, none came"
                )));
            }
            _ => {}
        }
    }
    Ok(())
}

/// Checks a reply to [`ChatClient::score`] against its requests.
pub fn check_scores(
    requests: &[ScoreRequest],
    scores: &[DenseTopLogprobs],
) -> Result<(), ClientError> {
    check_count(requests.len(), scores.len())?;
    for (request, dense) in requests.iter().zip(scores) {
        dense.check(request.continuation_ids.len())?;
    }
    Ok(())
}

fn check_count(asked: usize, came: usize) -> Result<(), ClientError> {
    if asked == came {
        Ok(())
    } else {
        Err(ClientError::BadReply(format!(
            "{asked} requests got {came} answers"
        )))
    }
}
