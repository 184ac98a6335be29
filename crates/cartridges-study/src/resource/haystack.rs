//! Sentences hidden in a long text.

use std::ops::Range;
use std::path::Path;

use rand::{Rng, RngExt};
use serde_json::Value;

use super::config::ResourceConfig;
use super::error::ResourceError;
use super::json::read_values;
use super::notes::Notes;
use crate::chunker::TokenCodec;
use crate::self_study::segments;

/// Sentences that say nothing (Hsieh et al., "RULER", arXiv 2404.06654).
pub(super) const NOISE: [&str; 5] = [
    "The grass is green.",
    "The sky is blue.",
    "The sun is yellow.",
    "Here we go.",
    "There and back again.",
];
/// The longest text that is made, in tokens.
pub(super) const MAX_TOKENS: usize = 10_000_000;

/// A text and its sentences, as byte ranges.
pub(super) struct Buried {
    pub(super) text: String,
    pub(super) sentences: Vec<Range<usize>>,
}

impl Buried {
    /// A text that is there already.
    pub(super) fn of_text(text: String) -> Self {
        Self {
            sentences: segments(&text),
            text,
        }
    }
}

/// The sentences of the user's own text, of whatever kind it is.
pub(super) fn essay(
    path: &Path,
    codec: &super::SharedCodec,
    notes: &mut Notes,
) -> Result<Vec<String>, ResourceError> {
    let material = ResourceConfig::for_path(path).material(codec)?;
    notes.merge(&material.name, material.notes);
    let sentences: Vec<String> = segments(&material.text)
        .into_iter()
        .map(|segment| material.text[segment].to_owned())
        .filter(|sentence| !sentence.trim().is_empty())
        .collect();
    match sentences.is_empty() {
        true => Err(ResourceError::Empty {
            name: material.name,
        }),
        false => Ok(sentences),
    }
}

/// Hides sentences in as much hay as fits in `max_tokens`. The sentences of one group keep their
/// order; hay that does not suffice is repeated, which is noted.
pub(super) fn bury(
    groups: &[Vec<String>],
    hay: &mut dyn FnMut(usize) -> (String, bool),
    max_tokens: usize,
    codec: &dyn TokenCodec,
    rng: &mut impl Rng,
    notes: &mut Notes,
) -> Option<Buried> {
    let count = |text: &str| codec.encode(text).len();
    let planted: usize = groups.iter().flatten().map(|s| count(s) + 1).sum();
    let mut room = max_tokens.checked_sub(planted)?;
    let mut pieces: Vec<(String, usize)> = Vec::new();
    let mut repeated = false;
    loop {
        let (piece, again) = hay(pieces.len());
        // A space may stand behind it.
        let tokens = count(&piece) + 1;
        if tokens > room {
            break;
        }
        repeated |= again;
        room -= tokens;
        pieces.push((piece, tokens));
    }
    if repeated {
        notes.add("haystack is shorter than the text, so it is repeated", "");
    }
    // Places as shares of the whole, so that dropping hay at the end does not move them beyond it.
    let mut places: Vec<(f64, usize, usize)> = Vec::new();
    for (group, sentences) in groups.iter().enumerate() {
        let mut drawn: Vec<f64> = sentences.iter().map(|_| rng.random()).collect();
        drawn.sort_by(f64::total_cmp);
        places.extend(drawn.into_iter().enumerate().map(|(i, at)| (at, group, i)));
    }
    places.sort_by(|a, b| a.0.total_cmp(&b.0));
    loop {
        let buried = assemble(&pieces, &places, groups);
        let mut excess = count(&buried.text).saturating_sub(max_tokens);
        if excess == 0 {
            return Some(buried);
        }
        while excess > 0 {
            // Not even the planted sentences fit when there is no hay left.
            let (_, tokens) = pieces.pop()?;
            excess = excess.saturating_sub(tokens);
        }
    }
}

fn assemble(
    pieces: &[(String, usize)],
    places: &[(f64, usize, usize)],
    groups: &[Vec<String>],
) -> Buried {
    let mut out = Buried {
        text: String::new(),
        sentences: Vec::new(),
    };
    let mut push = |sentence: &str| {
        if !out.text.is_empty() && !out.text.ends_with(char::is_whitespace) {
            out.text.push(' ');
        }
        let start = out.text.len();
        out.text.push_str(sentence);
        out.sentences.push(start..out.text.len());
    };
    let mut places = places.iter().peekable();
    for i in 0..=pieces.len() {
        while let Some((_, group, sentence)) =
            places.next_if(|(at, _, _)| (at * (pieces.len() + 1) as f64) as usize <= i)
        {
            push(&groups[*group][*sentence]);
        }
        if let Some((piece, _)) = pieces.get(i) {
            push(piece);
        }
    }
    out.text.truncate(out.text.trim_end().len());
    let end = out.text.len();
    for sentence in &mut out.sentences {
        sentence.end = sentence.end.min(end);
    }
    out
}

/// The text of a sample that the reference's generator wrote: `samples[index].context`.
pub(super) fn sample(path: &Path, index: usize) -> Result<Buried, ResourceError> {
    let root = read_values(path)?;
    sample_of(&root, index)
        .map(Buried::of_text)
        .ok_or_else(|| ResourceError::Missing {
            path: path.to_owned(),
            what: format!("text at samples/{index}/context"),
        })
}

fn sample_of(root: &Value, index: usize) -> Option<String> {
    let context = root.get("samples")?.get(index)?.get("context")?;
    context.as_str().map(str::to_owned)
}

/// Checks two limits of a count.
pub(super) fn check_range(
    kind: &'static str,
    field: &'static str,
    (low, high): (usize, usize),
    most: usize,
    expected: &'static str,
) -> Result<(), ResourceError> {
    if low == 0 || low > high || high > most {
        return Err(ResourceError::Field {
            kind,
            field,
            found: format!("[{low}, {high}]"),
            expected,
        });
    }
    Ok(())
}
