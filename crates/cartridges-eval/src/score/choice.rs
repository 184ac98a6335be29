//! Which option of a multiple choice a completion picks.

use super::answer::tagged_answer;
use super::difflib::difflib_nearest;
use super::white_space::strip;

/// The option that a completion picks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Choice {
    /// Place of the option; `None` if there is no answer or it fits no option.
    pub picked: Option<usize>,
    /// Whether there is an `<answer>` with something in it. What is not answered is wrong, and is
    /// counted apart.
    pub answered: bool,
}

impl Choice {
    const UNANSWERED: Self = Self {
        picked: None,
        answered: false,
    };

    /// Whether the picked option has the text `correct`, whatever the case and white space around
    /// it: LongHealth names the right option by its text, and two options can have the same.
    pub fn has_text<S: AsRef<str>>(&self, options: &[S], correct: &str) -> bool {
        self.picked
            .and_then(|place| options.get(place))
            .is_some_and(|option| plain(option.as_ref()) == plain(correct))
    }
}

/// LongHealth: the option most like the content of the first `<answer>`, both in lower case, by
/// [`difflib_nearest`].
///
/// The reference takes the first option if there is no answer, or if the answer has nothing in
/// common with any option; here no option is picked then, as the first one may be the right one.
pub fn nearest_option<S: AsRef<str>>(completion: &str, options: &[S]) -> Choice {
    let Some(answer) = given(completion) else {
        return Choice::UNANSWERED;
    };
    let options: Vec<String> = options
        .iter()
        .map(|option| plain(option.as_ref()))
        .collect();
    Choice {
        picked: difflib_nearest(&plain(answer), &options)
            .filter(|(_, ratio)| *ratio > 0.0)
            .map(|(place, _)| place),
        answered: true,
    }
}

/// MMLU: the option, of `options` many, whose letter stands in the first `<answer>`.
///
/// A letter in front counts in either case: `B`, `(b)`, `B.`, `B) text`, `**B**: text`, `B - text`.
/// Else the only capital that stands alone does: `The answer is B.`, `Option (B)`, `\boxed{B}`. A
/// text with several such letters, or with none, picks nothing.
pub fn lettered_option(completion: &str, options: usize) -> Choice {
    let Some(answer) = given(completion) else {
        return Choice::UNANSWERED;
    };
    let signs: Vec<char> = answer.chars().collect();
    let place = |sign: &char| {
        let letter = sign
            .is_ascii_alphabetic()
            .then(|| sign.to_ascii_uppercase())?;
        let place = (u32::from(letter) - u32::from('A')) as usize;
        (place < options).then_some(place)
    };
    let first = signs.iter().position(|sign| sign.is_alphanumeric());
    let leading = first
        .filter(|at| leads(&signs[at + 1..]))
        .and_then(|at| place(&signs[at]));
    let picked = leading.or_else(|| {
        let mut alone = signs
            .iter()
            .enumerate()
            .filter(|(at, sign)| sign.is_ascii_uppercase() && stands_alone(&signs, *at))
            .filter_map(|(_, sign)| place(sign));
        let only = alone.next()?;
        alone.all(|other| other == only).then_some(only)
    });
    Choice {
        picked,
        answered: true,
    }
}

/// The content of the first `<answer>`, if it has any.
fn given(completion: &str) -> Option<&str> {
    tagged_answer(completion).filter(|answer| !answer.is_empty())
}

fn plain(text: &str) -> String {
    strip(text).to_lowercase()
}

/// Whether what follows a letter in front shows that it names an option: `B-cells`, `A.D.` and
/// `A dog` do not.
fn leads(after: &[char]) -> bool {
    let in_word = |sign: Option<&char>| sign.is_some_and(|sign| sign.is_alphanumeric());
    match after {
        [] | [')' | ']' | '}' | ':' | '*' | '`' | '"' | '”' | '\n', ..] => true,
        ['.' | '\'' | '’' | '=' | '-' | '–' | '—', rest @ ..] => !in_word(rest.first()),
        [' ' | '\t', '-' | '–' | '—' | ':' | '=' | ')' | '|', ..] => true,
        _ => false,
    }
}

/// Whether no word goes on before or after a capital, and it is not the article at the beginning
/// of a sentence.
fn stands_alone(signs: &[char], at: usize) -> bool {
    let joined = |sign: &char| sign.is_alphanumeric() || matches!(sign, '\'' | '’' | '-');
    let before = at.checked_sub(1).and_then(|at| signs.get(at));
    let after = signs.get(at + 1);
    if before.is_some_and(joined) || after.is_some_and(joined) {
        return false;
    }
    let begins = signs[..at]
        .iter()
        .rev()
        .find(|sign| !sign.is_whitespace())
        .is_none_or(|sign| matches!(sign, '.' | '!' | '?' | ':'));
    let goes_on = after.is_some_and(|sign| sign.is_whitespace())
        && signs.get(at + 2).is_some_and(|sign| sign.is_alphanumeric());
    !(signs[at] == 'A' && begins && goes_on)
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::{cases, strings, text};
    use super::*;

    #[test]
    fn options_are_picked_as_in_the_reference() {
        for case in cases("choice") {
            let options = strings(&case, "options");
            let choice = nearest_option(&text(&case, "completion"), &options);
            let picked = case["picked"].as_u64().map(|place| place as usize);
            assert_eq!(choice.picked, picked, "{case}");
            assert_eq!(choice.answered, case["answered"] == true, "{case}");
            let correct = text(&case, "correct");
            let right = case["right"] == true;
            assert_eq!(choice.has_text(&options, &correct), right, "{case}");
        }
    }

    #[test]
    fn letters_are_found() {
        for (answer, place) in [
            ("B", 1),
            ("b", 1),
            ("a", 0),
            ("(B)", 1),
            ("(d)", 3),
            ("B.", 1),
            ("B)", 1),
            ("B) text", 1),
            ("b) text", 1),
            ("B)text", 1),
            ("B. The second", 1),
            ("A. A dog", 0),
            ("A: A dog and C", 0),
            ("[C]", 2),
            ("**C**", 2),
            ("**C.** text", 2),
            ("`D`", 3),
            ("\"D\"", 3),
            ("'D'", 3),
            ("“D”", 3),
            ("D - text", 3),
            ("D — text", 3),
            ("D\ntext", 3),
            ("$C$", 2),
            ("\\boxed{B}", 1),
            ("\\text{(B)}", 1),
            ("Answer: B", 1),
            ("Answer: A", 0),
            ("The answer is B", 1),
            ("The answer is A.", 0),
            ("Option A is right", 0),
            ("Option (C)", 2),
            ("B, the second", 1),
            ("C because it is", 2),
            ("The best is B (text), so B", 1),
            ("Option B. A dog is no cat", 1),
        ] {
            let choice = lettered_option(&format!("x <answer> {answer} </answer>"), 4);
            let expected = Choice {
                picked: Some(place),
                answered: true,
            };
            assert_eq!(choice, expected, "{answer}");
        }
    }

    #[test]
    fn what_is_no_letter_picks_nothing() {
        for answer in [
            "E",
            "(E)",
            "e)",
            "A dog",
            "a dog",
            "B-cells",
            "B or C",
            "A, C and D",
            "A.D. 70",
            "A's",
            "Both",
            "5",
            "É",
            "Bcd",
            "the second",
            "---",
        ] {
            let choice = lettered_option(&format!("<answer>{answer}</answer>"), 4);
            assert!(choice.answered && choice.picked.is_none(), "{answer}");
        }
        for completion in [
            "B",
            "<answer>B",
            "<answer> \n</answer>",
            "<answer>B</answer></think>",
        ] {
            assert_eq!(lettered_option(completion, 4), Choice::UNANSWERED);
            assert_eq!(nearest_option(completion, &["B"]), Choice::UNANSWERED);
        }
        assert_eq!(lettered_option("<answer>A</answer>", 0).picked, None);
        assert_eq!(lettered_option("<answer>J</answer>", 10).picked, Some(9));
        assert_eq!(
            nearest_option::<&str>("<answer>x</answer>", &[]).picked,
            None
        );
    }
}
