//! Texts at which a patched model is to stay as it is.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Result;
use cartridges_engine::{Engine, EngineOptions, Flow, GenerateRequest, StopRules};
use cartridges_model::LanguageModel;
use cartridges_model::text::{ChatMessage, RenderOptions};

use crate::opening::read_corpus;

/// Tokens of one text.
const PIECE: usize = 128;
/// Most tokens of an answer.
const ANSWER: usize = 64;

/// What the model answers to these stands for all else that it knows.
const QUESTIONS: [&str; 32] = [
    "What is the capital of France?",
    "Write a short poem about the sea.",
    "How do I sort a list of numbers in Python?",
    "Explain photosynthesis in two sentences.",
    "Translate 'good morning' into Spanish, German and Italian.",
    "What is 17 times 23?",
    "Who wrote Romeo and Juliet?",
    "Give me three tips for sleeping better.",
    "What is the difference between a virus and a bacterium?",
    "Write a polite email that asks for a day off.",
    "Summarise the plot of Cinderella.",
    "What are the main causes of inflation?",
    "How does a bicycle stay upright?",
    "Name five countries in South America.",
    "Write a function in C that reverses a string.",
    "What should I cook with eggs, rice and spinach?",
    "Why is the sky blue?",
    "Tell me a joke.",
    "What happened in the year 1969?",
    "How do vaccines work?",
    "Explain what a hash table is.",
    "Which planet is the largest in the solar system?",
    "List the steps to change a flat tyre.",
    "What is the boiling point of water at sea level?",
    "Write the opening line of a detective novel.",
    "Convert 100 degrees Fahrenheit to Celsius.",
    "What does the idiom 'to spill the beans' mean?",
    "How do I undo the last commit in git?",
    "Who are you?",
    "What is the patient's name?",
    "What does the document say about the costs?",
    "When does the meeting start?",
];

/// The ids of the files' texts in pieces, or of general questions with the model's own answers.
///
/// # Errors
/// If a file cannot be read or the model cannot answer.
pub fn texts(model: &Arc<LanguageModel>, files: &[PathBuf]) -> Result<Vec<Vec<u32>>> {
    if files.is_empty() {
        return answered(model);
    }
    let mut all = Vec::new();
    for file in files {
        let ids = model.text.encode(&read_corpus(file)?, false)?;
        all.extend(ids.chunks(PIECE).map(<[u32]>::to_vec));
    }
    Ok(all)
}

fn answered(model: &Arc<LanguageModel>) -> Result<Vec<Vec<u32>>> {
    let mut engine = Engine::new(model.clone(), EngineOptions::default());
    let options = RenderOptions {
        add_generation_prompt: true,
        ..RenderOptions::default()
    };
    let requests = QUESTIONS
        .iter()
        .map(|question| {
            let prompt = model
                .text
                .encode_chat(&[ChatMessage::user(*question)], &options)?;
            Ok(GenerateRequest {
                stop: StopRules {
                    ids: model.text.stop_ids(),
                    ..StopRules::default()
                },
                ..GenerateRequest::new(prompt, ANSWER)
            })
        })
        .collect::<Result<Vec<_>>>()?;
    let answers = engine.generate(&requests, &mut |_| Flow::Continue)?;
    let both = requests.into_iter().zip(answers);
    Ok(both
        .map(|(request, answer)| [request.prompt, answer.token_ids].concat())
        .collect())
}
