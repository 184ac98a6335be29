//! SGLang's own `/generate`: token ids in, token ids and log-probs out.
//!
//! With temperatures other than 0 and 1, servers give the log-probs of the scaled distribution unless
//! they were started with `SGLANG_RETURN_ORIGINAL_LOGPROB=1`.

use std::sync::Arc;

use serde::Deserialize;
use serde_json::{Value, json};

use super::candidates::{Candidate, dense};
use super::config::{DEFAULT_MODEL, SglangConfig};
use super::fleet::Answer;
use super::protocol::{
    PromptCodec, Protocol, bad, check_length, finish, merge, parse, temperature, wanted,
};
use super::transport::Call;
use super::{ChatRequest, ClientError, DenseTopLogprobs, Sample, ScoreRequest};

/// SGLang's protocol.
pub(super) struct Sglang {
    pub config: SglangConfig,
    pub codec: Arc<dyn PromptCodec>,
}

impl Sglang {
    fn call(&self, mut body: Value) -> Call {
        if let Value::Object(fields) = &mut body {
            merge(fields, &self.config.extra_body);
        }
        Call::post("/generate", body)
    }
}

impl Protocol for Sglang {
    fn complete(&self, request: &ChatRequest) -> Result<Call, ClientError> {
        let input_ids = self.codec.encode(
            &request.messages,
            request.enable_thinking,
            request.assistant_prefix.as_deref(),
        )?;
        let k = wanted(request);
        Ok(self.call(json!({
            "input_ids": input_ids,
            "sampling_params": {
                "temperature": temperature(request.temperature),
                "max_new_tokens": request.max_completion_tokens,
            },
            "return_logprob": k.is_some(),
            "top_logprobs_num": k.unwrap_or(0),
            "return_text_in_logprobs": false,
        })))
    }

    fn read_completion(
        &self,
        request: &ChatRequest,
        body: &[u8],
    ) -> Result<Answer<Sample>, ClientError> {
        let reply: Reply = parse(body)?;
        let meta = reply.meta_info;
        let finish = finish(meta.finish_reason.as_ref().map(|f| f.kind.as_str()))?;
        let token_ids = match reply.output_ids {
            Some(ids) => answer(ids, meta.completion_tokens)?,
            // Text only, and no more was asked for.
            None if wanted(request).is_none() => Vec::new(),
            None => return Err(bad("output_ids is missing")),
        };
        check_length(token_ids.len(), request)?;
        let top_logprobs = match wanted(request) {
            None => None,
            Some(k) => {
                let own = meta.output_token_logprobs.unwrap_or_default();
                check_ids(&own, &token_ids, "output_token_logprobs")?;
                let top = meta.output_top_logprobs.unwrap_or_default();
                Some(matrix(top, token_ids.len(), k, "output_top_logprobs")?)
            }
        };
        Ok(Answer {
            value: Sample {
                text: reply.text,
                token_ids,
                top_logprobs,
                finish,
            },
            prompt_tokens: meta.prompt_tokens,
            completion_tokens: meta.completion_tokens,
            without_ids: false,
        })
    }

    fn can_score(&self) -> Result<(), ClientError> {
        Ok(())
    }

    fn score(&self, request: &ScoreRequest) -> Result<Call, ClientError> {
        let mut input_ids = self.codec.encode(&request.messages, None, None)?;
        // The first position of the log-probs is always empty, so they begin one token early.
        let Some(start) = input_ids.len().checked_sub(1) else {
            return Err(ClientError::Failed("the prompt has no tokens".to_owned()));
        };
        input_ids.extend(&request.continuation_ids);
        Ok(self.call(json!({
            "input_ids": input_ids,
            "sampling_params": {"temperature": 0, "max_new_tokens": 0},
            "return_logprob": true,
            "logprob_start_len": start,
            "top_logprobs_num": request.top_logprobs.max(1),
            "return_text_in_logprobs": false,
        })))
    }

    fn read_score(
        &self,
        request: &ScoreRequest,
        body: &[u8],
    ) -> Result<Answer<DenseTopLogprobs>, ClientError> {
        let reply: Reply = parse(body)?;
        let meta = reply.meta_info;
        let ids = &request.continuation_ids;
        let own = last(meta.input_token_logprobs, ids.len(), "input_token_logprobs")?;
        check_ids(&own, ids, "input_token_logprobs")?;
        let top = last(meta.input_top_logprobs, ids.len(), "input_top_logprobs")?;
        let k = request.top_logprobs.max(1);
        Ok(Answer {
            value: matrix(top, ids.len(), k, "input_top_logprobs")?,
            prompt_tokens: meta.prompt_tokens,
            completion_tokens: meta.completion_tokens,
            without_ids: false,
        })
    }

    fn identify(&self) -> Call {
        Call::get("/get_model_info")
    }

    fn check_identity(&self, body: &[u8]) -> Result<(), ClientError> {
        #[derive(Deserialize)]
        struct Info {
            model_path: String,
            is_generation: Option<bool>,
        }
        let info: Info = parse(body)?;
        if info.is_generation == Some(false) {
            return Err(bad(format!("{} does not generate text", info.model_path)));
        }
        let model = &self.config.model;
        if model == DEFAULT_MODEL || info.model_path.to_lowercase() == model.to_lowercase() {
            return Ok(());
        }
        Err(bad(format!(
            "it serves {}, expected {model}",
            info.model_path
        )))
    }
}

#[derive(Deserialize)]
struct Reply {
    text: String,
    output_ids: Option<Vec<u32>>,
    meta_info: Meta,
}

/// Log-prob (none at the first position of an input), id, and a text that was not asked for.
type Entry = (Option<f32>, u32, Option<String>);

#[derive(Deserialize)]
struct Meta {
    finish_reason: Option<Finish>,
    #[serde(default)]
    prompt_tokens: u64,
    completion_tokens: u64,
    output_token_logprobs: Option<Vec<Entry>>,
    output_top_logprobs: Option<Vec<Option<Vec<Entry>>>>,
    input_token_logprobs: Option<Vec<Entry>>,
    input_top_logprobs: Option<Vec<Option<Vec<Entry>>>>,
}

#[derive(Deserialize)]
struct Finish {
    #[serde(rename = "type")]
    kind: String,
}

/// The ids of the answer: some versions put the prompt's before them.
fn answer(mut ids: Vec<u32>, completion_tokens: u64) -> Result<Vec<u32>, ClientError> {
    let tokens = usize::try_from(completion_tokens).unwrap_or(usize::MAX);
    match ids.len().checked_sub(tokens) {
        Some(prompt) => Ok(ids.split_off(prompt)),
        None => Err(bad(format!(
            "output_ids has {} ids, completion_tokens is {tokens}",
            ids.len()
        ))),
    }
}

/// The last `count` of a list that may begin earlier.
fn last<T>(list: Option<Vec<T>>, count: usize, field: &str) -> Result<Vec<T>, ClientError> {
    let mut list = list.ok_or_else(|| bad(format!("{field} is missing")))?;
    match list.len().checked_sub(count) {
        Some(before) => Ok(list.split_off(before)),
        None => Err(bad(format!(
            "{field} has {} entries, expected {count}",
            list.len()
        ))),
    }
}

/// Checks that log-probs are about the right tokens. SGLang writes 0 for the last ids of a vocabulary.
fn check_ids(entries: &[Entry], ids: &[u32], field: &str) -> Result<(), ClientError> {
    let same = |(entry, id): (&Entry, &u32)| entry.1 == *id || entry.1 == 0;
    if entries.len() == ids.len() && entries.iter().zip(ids).all(same) {
        return Ok(());
    }
    Err(bad(format!(
        "{field} has {} entries for {} tokens, or for others",
        entries.len(),
        ids.len()
    )))
}

fn matrix(
    rows: Vec<Option<Vec<Entry>>>,
    expected: usize,
    k: usize,
    field: &str,
) -> Result<DenseTopLogprobs, ClientError> {
    if rows.len() != expected {
        return Err(bad(format!(
            "{field} has {} rows, expected {expected}",
            rows.len()
        )));
    }
    let mut candidates = Vec::with_capacity(rows.len());
    for row in rows {
        let mut made = Vec::with_capacity(k);
        for (logprob, id, _) in row.unwrap_or_default() {
            let logprob = logprob.ok_or_else(|| bad(format!("{field} has a null log-prob")))?;
            made.push(Candidate { id, logprob });
        }
        candidates.push(made);
    }
    dense(candidates, k)
}
