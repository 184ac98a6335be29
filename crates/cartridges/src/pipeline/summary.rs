//! A summary of a text of any length, written by the model itself.

use std::sync::Arc;

use anyhow::{Result, bail};
use cartridges_engine::{Engine, EngineOptions};
use cartridges_model::LanguageModel;
use cartridges_study::chunker::{TokenCodec, window_text};
use cartridges_study::client::{
    ChatClient, ChatMessage, ChatRequest, ClientError, FinishReason, Sample,
};
use cartridges_study::conversation::Role;
use cartridges_study::self_study::SelfStudyConfig;

use crate::interrupt::{Interrupted, stop_flag};
use crate::local_client::{LocalClient, TokenizerCodec};
use crate::progress::progress;

/// Longest piece of text that one summary is asked of, in tokens, where the model's window allows it.
const LONGEST_CHUNK: usize = 4096;
/// Times that a summary which is too short is asked to go on.
const MORE_ROUNDS: usize = 6;
/// Fewest tokens worth asking for (the reference's number).
const FEWEST: usize = 50;

/// A summary, with what it was made of.
#[derive(Debug, Clone)]
pub struct Summary {
    /// The text, the chunks' summaries in their order.
    pub text: String,
    /// Chunks that the text was cut into.
    pub chunks: usize,
}

/// One chunk and what was written about it so far.
struct Part {
    messages: Vec<ChatMessage>,
    /// Tokens still wanted.
    left: usize,
    /// Tokens written.
    said: usize,
    written: Vec<String>,
}

/// Lets the model write about `tokens` tokens about `text`: every chunk of it (half the model's window at
/// most) gets a share by its length, and where a summary ends early, more facts are asked for.
///
/// # Errors
/// If the model has no chat template or says nothing at all; [`Interrupted`] after Ctrl-C.
pub fn summarize(model: &Arc<LanguageModel>, text: &str, tokens: usize) -> Result<Summary> {
    let codec = TokenizerCodec(model.text.clone());
    let ids = codec.encode(text);
    let window = model.decoder.config().max_position_embeddings;
    let longest = LONGEST_CHUNK.min(window / 2).max(1);
    let chunks = ids.len().div_ceil(longest).max(1);
    let mut parts: Vec<Part> = (0..chunks)
        .map(|i| {
            let range = ids.len() * i / chunks..ids.len() * (i + 1) / chunks;
            // Shares add up to `tokens`.
            let share = tokens * (i + 1) / chunks - tokens * i / chunks;
            let system =
                SelfStudyConfig::default().system_prompt(&window_text(&codec, &ids, range));
            let ask = format!(
                "Summarize the information above in about {} words. Begin with the most important \
                 facts and keep every name, number and date. Write the summary only.",
                (share * 3 / 4).max(10)
            );
            Part {
                messages: vec![
                    ChatMessage::new(Role::System, system),
                    ChatMessage::new(Role::User, ask),
                ],
                left: share,
                said: 0,
                written: Vec::new(),
            }
        })
        .collect();
    let mut engine = Engine::new(model.clone(), EngineOptions::default());
    let mut client = LocalClient::new(&mut engine, stop_flag());
    for round in 0..=MORE_ROUNDS {
        let fewest = if round == 0 { 1 } else { FEWEST };
        let open: Vec<usize> = (0..chunks).filter(|&i| parts[i].left >= fewest).collect();
        if open.is_empty() {
            break;
        }
        let requests: Vec<ChatRequest> = open
            .iter()
            .map(|&i| ChatRequest {
                messages: parts[i].messages.clone(),
                temperature: 0.0,
                max_completion_tokens: parts[i].left.min(longest / 2),
                top_logprobs: None,
                enable_thinking: Some(false),
                seed: 0,
                assistant_prefix: None,
            })
            .collect();
        let progress = progress(open.len() as u64, "summarizing", "chunks");
        let mut done = 0;
        let answers = client.complete(&requests, &mut |_| {
            done += 1;
            progress.set(done, String::new());
        });
        let answers = match answers {
            Err(ClientError::Stopped) => return Err(Interrupted("summarizing").into()),
            other => other?,
        };
        for (index, sample) in open.into_iter().zip(answers) {
            parts[index].take(&sample, longest / 4);
        }
    }
    let written: Vec<String> = parts.iter().map(|p| p.written.join("\n")).collect();
    let text = written.join("\n").trim().to_owned();
    if text.is_empty() {
        bail!("the model wrote no summary; take another --init");
    }
    Ok(Summary { text, chunks })
}

impl Part {
    /// Keeps an answer and asks for more, unless it brought nothing or the conversation holds `room`
    /// tokens of answers.
    fn take(&mut self, sample: &Sample, room: usize) {
        let text = sample.text.trim();
        if let FinishReason::Failed(reason) = &sample.finish {
            tracing::warn!(%reason, "a part of the text could not be summarized");
        }
        if text.is_empty() || self.written.iter().any(|w| w == text) {
            self.left = 0;
            return;
        }
        let tokens = sample.token_ids.len();
        self.said += tokens;
        self.left = match self.said > room {
            true => 0,
            false => self.left.saturating_sub(tokens),
        };
        self.messages.push(ChatMessage::new(Role::Assistant, text));
        self.messages.push(ChatMessage::new(
            Role::User,
            "Write more facts from the information above that are still missing: names, numbers, dates \
             and details. Do not repeat anything. Write the facts only.",
        ));
        self.written.push(text.to_owned());
    }
}
