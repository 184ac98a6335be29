//! Whether a generated text contains an answer.

/// The words of a text: lower-case runs of letters and digits. All other signs separate words,
/// except `.`, `,` and `:` between two digits, which are part of a number; a comma in front of
/// exactly three digits (`1,000`) is left out.
pub fn normalised_words(text: &str) -> Vec<String> {
    let signs: Vec<char> = text.chars().collect();
    let digit = |at: usize| signs.get(at).is_some_and(char::is_ascii_digit);
    let mut words = Vec::new();
    let mut word = String::new();
    for (at, sign) in signs.iter().enumerate() {
        let in_number = at > 0 && digit(at - 1) && digit(at + 1);
        if sign.is_alphanumeric() {
            word.extend(sign.to_lowercase());
        } else if in_number && *sign == ',' && digit(at + 2) && digit(at + 3) && !digit(at + 4) {
            // A thousands comma.
        } else if in_number && matches!(sign, '.' | ',' | ':') {
            word.push(*sign);
        } else if !word.is_empty() {
            words.push(std::mem::take(&mut word));
        }
    }
    if !word.is_empty() {
        words.push(word);
    }
    words
}

/// Whether one of the answers occurs in the text as whole words, whatever the case, punctuation
/// and white space. The last word may have a plural `s` if it ends in a letter.
pub fn answer_occurs<S: AsRef<str>>(text: &str, answers: &[S]) -> bool {
    let words = normalised_words(text);
    answers.iter().any(|answer| {
        let wanted = normalised_words(answer.as_ref());
        let Some((last, before)) = wanted.split_last() else {
            return false;
        };
        words.windows(wanted.len()).any(|found| {
            let (end, begin) = (&found[before.len()], &found[..before.len()]);
            begin == before && (end == last || is_plural(end, last))
        })
    })
}

/// Whether `word` is `singular` with an `s`.
fn is_plural(word: &str, singular: &str) -> bool {
    word.strip_suffix('s') == Some(singular)
        && singular
            .chars()
            .next_back()
            .is_some_and(char::is_alphabetic)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn occurs(text: &str, answer: &str) -> bool {
        answer_occurs(text, &[answer])
    }

    #[test]
    fn case_punctuation_and_plurals_do_not_matter() {
        assert!(occurs("Six turbines.", "six"));
        assert!(occurs("Visitors come on Thursdays only.", "Thursday"));
        assert!(occurs("It is “Adaeze\n Falk’s” job.", "adaeze falk"));
        assert!(occurs("**O’Neil** did", "O'Neil"));
        assert!(occurs("the University of Tarn!", "University of Tarn"));
        assert!(occurs("ÖRESUND", "Öresund"));
        assert!(occurs("78%", "78"));
        assert!(answer_occurs("There are 6.", &["six", "6"]));
    }

    #[test]
    fn parts_of_words_and_of_numbers_do_not_count() {
        assert!(!occurs("78", "7"));
        assert!(!occurs("17", "7"));
        assert!(!occurs("7.5 crowns", "7"));
        assert!(!occurs("the 7s", "7"));
        assert!(!occurs("7:30", "7"));
        assert!(!occurs("sixty", "six"));
        assert!(!occurs("bonfire", "fire"));
        assert!(!occurs("fires are", "fire is"));
        assert!(!occurs("Adaeze said Falk", "Adaeze Falk"));
        assert!(!occurs("", "six"));
        assert!(!occurs("anything", "?!"));
        assert!(!answer_occurs::<&str>("anything", &[]));
    }

    #[test]
    fn numbers_keep_their_inner_signs() {
        assert_eq!(
            normalised_words("3,200 m², 1,5 or 7. At 14:05, 1.2.3; 1,0000"),
            [
                "3200", "m²", "1,5", "or", "7", "at", "14:05", "1.2.3", "1,0000"
            ]
        );
        assert!(occurs("3,200 metres", "3200"));
        assert!(occurs("I say 7, maybe 8.", "7"));
    }
}
