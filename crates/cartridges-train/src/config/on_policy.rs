//! Settings of training on the student's own answers.

use serde::{Deserialize, Serialize};

/// Every so many steps the student answers questions of the data, and the teacher's distribution over
/// these answers is trained towards beside the data (on-policy distillation, arXiv 2306.13649).
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct OnPolicyConfig {
    /// Steps from one time to the next; 0 means never (default 0).
    pub every: usize,
    /// Conversations that are answered each time (default 4).
    pub conversations: usize,
    /// Most tokens of an answer (default 128).
    pub max_tokens: usize,
    /// The student's temperature; 0 takes its most likely tokens (default 1).
    pub temperature: f32,
    /// Candidates of the teacher per token (default 20).
    pub top_logprobs: usize,
    /// Probability mass of the candidates that are kept per token, in (0, 1] (default 0.99).
    pub min_prob_mass: f64,
}

impl Default for OnPolicyConfig {
    fn default() -> Self {
        Self {
            every: 0,
            conversations: 4,
            max_tokens: 128,
            temperature: 1.0,
            top_logprobs: 20,
            min_prob_mass: 0.99,
        }
    }
}
