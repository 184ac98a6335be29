//! Answers that were written, here or elsewhere, and what they are worth.

use crate::measure::MeasureOptions;
use crate::measurement::{
    Circumstances, ConditionKind, Graded, Measurement, QuestionRecord, Score,
};
use crate::questions::{Question, QuestionList};

/// An answer as it was written.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Written {
    /// Its words.
    pub text: String,
    /// Its tokens.
    pub tokens: usize,
    /// Whether it was cut off by the longest length.
    pub truncated: bool,
}

/// What the model answered by itself.
#[derive(Debug, Clone, PartialEq)]
pub struct GeneratedAnswer {
    /// Its words.
    pub text: String,
    /// Tokens of the prompt, without cartridge slots.
    pub prompt_tokens: usize,
    /// Tokens of the answer.
    pub tokens: usize,
    /// What it is worth, from 0 to 1.
    pub score: f64,
    /// Whether it is right, for grades that know right and wrong.
    pub correct: Option<bool>,
    /// Whether it was cut off by the longest length.
    pub truncated: bool,
    /// Whether there is an answer in the form that was asked for.
    pub answered: bool,
}

/// A measurement of answers that were written elsewhere, such as by a server, which says nothing of
/// likelihoods: `options.samples` for each question, those of a question behind each other.
pub fn measure_written(
    name: &str,
    kind: ConditionKind,
    questions: &QuestionList,
    written: &[Written],
    options: &MeasureOptions,
    seconds: f64,
) -> Measurement {
    let list = &questions.questions;
    let samples = options.samples.max(1);
    let asked = list.iter().flat_map(|q| std::iter::repeat_n(q, samples));
    let answers: Vec<GeneratedAnswer> = asked
        .zip(written)
        .map(|(question, written)| graded(question, written.clone(), 0, options))
        .collect();
    let record = |question: &Question| QuestionRecord {
        id: question.id.clone(),
        question: question.question.clone(),
        gold: question.gold().to_owned(),
        candidates: Vec::new(),
        gold_index: 0,
        chosen: 0,
        choice_correct: false,
        nll: 0.0,
        gold_tokens: 0,
        prompt_tokens: 0,
        generated: None,
        generated_correct: None,
        graded: None,
    };
    let mut records: Vec<QuestionRecord> = list.iter().map(record).collect();
    let scores = grade(list, &answers, options, &mut records);
    let about = Circumstances {
        condition: name.to_owned(),
        kind,
        slots: 0,
        document_rows: 0,
        kv_bytes: 0,
        score_seconds: 0.0,
        generate_seconds: seconds,
        seconds,
    };
    Measurement {
        scores,
        ..Measurement::summarise(about, records, options.seed)
    }
}

/// What an answer to a question is worth.
pub(crate) fn graded(
    question: &Question,
    written: Written,
    prompt_tokens: usize,
    options: &MeasureOptions,
) -> GeneratedAnswer {
    let mark = options.grade.mark(question, &written.text);
    GeneratedAnswer {
        prompt_tokens,
        tokens: written.tokens,
        score: mark.score,
        correct: mark.right,
        truncated: written.truncated,
        answered: mark.answered,
        text: written.text,
    }
}

/// Writes into each question's record what its answers are worth, and gives the metrics over all.
pub(crate) fn grade(
    list: &[Question],
    answers: &[GeneratedAnswer],
    options: &MeasureOptions,
    records: &mut [QuestionRecord],
) -> Vec<Score> {
    let samples = options.samples.max(1);
    for (record, answers) in records.iter_mut().zip(answers.chunks(samples)) {
        let count =
            |of: &dyn Fn(&GeneratedAnswer) -> bool| answers.iter().filter(|a| of(a)).count();
        record.graded = Some(Graded {
            samples: answers.len(),
            score: answers.iter().map(|a| a.score).sum::<f64>() / answers.len() as f64,
            truncated: count(&|answer| answer.truncated),
            unanswered: count(&|answer| !answer.answered),
        });
        record.generated_correct = answers[0].correct;
        record.generated = Some(answers[0].text.clone());
    }
    let texts = answers.chunks(samples);
    let texts: Vec<Vec<String>> = texts
        .map(|answers| answers.iter().map(|answer| answer.text.clone()).collect())
        .collect();
    options.grade.scores(list, &texts, options.seed)
}
