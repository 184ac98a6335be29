//! OpenAI's chat completions, with the ids that open servers add.
//!
//! | server | ids of the answer | ids of the candidates |
//! |---|---|---|
//! | vLLM | `token_ids` (`return_token_ids`) | `token_id:N` as text (`return_tokens_as_token_ids`) |
//! | llama-server | `id` in every entry of `logprobs` | the same |
//! | others | none: the text is kept, a local teacher can score it later | none |
//!
//! vLLM also scores given answers: `prompt_logprobs` of plain completions.
//!
//! A conversation that is too long for the server fails. The reference drops its first message then,
//! which in self-study is the text that the conversation is about.

use std::collections::HashMap;
use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::candidates::{Candidate, dense};
use super::config::{DEFAULT_MODEL, OpenAiConfig, ThinkingField};
use super::fleet::Answer;
use super::protocol::{
    PromptCodec, Protocol, bad, check_length, finish, merge, messages, parse, seed, temperature,
    wanted,
};
use super::transport::Call;
use super::{ChatRequest, ClientError, DenseTopLogprobs, Sample, ScoreRequest};

/// How vLLM writes an id where a token's text belongs.
const ID_AS_TEXT: &str = "token_id:";

/// OpenAI's protocol.
pub(super) struct OpenAi {
    pub config: OpenAiConfig,
    pub codec: Option<Arc<dyn PromptCodec>>,
}

impl OpenAi {
    fn call(&self, path: &str, mut body: Value) -> Call {
        if let Value::Object(fields) = &mut body {
            merge(fields, &self.config.extra_body);
        }
        Call::post(path, body)
    }

    fn codec(&self) -> Result<&dyn PromptCodec, ClientError> {
        self.codec.as_deref().ok_or_else(|| {
            ClientError::Unsupported(
                "scoring given answers without the tokenizer of the served model".to_owned(),
            )
        })
    }
}

impl Protocol for OpenAi {
    fn complete(&self, request: &ChatRequest) -> Result<Call, ClientError> {
        let config = &self.config;
        let mut body = Map::new();
        body.insert("model".into(), config.model.clone().into());
        body.insert("messages".into(), messages(request));
        body.insert("temperature".into(), temperature(request.temperature));
        body.insert(
            config.max_tokens_field.as_str().into(),
            request.max_completion_tokens.into(),
        );
        body.insert("seed".into(), seed(request.seed).into());
        if let Some(k) = wanted(request) {
            body.insert("logprobs".into(), true.into());
            body.insert("top_logprobs".into(), k.into());
        }
        if config.ask_token_ids {
            body.insert("return_token_ids".into(), true.into());
            if wanted(request).is_some() {
                body.insert("return_tokens_as_token_ids".into(), true.into());
            }
        }
        if let Some(on) = request.enable_thinking {
            match config.thinking {
                ThinkingField::ChatTemplate => {
                    let arguments = json!({"enable_thinking": on});
                    body.insert("chat_template_kwargs".into(), arguments);
                }
                ThinkingField::ReasoningEffort => {
                    let effort = if on { "high" } else { "low" };
                    body.insert("reasoning_effort".into(), effort.into());
                }
                ThinkingField::None => {}
            }
        }
        if request.assistant_prefix.is_some() {
            body.insert("continue_final_message".into(), true.into());
            body.insert("add_generation_prompt".into(), false.into());
        }
        Ok(self.call("/chat/completions", Value::Object(body)))
    }

    fn read_completion(
        &self,
        request: &ChatRequest,
        body: &[u8],
    ) -> Result<Answer<Sample>, ClientError> {
        let reply: Reply<ChatChoice> = parse(body)?;
        let usage = reply.usage.unwrap_or_default();
        let choice = only(reply.choices)?;
        let finish = finish(choice.finish_reason.as_deref())?;
        let entries = choice.logprobs.and_then(|l| l.content).unwrap_or_default();
        let (token_ids, top_logprobs) = match wanted(request) {
            None => (choice.token_ids.unwrap_or_default(), None),
            Some(k) => match with_ids(choice.token_ids, &entries, k)? {
                Some((ids, top)) => (ids, Some(top)),
                None => (Vec::new(), None),
            },
        };
        check_length(token_ids.len(), request)?;
        let text = choice.message.content.unwrap_or_default();
        Ok(Answer {
            without_ids: wanted(request).is_some() && top_logprobs.is_none(),
            value: Sample {
                text,
                token_ids,
                top_logprobs,
                finish,
            },
            prompt_tokens: usage.prompt_tokens,
            completion_tokens: usage.completion_tokens,
        })
    }

    fn can_score(&self) -> Result<(), ClientError> {
        self.codec().map(|_| ())
    }

    fn score(&self, request: &ScoreRequest) -> Result<Call, ClientError> {
        let mut prompt = self.codec()?.encode(&request.messages, None, None)?;
        prompt.extend(&request.continuation_ids);
        let body = json!({
            "model": self.config.model,
            "prompt": prompt,
            // It does not take 0.
            "max_tokens": 1,
            "temperature": 0,
            "prompt_logprobs": request.top_logprobs.max(1),
        });
        Ok(self.call("/completions", body))
    }

    fn read_score(
        &self,
        request: &ScoreRequest,
        body: &[u8],
    ) -> Result<Answer<DenseTopLogprobs>, ClientError> {
        let reply: Reply<TextChoice> = parse(body)?;
        let usage = reply.usage.unwrap_or_default();
        let choice = only(reply.choices)?;
        let all = choice
            .prompt_logprobs
            .ok_or_else(|| bad("prompt_logprobs is missing; the server cannot score"))?;
        let ids = &request.continuation_ids;
        let Some(prompt) = all.len().checked_sub(ids.len()) else {
            return Err(bad(format!(
                "{} positions, expected more than {}",
                all.len(),
                ids.len()
            )));
        };
        let mut rows = Vec::with_capacity(ids.len());
        for (position, (at, id)) in all[prompt..].iter().zip(ids).enumerate() {
            let mut row = Vec::new();
            for (key, value) in at.iter().flatten() {
                row.push(Candidate {
                    id: key
                        .parse()
                        .map_err(|_| bad(format!("{key:?} is not a token id")))?,
                    logprob: value.logprob,
                });
            }
            // The token itself is always listed, so this is a place for another one.
            if !row.iter().any(|c| c.id == *id) {
                return Err(bad(format!(
                    "position {position} does not tell of the given token {id}"
                )));
            }
            // The map has no order; ties go by id.
            row.sort_by_key(|c| c.id);
            rows.push(row);
        }
        Ok(Answer {
            value: dense(rows, request.top_logprobs.max(1))?,
            prompt_tokens: usage.prompt_tokens,
            completion_tokens: usage.completion_tokens,
            without_ids: false,
        })
    }

    fn identify(&self) -> Call {
        Call::get("/models")
    }

    fn check_identity(&self, body: &[u8]) -> Result<(), ClientError> {
        check_listed(&self.config.model, body)
    }
}

/// Checks that a list of models has the one that is meant.
pub(super) fn check_listed(model: &str, body: &[u8]) -> Result<(), ClientError> {
    #[derive(Deserialize)]
    struct Models {
        data: Vec<Model>,
    }
    #[derive(Deserialize)]
    struct Model {
        id: String,
    }
    let models: Models = parse(body)?;
    let same = |listed: &Model| listed.id.to_lowercase() == model.to_lowercase();
    if model == DEFAULT_MODEL || models.data.iter().any(same) {
        return Ok(());
    }
    let names: Vec<&str> = models.data.iter().take(5).map(|m| m.id.as_str()).collect();
    Err(bad(format!(
        "it serves {}, expected {model}",
        names.join(", ")
    )))
}

#[derive(Deserialize)]
#[serde(bound(deserialize = "C: Deserialize<'de>"))]
struct Reply<C> {
    choices: Vec<C>,
    usage: Option<Usage>,
}

#[derive(Deserialize, Default)]
#[serde(default)]
pub(super) struct Usage {
    pub prompt_tokens: u64,
    pub completion_tokens: u64,
}

#[derive(Deserialize)]
struct ChatChoice {
    message: Content,
    finish_reason: Option<String>,
    logprobs: Option<Logprobs>,
    token_ids: Option<Vec<u32>>,
}

#[derive(Deserialize)]
struct Content {
    content: Option<String>,
}

#[derive(Deserialize)]
struct Logprobs {
    content: Option<Vec<Entry>>,
}

#[derive(Deserialize)]
struct Entry {
    #[serde(flatten)]
    token: Token,
    #[serde(default)]
    top_logprobs: Vec<Token>,
}

#[derive(Deserialize)]
struct Token {
    token: String,
    id: Option<u32>,
    logprob: f32,
}

#[derive(Deserialize)]
struct TextChoice {
    prompt_logprobs: Option<Vec<Option<HashMap<String, Listed>>>>,
}

#[derive(Deserialize)]
struct Listed {
    logprob: f32,
}

impl Token {
    fn id(&self) -> Option<u32> {
        self.id
            .or_else(|| self.token.strip_prefix(ID_AS_TEXT)?.parse().ok())
    }
}

fn only<C>(choices: Vec<C>) -> Result<C, ClientError> {
    let found = choices.len();
    let mut choices = choices.into_iter();
    match (choices.next(), choices.next()) {
        (Some(choice), None) => Ok(choice),
        _ => Err(bad(format!("{found} choices, expected one"))),
    }
}

/// The ids of an answer and of its candidates; `None` if the server does not give both.
fn with_ids(
    told: Option<Vec<u32>>,
    entries: &[Entry],
    k: usize,
) -> Result<Option<(Vec<u32>, DenseTopLogprobs)>, ClientError> {
    let mut ids = Vec::with_capacity(entries.len());
    let mut rows = Vec::with_capacity(entries.len());
    for entry in entries {
        let candidates = entry.top_logprobs.iter().map(|token| {
            let id = token.id()?;
            let logprob = token.logprob;
            Some(Candidate { id, logprob })
        });
        let (Some(id), Some(row)) = (entry.token.id(), candidates.collect()) else {
            return Ok(None);
        };
        ids.push(id);
        rows.push(row);
    }
    match told {
        // A server that gives ids but no log-probs at all.
        Some(told) if entries.is_empty() && !told.is_empty() => return Ok(None),
        Some(told) if told != ids => {
            return Err(bad(format!(
                "token_ids has {} ids, logprobs is about {} tokens or others",
                told.len(),
                ids.len()
            )));
        }
        None if entries.is_empty() => return Ok(None),
        _ => {}
    }
    let top = dense(rows, k)?;
    Ok(Some((ids, top)))
}
