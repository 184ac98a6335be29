//! BLEU (Papineni et al. 2002) as sacreBLEU computes it.

use std::array;

use super::metric::CorpusMetric;
use super::ngrams::{counts, total};
use super::tokenizer_13a::tokenized;
use super::white_space::words;

const ORDER: usize = 4;

/// BLEU with the tokenizer 13a, n-grams of 1 to 4 tokens, exponential smoothing and the brevity
/// penalty against the reference whose length is closest (sacreBLEU's defaults). Case counts.
///
/// The numbers of a segment are the tokens of the hypothesis, those of the closest reference,
/// the n-grams that match for each order, and all n-grams of the hypothesis for each order.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub struct Bleu;

impl CorpusMetric for Bleu {
    fn name(&self) -> &'static str {
        "BLEU"
    }

    fn statistics(&self, hypothesis: &str, references: &[&str]) -> Vec<f64> {
        let hypothesis = tokenized(hypothesis);
        let hypothesis: Vec<&str> = words(&hypothesis).collect();
        let references: Vec<String> = references.iter().map(|text| tokenized(text)).collect();
        let references: Vec<Vec<&str>> = references
            .iter()
            .map(|text| words(text).collect())
            .collect();

        // Of two lengths equally far away the shorter one.
        let far = |length: &usize| (length.abs_diff(hypothesis.len()), *length);
        let Some(closest) = references.iter().map(Vec::len).min_by_key(far) else {
            return vec![0.0; 2 + 2 * ORDER];
        };

        let orders: [(usize, usize); ORDER] = array::from_fn(|n| {
            let ours = counts(&hypothesis, n + 1);
            let theirs: Vec<_> = references.iter().map(|text| counts(text, n + 1)).collect();
            let correct = ours
                .iter()
                .filter_map(|(run, count)| {
                    let most = theirs.iter().filter_map(|text| text.get(run)).max()?;
                    Some(*count.min(most))
                })
                .sum();
            (correct, total(&ours))
        });
        [hypothesis.len(), closest]
            .into_iter()
            .chain(orders.map(|(correct, _)| correct))
            .chain(orders.map(|(_, all)| all))
            .map(|count| count as f64)
            .collect()
    }

    fn value(&self, sums: &[f64]) -> f64 {
        let [ours, theirs, orders @ ..] = sums else {
            return 0.0;
        };
        let Some((correct, all)) = orders.split_at_checked(ORDER) else {
            return 0.0;
        };
        // One order without any n-gram, or no match at all, is no score.
        if all.len() != ORDER || all.contains(&0.0) || correct.iter().all(|count| *count == 0.0) {
            return 0.0;
        }
        let mut smoothing = 1.0;
        let mut logs = 0.0;
        for (correct, all) in correct.iter().zip(all) {
            let precision = if *correct == 0.0 {
                smoothing *= 2.0;
                100.0 / (smoothing * all)
            } else {
                100.0 * correct / all
            };
            logs += precision.ln();
        }
        let brevity = if ours < theirs {
            (1.0 - theirs / ours).exp()
        } else {
            1.0
        };
        brevity * (logs / ORDER as f64).exp()
    }
}

#[cfg(test)]
mod tests {
    use super::super::fixtures::check_corpus;
    use super::*;

    #[test]
    fn bleu_is_sacrebleus() {
        check_corpus(&Bleu, "bleu");
    }

    #[test]
    fn a_segment_without_references_adds_nothing() {
        assert_eq!(Bleu.statistics("a text", &[]), [0.0; 10]);
        assert_eq!(Bleu.value(&[0.0; 10]), 0.0);
        assert_eq!(Bleu.value(&[]), 0.0);
        assert_eq!(Bleu.value(&[1.0; 7]), 0.0);
    }
}
