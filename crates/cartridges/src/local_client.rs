//! The in-process engine as a client of self-study.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use cartridges_engine::{
    Engine, EngineError, Event, FinishReason as Ended, Flow, GenerateRequest, Sampling,
    ScoreRequest as EngineScore, StopRules, TopLogprobs,
};
use cartridges_model::text::{ChatMessage as TextMessage, ChatTokenizer, RenderOptions, TextError};
use cartridges_study::chunker::TokenCodec;
use cartridges_study::client::{
    ChatClient, ChatMessage, ChatRequest, ClientError, FinishReason, PromptCodec, Sample,
    ScoreRequest,
};
use cartridges_study::top_logprobs::DenseTopLogprobs;

/// A tokenizer as self-study's codec.
#[derive(Clone)]
pub struct TokenizerCodec(pub ChatTokenizer);

impl TokenCodec for TokenizerCodec {
    fn encode(&self, text: &str) -> Vec<u32> {
        // A text that the tokenizer refuses has no tokens, which callers report as empty.
        self.0.encode(text, false).unwrap_or_default()
    }

    fn decode(&self, ids: &[u32]) -> String {
        self.0.decode(ids, false).unwrap_or_default()
    }
}

/// A tokenizer and its chat template, as clients of servers need them.
pub struct ChatCodec(pub ChatTokenizer);

impl PromptCodec for ChatCodec {
    fn encode(
        &self,
        messages: &[ChatMessage],
        enable_thinking: Option<bool>,
        assistant_prefix: Option<&str>,
    ) -> Result<Vec<u32>, ClientError> {
        prompt_ids(&self.0, messages, enable_thinking, assistant_prefix)
    }
}

/// Ids of a conversation up to where the answer begins.
fn prompt_ids(
    text: &ChatTokenizer,
    messages: &[ChatMessage],
    thinking: Option<bool>,
    prefix: Option<&str>,
) -> Result<Vec<u32>, ClientError> {
    let messages: Vec<TextMessage> = messages
        .iter()
        .map(|m| TextMessage::new(m.role.as_str(), m.content.clone()))
        .collect();
    let mut options = RenderOptions {
        add_generation_prompt: true,
        ..RenderOptions::default()
    };
    if let Some(on) = thinking {
        options
            .keywords
            .insert("enable_thinking".to_owned(), on.into());
    }
    let failed = |error: TextError| ClientError::Failed(error.to_string());
    let mut ids = text.encode_chat(&messages, &options).map_err(failed)?;
    if let Some(prefix) = prefix {
        ids.extend(text.encode(prefix, false).map_err(failed)?);
    }
    Ok(ids)
}

/// Answers conversations with an [`Engine`]; a raised `stop` flag ends the batch in progress.
pub struct LocalClient<'a> {
    engine: &'a mut Engine,
    stop: Arc<AtomicBool>,
    stop_ids: Vec<u32>,
}

impl<'a> LocalClient<'a> {
    /// A client over an engine.
    pub fn new(engine: &'a mut Engine, stop: Arc<AtomicBool>) -> Self {
        let stop_ids = engine.model().text.stop_ids();
        Self {
            engine,
            stop,
            stop_ids,
        }
    }

    fn prompt(
        &self,
        messages: &[ChatMessage],
        thinking: Option<bool>,
        prefix: Option<&str>,
    ) -> Result<Vec<u32>, ClientError> {
        prompt_ids(&self.engine.model().text, messages, thinking, prefix)
    }
}

impl LocalClient<'_> {
    /// Puts this model's distribution into the samples that others wrote for `requests`, where the
    /// request asks for one. Ids that this model's tokenizer does not read as the sample's text are
    /// replaced by those of the text, with the end of the turn if the writer ended it. A sample that
    /// the model cannot take (it is too long) becomes [`FinishReason::Failed`].
    ///
    /// # Errors
    /// [`ClientError::Stopped`], or the model fails.
    pub fn teach(
        &mut self,
        requests: &[ChatRequest],
        samples: &mut [Sample],
    ) -> Result<(), ClientError> {
        let (mut jobs, mut of) = (Vec::new(), Vec::new());
        for (index, (request, sample)) in requests.iter().zip(samples.iter_mut()).enumerate() {
            if matches!(sample.finish, FinishReason::Failed(_)) {
                continue;
            }
            let k = request.top_logprobs.unwrap_or(0);
            if !self.reads(sample) {
                sample.token_ids = match k {
                    0 => Vec::new(),
                    _ => self.answer_ids(sample)?,
                };
            }
            if k > 0 {
                let prefix = request.assistant_prefix.as_deref();
                jobs.push(EngineScore {
                    cartridges: Vec::new(),
                    adapters: Vec::new(),
                    prompt: self.prompt(&request.messages, request.enable_thinking, prefix)?,
                    continuation: sample.token_ids.clone(),
                    top_logprobs: k,
                });
                of.push(index);
            }
        }
        while !jobs.is_empty() {
            if self.stop.load(Ordering::Relaxed) {
                return Err(ClientError::Stopped);
            }
            match self.engine.score(&jobs) {
                Ok(scores) => {
                    for (score, &index) in scores.into_iter().zip(&of) {
                        samples[index].top_logprobs = score.top_logprobs.map(dense);
                    }
                    break;
                }
                // The others are scored without it.
                Err(EngineError::Request { index, error }) => {
                    jobs.remove(index);
                    let error = ClientError::Failed(format!("the local teacher: {error}"));
                    samples[of.remove(index)].finish = FinishReason::Failed(error);
                }
                Err(error) => return Err(failed(error)),
            }
        }
        Ok(())
    }

    /// Whether the sample has ids and this model's tokenizer reads them as its text.
    fn reads(&self, sample: &Sample) -> bool {
        let model = self.engine.model();
        !sample.token_ids.is_empty()
            && model.decoder.check_ids(&sample.token_ids).is_ok()
            && model
                .text
                .decode(&sample.token_ids, true)
                .is_ok_and(|text| text == sample.text)
    }

    fn answer_ids(&self, sample: &Sample) -> Result<Vec<u32>, ClientError> {
        let text = &self.engine.model().text;
        let failed = |error: TextError| ClientError::Failed(error.to_string());
        let mut ids = text.encode(&sample.text, false).map_err(failed)?;
        if sample.finish == FinishReason::Stop {
            let end = text.message_ids().map_err(failed)?.end.last();
            ids.extend(end.copied().or(text.eos_id()));
        }
        Ok(ids)
    }
}

fn failed(error: EngineError) -> ClientError {
    match error {
        EngineError::Stopped => ClientError::Stopped,
        other => ClientError::Failed(other.to_string()),
    }
}

/// The engine's candidates as those of a client.
pub(crate) fn dense(top: TopLogprobs) -> DenseTopLogprobs {
    DenseTopLogprobs {
        k: top.k,
        token_ids: top.ids,
        logprobs: top.logprobs,
    }
}

impl ChatClient for LocalClient<'_> {
    fn begin_step(&mut self) {
        self.engine.forget_prefixes();
    }

    fn complete(
        &mut self,
        requests: &[ChatRequest],
        on_done: &mut dyn FnMut(usize),
    ) -> Result<Vec<Sample>, ClientError> {
        let jobs = requests
            .iter()
            .map(|r| {
                let prompt = self.prompt(
                    &r.messages,
                    r.enable_thinking,
                    r.assistant_prefix.as_deref(),
                )?;
                Ok(GenerateRequest {
                    sampling: Sampling {
                        temperature: r.temperature,
                        seed: r.seed,
                        ..Sampling::default()
                    },
                    stop: StopRules {
                        ids: self.stop_ids.clone(),
                        strings: Vec::new(),
                    },
                    top_logprobs: r.top_logprobs.unwrap_or(0),
                    ..GenerateRequest::new(prompt, r.max_completion_tokens)
                })
            })
            .collect::<Result<Vec<_>, ClientError>>()?;
        let stop = self.stop.clone();
        let completions = self
            .engine
            .generate(&jobs, &mut |event| {
                if let Event::Finished { request, .. } = event {
                    on_done(request);
                }
                match stop.load(Ordering::Relaxed) {
                    true => Flow::Stop,
                    false => Flow::Continue,
                }
            })
            .map_err(failed)?;
        Ok(completions
            .into_iter()
            .map(|c| Sample {
                text: c.text,
                token_ids: c.token_ids,
                top_logprobs: c.top_logprobs.map(dense),
                finish: match c.finish {
                    Ended::Stop => FinishReason::Stop,
                    Ended::Length => FinishReason::Length,
                },
            })
            .collect())
    }

    fn score(&mut self, requests: &[ScoreRequest]) -> Result<Vec<DenseTopLogprobs>, ClientError> {
        let jobs = requests
            .iter()
            .map(|r| {
                Ok(EngineScore {
                    cartridges: Vec::new(),
                    adapters: Vec::new(),
                    prompt: self.prompt(&r.messages, None, None)?,
                    continuation: r.continuation_ids.clone(),
                    top_logprobs: r.top_logprobs.max(1),
                })
            })
            .collect::<Result<Vec<_>, ClientError>>()?;
        let scores = self.engine.score(&jobs).map_err(failed)?;
        Ok(scores
            .into_iter()
            .map(|s| dense(s.top_logprobs.unwrap_or_default()))
            .collect())
    }
}
