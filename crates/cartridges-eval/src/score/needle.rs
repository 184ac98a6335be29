//! Scores of needles in a haystack and of variable tracking (RULER, Hsieh et al. 2024).

use std::collections::HashSet;

use super::answer::{reply, tagged_answers};
use super::white_space::strip;

/// What follows the last colon of the reply, without braces, quotes, points, commas and white
/// space around it.
pub fn needle_text(completion: &str) -> &str {
    let reply = reply(completion);
    let last = reply.rsplit(':').next().unwrap_or(reply);
    last.trim_matches(['{', '}', '\'', '"', ' ', '.', ',', '\t', '\n'])
}

/// Whether the reply names the needles: one by the same text, several by the same set of texts
/// between commas, in any order.
pub fn needle_found<S: AsRef<str>>(completion: &str, needles: &[S]) -> bool {
    let text = needle_text(completion);
    if let [needle] = needles {
        return needle.as_ref() == text;
    }
    let found: HashSet<&str> = text.split(',').map(strip).collect();
    let wanted: HashSet<&str> = needles.iter().map(AsRef::as_ref).collect();
    found == wanted
}

/// How well the variables that a reply names are the ones asked for.
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct NamedVariables {
    /// Share of the named variables that were asked for; 0 if none is named.
    pub precision: f64,
    /// Share of the variables asked for that are named.
    pub recall: f64,
    /// Harmonic mean of the two.
    pub f1: f64,
    /// Whether there is a closed `<answer>` at all.
    pub answered: bool,
}

/// Compares the variables in the `<answer>` tags, one a line or with commas between them, with
/// the ones asked for. Case and repetition do not matter.
pub fn tracked_variables<S: AsRef<str>>(completion: &str, variables: &[S]) -> NamedVariables {
    let answers = tagged_answers(completion);
    let named: HashSet<String> = answers
        .iter()
        .flat_map(|answer| answer.split(['\n', ',']))
        .map(|name| strip(name).to_lowercase())
        .filter(|name| !name.is_empty())
        .collect();
    let wanted: HashSet<String> = variables
        .iter()
        .map(|name| name.as_ref().to_lowercase())
        .collect();
    let both = named.intersection(&wanted).count() as f64;
    let share = |of: &HashSet<String>| both / of.len().max(1) as f64;
    let (precision, recall) = (share(&named), share(&wanted));
    let f1 = if both > 0.0 {
        2.0 * (precision * recall) / (precision + recall)
    } else {
        0.0
    };
    NamedVariables {
        precision,
        recall,
        f1,
        answered: !answers.is_empty(),
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::{cases, close, flag, number, strings, text};
    use super::*;

    #[test]
    fn needles_are_scored_as_in_the_reference() {
        for case in cases("needle") {
            let completion = text(&case, "completion");
            let found = needle_found(&completion, &strings(&case, "answers"));
            assert_eq!(found, flag(&case, "correct"), "{case}");
        }
    }

    #[test]
    fn variables_are_scored_as_in_the_reference() {
        for case in cases("variables") {
            let completion = text(&case, "completion");
            let score = tracked_variables(&completion, &strings(&case, "answers"));
            close(score.precision, number(&case, "precision"), &case);
            close(score.recall, number(&case, "recall"), &case);
            close(score.f1, number(&case, "f1"), &case);
            assert_eq!(score.answered, flag(&case, "answered"), "{case}");
        }
    }

    #[test]
    fn thinking_and_end_markers_do_not_hide_a_needle() {
        let completion = "<think>the value: 12 or 13</think>\n\n1234567<|im_end|>";
        assert!(needle_found(completion, &["1234567"]));
        assert_eq!(needle_text("The value is: {'7'}.\n"), "7");
        assert!(!needle_found::<&str>("7", &[]));
        assert!(!needle_found::<&str>("", &[]));
    }

    #[test]
    fn commas_separate_variables_too() {
        let score = tracked_variables("<answer>ABC, def\nGHI,</answer>", &["abc", "DEF", "ghi"]);
        assert_eq!((score.precision, score.recall, score.f1), (1.0, 1.0, 1.0));
        let none = tracked_variables("<answer>ABC", &["ABC"]);
        assert_eq!((none.f1, none.answered), (0.0, false));
        assert_eq!(
            tracked_variables::<&str>("<answer>x</answer>", &[]).recall,
            0.0
        );
    }
}
