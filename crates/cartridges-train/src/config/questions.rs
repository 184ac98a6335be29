//! Question lists that are asked during training.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

/// What is measured with a question list.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum QuestionKind {
    /// How likely the gold answer is, and whether it beats three other candidates.
    Likelihood,
    /// Whether an answer that is generated greedily has an accepted answer in it.
    Generation,
}

/// A question list (JSON, as `quickstart --questions` takes it) and how it is asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct EvalQuestions {
    /// The file.
    pub path: PathBuf,
    /// What is measured.
    pub kind: QuestionKind,
    /// Only the first so many questions are asked; 0 means all (default 0).
    #[serde(default)]
    pub limit: usize,
    /// What it is called in logs, the reference's `name_for_wandb` (default: the list's own id).
    #[serde(default)]
    pub name: String,
    /// Longest generated answer in tokens, the reference's `generate_max_new_tokens` (default 24:
    /// gold answers are a few words; the reference has 128).
    #[serde(default = "few_words")]
    pub max_new_tokens: usize,
    /// Put behind every question (default "Answer with the name, number or word only.").
    #[serde(default = "briefly")]
    pub instruction: String,
}

fn few_words() -> usize {
    24
}

fn briefly() -> String {
    "Answer with the name, number or word only.".to_owned()
}

/// What decides which cartridge of a run is the best.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum BestBy {
    /// The loss on `eval_data`: the lower, the better.
    HeldOutLoss,
    /// NLL per token of the gold answers of all likelihood lists together: the lower, the better.
    Nll,
    /// The share of questions of all likelihood lists whose gold answer beats the other candidates.
    Choice,
    /// The share of questions of all generation lists that are answered rightly.
    Generation,
}

impl BestBy {
    /// Its name in settings and records.
    pub fn name(self) -> &'static str {
        match self {
            Self::HeldOutLoss => "held_out_loss",
            Self::Nll => "nll",
            Self::Choice => "choice",
            Self::Generation => "generation",
        }
    }
}
