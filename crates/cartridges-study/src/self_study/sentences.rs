//! Cutting a text into sentences without a language model.
//!
//! Good enough for asking about every part of a text: a wrong boundary costs nothing but a question
//! that is a little narrower or wider. Nothing of the text is lost.

use std::ops::Range;

/// A sentence with the white space behind it: a byte range of the text.
pub type Segment = Range<usize>;

/// A piece with fewer words is joined with its neighbour (headings, numbers, "Yes.").
const MIN_WORDS: usize = 4;
/// The same for scripts without spaces, in characters.
const MIN_CHARACTERS: usize = 14;
/// A piece is cut at white space behind this many bytes, wherever its sentence may end.
const MAX_BYTES: usize = 600;

/// Cuts `text` into consecutive segments that cover it, each one sentence or a few short ones. A text
/// without anything to read is one segment; an empty text has none.
pub fn segments(text: &str) -> Vec<Segment> {
    let mut out: Vec<Segment> = Vec::new();
    let mut start = 0;
    for end in boundaries(text) {
        // `boundaries` may lie before a cut that was forced by length.
        while end - start > MAX_BYTES {
            let cut = forced_cut(text, start);
            out.push(start..cut);
            start = cut;
        }
        if end > start && (is_substantial(&text[start..end]) || end == text.len()) {
            out.push(start..end);
            start = end;
        }
    }
    // A short remainder belongs to what stands before it.
    if out.len() > 1
        && let Some(last) = out.last().cloned()
        && !is_substantial(&text[last.clone()])
    {
        out.pop();
        if let Some(previous) = out.last_mut() {
            previous.end = last.end;
        }
    }
    out
}

fn is_substantial(piece: &str) -> bool {
    let words = piece
        .split_whitespace()
        .filter(|w| w.chars().any(char::is_alphabetic))
        .count();
    // Without spaces a long "word" is a sentence.
    words >= MIN_WORDS
        || (words > 0
            && piece.chars().filter(|c| c.is_alphanumeric()).count() >= MIN_CHARACTERS
            && piece.chars().any(|c| matches!(c, '。' | '！' | '？')))
}

/// Byte offsets behind the white space that follows a sentence end or a blank line, ending with the
/// length of the text.
fn boundaries(text: &str) -> Vec<usize> {
    let mut found = Vec::new();
    let mut characters = text.char_indices().peekable();
    while let Some((at, c)) = characters.next() {
        let ends_here = match c {
            '。' | '！' | '？' => true,
            '!' | '?' => true,
            '.' => !is_abbreviation(&text[..at]),
            _ => false,
        };
        let wide = matches!(c, '。' | '！' | '？');
        let mut end = at + c.len_utf8();
        if ends_here {
            // Closing quotes and brackets belong to the sentence.
            while let Some(&(i, q)) = characters.peek() {
                if matches!(q, '"' | '\'' | ')' | ']' | '”' | '’' | '»' | '」' | '』') {
                    end = i + q.len_utf8();
                    characters.next();
                } else {
                    break;
                }
            }
        }
        let mut newlines = usize::from(c == '\n');
        let mut spaces = usize::from(c.is_whitespace());
        if ends_here || c.is_whitespace() {
            while let Some(&(i, w)) = characters.peek() {
                if !w.is_whitespace() {
                    break;
                }
                spaces += 1;
                newlines += usize::from(w == '\n');
                end = i + w.len_utf8();
                characters.next();
            }
        }
        if newlines >= 2 || (ends_here && (spaces > 0 || wide)) {
            found.push(end);
        }
    }
    if found.last() != Some(&text.len()) && !text.is_empty() {
        found.push(text.len());
    }
    found
}

/// Whether the full stop behind `before` belongs to an abbreviation or a heading's number: "Dr. Falk",
/// "J. Mire", "e.g. gates", and "2. People" at the beginning of a line.
fn is_abbreviation(before: &str) -> bool {
    const LONGEST: usize = 5;
    const KNOWN: [&str; 9] = ["Mrs", "Prof", "vs", "e.g", "i.e", "cf", "Nos", "Fig", "Eq"];
    let length: usize = before
        .chars()
        .rev()
        .take(LONGEST + 1)
        .take_while(|c| !c.is_whitespace())
        .map(char::len_utf8)
        .sum();
    let (rest, word) = before.split_at(before.len() - length);
    let word = word.trim_start_matches(|c: char| !c.is_alphanumeric());
    let letters = word.chars().count();
    if word.is_empty() || letters > LONGEST {
        return false;
    }
    if word.chars().all(|c| c.is_ascii_digit() || c == '.') {
        return rest.is_empty() || rest.ends_with('\n');
    }
    KNOWN.contains(&word) || (letters <= 2 && word.starts_with(char::is_uppercase))
}

/// A cut at most [`MAX_BYTES`] behind `start`: behind the last white space, else between characters.
fn forced_cut(text: &str, start: usize) -> usize {
    let mut limit = (start + MAX_BYTES).min(text.len());
    while !text.is_char_boundary(limit) {
        limit -= 1;
    }
    match text[start..limit].rfind(char::is_whitespace) {
        Some(space) if space > 0 => {
            let at = start + space;
            at + text[at..].chars().next().map_or(1, char::len_utf8)
        }
        _ => limit,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn cut(text: &str) -> Vec<&str> {
        segments(text).into_iter().map(|s| text[s].trim()).collect()
    }

    #[test]
    fn sentences_are_found_and_short_ones_joined() {
        let text = "Staff Handbook\n\n2. People. The manager is Dr. Renn of the Point. She said \
                    \"come in at once!\" They left. The cat sleeps in the battery room.\n";
        assert_eq!(
            cut(text),
            [
                "Staff Handbook\n\n2. People. The manager is Dr. Renn of the Point.",
                "She said \"come in at once!\"",
                "They left. The cat sleeps in the battery room.",
            ]
        );
    }

    #[test]
    fn numbers_and_short_ends_do_not_cut() {
        assert_eq!(
            cut("A gate takes 3.5 seconds to close. Good."),
            ["A gate takes 3.5 seconds to close. Good."]
        );
        assert!(cut("").is_empty());
        assert_eq!(cut("?"), ["?"]);
    }

    #[test]
    fn scripts_without_spaces_are_cut_too() {
        let text = "潮汐站由九个水闸组成并且每月检查一次。检查日志保存在泵房的绿色柜子里面。";
        assert_eq!(cut(text).len(), 2);
    }

    proptest! {
        #[test]
        fn segments_cover_the_text_in_order(text in "([a-zA-Zé😀 ,]{0,30}[.!?\n 。]{0,3}){0,40}") {
            let mut at = 0;
            for segment in segments(&text) {
                prop_assert_eq!(segment.start, at);
                prop_assert!(segment.end > at);
                prop_assert!(segment.len() <= MAX_BYTES * 2);
                at = segment.end;
            }
            prop_assert_eq!(at, text.len());
        }
    }
}
