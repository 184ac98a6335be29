//! A text in chunks for matching, each with what asks it.

use std::collections::HashSet;

use anyhow::{Result, bail};
use cartridges_model::LanguageModel;
use cartridges_model::cartridge::MatchChunk;
use cartridges_model::text::MessageIds;
use cartridges_study::conversation::{Conversation, ConversationKind, Message};

use super::match_args::{MatchArgs, MatchQueries};
use super::start::document_ids;

/// Tokens of conversations whose queries matching looks at, as a share of the repeated text. Only the
/// repeated text asks for everything that the text says; with many conversations beside it, keys that few
/// of them ask for are lost (`docs/quickstart-notes.md` has the numbers).
const TALK_SHARE: f64 = 0.1;
/// What asks for the text once more.
const REPEAT: &str = "Repeat the information above word for word.";
/// Tokens to spare between what is computed of a chunk's length and what it comes to.
const SLACK: usize = 32;

/// The text as matching takes it: in one piece if it fits the model's window twice (once to read it, once
/// to repeat it) and is no longer than `chunk_tokens`, otherwise in several.
///
/// Each chunk is followed by its own words once more and by conversations, evenly spread over those that
/// share most words with it.
///
/// # Errors
/// If the model has no chat template, the window is too short for any text, or there are no conversations
/// where they alone are to ask.
pub fn match_chunks(
    model: &LanguageModel,
    text: &str,
    conversations: &[Conversation],
    args: &MatchArgs,
) -> Result<Vec<MatchChunk>> {
    let markers = model.text.message_ids()?;
    let frame = document_ids(model, "")?;
    let window = model.decoder.config().max_position_embeddings;
    let repeat = encode(model, REPEAT)?;
    let around = frame.len() + turn(markers, &repeat, &[]).len() + SLACK;
    let room = window.saturating_sub(around) / 2;
    if room < SLACK {
        bail!("a window of {window} tokens is too short to match anything in it");
    }
    if args.chunk_tokens < SLACK {
        bail!(
            "--match-chunk is {}, expected at least {SLACK}",
            args.chunk_tokens
        );
    }
    let count = |text: &str| encode(model, text).map(|ids| ids.len());
    let texts = cut(text, room.min(args.chunk_tokens), &count)?;
    let talks = talks(model, markers, conversations)?;
    if talks.is_empty() && args.queries == MatchQueries::SelfStudy {
        bail!("--match-queries self-study needs conversations: give --data FILE");
    }
    let words: Vec<HashSet<String>> = texts.iter().map(|text| long_words(text)).collect();
    let mut asked: Vec<Vec<Vec<u32>>> = vec![Vec::new(); texts.len()];
    for (said, ids) in talks {
        let shared =
            |chunk: &HashSet<String>| said.iter().filter(|word| chunk.contains(*word)).count();
        // The first of those with most words in common.
        let best = (0..texts.len()).rev().max_by_key(|&i| shared(&words[i]));
        asked[best.unwrap_or(0)].push(ids);
    }
    let mut chunks = Vec::with_capacity(texts.len());
    for (text, talks) in texts.iter().zip(asked) {
        let document = document_ids(model, text)?;
        let repeated = turn(markers, &repeat, &encode(model, text)?);
        let limit = match args.queries {
            MatchQueries::Repetition => 0,
            MatchQueries::Both => (TALK_SHARE * repeated.len() as f64) as usize,
            MatchQueries::SelfStudy => repeated.len(),
        };
        let mut queries = spread(talks, limit);
        if args.queries != MatchQueries::SelfStudy || queries.is_empty() {
            queries.insert(0, repeated);
        }
        let own = match chunks.is_empty() {
            true => 0..document.len(),
            false => {
                let same =
                    |a: &[u32], b: &[u32]| a.iter().zip(b).take_while(|(a, b)| a == b).count();
                let reversed = |ids: &[u32]| ids.iter().rev().copied().collect::<Vec<u32>>();
                let start = same(&document, &frame);
                let end = same(&reversed(&document), &reversed(&frame));
                start..document.len() - end
            }
        };
        chunks.push(MatchChunk {
            document,
            own,
            queries,
        });
    }
    Ok(chunks)
}

fn encode(model: &LanguageModel, text: &str) -> Result<Vec<u32>> {
    Ok(model.text.encode(text, false)?)
}

/// A question and its answer as they stand behind the document.
fn turn(markers: &MessageIds, question: &[u32], answer: &[u32]) -> Vec<u32> {
    let mut ids = markers.user.clone();
    ids.extend_from_slice(question);
    if !ids.ends_with(&markers.end) {
        ids.extend_from_slice(&markers.end);
    }
    ids.extend_from_slice(&markers.extra_end);
    ids.extend_from_slice(&markers.assistant);
    ids.extend_from_slice(answer);
    ids
}

/// The conversations' first turns, with the words that tell what they are about.
fn talks(
    model: &LanguageModel,
    markers: &MessageIds,
    conversations: &[Conversation],
) -> Result<Vec<(HashSet<String>, Vec<u32>)>> {
    let mut talks = Vec::new();
    // The verbatim pieces repeat the text as well, so they would add nothing.
    for conversation in conversations
        .iter()
        .filter(|c| c.metadata.kind != Some(ConversationKind::Verbatim))
    {
        if let [question, answer, ..] = conversation.messages.as_slice() {
            let ids = |m: &Message| match &m.token_ids {
                Some(ids) => Ok(ids.clone()),
                None => encode(model, &m.content),
            };
            let mut words = long_words(&question.content);
            words.extend(long_words(&answer.content));
            talks.push((words, turn(markers, &ids(question)?, &ids(answer)?)));
        }
    }
    Ok(talks)
}

/// Talks of at most `limit` tokens in all, evenly spread.
fn spread(talks: Vec<Vec<u32>>, limit: usize) -> Vec<Vec<u32>> {
    let tokens: usize = talks.iter().map(Vec::len).sum();
    let every = tokens.div_ceil(limit.max(1)).max(1);
    let mut room = limit;
    let mut kept = Vec::new();
    for talk in talks.into_iter().skip(every / 2).step_by(every) {
        if talk.len() <= room {
            room -= talk.len();
            kept.push(talk);
        }
    }
    kept
}

/// Words of five letters or more, in lower case.
fn long_words(text: &str) -> HashSet<String> {
    text.split(|c: char| !c.is_alphanumeric())
        .filter(|word| word.chars().count() >= 5)
        .map(str::to_lowercase)
        .collect()
}

/// Halves a text, where a paragraph, a line, a sentence or a word ends, until no part has more than
/// `longest` tokens. The parts together are the text.
fn cut(text: &str, longest: usize, count: &dyn Fn(&str) -> Result<usize>) -> Result<Vec<String>> {
    if text.chars().nth(1).is_none() || count(text)? <= longest {
        return Ok(vec![text.to_owned()]);
    }
    let at = middle(text);
    let mut parts = cut(&text[..at], longest, count)?;
    parts.extend(cut(&text[at..], longest, count)?);
    Ok(parts)
}

/// The end of a paragraph near the middle of a text; failing that of a line, a sentence, a word; failing
/// that the middle. Neither side is empty.
fn middle(text: &str) -> usize {
    let half = text.len() / 2;
    let near = text.len() / 4;
    for mark in ["\n\n", "\n", ". ", " "] {
        let ends = text.match_indices(mark).map(|(at, mark)| at + mark.len());
        let best = ends
            .filter(|&at| at < text.len() && at.abs_diff(half) <= near)
            .min_by_key(|&at| at.abs_diff(half));
        if let Some(at) = best {
            return at;
        }
    }
    let first = text.chars().next().map_or(0, char::len_utf8);
    (half..text.len())
        .find(|&at| text.is_char_boundary(at))
        .filter(|&at| at > 0)
        .unwrap_or(first)
}

#[cfg(test)]
mod tests {
    use rand::{RngExt, SeedableRng};
    use rand_chacha::ChaCha8Rng;

    use super::*;

    fn cut_by_bytes(text: &str, longest: usize) -> Vec<String> {
        cut(text, longest, &|part| Ok(part.len())).unwrap()
    }

    #[test]
    fn texts_are_cut_between_paragraphs() {
        let text = "One is here.\n\nTwo is there. It is long.\n\nThree.";
        let rest = "Two is there. It is long.\n\nThree.";
        assert_eq!(cut_by_bytes(text, 34), ["One is here.\n\n", rest]);
        // No paragraph ends near the middle of the rest, but a sentence does.
        let parts = [
            "One is here.\n\n",
            "Two is there. ",
            "It is long.\n\nThree.",
        ];
        assert_eq!(cut_by_bytes(text, 30), parts);
        assert_eq!(cut_by_bytes(text, 100), [text]);
        assert_eq!(cut_by_bytes("ab. cd ef", 5), ["ab. ", "cd ef"]);
    }

    #[test]
    fn talks_are_spread_over_the_limit() {
        let talks: Vec<Vec<u32>> = (0..100).map(|i| vec![i; 10]).collect();
        let kept: Vec<u32> = spread(talks.clone(), 100).iter().map(|t| t[0]).collect();
        assert_eq!(kept, [5, 15, 25, 35, 45, 55, 65, 75, 85, 95]);
        assert!(spread(talks.clone(), 0).is_empty());
        assert_eq!(spread(talks, 1000).len(), 100);
    }

    #[test]
    fn parts_are_the_text_and_short_enough() {
        let mut rng = ChaCha8Rng::seed_from_u64(7);
        let letters: Vec<char> = "abcde\u{e9}\u{1f600}.  \n\n".chars().collect();
        for _ in 0..2000 {
            let length = rng.random_range(0..120);
            let text: String = (0..length)
                .map(|_| letters[rng.random_range(0..letters.len())])
                .collect();
            let longest = rng.random_range(4..40);
            let parts = cut_by_bytes(&text, longest);
            assert_eq!(parts.concat(), text);
            assert!(parts.iter().all(|part| part.len() <= longest), "{parts:?}");
        }
    }
}
