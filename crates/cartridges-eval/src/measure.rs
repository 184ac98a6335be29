//! Asking all questions of a list under one condition.

use std::sync::Arc;
use std::time::Instant;

use cartridges_engine::{
    Completion, Engine, Event, FinishReason, Flow, GenerateRequest, Sampling, ScoreRequest,
    StopRules,
};
use cartridges_model::LanguageModel;
use cartridges_model::text::ChatMessage;
use serde::{Deserialize, Serialize};

use crate::candidates::{Candidates, candidates};
use crate::condition::Condition;
use crate::error::EvalError;
use crate::grade::Grade;
use crate::measurement::{
    CandidateRecord, Circumstances, ConditionKind, Graded, Measurement, QuestionRecord, Score, best,
};
use crate::questions::{Question, QuestionList};

/// Questions whose candidates are scored between two reports of progress.
const QUESTIONS_PER_PASS: usize = 16;

/// How a list is measured.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MeasureOptions {
    /// Put behind every question, under every condition alike: gold answers are a few words, so
    /// that is what is asked for.
    pub instruction: String,
    /// What an answer begins with where its likelihood is measured, such as `<answer>`.
    pub lead: String,
    /// How answers that are written are graded.
    pub grade: Grade,
    /// Temperature of the answers; 0 takes the likeliest word.
    pub temperature: f32,
    /// Answers per question. More than one need a temperature.
    pub samples: usize,
    /// Longest generated answer, in tokens.
    pub max_new_tokens: usize,
    /// Seed of the candidates and of the bootstrap.
    pub seed: u64,
    /// Generate answers too.
    pub generate: bool,
}

impl Default for MeasureOptions {
    fn default() -> Self {
        Self {
            instruction: "Answer with the name, number or word only.".to_owned(),
            lead: String::new(),
            grade: Grade::default(),
            temperature: 0.0,
            samples: 1,
            max_new_tokens: 24,
            seed: 0,
            generate: true,
        }
    }
}

/// Asks all questions under one condition. `progress` gets steps done and steps in all: one per
/// question for the candidates, and one for the generated answer.
///
/// - NLL: of the first accepted answer, encoded alone, without the token that ends the turn.
/// - Choice: the candidate with the highest mean log-prob per token.
/// - Generated answer: what `options.grade` makes of it.
///
/// # Errors
/// [`EvalError`], among others if document, question and answer exceed the model's positions.
pub fn measure(
    engine: &mut Engine,
    condition: &Condition,
    questions: &QuestionList,
    options: &MeasureOptions,
    progress: &mut dyn FnMut(usize, usize),
) -> Result<Measurement, EvalError> {
    let begin = Instant::now();
    let model = Arc::clone(engine.model());
    let list = &questions.questions;
    let samples = options.samples.max(1);
    let total = list.len() * (1 + samples * usize::from(options.generate));
    progress(0, total);
    let prompts = prompts(&model, condition, questions, options)?;
    let choices = candidates(questions, options.seed);

    let work: Vec<(&Question, &Candidates, &[u32])> = list
        .iter()
        .zip(&choices)
        .zip(&prompts)
        .map(|((question, choice), prompt)| (question, choice, prompt.as_slice()))
        .collect();
    let mut records = Vec::with_capacity(list.len());
    for part in work.chunks(QUESTIONS_PER_PASS) {
        let scored = score(engine, condition, part, &options.lead)?;
        records.extend(scored);
        progress(records.len(), total);
    }
    let scored = Instant::now();

    let mut scores = Vec::new();
    if options.generate {
        let mut done = records.len();
        let answers = answers(engine, condition, list, options, &prompts, &mut || {
            done += 1;
            progress(done, total);
        })?;
        scores = grade(list, &answers, options, &mut records);
    }
    let generated = Instant::now();

    let document_rows = match &condition.system {
        Some(system) if condition.cartridges.is_empty() => model.text.encode(system, false)?.len(),
        _ => match &condition.retriever {
            Some(retriever) => retriever.budget(),
            None => condition.slots,
        },
    };
    let bytes = model.decoder.config().kv_bytes_per_token(size_of::<f32>());
    let about = Circumstances {
        condition: condition.name.clone(),
        kind: condition.kind,
        slots: condition.slots,
        document_rows,
        kv_bytes: bytes as u64 * document_rows as u64,
        score_seconds: (scored - begin).as_secs_f64(),
        generate_seconds: (generated - scored).as_secs_f64(),
        seconds: begin.elapsed().as_secs_f64(),
    };
    Ok(Measurement {
        scores,
        ..Measurement::summarise(about, records, options.seed)
    })
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

fn graded(
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
fn grade(
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

/// Lets the model answer all questions, in the list's order, without scoring candidates; of several
/// samples those of a question follow each other. `on_answer` is called after each.
///
/// # Errors
/// As [`measure`].
pub fn generate_answers(
    engine: &mut Engine,
    condition: &Condition,
    questions: &QuestionList,
    options: &MeasureOptions,
    on_answer: &mut dyn FnMut(),
) -> Result<Vec<GeneratedAnswer>, EvalError> {
    let model = Arc::clone(engine.model());
    let prompts = prompts(&model, condition, questions, options)?;
    let list = &questions.questions;
    answers(engine, condition, list, options, &prompts, on_answer)
}

/// The answers to questions with their prompts.
fn answers(
    engine: &mut Engine,
    condition: &Condition,
    questions: &[Question],
    options: &MeasureOptions,
    prompts: &[Vec<u32>],
    on_answer: &mut dyn FnMut(),
) -> Result<Vec<GeneratedAnswer>, EvalError> {
    let stop_ids = engine.model().text.stop_ids();
    let samples = options.samples.max(1);
    let asked = || {
        let each = questions.iter().zip(prompts);
        each.flat_map(|both| std::iter::repeat_n(both, samples))
    };
    let request = |(index, (_, prompt)): (usize, (&Question, &Vec<u32>))| GenerateRequest {
        cartridges: condition.cartridges.clone(),
        adapters: condition.adapters.clone(),
        stop: StopRules {
            ids: stop_ids.clone(),
            strings: Vec::new(),
        },
        sampling: Sampling {
            temperature: options.temperature,
            seed: options.seed.wrapping_add(index as u64),
            ..Sampling::default()
        },
        ..GenerateRequest::new(prompt.clone(), options.max_new_tokens)
    };
    let requests: Vec<GenerateRequest> = asked().enumerate().map(request).collect();
    let completions = engine.generate(&requests, &mut |event| {
        if matches!(event, Event::Finished { .. }) {
            on_answer();
        }
        Flow::Continue
    })?;
    let answer = |(completion, (question, prompt)): (Completion, (&Question, &Vec<u32>))| {
        let written = Written {
            tokens: completion.token_ids.len(),
            truncated: completion.finish == FinishReason::Length,
            text: completion.text,
        };
        graded(question, written, prompt.len(), options)
    };
    Ok(completions.into_iter().zip(asked()).map(answer).collect())
}

/// The questions' prompts.
fn prompts(
    model: &LanguageModel,
    condition: &Condition,
    questions: &QuestionList,
    options: &MeasureOptions,
) -> Result<Vec<Vec<u32>>, EvalError> {
    let prompt =
        |question: &Question| Ok(condition.prompt(&model.text, &messages(question, options))?);
    questions.questions.iter().map(prompt).collect()
}

/// A question as it is asked, behind what was asked and answered before.
pub fn messages(question: &Question, options: &MeasureOptions) -> Vec<ChatMessage> {
    let asked = format!("{} {}", question.question, options.instruction);
    let earlier = question.earlier.iter();
    let earlier = earlier
        .flat_map(|(asked, answered)| [ChatMessage::user(asked), ChatMessage::assistant(answered)]);
    earlier
        .chain([ChatMessage::user(asked.trim_end())])
        .collect()
}

/// Scores all candidates of some questions in one call.
fn score(
    engine: &mut Engine,
    condition: &Condition,
    work: &[(&Question, &Candidates, &[u32])],
    lead: &str,
) -> Result<Vec<QuestionRecord>, EvalError> {
    let model = Arc::clone(engine.model());
    let lead = model.text.encode(lead, false)?;
    let mut requests = Vec::new();
    for (question, choice, prompt) in work {
        for answer in &choice.texts {
            let continuation = model.text.encode(answer, false)?;
            if continuation.is_empty() {
                return Err(EvalError::NoTokens {
                    question: question.id.clone(),
                    answer: answer.clone(),
                });
            }
            requests.push(ScoreRequest {
                cartridges: condition.cartridges.clone(),
                adapters: condition.adapters.clone(),
                prompt: [*prompt, lead.as_slice()].concat(),
                continuation,
                top_logprobs: 0,
            });
        }
    }
    let mut scores = engine.score(&requests)?.into_iter();
    let mut records = Vec::with_capacity(work.len());
    for (question, choice, prompt) in work {
        let mut scored = Vec::with_capacity(choice.texts.len());
        for (text, score) in choice.texts.iter().zip(&mut scores) {
            let tokens = score.logprobs.len();
            let sum: f64 = score.logprobs.iter().copied().map(f64::from).sum();
            if !sum.is_finite() {
                return Err(EvalError::NotFinite {
                    condition: condition.name.clone(),
                    question: question.id.clone(),
                    value: sum,
                });
            }
            scored.push(CandidateRecord {
                text: text.clone(),
                tokens,
                mean_logprob: sum / tokens.max(1) as f64,
            });
        }
        let chosen = best(&scored);
        let gold = &scored[choice.gold];
        records.push(QuestionRecord {
            id: question.id.clone(),
            question: question.question.clone(),
            gold: question.gold().to_owned(),
            gold_index: choice.gold,
            chosen,
            choice_correct: chosen == choice.gold,
            nll: -gold.mean_logprob * gold.tokens as f64,
            gold_tokens: gold.tokens,
            prompt_tokens: prompt.len(),
            generated: None,
            generated_correct: None,
            graded: None,
            candidates: scored,
        });
    }
    Ok(records)
}
