//! Texts at which a patched model is to stay as it is.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::Result;
use cartridges_engine::{Engine, EngineOptions, Event, Flow, GenerateRequest, Sampling, StopRules};
use cartridges_model::LanguageModel;
use cartridges_model::text::{ChatMessage, RenderOptions};

use crate::opening::read_corpus;
use crate::progress::progress;

/// Tokens of the pieces that texts are cut into, in turn. Short ones too: at its beginning a text has the
/// model's attention sink, and all that may stand there is to stay as it is.
const PIECES: [usize; 4] = [8, 24, 64, 512];
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

/// What the model writes behind these stands for text that is no conversation.
const OPENINGS: [&str; 24] = [
    "The history of",
    "Once upon a time",
    "In recent years, scientists",
    "# Introduction\n\n",
    "She opened the door and",
    "def main():\n",
    "Dear Sir or Madam,",
    "The company announced on Monday",
    "Abstract. We study",
    "It was a cold morning when",
    "#include <stdio.h>\n",
    "According to the report,",
    "Chapter 1\n\n",
    "\"I don't know,\" he said,",
    "The city lies on",
    "How to make bread:",
    "In mathematics, a",
    "The patient was",
    "The president of",
    "Question: ",
    "| Name | Year |",
    "The old captain",
    "Water is",
    "On 12 March 1987",
];
/// Most tokens of such a text, and how many are written behind each beginning.
const TEXT: (usize, u64) = (224, 2);

/// The ids of the files' texts in pieces; without files, what the model itself writes: answers to general
/// questions, and texts.
///
/// # Errors
/// If a file cannot be read or the model cannot answer.
pub fn texts(model: &Arc<LanguageModel>, files: &[PathBuf]) -> Result<Vec<Vec<u32>>> {
    if files.is_empty() {
        return written(model);
    }
    let mut all = Vec::new();
    for file in files {
        let ids = model.text.encode(&read_corpus(file)?, false)?;
        all.extend(pieces(&ids));
    }
    Ok(all)
}

fn pieces(mut ids: &[u32]) -> Vec<Vec<u32>> {
    let mut all = Vec::new();
    for length in PIECES.into_iter().cycle() {
        if ids.is_empty() {
            break;
        }
        let (piece, rest) = ids.split_at(length.min(ids.len()));
        all.push(piece.to_vec());
        ids = rest;
    }
    all
}

fn written(model: &Arc<LanguageModel>) -> Result<Vec<Vec<u32>>> {
    let mut engine = Engine::new(model.clone(), EngineOptions::default());
    let text = &model.text;
    let request = |prompt: Vec<u32>, most: usize, sampling: Sampling| GenerateRequest {
        stop: StopRules {
            ids: text.stop_ids(),
            ..StopRules::default()
        },
        sampling,
        ..GenerateRequest::new(prompt, most)
    };
    let options = RenderOptions {
        add_generation_prompt: true,
        ..RenderOptions::default()
    };
    let mut requests = Vec::new();
    for question in QUESTIONS {
        let prompt = text.encode_chat(&[ChatMessage::user(question)], &options)?;
        requests.push(request(prompt, ANSWER, Sampling::default()));
    }
    let openings = (0..TEXT.1).flat_map(|_| OPENINGS);
    for (seed, opening) in (0..).zip(openings) {
        // The most likely words would be the same again and again.
        let sampling = Sampling {
            temperature: 1.0,
            seed,
            ..Sampling::default()
        };
        requests.push(request(text.encode(opening, true)?, TEXT.0, sampling));
    }
    let bar = progress(requests.len() as u64, "background", "texts");
    let mut done = 0;
    let answers = engine.generate(&requests, &mut |event| {
        if matches!(event, Event::Finished { .. }) {
            done += 1;
            bar.set(done, String::new());
        }
        Flow::Continue
    })?;
    let both = requests.into_iter().zip(answers);
    let whole = both.map(|(request, answer)| [request.prompt, answer.token_ids].concat());
    let (answered, texts): (Vec<_>, Vec<_>) =
        (0..).zip(whole).partition(|(at, _)| *at < QUESTIONS.len());
    let texts = texts.iter().flat_map(|(_, text)| pieces(text));
    Ok(answered
        .into_iter()
        .map(|(_, text)| text)
        .chain(texts)
        .collect())
}
