//! The tokenizer of mteval-v13a as sacreBLEU's `13a` has it.

use super::white_space::is_space;

/// The text with a space at each boundary of tokens.
///
/// Each rule runs once over what the one before left, from left to right, and a sign that one
/// match has used is not looked at again: so `,,` and `1,,` come out as there.
pub(super) fn tokenized(text: &str) -> String {
    let text = text
        .trim_end_matches(is_space)
        .replace("<skipped>", "")
        .replace("-\n", "")
        .replace('\n', " ")
        .replace("&quot;", "\"")
        .replace("&amp;", "&")
        .replace("&lt;", "<")
        .replace("&gt;", ">");

    let mut signs = vec![' '];
    for sign in text.chars() {
        if is_symbol(sign) {
            signs.extend([' ', sign, ' ']);
        } else {
            signs.push(sign);
        }
    }
    signs.push(' ');

    let digit = |sign: char| sign.is_ascii_digit();
    let point = |sign: char| matches!(sign, '.' | ',');
    let signs = split_pairs(&signs, |a, b| {
        (!digit(a) && point(b)).then_some([a, ' ', b, ' '])
    });
    let signs = split_pairs(&signs, |a, b| {
        (point(a) && !digit(b)).then_some([' ', a, ' ', b])
    });
    let signs = split_pairs(&signs, |a, b| {
        (digit(a) && b == '-').then_some([a, ' ', b, ' '])
    });
    signs.into_iter().collect()
}

/// The space, and the ASCII punctuation that is always a token: all of it but `'`, `,`, `-`, `.`.
fn is_symbol(sign: char) -> bool {
    sign == ' ' || sign.is_ascii_punctuation() && !matches!(sign, '\'' | ',' | '-' | '.')
}

/// Replaces the pairs of neighbours that `rule` takes, from left to right and without overlap.
fn split_pairs(signs: &[char], rule: impl Fn(char, char) -> Option<[char; 4]>) -> Vec<char> {
    let mut out = Vec::with_capacity(2 * signs.len());
    let mut rest = signs;
    while let [first, tail @ ..] = rest {
        match tail
            .split_first()
            .and_then(|(second, after)| Some((rule(*first, *second)?, after)))
        {
            Some((written, after)) => {
                out.extend(written);
                rest = after;
            }
            None => {
                out.push(*first);
                rest = tail;
            }
        }
    }
    out
}
