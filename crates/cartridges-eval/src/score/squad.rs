//! Exact match and F1 of the SQuAD v1.1 evaluation script (Rajpurkar et al. 2016).

use std::collections::HashMap;

use unicode_general_category::{GeneralCategory as Category, get_general_category};

use super::metric::CorpusMetric;
use super::white_space::words;

/// The text in lower case, without ASCII punctuation, without the words `a`, `an` and `the`, its
/// words one space apart.
pub fn squad_normalised(text: &str) -> String {
    let plain: String = text
        .to_lowercase()
        .chars()
        .filter(|sign| !sign.is_ascii_punctuation())
        .collect();
    let mut kept = String::with_capacity(plain.len());
    let mut rest = plain.as_str();
    while let Some(first) = rest.chars().next() {
        let in_word = is_word(first);
        let end = rest
            .find(|sign| is_word(sign) != in_word)
            .unwrap_or(rest.len());
        let (run, after) = rest.split_at(end);
        kept.push_str(if matches!(run, "a" | "an" | "the") {
            " "
        } else {
            run
        });
        rest = after;
    }
    words(&kept).collect::<Vec<_>>().join(" ")
}

/// Whether the prediction, normalised, is one of the references.
pub fn squad_exact_match<S: AsRef<str>>(prediction: &str, references: &[S]) -> bool {
    let prediction = squad_normalised(prediction);
    references
        .iter()
        .any(|reference| squad_normalised(reference.as_ref()) == prediction)
}

/// F1 of the words, normalised, with the reference that gives most; from 0 to 1. As in the
/// script, nothing against nothing is 0.
pub fn squad_f1<S: AsRef<str>>(prediction: &str, references: &[S]) -> f64 {
    let prediction = squad_normalised(prediction);
    references
        .iter()
        .map(|reference| words_f1(&prediction, &squad_normalised(reference.as_ref())))
        .fold(0.0, f64::max)
}

fn words_f1(prediction: &str, reference: &str) -> f64 {
    let mut left: HashMap<&str, usize> = HashMap::new();
    for word in words(reference) {
        *left.entry(word).or_insert(0) += 1;
    }
    let shared = words(prediction)
        .filter(|word| match left.get_mut(word) {
            Some(count) if *count > 0 => {
                *count -= 1;
                true
            }
            _ => false,
        })
        .count();
    if shared == 0 {
        return 0.0;
    }
    let precision = shared as f64 / words(prediction).count() as f64;
    let recall = shared as f64 / words(reference).count() as f64;
    2.0 * precision * recall / (precision + recall)
}

/// What Python's `\w` takes, less `_`, which is punctuation here. `char::is_alphanumeric` takes
/// the vowel signs of Indic scripts too.
fn is_word(sign: char) -> bool {
    use Category as C;
    if sign.is_ascii() {
        return sign.is_ascii_alphanumeric();
    }
    matches!(
        get_general_category(sign),
        C::UppercaseLetter
            | C::LowercaseLetter
            | C::TitlecaseLetter
            | C::ModifierLetter
            | C::OtherLetter
            | C::DecimalNumber
            | C::LetterNumber
            | C::OtherNumber
    )
}

/// Share of exact matches. The numbers of a segment are its match and 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SquadExactMatch;

/// Mean F1. The numbers of a segment are its F1 and 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct SquadF1;

impl CorpusMetric for SquadExactMatch {
    fn name(&self) -> &'static str {
        "exact match"
    }

    fn statistics(&self, hypothesis: &str, references: &[&str]) -> Vec<f64> {
        let found = squad_exact_match(hypothesis, references);
        one_segment(f64::from(u8::from(found)), references)
    }

    fn value(&self, sums: &[f64]) -> f64 {
        mean(sums)
    }
}

impl CorpusMetric for SquadF1 {
    fn name(&self) -> &'static str {
        "F1"
    }

    fn statistics(&self, hypothesis: &str, references: &[&str]) -> Vec<f64> {
        one_segment(squad_f1(hypothesis, references), references)
    }

    fn value(&self, sums: &[f64]) -> f64 {
        mean(sums)
    }
}

fn one_segment(score: f64, references: &[&str]) -> Vec<f64> {
    vec![score, if references.is_empty() { 0.0 } else { 1.0 }]
}

fn mean(sums: &[f64]) -> f64 {
    match sums {
        [sum, count] if *count > 0.0 => 100.0 * sum / count,
        _ => 0.0,
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::{cases, close, number, strings, text};
    use super::super::metric::sum_statistics;
    use super::*;

    #[test]
    fn both_scores_are_the_scripts() {
        let (mut exact, mut f1) = (Vec::new(), Vec::new());
        let cases = cases("squad");
        for case in &cases {
            let prediction = text(case, "prediction");
            let references = strings(case, "references");
            let references: Vec<&str> = references.iter().map(String::as_str).collect();
            assert_eq!(
                squad_normalised(&prediction),
                text(case, "normalised"),
                "{case}"
            );
            let matched = squad_exact_match(&prediction, &references);
            assert_eq!(matched, number(case, "exact_match") == 1.0, "{case}");
            close(squad_f1(&prediction, &references), number(case, "f1"), case);
            exact.push(SquadExactMatch.statistics(&prediction, &references));
            f1.push(SquadF1.statistics(&prediction, &references));
        }
        let mean_of = |name| {
            let sum: f64 = cases.iter().map(|case| number(case, name)).sum();
            100.0 * sum / cases.len() as f64
        };
        let sums = |numbers: &[Vec<f64>]| sum_statistics(numbers.iter().map(Vec::as_slice));
        let all = serde_json::Value::Null;
        let value = SquadExactMatch.value(&sums(&exact));
        close(value, mean_of("exact_match"), &all);
        close(SquadF1.value(&sums(&f1)), mean_of("f1"), &all);
    }

    #[test]
    fn no_references_are_no_score() {
        assert!(!squad_exact_match::<&str>("", &[]));
        assert_eq!(squad_f1::<&str>("x", &[]), 0.0);
        assert_eq!(SquadF1.statistics("x", &[]), [0.0, 0.0]);
        assert_eq!(SquadF1.value(&[0.0, 0.0]), 0.0);
    }
}
