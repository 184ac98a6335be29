//! One request while it waits or runs.

use cartridges_model::text::StreamDecoder;
use rand_chacha::ChaCha8Rng;

use crate::constraint::Constraint;
use crate::error::RequestError;
use crate::log_probs::{TopLogprobs, log_sum, top};
use crate::request::{Completion, FinishReason, GenerateRequest, RequestId};
use crate::sequence::Sequence;

/// What was chosen for one sequence in one step.
pub struct Choice {
    pub id: u32,
    pub logprob: f32,
    pub top: Vec<(u32, f32)>,
}

/// A request and everything that has come of it.
pub struct Work {
    pub id: RequestId,
    pub request: GenerateRequest,
    /// Its place in memory; `None` while it waits.
    pub sequence: Option<Sequence>,
    /// Tokens whose keys were in memory already when it was first admitted; `None` before that.
    pub cached_tokens: Option<usize>,
    rng: ChaCha8Rng,
    stream: StreamDecoder,
    constraint: Option<Constraint>,
    token_ids: Vec<u32>,
    text: String,
    /// How much of the text has been handed out.
    shown: usize,
    logprobs: Vec<f32>,
    top: TopLogprobs,
}

impl Work {
    pub fn new(id: RequestId, mut request: GenerateRequest, stream: StreamDecoder) -> Self {
        Self {
            id,
            sequence: None,
            cached_tokens: None,
            rng: request.sampling.rng(),
            stream,
            constraint: request.constraint.take(),
            token_ids: Vec::new(),
            text: String::new(),
            shown: 0,
            logprobs: Vec::new(),
            top: TopLogprobs::new(request.top_logprobs),
            request,
        }
    }

    /// Prompt and answer so far: what has to be in memory before the next token can be chosen.
    pub fn tokens(&self) -> Vec<u32> {
        [self.request.prompt.as_slice(), &self.token_ids].concat()
    }

    /// Whether only the last token chosen is still to go through the model.
    pub fn decodes(&self) -> bool {
        !self.token_ids.is_empty() && self.sequence.as_ref().is_some_and(|s| s.unfilled() == 1)
    }

    /// Chooses the next token.
    pub fn choose(&mut self, logits: &mut [f32]) -> Result<Choice, RequestError> {
        // One NaN anywhere in a row makes its softmax meaningless.
        if logits.iter().any(|x| x.is_nan()) {
            return Err(RequestError::NotFinite);
        }
        if let Some(constraint) = &mut self.constraint {
            constraint.apply(logits)?;
        }
        let sampling = &self.request.sampling;
        let id = sampling.draw(logits, &mut self.rng);
        if let Some(constraint) = &mut self.constraint {
            constraint.accept(id)?;
        }
        if !self.request.logprobs && self.request.top_logprobs == 0 {
            return Ok(Choice {
                id,
                logprob: 0.0,
                top: Vec::new(),
            });
        }
        let temperature = match sampling.temperature {
            0.0 => 1.0,
            t => t,
        };
        let sum = log_sum(logits, temperature);
        Ok(Choice {
            id,
            logprob: (f64::from(logits[id as usize] / temperature) - sum) as f32,
            top: top(logits, self.request.top_logprobs, temperature, sum),
        })
    }

    /// Takes a token in; tells whether the answer ends with it.
    pub fn accept(&mut self, choice: &Choice) -> Result<Option<FinishReason>, RequestError> {
        self.token_ids.push(choice.id);
        if let Some(sequence) = &mut self.sequence {
            sequence.tokens.push(choice.id);
        }
        if self.request.logprobs || self.request.top_logprobs > 0 {
            self.logprobs.push(choice.logprob);
            self.top.push(&choice.top);
        }
        let complete = self
            .constraint
            .as_ref()
            .is_some_and(Constraint::is_finished);
        if self.request.stop.ids.contains(&choice.id) {
            self.text.push_str(&self.stream.finish()?);
            return Ok(Some(FinishReason::Stop));
        }
        self.text.push_str(&self.stream.push(choice.id)?);
        let found = self.request.stop.strings.iter().filter(|s| !s.is_empty());
        if let Some(at) = found.filter_map(|s| self.text.find(s.as_str())).min() {
            self.text.truncate(at);
            return Ok(Some(FinishReason::Stop));
        }
        let full = self.token_ids.len() >= self.request.max_new_tokens;
        if complete || full {
            self.text.push_str(&self.stream.finish()?);
        }
        Ok(match (complete, full) {
            (true, _) => Some(FinishReason::Stop),
            (false, true) => Some(FinishReason::Length),
            (false, false) => None,
        })
    }

    /// Text that can be shown now and was not before; what may be the start of a stop string waits.
    pub fn release_text(&mut self, ended: bool) -> &str {
        let from = self.shown.min(self.text.len());
        let mut to = self.text.len();
        if !ended {
            for stop in &self.request.stop.strings {
                let held = (1..stop.len())
                    .rev()
                    .filter(|n| stop.is_char_boundary(*n))
                    .find(|n| self.text.ends_with(&stop[..*n]));
                to = to.min(self.text.len() - held.unwrap_or(0));
            }
        }
        self.shown = to.max(from);
        &self.text[from..self.shown]
    }

    /// The result.
    pub fn into_completion(self, finish: FinishReason) -> Completion {
        Completion {
            token_ids: self.token_ids,
            text: self.text,
            logprobs: self.logprobs,
            top_logprobs: (self.request.top_logprobs > 0).then_some(self.top),
            finish,
        }
    }
}
