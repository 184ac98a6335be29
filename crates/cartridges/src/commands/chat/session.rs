//! A conversation and the engine that continues it.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Instant;

use anyhow::Result;
use cartridges_engine::{
    AdapterHandle, CartridgeHandle, Engine, EngineError, Event, FinishReason, Flow,
    GenerateRequest, Sampling, StopRules,
};
use cartridges_eval::prompt_ids;
use cartridges_model::text::ChatMessage;

/// Why an answer ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Ending {
    Stop,
    Length,
    Interrupted,
}

impl Ending {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Stop => "stop",
            Self::Length => "length",
            Self::Interrupted => "interrupted",
        }
    }
}

/// An answer and what it took.
#[derive(Debug)]
pub(super) struct Answer {
    pub text: String,
    pub ending: Ending,
    /// Generated tokens, with the one that ended the turn.
    pub tokens: usize,
    pub prompt_tokens: usize,
    pub seconds: f64,
}

/// A conversation.
pub(super) struct Session {
    engine: Engine,
    cartridges: Vec<CartridgeHandle>,
    pub(super) adapters: Vec<AdapterHandle>,
    system: Option<String>,
    sampling: Sampling,
    pub(super) max_new_tokens: usize,
    /// Raised by Ctrl-C.
    pub(super) stop: Arc<AtomicBool>,
    stop_ids: Vec<u32>,
    /// Questions and answers in turn.
    messages: Vec<ChatMessage>,
}

impl Session {
    pub(super) fn new(
        engine: Engine,
        cartridges: Vec<CartridgeHandle>,
        system: Option<String>,
        sampling: Sampling,
        stop: Arc<AtomicBool>,
    ) -> Self {
        let stop_ids = engine.model().text.stop_ids();
        Self {
            engine,
            cartridges,
            adapters: Vec::new(),
            system,
            sampling,
            max_new_tokens: 256,
            stop,
            stop_ids,
            messages: Vec::new(),
        }
    }

    /// Asks; `show` gets the answer piece by piece. A question whose answer fails is not part of the
    /// conversation; one whose answer is interrupted is, with what there is of it.
    pub(super) fn ask(
        &mut self,
        question: &str,
        show: &mut dyn FnMut(&str) -> io::Result<()>,
    ) -> Result<Answer> {
        self.messages.push(ChatMessage::user(question));
        match self.answer(show) {
            Ok(answer) => {
                self.messages
                    .push(ChatMessage::assistant(answer.text.clone()));
                Ok(answer)
            }
            Err(error) => {
                self.messages.pop();
                Err(error)
            }
        }
    }

    fn answer(&mut self, show: &mut dyn FnMut(&str) -> io::Result<()>) -> Result<Answer> {
        let begin = Instant::now();
        let model = self.engine.model().clone();
        let behind = !self.cartridges.is_empty();
        let prompt = prompt_ids(&model.text, self.system.as_deref(), behind, &self.messages)?;
        let prompt_tokens = prompt.len();
        let request = GenerateRequest {
            cartridges: self.cartridges.clone(),
            adapters: self.adapters.clone(),
            sampling: self.sampling,
            stop: StopRules {
                ids: self.stop_ids.clone(),
                strings: Vec::new(),
            },
            ..GenerateRequest::new(prompt, self.max_new_tokens)
        };
        let mut streamed = String::new();
        let mut tokens = 0;
        let mut broken: Option<io::Error> = None;
        let stop = &self.stop;
        let result = self.engine.generate(&[request], &mut |event| {
            if let Event::Token { text, .. } = event {
                tokens += 1;
                streamed.push_str(text);
                if let Err(error) = show(text) {
                    broken = Some(error);
                    return Flow::Stop;
                }
                if stop.load(Ordering::Relaxed) {
                    return Flow::Stop;
                }
            }
            Flow::Continue
        });
        if let Some(error) = broken {
            return Err(error.into());
        }
        let ending = match result {
            Err(EngineError::Stopped) => Ending::Interrupted,
            Err(error) => return Err(error.into()),
            Ok(completions) => match completions.first().map(|c| c.finish) {
                Some(FinishReason::Length) => Ending::Length,
                _ => Ending::Stop,
            },
        };
        Ok(Answer {
            text: streamed,
            ending,
            tokens,
            prompt_tokens,
            seconds: begin.elapsed().as_secs_f64(),
        })
    }

    /// Drops the last question and its answer; false if there is none.
    pub(super) fn undo(&mut self) -> bool {
        let left = self.messages.len().saturating_sub(2);
        let dropped = left < self.messages.len();
        self.messages.truncate(left);
        dropped
    }

    /// Drops the conversation and what is kept of it.
    pub(super) fn clear(&mut self) {
        self.messages.clear();
        self.engine.forget_prefixes();
    }

    /// Questions with an answer.
    pub(super) fn exchanges(&self) -> usize {
        self.messages.len() / 2
    }
}
