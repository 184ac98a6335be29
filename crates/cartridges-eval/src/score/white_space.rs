//! White space as Python's strings see it.

/// `str.isspace`: Unicode white space and the four information separators.
pub(super) fn is_space(sign: char) -> bool {
    sign.is_whitespace() || matches!(sign, '\u{1c}'..='\u{1f}')
}

/// `str.split()`.
pub(super) fn words(text: &str) -> impl Iterator<Item = &str> {
    text.split(is_space).filter(|word| !word.is_empty())
}

/// `str.strip()`.
pub(super) fn strip(text: &str) -> &str {
    text.trim_matches(is_space)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn information_separators_are_space_and_the_zero_width_space_is_not() {
        let text = "\u{1c} a\u{1f}b\u{a0}c\u{85}d\u{3000}e\u{200b} ";
        assert_eq!(
            words(text).collect::<Vec<_>>(),
            ["a", "b", "c", "d", "e\u{200b}"]
        );
        assert_eq!(strip("\u{1d}\t x y \u{2028}"), "x y");
    }
}
