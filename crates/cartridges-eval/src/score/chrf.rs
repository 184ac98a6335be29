//! chrF (Popović 2015) and chrF++ (Popović 2017) as sacreBLEU computes them.

use super::metric::CorpusMetric;
use super::ngrams::{Counts, counts, shared, total};
use super::white_space::words;

const CHAR_ORDER: usize = 6;
const WORD_ORDER: usize = 2;
/// Recall weighs beta² = 4 times as much as precision.
const RECALL_WEIGHT: f64 = 4.0;

/// F-score of character n-grams of 1 to 6 signs, white space left out; chrF++ adds words and
/// pairs of words. Case counts, and orders for which a side has no n-grams are left out
/// (sacreBLEU's defaults: beta 2, no epsilon smoothing).
///
/// The numbers of a segment are, for each order, n-grams of the hypothesis, n-grams of the
/// reference and n-grams in both; of several references the one with the best F counts.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Chrf {
    word_order: usize,
}

impl Chrf {
    /// chrF: characters only.
    pub const fn chars() -> Self {
        Self { word_order: 0 }
    }

    /// chrF++: characters, words and pairs of words.
    pub const fn plus_plus() -> Self {
        Self {
            word_order: WORD_ORDER,
        }
    }
}

impl CorpusMetric for Chrf {
    fn name(&self) -> &'static str {
        if self.word_order == 0 {
            "chrF2"
        } else {
            "chrF2++"
        }
    }

    fn statistics(&self, hypothesis: &str, references: &[&str]) -> Vec<f64> {
        let hypothesis = Segment::new(hypothesis, self.word_order);
        let hypothesis = hypothesis.ngrams(self.word_order);
        let mut best: Option<(f64, Vec<f64>)> = None;
        for reference in references {
            let reference = Segment::new(reference, self.word_order);
            let reference = reference.ngrams(self.word_order);
            let mut numbers = Vec::with_capacity(3 * (CHAR_ORDER + self.word_order));
            for (ours, theirs) in hypothesis.chars.iter().zip(&reference.chars) {
                numbers.extend(matches(ours, theirs));
            }
            for (ours, theirs) in hypothesis.words.iter().zip(&reference.words) {
                numbers.extend(matches(ours, theirs));
            }
            let score = f_score(&numbers);
            if best.as_ref().is_none_or(|(so_far, _)| score > *so_far) {
                best = Some((score, numbers));
            }
        }
        let zeros = || vec![0.0; 3 * (CHAR_ORDER + self.word_order)];
        best.map_or_else(zeros, |(_, numbers)| numbers)
    }

    fn value(&self, sums: &[f64]) -> f64 {
        f_score(sums)
    }
}

/// A text without white space, and its words.
struct Segment<'a> {
    chars: Vec<char>,
    words: Vec<&'a str>,
}

struct Ngrams<'a> {
    chars: Vec<Counts<'a, char>>,
    words: Vec<Counts<'a, &'a str>>,
}

impl<'a> Segment<'a> {
    fn new(text: &'a str, word_order: usize) -> Self {
        let words_and_signs = || words(text).flat_map(without_sign).flatten();
        Self {
            chars: words(text).flat_map(str::chars).collect(),
            words: if word_order > 0 {
                words_and_signs().collect()
            } else {
                Vec::new()
            },
        }
    }

    fn ngrams(&self, word_order: usize) -> Ngrams<'_> {
        Ngrams {
            chars: (1..=CHAR_ORDER).map(|n| counts(&self.chars, n)).collect(),
            words: (1..=word_order).map(|n| counts(&self.words, n)).collect(),
        }
    }
}

/// A word and the punctuation at its end or, if there is none, at its beginning: one sign only.
fn without_sign(word: &str) -> [Option<&str>; 2] {
    let is_sign = |(_, sign): &(usize, char)| sign.is_ascii_punctuation();
    let last = word.char_indices().next_back().filter(is_sign);
    let first = word.char_indices().next().filter(is_sign);
    match (last, first) {
        (Some((at, _)), _) if at > 0 => [Some(&word[..at]), Some(&word[at..])],
        // A sign of punctuation is one byte long.
        (None, Some(_)) if word.len() > 1 => [Some(&word[..1]), Some(&word[1..])],
        _ => [Some(word), None],
    }
}

/// The three numbers of one order. Without n-grams in the reference those of the hypothesis do
/// not count.
fn matches<T: Eq + std::hash::Hash>(ours: &Counts<'_, T>, theirs: &Counts<'_, T>) -> [f64; 3] {
    if theirs.is_empty() {
        return [0.0; 3];
    }
    [total(ours), total(theirs), shared(ours, theirs)].map(|count| count as f64)
}

/// F from the means of precision and recall over the orders that both sides have, times 100.
fn f_score(numbers: &[f64]) -> f64 {
    let (mut precision, mut recall, mut orders) = (0.0, 0.0, 0.0);
    for order in numbers.chunks_exact(3) {
        if order[0] > 0.0 && order[1] > 0.0 {
            precision += order[2] / order[0];
            recall += order[2] / order[1];
            orders += 1.0;
        }
    }
    if precision + recall == 0.0 {
        return 0.0;
    }
    let (precision, recall) = (precision / orders, recall / orders);
    let score = (1.0 + RECALL_WEIGHT) * precision * recall;
    100.0 * (score / (RECALL_WEIGHT * precision + recall))
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::check_corpus;
    use super::*;

    #[test]
    fn chrf_is_sacrebleus() {
        check_corpus(&Chrf::chars(), "chrf");
    }

    #[test]
    fn chrf_plus_plus_is_sacrebleus() {
        check_corpus(&Chrf::plus_plus(), "chrf++");
    }

    #[test]
    fn a_segment_without_references_adds_nothing() {
        for metric in [Chrf::chars(), Chrf::plus_plus()] {
            let some = metric.statistics("a text", &["a test"]);
            let none = metric.statistics("a text", &[]);
            assert_eq!(none, vec![0.0; some.len()]);
            assert_eq!(metric.value(&none), 0.0);
            assert_eq!(metric.value(&[]), 0.0);
        }
    }
}
