//! What a run reports.

use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::self_study::Counts;

/// What became of a run's tasks.
#[derive(Debug, Clone, PartialEq, Eq, Default, Serialize, Deserialize)]
pub struct SynthesisReport {
    /// Tasks in the plan.
    pub planned: usize,
    /// Conversations made.
    pub finished: usize,
    /// Tasks without a conversation worth keeping, by cause.
    pub dropped: BTreeMap<String, usize>,
    /// Tasks that went wrong in this session and will be tried again by the next, by cause.
    pub failed: BTreeMap<String, usize>,
    /// The last failure's full message.
    pub last_failure: Option<String>,
    /// Numbers about the finished work.
    pub counts: Counts,
    /// Part files that could not be read and whose tasks were done again.
    pub damaged_parts: Vec<String>,
}

impl SynthesisReport {
    /// Tasks that need no more work: finished or dropped.
    pub fn settled(&self) -> usize {
        self.finished + self.dropped.values().sum::<usize>()
    }

    /// Tasks that went wrong in this session.
    pub fn num_failed(&self) -> usize {
        self.failed.values().sum()
    }

    /// Tokens generated and scored.
    pub fn tokens(&self) -> u64 {
        self.counts.generated_tokens + self.counts.scored_tokens
    }
}
