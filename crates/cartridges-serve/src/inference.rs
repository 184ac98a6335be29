//! The one trait through which the server talks to whoever generates.
//!
//! The server knows HTTP, the engine knows tensors; this file, [`Job`] and [`Answer`] are all that
//! either knows of the other.

use serde::Serialize;

use crate::answer::{Answer, JobError};
use crate::job::Job;

/// What is served; it does not change while the server runs.
#[derive(Debug, Clone)]
pub struct Served {
    /// The model's name, as clients see it.
    pub model_id: String,
    /// When the model was made or opened, in seconds since 1970.
    pub created: u64,
    /// Most tokens of prompt and answer together; cartridge slots do not count.
    pub max_tokens_per_request: usize,
    /// Most log-probs per position that can be given.
    pub max_top_logprobs: usize,
    /// The answer's token limit where a request names none; `None`: as many as fit.
    pub max_completion_tokens: Option<usize>,
}

/// A token in two forms.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TokenText {
    /// The string in the vocabulary (byte-level form: `Ġthe`).
    pub raw: String,
    /// The bytes it stands for; a special token: its name.
    pub bytes: Vec<u8>,
}

/// A cartridge that the server has.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct CartridgeInfo {
    /// Its local name.
    pub id: String,
    /// Slots, frozen ones included.
    pub tokens: usize,
    /// Size of its keys and values in bytes.
    pub bytes: u64,
    /// Where it came from, in words.
    pub origin: String,
    /// Whether it is in memory now.
    pub resident: bool,
}

/// How busy the engine is. Counters only grow.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, utoipa::ToSchema)]
pub struct Load {
    /// Jobs that wait.
    pub queued: usize,
    /// Jobs that generate.
    pub running: usize,
    /// Key-value rows in use.
    pub kv_rows_used: usize,
    /// Key-value rows of cartridges and stored prompts, which stay when nothing runs.
    pub kv_rows_kept: usize,
    /// Key-value rows there are.
    pub kv_rows_total: usize,
    /// Tokens generated so far.
    pub generated_tokens: u64,
    /// Prompt tokens read so far.
    pub prompt_tokens: u64,
    /// Times a cartridge was already in memory.
    pub cartridge_hits: u64,
    /// Times it had to be loaded.
    pub cartridge_misses: u64,
    /// Jobs put back into the queue for lack of memory.
    pub preemptions: u64,
}

/// Whoever generates.
pub trait Inference: Send + Sync + 'static {
    /// What is served.
    fn served(&self) -> &Served;
    /// The two forms of a token; called for every log-prob told. Ids out of range must not panic.
    fn token(&self, id: u32) -> TokenText;
    /// Takes a job. Returns soon: what takes time (tokenising, loading) is done elsewhere, and what
    /// fails there is told by [`Event::Failed`].
    fn submit(&self, job: Job) -> Result<Answer, JobError>;
    /// The cartridges there are.
    fn cartridges(&self) -> Vec<CartridgeInfo>;
    /// How busy it is; called for every job, so it must not wait for a generation step.
    fn load(&self) -> Load;
    /// Whether jobs are taken now.
    fn ready(&self) -> bool;
    /// From now on jobs are refused with [`JobError::ShuttingDown`]; those taken are finished.
    fn drain(&self);
}
