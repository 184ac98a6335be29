//! Conversations that are shown as examples, token by token.

use std::collections::HashMap;

use anyhow::Result;
use cartridges_model::text::ChatTokenizer;
use cartridges_study::conversation::{Conversation, Message};
use cartridges_study::top_logprobs::FlatTopLogprobs;
use serde::Serialize;

use super::table::beginning;

/// Candidates that are named beside a token.
const CANDIDATES: usize = 5;

/// How likely the teacher held a token to be.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
#[serde(rename_all = "snake_case")]
pub(super) enum Likelihood {
    /// Nothing is stored at this position: nothing is trained on here.
    NotStored,
    /// The token is not among the stored candidates.
    NotAmongThem,
    /// Its probability.
    Probability(f32),
}

/// A piece of a message with the likelihood of its last token.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub(super) struct Piece {
    pub text: String,
    pub likelihood: Likelihood,
    /// Most likely candidates of the position: text and probability.
    pub candidates: Vec<(String, f32)>,
}

#[derive(Debug, Serialize)]
pub(super) struct SampleMessage {
    pub role: &'static str,
    pub content: String,
    /// Empty where there are no token ids or no tokenizer.
    #[serde(skip_serializing_if = "Vec::is_empty")]
    pub pieces: Vec<Piece>,
}

/// A conversation that is shown.
#[derive(Debug, Serialize)]
pub(super) struct Sample {
    /// Row in the data set, from 0.
    pub row: usize,
    pub seed_prompt: String,
    pub system_prompt: String,
    pub messages: Vec<SampleMessage>,
}

impl Sample {
    pub(super) fn of(row: usize, from: &Conversation, tokens: Option<&Tokens>) -> Result<Self> {
        let message = |message: &Message| -> Result<SampleMessage> {
            Ok(SampleMessage {
                role: message.role.as_str(),
                content: message.content.clone(),
                pieces: match tokens {
                    Some(tokens) => tokens.pieces(message)?,
                    None => Vec::new(),
                },
            })
        };
        Ok(Self {
            row,
            seed_prompt: beginning(&from.metadata.seed_prompt, 200),
            system_prompt: beginning(&from.system_prompt, 200),
            messages: from.messages.iter().map(message).collect::<Result<_>>()?,
        })
    }
}

/// Text of token ids.
pub(crate) struct Tokens(ChatTokenizer);

impl Tokens {
    pub(super) fn new(tokenizer: ChatTokenizer) -> Self {
        Self(tokenizer)
    }

    /// A message's tokens, those that make one character together as one piece.
    fn pieces(&self, message: &Message) -> Result<Vec<Piece>> {
        let Some(ids) = &message.token_ids else {
            return Ok(Vec::new());
        };
        let stored = message.top_logprobs.as_ref().map(by_position);
        let mut decoder = self.0.stream_decoder(false);
        let mut pieces: Vec<Piece> = Vec::with_capacity(ids.len());
        for (position, id) in ids.iter().enumerate() {
            let text = decoder.push(*id)?;
            let candidates = stored.as_ref().and_then(|s| s.get(&position));
            let likelihood = match candidates {
                None => Likelihood::NotStored,
                Some(all) => match all.iter().find(|(candidate, _)| candidate == id) {
                    Some((_, logprob)) => Likelihood::Probability(logprob.exp()),
                    None => Likelihood::NotAmongThem,
                },
            };
            pieces.push(Piece {
                text,
                likelihood,
                candidates: candidates
                    .into_iter()
                    .flatten()
                    .take(CANDIDATES)
                    .map(|(id, logprob)| {
                        (
                            self.0.decode(&[*id], false).unwrap_or_default(),
                            logprob.exp(),
                        )
                    })
                    .collect(),
            });
        }
        let rest = decoder.finish()?;
        if let Some(last) = pieces.last_mut() {
            last.text += &rest;
        }
        pieces.retain(|piece| !piece.text.is_empty());
        Ok(pieces)
    }
}

/// Candidates (id, log-probability) by position, the most likely first.
fn by_position(top: &FlatTopLogprobs) -> HashMap<usize, Vec<(u32, f32)>> {
    let mut all: HashMap<usize, Vec<(u32, f32)>> = HashMap::new();
    let entries = top.token_idx.iter().zip(&top.token_id).zip(&top.logprobs);
    for ((position, id), logprob) in entries {
        all.entry(*position as usize)
            .or_default()
            .push((*id, *logprob));
    }
    for candidates in all.values_mut() {
        candidates.sort_by(|a, b| b.1.total_cmp(&a.1));
    }
    all
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use cartridges_study::conversation::Role;

    use super::*;

    #[test]
    fn every_token_has_the_probability_that_is_stored_for_it() {
        let folder =
            Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/tokenizers/smollm2");
        let tokens = Tokens::new(ChatTokenizer::from_folder(&folder).unwrap());
        let ids = tokens.0.encode("a lamp é", false).unwrap();
        assert!(ids.len() >= 3);
        let message = Message {
            content: "a lamp é".to_owned(),
            role: Role::Assistant,
            top_logprobs: Some(FlatTopLogprobs {
                token_idx: vec![0, 0, 1],
                token_id: vec![7, ids[0], 9],
                logprobs: vec![0.25f32.ln(), 0.5f32.ln(), 0.9f32.ln()],
                shape: (ids.len(), 2),
            }),
            token_ids: Some(ids),
        };
        let pieces = tokens.pieces(&message).unwrap();
        let joined: String = pieces.iter().map(|p| p.text.as_str()).collect();
        assert_eq!(joined, "a lamp é");
        assert_eq!(pieces[0].likelihood, Likelihood::Probability(0.5));
        assert_eq!(pieces[0].candidates[0], ("a".to_owned(), 0.5));
        assert_eq!(pieces[0].candidates[1].1, 0.25);
        assert_eq!(pieces[1].likelihood, Likelihood::NotAmongThem);
        assert_eq!(pieces[2].likelihood, Likelihood::NotStored);
    }
}
