//! Verbatim pieces: "continue the text word for word".
//!
//! Conversations alone teach the style of answers; a few pieces of the text itself as targets, with
//! the teacher's distribution over each token, bring the facts. The pieces overlap and cover the
//! whole text.

use std::ops::Range;

use super::config::SelfStudyConfig;
use crate::chunker::window_text;
use crate::resource::Document;

/// Ways to ask for the piece behind a quotation; `LEAD` is replaced.
const CONTINUE: [&str; 6] = [
    "Continue the text word for word after: \"LEAD\"",
    "The text says: \"LEAD\" What comes next? Give the exact words.",
    "Quote exactly what follows these words in the text: \"LEAD\"",
    "Go on from here and change nothing:\n\nLEAD",
    "Recite the text from memory. It goes: \"LEAD\" Now write the words that follow.",
    "Complete this passage exactly as it is written: \"LEAD\"",
];

/// Ways to ask for the beginning; `TITLE` is replaced by its first words.
const BEGIN: [&str; 3] = [
    "Write out the beginning of the text word for word. It starts with \"TITLE\"",
    "Recite the text from its first word. Its first words are \"TITLE\"",
    "How does the text that starts with \"TITLE\" begin? Give the exact words.",
];

/// Words of the text's beginning that are quoted to name it.
const TITLE_WORDS: usize = 8;

/// One piece of the text to be continued.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Piece {
    /// The document's tokens it was cut from.
    pub window: Range<usize>,
    /// The request.
    pub prompt: String,
    /// The piece.
    pub text: String,
    /// The ids of `text` (tokenised by itself, since an answer does not begin with a space).
    pub token_ids: Vec<u32>,
}

/// All pieces of a document: `verbatim_repeats` walks, each shifted by a fraction of the stride.
pub(super) fn pieces(document: &Document, config: &SelfStudyConfig) -> Vec<Piece> {
    let mut out = Vec::new();
    for repeat in 0..config.verbatim_repeats {
        let offset = repeat * config.verbatim_stride / config.verbatim_repeats;
        for (i, window) in windows(document, config, offset).into_iter().enumerate() {
            out.extend(piece(document, config, window, repeat + i));
        }
    }
    out
}

/// Token windows that cover the text: one at the beginning, then one every `verbatim_stride` tokens
/// from `offset` on, until the end is covered.
fn windows(document: &Document, config: &SelfStudyConfig, offset: usize) -> Vec<Range<usize>> {
    let n = document.tokens().len();
    let (length, stride) = (config.verbatim_tokens, config.verbatim_stride);
    let first = if offset == 0 { stride } else { offset };
    let starts = std::iter::once(0).chain((0..).map(|i| first + i * stride));
    let mut out: Vec<Range<usize>> = Vec::new();
    for start in starts {
        if out.last().is_some_and(|w| w.end >= n) {
            break;
        }
        let start = whole_character(document, start);
        let end = whole_character(document, (start + length).min(n));
        out.push(start..end);
    }
    out
}

/// The nearest token boundary at or behind `at` that does not cut a character.
fn whole_character(document: &Document, at: usize) -> usize {
    /// A character has at most four bytes, and a token at least one.
    const REACH: usize = 3;
    let tokens = document.tokens();
    let is_cut = |at: usize| {
        let before = document
            .codec()
            .decode(&tokens[at.saturating_sub(REACH)..at]);
        let across = document
            .codec()
            .decode(&tokens[at.saturating_sub(REACH)..(at + REACH).min(tokens.len())]);
        before.ends_with(char::REPLACEMENT_CHARACTER) && !across.starts_with(before.as_str())
    };
    (at..=at + REACH)
        .find(|&at| at >= tokens.len() || at == 0 || !is_cut(at))
        .unwrap_or(at)
        .min(tokens.len())
}

/// The piece of a window; `None` where there is nothing but white space.
fn piece(
    document: &Document,
    config: &SelfStudyConfig,
    window: Range<usize>,
    variant: usize,
) -> Option<Piece> {
    let text = window_text(document.codec(), document.tokens(), window.clone());
    let text = text.trim_start().to_owned();
    if text.trim_end().is_empty() {
        return None;
    }
    let token_ids = document.codec().encode(&text);
    let lead = lead(document, config, window.start);
    let prompt = if lead.is_empty() {
        let title: Vec<&str> = document
            .text()
            .lines()
            .find(|line| !line.trim().is_empty())
            .unwrap_or_default()
            .split_whitespace()
            .take(TITLE_WORDS)
            .collect();
        BEGIN[variant % BEGIN.len()].replace("TITLE", &title.join(" "))
    } else {
        CONTINUE[variant % CONTINUE.len()].replace("LEAD", &lead)
    };
    Some(Piece {
        window,
        prompt,
        text,
        token_ids,
    })
}

/// The words before a piece, from a word's beginning on; more of them if the same words stand
/// elsewhere in the text too, since it would be unclear then which place is meant.
fn lead(document: &Document, config: &SelfStudyConfig, start: usize) -> String {
    const LONGEST: usize = 4;
    let mut length = config.verbatim_lead_tokens;
    loop {
        let from = start.saturating_sub(length);
        let decoded = window_text(document.codec(), document.tokens(), from..start);
        let mut lead = decoded.as_str();
        // The window may begin inside a word.
        if from > 0
            && !lead.starts_with(char::is_whitespace)
            && let Some(space) = lead.find(char::is_whitespace)
            && !lead[space..].trim().is_empty()
        {
            lead = &lead[space..];
        }
        let lead = lead.trim();
        let ambiguous = document.text().matches(lead).nth(1).is_some();
        if lead.is_empty()
            || !ambiguous
            || from == 0
            || length >= LONGEST * config.verbatim_lead_tokens
        {
            return lead.to_owned();
        }
        length *= 2;
    }
}

/// The context for scoring `span`: the whole document if it has at most `max_tokens`, else a window
/// of that length with the span in its middle.
pub(super) fn context_window(
    num_tokens: usize,
    span: &Range<usize>,
    max_tokens: usize,
) -> Range<usize> {
    if num_tokens <= max_tokens {
        return 0..num_tokens;
    }
    let around = max_tokens.saturating_sub(span.len());
    let end = (span.start.saturating_sub(around / 2) + max_tokens)
        .min(num_tokens)
        .max(span.end);
    end.saturating_sub(max_tokens).min(span.start)..end
}

/// Neighbouring pieces that can share one context.
pub(super) fn batches(
    document: &Document,
    pieces: Vec<Piece>,
    config: &SelfStudyConfig,
) -> Vec<(String, Vec<Piece>)> {
    let max_tokens = config.chunker.max_tokens();
    let n = document.tokens().len();
    // The words before the first piece should be in view as well.
    let with_lead = |w: &Range<usize>| w.start.saturating_sub(config.verbatim_lead_tokens)..w.end;
    let mut out = Vec::new();
    let mut pieces = pieces.into_iter().peekable();
    while let Some(first) = pieces.next() {
        let mut span = with_lead(&first.window);
        let mut batch = vec![first];
        while batch.len() < config.batch_size
            && let Some(next) = pieces.next_if(|next| {
                let window = with_lead(&next.window);
                n <= max_tokens
                    || span.end.max(window.end) - span.start.min(window.start) <= max_tokens
            })
        {
            let window = with_lead(&next.window);
            span = span.start.min(window.start)..span.end.max(window.end);
            batch.push(next);
        }
        let context = document.window_text(context_window(n, &span, max_tokens));
        out.push((context, batch));
    }
    out
}
