//! What was measured under one condition.

use serde::{Deserialize, Serialize};

use crate::statistics::{Estimate, median, ratio, share};

/// What stands before the questions.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum ConditionKind {
    /// Nothing but what the chat template puts there.
    None,
    /// The document in a system message.
    Document,
    /// A cartridge.
    Cartridge,
    /// An adapter.
    Adapter,
    /// As much of the document's beginning as a cartridge takes room.
    Beginning,
    /// The model's own summary of the document.
    Summary,
    /// The pieces of the document that look most like the question.
    Retrieval,
}

/// One candidate answer.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct CandidateRecord {
    /// The answer.
    pub text: String,
    /// Its tokens.
    pub tokens: usize,
    /// Mean natural log-prob per token.
    pub mean_logprob: f64,
}

/// One question under one condition.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct QuestionRecord {
    /// Its id in the list.
    pub id: String,
    /// What was asked.
    pub question: String,
    /// The gold answer.
    pub gold: String,
    /// Candidate answers, in the order they were compared.
    pub candidates: Vec<CandidateRecord>,
    /// Where the gold answer stands among them.
    pub gold_index: usize,
    /// Which has the highest mean log-prob.
    pub chosen: usize,
    /// Whether that is the gold answer.
    pub choice_correct: bool,
    /// Natural-log NLL, summed over the gold answer's tokens.
    pub nll: f64,
    /// Tokens of the gold answer.
    pub gold_tokens: usize,
    /// Tokens of the prompt, without cartridge slots.
    pub prompt_tokens: usize,
    /// The model's own answer, if one was asked for.
    pub generated: Option<String>,
    /// Whether it is right, for grades that know right and wrong.
    pub generated_correct: Option<bool>,
    /// What the suite's grade makes of all samples, if answers were asked for.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub graded: Option<Graded>,
}

/// The answers that were written to one question.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Graded {
    /// Answers that were sampled.
    pub samples: usize,
    /// Their mean score, from 0 to 1.
    pub score: f64,
    /// Those cut off by the longest length.
    pub truncated: usize,
    /// Those without the answer in the form that was asked for.
    pub unanswered: usize,
}

/// A number that a suite's own metric gives. More is better.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Score {
    /// The metric, such as chrF.
    pub name: String,
    /// What is best: 1 for shares, 100 for chrF and BLEU.
    pub best: f64,
    /// The number.
    pub estimate: Estimate,
}

/// What it took to make a cartridge or an adapter.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Build {
    /// Wall time of training or solving, without self-study.
    pub seconds: f64,
    /// Its size as it is kept.
    pub bytes: u64,
}

/// All questions under one condition.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Measurement {
    /// Name of the condition.
    pub condition: String,
    /// What stands before the questions.
    pub kind: ConditionKind,
    /// NLL per token of the gold answers, over all their tokens (natural log); none where a server gives
    /// no likelihoods.
    pub nll: Option<Estimate>,
    /// Share of questions where the gold answer beats the other candidates; none as for `nll`.
    pub choice_accuracy: Option<Estimate>,
    /// What guessing would give for it.
    pub choice_chance: f64,
    /// Share of questions whose generated answer is right, if answers were generated.
    pub generated_accuracy: Option<Estimate>,
    /// Cartridge slots and prompt tokens before the first token of an answer: median over
    /// questions.
    pub tokens_before_answer: f64,
    /// Rows that stand for the document: cartridge slots, or its tokens.
    pub document_rows: usize,
    /// Bytes of keys and values in these rows, in f32.
    pub kv_bytes: u64,
    /// What the suite's own metrics give, if answers were generated.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub scores: Vec<Score>,
    /// What it took to make what stands before the questions, as far as it says.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub build: Option<Build>,
    /// Perplexity of text that has nothing to do with the document, where it was measured.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub unrelated: Option<f64>,
    /// Wall time in all.
    pub seconds: f64,
    /// Part of it spent scoring answers.
    pub score_seconds: f64,
    /// Part of it spent generating answers.
    pub generate_seconds: f64,
    /// The questions, in the list's order.
    pub questions: Vec<QuestionRecord>,
}

/// What [`Measurement::summarise`] cannot know from the questions.
pub(crate) struct Circumstances {
    pub(crate) condition: String,
    pub(crate) kind: ConditionKind,
    /// Cartridge slots before every prompt.
    pub(crate) slots: usize,
    pub(crate) document_rows: usize,
    pub(crate) kv_bytes: u64,
    pub(crate) score_seconds: f64,
    pub(crate) generate_seconds: f64,
    pub(crate) seconds: f64,
}

impl Measurement {
    /// The three numbers in a line, as far as they were measured.
    pub fn in_words(&self) -> String {
        let share = |name: &str, found: Option<Estimate>| {
            found.map(|e| format!("{name} {:.0} %", 100.0 * e.value))
        };
        let parts = [
            self.nll.map(|e| format!("NLL/token {:.2}", e.value)),
            share("4-way", self.choice_accuracy),
            share("generated", self.generated_accuracy),
        ];
        parts.into_iter().flatten().collect::<Vec<_>>().join(" · ")
    }

    /// Of all answers: how many there are, were cut off, and had no answer in the form asked for.
    pub fn answers(&self) -> [usize; 3] {
        let graded = self.questions.iter().filter_map(|q| q.graded);
        graded.fold([0; 3], |[all, truncated, unanswered], graded| {
            [
                all + graded.samples,
                truncated + graded.truncated,
                unanswered + graded.unanswered,
            ]
        })
    }

    /// Sums up questions. `seed` is that of the bootstrap.
    pub(crate) fn summarise(
        about: Circumstances,
        questions: Vec<QuestionRecord>,
        seed: u64,
    ) -> Self {
        let likelihood: Vec<[f64; 2]> = questions
            .iter()
            .map(|q| [q.nll, q.gold_tokens as f64])
            .collect();
        let before: Vec<usize> = questions
            .iter()
            .map(|q| about.slots + q.prompt_tokens)
            .collect();
        let chosen = || questions.iter().filter(|q| !q.candidates.is_empty());
        let chance: f64 = chosen().map(|q| 1.0 / q.candidates.len() as f64).sum();
        Self {
            condition: about.condition,
            kind: about.kind,
            nll: ratio(&likelihood, seed),
            choice_accuracy: share(chosen().map(|q| q.choice_correct), seed),
            choice_chance: chance / chosen().count().max(1) as f64,
            generated_accuracy: share(questions.iter().filter_map(|q| q.generated_correct), seed),
            tokens_before_answer: median(&before),
            document_rows: about.document_rows,
            kv_bytes: about.kv_bytes,
            scores: Vec::new(),
            build: None,
            unrelated: None,
            seconds: about.seconds,
            score_seconds: about.score_seconds,
            generate_seconds: about.generate_seconds,
            questions,
        }
    }
}

/// The index of the highest mean log-prob; the first of equal ones.
pub(crate) fn best(candidates: &[CandidateRecord]) -> usize {
    let mut best = 0;
    for (index, candidate) in candidates.iter().enumerate() {
        if candidate.mean_logprob > candidates[best].mean_logprob {
            best = index;
        }
    }
    best
}

#[cfg(test)]
mod tests {
    use super::*;

    fn record(nll: f64, gold_tokens: usize, right: bool) -> QuestionRecord {
        let candidate = |mean_logprob| CandidateRecord {
            text: "x".into(),
            tokens: 1,
            mean_logprob,
        };
        let candidates = vec![candidate(-2.0), candidate(-1.0)];
        let chosen = best(&candidates);
        assert_eq!(chosen, 1);
        let gold_index = if right { 1 } else { 0 };
        QuestionRecord {
            id: "q".into(),
            question: "?".into(),
            gold: "x".into(),
            candidates,
            gold_index,
            chosen,
            choice_correct: chosen == gold_index,
            nll,
            gold_tokens,
            prompt_tokens: 10,
            generated: None,
            generated_correct: None,
            graded: None,
        }
    }

    #[test]
    fn questions_are_summed_up_by_tokens() {
        let about = Circumstances {
            condition: "c".into(),
            kind: ConditionKind::Cartridge,
            slots: 64,
            document_rows: 64,
            kv_bytes: 1,
            score_seconds: 0.0,
            generate_seconds: 0.0,
            seconds: 0.0,
        };
        let records = vec![record(6.0, 3, true), record(2.0, 1, false)];
        let m = Measurement::summarise(about, records, 0);
        assert!((m.nll.unwrap().value - 2.0).abs() < 1e-12);
        assert_eq!(m.choice_accuracy.unwrap().value, 0.5);
        assert_eq!(m.choice_chance, 0.5);
        assert_eq!(m.generated_accuracy, None);
        assert_eq!(m.tokens_before_answer, 74.0);
    }
}
