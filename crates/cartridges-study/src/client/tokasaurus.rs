//! Tokasaurus: chat completions whose ids and log-probs come packed in `system_fingerprint`.
//!
//! Arrays are raw little-endian numbers in base64, float32 or int32, row by row. The log-probs are
//! those of the distribution that was sampled from: unscaled only with temperature 0 or 1. Given
//! answers cannot be scored, since the server takes no token ids after a chat.

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use serde::Deserialize;
use serde_json::{Map, Value, json};

use super::candidates::{Candidate, dense};
use super::config::TokasaurusConfig;
use super::fleet::Answer;
use super::openai::{Usage, check_listed};
use super::protocol::{
    Protocol, bad, check_length, finish, merge, messages, parse, seed, temperature, wanted,
};
use super::transport::Call;
use super::{ChatRequest, ClientError, DenseTopLogprobs, Sample, ScoreRequest};

/// Tokasaurus' protocol.
pub(super) struct Tokasaurus {
    pub config: TokasaurusConfig,
}

impl Protocol for Tokasaurus {
    fn complete(&self, request: &ChatRequest) -> Result<Call, ClientError> {
        let config = &self.config;
        let mut body = Map::new();
        body.insert("model".into(), config.model.clone().into());
        body.insert("messages".into(), messages(request));
        body.insert("temperature".into(), temperature(request.temperature));
        body.insert(
            "max_completion_tokens".into(),
            request.max_completion_tokens.into(),
        );
        body.insert("seed".into(), seed(request.seed).into());
        body.insert("logprobs_in_fingerprint".into(), true.into());
        if let Some(k) = wanted(request) {
            body.insert("logprobs".into(), true.into());
            body.insert("top_logprobs".into(), k.into());
        }
        if let Some(on) = request.enable_thinking {
            let overrides = json!({"enable_thinking": on});
            body.insert("apply_chat_template_overrides".into(), overrides);
        }
        let mut path = "/v1/chat/completions";
        if !config.cartridges.is_empty() {
            path = &config.cartridge_path;
            let cartridges = serde_json::to_value(&config.cartridges);
            let cartridges = cartridges.map_err(|e| ClientError::Failed(e.to_string()))?;
            body.insert("cartridges".into(), cartridges);
        }
        merge(&mut body, &config.extra_body);
        Ok(Call::post(path, Value::Object(body)))
    }

    fn read_completion(
        &self,
        request: &ChatRequest,
        body: &[u8],
    ) -> Result<Answer<Sample>, ClientError> {
        let reply: Reply = parse(body)?;
        let [choice] = reply.choices.as_slice() else {
            let found = reply.choices.len();
            return Err(bad(format!("{found} choices, expected one")));
        };
        let finish = finish(choice.finish_reason.as_deref())?;
        let usage = reply.usage.unwrap_or_default();
        let told = reply.system_fingerprint.unwrap_or_default();
        let packed: Fingerprint = match serde_json::from_str(&told) {
            Ok(packed) => packed,
            // A server or a go-between that gives text only, and no more was asked for.
            Err(_) if wanted(request).is_none() => Fingerprint {
                completion_ids: vec![Vec::new()],
                ..Fingerprint::default()
            },
            Err(error) => return Err(bad(format!("system_fingerprint: {error}"))),
        };
        let ids = first(packed.completion_ids, "completion_ids")?;
        check_length(ids.len(), request)?;
        let top_logprobs = match wanted(request) {
            None => None,
            Some(k) => {
                let indices = unpack(packed.packed_topk_indices, "packed_topk_indices")?;
                let logprobs = unpack(packed.packed_topk_logprobs, "packed_topk_logprobs")?;
                Some(matrix(&indices, &logprobs, ids.len(), k)?)
            }
        };
        Ok(Answer {
            prompt_tokens: usage.prompt_tokens,
            completion_tokens: match ids.is_empty() {
                true => usage.completion_tokens,
                false => ids.len() as u64,
            },
            without_ids: false,
            value: Sample {
                text: choice.message.content.clone().unwrap_or_default(),
                token_ids: ids,
                top_logprobs,
                finish,
            },
        })
    }

    fn can_score(&self) -> Result<(), ClientError> {
        Err(ClientError::Unsupported(
            "scoring given answers with a Tokasaurus server".to_owned(),
        ))
    }

    fn score(&self, _: &ScoreRequest) -> Result<Call, ClientError> {
        self.can_score().map(|()| self.identify())
    }

    fn read_score(
        &self,
        _: &ScoreRequest,
        _: &[u8],
    ) -> Result<Answer<DenseTopLogprobs>, ClientError> {
        self.can_score().map(|()| Answer::default())
    }

    fn identify(&self) -> Call {
        Call::get("/v1/models")
    }

    fn check_identity(&self, body: &[u8]) -> Result<(), ClientError> {
        check_listed(&self.config.model, body)
    }
}

#[derive(Deserialize)]
struct Reply {
    choices: Vec<Choice>,
    usage: Option<Usage>,
    system_fingerprint: Option<String>,
}

#[derive(Deserialize)]
struct Choice {
    message: Content,
    finish_reason: Option<String>,
}

#[derive(Deserialize)]
struct Content {
    content: Option<String>,
}

/// One entry per choice in each list.
#[derive(Deserialize, Default)]
struct Fingerprint {
    completion_ids: Vec<Vec<u32>>,
    packed_topk_indices: Option<Vec<String>>,
    packed_topk_logprobs: Option<Vec<String>>,
}

fn first<T>(choices: Vec<T>, field: &str) -> Result<T, ClientError> {
    let found = choices.len();
    let mut choices = choices.into_iter();
    match (choices.next(), choices.next()) {
        (Some(one), None) => Ok(one),
        _ => Err(bad(format!("{field} is for {found} choices, expected one"))),
    }
}

/// The four-byte words of a packed array.
fn unpack(field: Option<Vec<String>>, name: &str) -> Result<Vec<[u8; 4]>, ClientError> {
    let choices = field.ok_or_else(|| bad(format!("{name} is missing")))?;
    let bytes = STANDARD
        .decode(first(choices, name)?)
        .map_err(|error| bad(format!("{name}: {error}")))?;
    let (words, rest) = bytes.as_chunks::<4>();
    match rest.is_empty() {
        true => Ok(words.to_vec()),
        false => Err(bad(format!("{name} has {} bytes", bytes.len()))),
    }
}

fn matrix(
    indices: &[[u8; 4]],
    logprobs: &[[u8; 4]],
    rows: usize,
    k: usize,
) -> Result<DenseTopLogprobs, ClientError> {
    let expected = rows.saturating_mul(k);
    for (name, found) in [
        ("packed_topk_indices", indices.len()),
        ("packed_topk_logprobs", logprobs.len()),
    ] {
        if found != expected {
            return Err(bad(format!(
                "{name} has {found} entries, expected {rows} x {k}"
            )));
        }
    }
    let mut candidates = Vec::with_capacity(expected);
    for (id, logprob) in indices.iter().zip(logprobs) {
        let id = i32::from_le_bytes(*id);
        candidates.push(Candidate {
            id: u32::try_from(id).map_err(|_| bad(format!("{id} is not a token id")))?,
            logprob: f32::from_le_bytes(*logprob),
        });
    }
    dense(candidates.chunks(k).map(<[_]>::to_vec).collect(), k)
}
