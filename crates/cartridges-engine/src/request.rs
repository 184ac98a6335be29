//! What goes into the engine and what comes out.

use cartridges_model::adapter::AdapterHandle;

use crate::cartridges::CartridgeHandle;
use crate::constraint::Constraint;
use crate::error::RequestError;
use crate::log_probs::TopLogprobs;
use crate::sampling::Sampling;

/// When a sequence ends before its token limit.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct StopRules {
    /// Ids that end a sequence; the id is part of the completion's ids but not of its text.
    pub ids: Vec<u32>,
    /// Texts that end a sequence; the completion's text is cut before the earliest.
    pub strings: Vec<String>,
}

/// One sequence to continue.
#[derive(Debug, Clone)]
pub struct GenerateRequest {
    /// Cartridges before the prompt, in this order.
    pub cartridges: Vec<CartridgeHandle>,
    /// Adapters of the model while it works on this request; they add up.
    pub adapters: Vec<AdapterHandle>,
    /// Token ids; the first stands at the position after all cartridge slots.
    pub prompt: Vec<u32>,
    /// Most tokens to generate.
    pub max_new_tokens: usize,
    /// How the next token is chosen.
    pub sampling: Sampling,
    /// When to end.
    pub stop: StopRules,
    /// How many log-probs to record per generated token (0: none).
    pub top_logprobs: usize,
    /// Record the log-prob of the generated tokens themselves, as any `top_logprobs` does.
    pub logprobs: bool,
    /// The form that the answer must have.
    pub constraint: Option<Constraint>,
    /// Whose request it is: clients take turns.
    pub client: String,
}

impl GenerateRequest {
    /// A greedy request behind no cartridge, without stop rules or log-probs.
    pub fn new(prompt: Vec<u32>, max_new_tokens: usize) -> Self {
        Self {
            cartridges: Vec::new(),
            adapters: Vec::new(),
            prompt,
            max_new_tokens,
            sampling: Sampling::default(),
            stop: StopRules::default(),
            top_logprobs: 0,
            logprobs: false,
            constraint: None,
            client: String::new(),
        }
    }
}

/// A request in the engine, in the order of submission.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct RequestId(pub(crate) u64);

/// What comes of a step of the engine.
#[derive(Debug)]
pub enum StepEvent<'a> {
    /// A request has left the queue.
    Started {
        /// The request.
        request: RequestId,
        /// Tokens of its prompt whose keys and values were there already.
        cached_tokens: usize,
    },
    /// A request got a token.
    Token {
        /// The request.
        request: RequestId,
        /// The token.
        id: u32,
        /// Text that became complete with it; never a broken character, never past a stop string.
        text: &'a str,
        /// Its natural log-prob, if asked for.
        logprob: Option<f32>,
        /// The most likely tokens in its place, if asked for.
        top: &'a [(u32, f32)],
    },
    /// A request is answered.
    Finished {
        /// The request.
        request: RequestId,
        /// The whole answer.
        completion: Completion,
    },
    /// A request could not be answered.
    Failed {
        /// The request.
        request: RequestId,
        /// Why.
        error: RequestError,
    },
}

/// Why a sequence ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum FinishReason {
    /// A stop id or stop string.
    Stop,
    /// The token limit.
    Length,
}

/// A finished sequence.
#[derive(Debug, Clone, PartialEq)]
pub struct Completion {
    /// Generated ids, with the stop id that ended it, if one did.
    pub token_ids: Vec<u32>,
    /// The text, without special tokens, cut before a stop string.
    pub text: String,
    /// Natural log-prob of each generated id under the distribution it was drawn from (greedy: the
    /// unscaled one); only when log-probs were asked for.
    pub logprobs: Vec<f32>,
    /// The largest log-probs per generated id, if asked for.
    pub top_logprobs: Option<TopLogprobs>,
    /// Why it ended.
    pub finish: FinishReason,
}

/// What happens while a batch runs.
#[derive(Debug)]
pub enum Event<'a> {
    /// A request got a token.
    Token {
        /// Index of the request.
        request: usize,
        /// The token.
        id: u32,
        /// Text that became complete with it; never a broken character, never past a stop string.
        text: &'a str,
    },
    /// A request is finished.
    Finished {
        /// Index of the request.
        request: usize,
        /// Its result.
        completion: &'a Completion,
    },
}

/// Whether a batch goes on after an [`Event`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Flow {
    /// Go on.
    Continue,
    /// End the batch with [`crate::EngineError::Stopped`].
    Stop,
}

/// A given text whose probability is wanted.
#[derive(Debug, Clone)]
pub struct ScoreRequest {
    /// Cartridges before the prompt.
    pub cartridges: Vec<CartridgeHandle>,
    /// Adapters of the model, as in [`GenerateRequest::adapters`].
    pub adapters: Vec<AdapterHandle>,
    /// Token ids before the scored ones; not empty.
    pub prompt: Vec<u32>,
    /// The ids to score.
    pub continuation: Vec<u32>,
    /// How many log-probs to record per scored id (0: none).
    pub top_logprobs: usize,
}

/// The probabilities of a [`ScoreRequest`]'s continuation.
#[derive(Debug, Clone, PartialEq)]
pub struct Score {
    /// Natural log-prob of each id given everything before it.
    pub logprobs: Vec<f32>,
    /// The largest log-probs at each id's place, if asked for.
    pub top_logprobs: Option<TopLogprobs>,
}
