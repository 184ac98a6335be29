//! Chunks of whole paragraphs, with the heading they stand under.

use std::ops::Range;

use rand::{Rng, RngExt};
use serde::{Deserialize, Serialize};

use super::{ChunkError, TokenChunker, TokenCodec, window_text};
use crate::self_study::segments;

/// A line this long in bytes is no heading, unless it is marked as one.
const MAX_HEADING_BYTES: usize = 80;

/// Chunks that begin and end with paragraphs. Where the drawn place is in the first half of a chunk
/// from the section's heading on, the chunk begins with the heading; else the heading is put before it.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct SectionChunker {
    /// Shortest chunk in tokens (default 512), where whole paragraphs allow it.
    pub min_tokens_per_chunk: usize,
    /// Longest chunk in tokens (default 1024), as the sum of its paragraphs. A longer paragraph is cut
    /// into sentences.
    pub max_tokens_per_chunk: usize,
}

impl Default for SectionChunker {
    fn default() -> Self {
        let TokenChunker {
            min_tokens_per_chunk,
            max_tokens_per_chunk,
        } = TokenChunker::default();
        Self {
            min_tokens_per_chunk,
            max_tokens_per_chunk,
        }
    }
}

/// A heading, a paragraph, or a sentence of a long paragraph, with the white space behind it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Block {
    range: Range<usize>,
    tokens: usize,
    /// The block of the heading this stands under; its own index for a heading.
    heading: Option<usize>,
}

impl SectionChunker {
    /// Checks the limits.
    pub fn validate(&self) -> Result<(), ChunkError> {
        TokenChunker {
            min_tokens_per_chunk: self.min_tokens_per_chunk,
            max_tokens_per_chunk: self.max_tokens_per_chunk,
        }
        .validate()
    }

    /// A random chunk; every token of the text is as likely to be the one it is drawn around.
    pub(super) fn chunk(
        &self,
        text: &str,
        blocks: &[Block],
        codec: &dyn TokenCodec,
        rng: &mut impl Rng,
    ) -> Result<String, ChunkError> {
        self.validate()?;
        let total: usize = blocks.iter().map(|b| b.tokens).sum();
        if total == 0 {
            return Err(ChunkError::Empty);
        }
        let length = rng.random_range(self.min_tokens_per_chunk..=self.max_tokens_per_chunk);
        if total <= length {
            return Ok(text.to_owned());
        }
        let place = rng.random_range(0..total);
        let mut before = 0;
        let drawn = blocks
            .iter()
            .position(|block| {
                before += block.tokens;
                before > place
            })
            .unwrap_or(0);
        let size = |range: Range<usize>| blocks[range].iter().map(|b| b.tokens).sum::<usize>();
        // A block is cut only if it is longer than any chunk.
        let length = length.max(blocks[drawn].tokens.min(self.max_tokens_per_chunk));
        let mut start = match blocks[drawn].heading {
            Some(heading)
                if size(heading..drawn) * 2 <= length && size(heading..drawn + 1) <= length =>
            {
                heading
            }
            _ => drawn,
        };
        // The heading goes along where it fits.
        let heading = blocks[start].heading.filter(|&heading| {
            heading != start && blocks[heading].tokens + blocks[start].tokens <= length
        });
        let room = length - heading.map_or(0, |heading| blocks[heading].tokens);
        let mut end = start + 1;
        while end < blocks.len() && size(start..end + 1) <= room {
            end += 1;
        }
        // At the end of the text the rest comes from before.
        while end == blocks.len() && start > 0 && size(start - 1..end) <= room {
            start -= 1;
        }
        let body = &text[blocks[start].range.start..blocks[end - 1].range.end];
        let body = if size(start..end) > room && end == start + 1 {
            let tokens = codec.encode(body);
            let at = rng.random_range(0..=tokens.len().saturating_sub(room));
            window_text(codec, &tokens, at..at + room)
        } else {
            body.trim_end().to_owned()
        };
        Ok(match heading {
            // Growing backwards may have reached the heading.
            Some(heading) if heading < start => {
                let heading = text[blocks[heading].range.clone()].trim_end();
                format!("{heading}\n\n{body}")
            }
            _ => body,
        })
    }
}

/// Cuts a text into consecutive blocks that cover it. Paragraphs longer than `max_tokens` become
/// sentences.
pub(super) fn blocks(text: &str, max_tokens: usize, codec: &dyn TokenCodec) -> Vec<Block> {
    let mut out: Vec<Block> = Vec::new();
    let mut heading = None;
    for (range, is_heading) in paragraphs(text) {
        let tokens = codec.encode(&text[range.clone()]).len();
        if is_heading {
            heading = Some(out.len());
        }
        if tokens <= max_tokens {
            out.push(Block {
                range,
                tokens,
                heading,
            });
            continue;
        }
        for sentence in segments(&text[range.clone()]) {
            let range = range.start + sentence.start..range.start + sentence.end;
            out.push(Block {
                tokens: codec.encode(&text[range.clone()]).len(),
                range,
                heading,
            });
        }
    }
    out
}

/// Paragraphs and headings in order, with the blank lines behind them.
fn paragraphs(text: &str) -> Vec<(Range<usize>, bool)> {
    let lines: Vec<Range<usize>> = text
        .split_inclusive('\n')
        .scan(0, |at, line| {
            let start = *at;
            *at += line.len();
            Some(start..*at)
        })
        .collect();
    let mut out: Vec<(Range<usize>, bool)> = Vec::new();
    let mut fenced = false;
    // Whether the next line begins a paragraph whatever it is.
    let mut fresh = true;
    let mut i = 0;
    while i < lines.len() {
        let line = text[lines[i].clone()].trim();
        let next = lines.get(i + 1).map_or("", |l| text[l.clone()].trim());
        if line.is_empty() {
            // Blank lines belong to what stands before; leading ones are a paragraph of their own.
            match out.last_mut() {
                Some((range, _)) => range.end = lines[i].end,
                None => out.push((lines[i].clone(), false)),
            }
            fresh = true;
            i += 1;
            continue;
        }
        let fence = line.starts_with("```") || line.starts_with("~~~");
        let underlined = !fenced && is_underline(next) && !is_underline(line);
        let heading = !fenced
            && !fence
            && ((underlined && fresh)
                || is_marked_heading(line)
                || (fresh && next.is_empty() && looks_like_heading(line)));
        if heading {
            let last = if underlined && fresh { i + 1 } else { i };
            out.push((lines[i].start..lines[last].end, true));
            fresh = true;
            i = last + 1;
            continue;
        }
        match out.last_mut() {
            Some((range, _)) if !fresh => range.end = lines[i].end,
            _ => out.push((lines[i].clone(), false)),
        }
        if fence {
            fenced = !fenced;
        }
        fresh = false;
        i += 1;
    }
    out
}

fn is_underline(line: &str) -> bool {
    line.len() >= 3 && (line.bytes().all(|b| b == b'=') || line.bytes().all(|b| b == b'-'))
}

/// A Markdown or LaTeX heading.
fn is_marked_heading(line: &str) -> bool {
    const LATEX: [&str; 6] = [
        r"\part",
        r"\chapter",
        r"\section",
        r"\subsection",
        r"\subsubsection",
        r"\paragraph",
    ];
    let hashes = line.bytes().take_while(|&b| b == b'#').count();
    ((1..=6).contains(&hashes) && line[hashes..].starts_with(' '))
        || LATEX.iter().any(|command| {
            line.strip_prefix(command)
                .is_some_and(|rest| rest.starts_with(['{', '*', '[']))
        })
}

/// A short line between blank ones that is numbered ("2.1 Tides"), in capitals, or begins with
/// "Chapter", and does not end like a sentence.
fn looks_like_heading(line: &str) -> bool {
    if line.len() > MAX_HEADING_BYTES || line.ends_with(['.', ',', ';', ':', '!', '?']) {
        return false;
    }
    let letters = || line.chars().filter(|c| c.is_alphabetic());
    let (first, rest) = line.split_once(' ').unwrap_or((line, ""));
    let numbered = first.starts_with(|c: char| c.is_ascii_digit())
        && first.chars().all(|c| c.is_ascii_digit() || c == '.')
        && rest.starts_with(char::is_uppercase);
    let capitals = letters().count() >= 3 && letters().all(char::is_uppercase);
    numbered || capitals || (matches!(first, "Chapter" | "Part" | "Section") && !rest.is_empty())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chunker::test_codec::ByteCodec;
    use proptest::prelude::*;
    use rand::SeedableRng;
    use rand_chacha::ChaCha8Rng;

    const TEXT: &str = "Intro line.\n\n# One\nFirst paragraph\nof one.\n\nSecond paragraph.\n\n\
                        Two\n===\n\nBody of two.\n\n```\n# not a heading\n```\n\n2.1 Tides\n\n\
                        Body of tides.\n\n\\section{Three}\nBody of three.\n";

    fn chunks(text: &str, min: usize, max: usize) -> Vec<String> {
        let chunker = SectionChunker {
            min_tokens_per_chunk: min,
            max_tokens_per_chunk: max,
        };
        let blocks = blocks(text, max, &ByteCodec);
        let mut rng = ChaCha8Rng::seed_from_u64(2);
        (0..300)
            .map(|_| chunker.chunk(text, &blocks, &ByteCodec, &mut rng).unwrap())
            .collect()
    }

    #[test]
    fn headings_are_found() {
        let headings: Vec<&str> = paragraphs(TEXT)
            .into_iter()
            .filter(|(_, heading)| *heading)
            .map(|(range, _)| TEXT[range].trim())
            .collect();
        assert_eq!(
            headings,
            ["# One", "Two\n===", "2.1 Tides", "\\section{Three}"]
        );
    }

    #[test]
    fn chunks_are_whole_paragraphs_under_their_heading() {
        let all = chunks(TEXT, 30, 40);
        assert!(
            all.contains(&"# One\n\nSecond paragraph.".to_owned()),
            "{all:#?}"
        );
        for chunk in &all {
            assert!(chunk.len() <= 42, "{chunk}");
            // Each paragraph of the chunk is one of the text.
            for paragraph in chunk.split("\n\n") {
                let found = TEXT.split("\n\n").any(|p| {
                    p.trim() == paragraph
                        || p.lines().next() == Some(paragraph)
                        || p.lines().skip(1).collect::<Vec<_>>().join("\n") == paragraph
                });
                assert!(found, "{paragraph:?} in {chunk:?}");
            }
        }
        assert_eq!(chunks(TEXT, 1000, 1000)[0], TEXT);
    }

    #[test]
    fn long_paragraphs_are_cut_into_sentences() {
        let text = "The lamp was lit at dusk every day. The keeper wrote down the hour in a book. \
                    The book is kept in the archive of the harbour.";
        for chunk in chunks(text, 40, 60) {
            assert!(chunk.starts_with("The ") && chunk.ends_with('.'), "{chunk}");
        }
        // Nothing fits: the chunk is cut inside a sentence, and still no longer than allowed.
        assert!(chunks(text, 5, 8).iter().all(|c| c.len() <= 8));
    }

    proptest! {
        #[test]
        fn blocks_cover_any_text_and_chunks_keep_the_limit(
            text in "[a-zA-Z0-9#.=\\-` \n\u{e9}\u{3002}\\\\{}]{1,200}", max in 4usize..60, seed in 0u64..50,
        ) {
            let blocks = blocks(&text, max, &ByteCodec);
            let joined: String = blocks.iter().map(|b| &text[b.range.clone()]).collect();
            prop_assert_eq!(&joined, &text);
            let chunker = SectionChunker { min_tokens_per_chunk: 1, max_tokens_per_chunk: max };
            let chunk = chunker
                .chunk(&text, &blocks, &ByteCodec, &mut ChaCha8Rng::seed_from_u64(seed))
                .unwrap();
            // Two line breaks stand behind a heading that was put before the chunk; a window inside a
            // character grows to hold it.
            prop_assert!(chunk.len() <= max + 4, "{} > {max}: {chunk:?}", chunk.len());
        }
    }
}
