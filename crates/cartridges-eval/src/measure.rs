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
use crate::measurement::{CandidateRecord, Circumstances, Measurement, QuestionRecord, best};
use crate::questions::{Question, QuestionList};
use crate::written::{GeneratedAnswer, Written, grade, graded};

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
