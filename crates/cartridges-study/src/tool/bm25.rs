//! Okapi BM25, by which texts are searched for words.
//!
//! Scores are those of the Python package `rank_bm25` (`BM25Okapi`), which the reference uses: a word's
//! weight is `ln((N - n + 0.5) / (n + 0.5))` for n of N texts; where that is below zero it is replaced by
//! `epsilon` times the mean weight of all words. (Robertson and Zaragoza, "The Probabilistic Relevance
//! Framework: BM25 and Beyond", 2009.)

use std::collections::{BTreeMap, BTreeSet, HashMap, HashSet};
use std::sync::LazyLock;

const K1: f64 = 1.5;
const B: f64 = 0.75;
const EPSILON: f64 = 0.25;

/// English words that say nothing about a text.
static STOP_WORDS: LazyLock<HashSet<&str>> = LazyLock::new(|| {
    "a about above after again against all am an and any are as at be because been \
    before being below between both but by can could did do does doing down during each few for from \
    further had has have having he her here hers herself him himself his how i if in into is it its \
    itself just me more most my myself no nor not now of off on once only or other our ours ourselves \
    out over own same she should so some such than that the their theirs them themselves then there \
    these they this those through to too under until up very was we were what when where which while \
    who whom why will with would you your yours yourself yourselves"
    .split(' ')
    .collect()
});

struct Word {
    weight: f64,
    /// Texts it occurs in, and how often.
    places: Vec<(usize, usize)>,
}

/// An index over some texts.
pub struct Bm25 {
    words: HashMap<String, Word>,
    /// Words per text.
    lengths: Vec<usize>,
    mean_length: f64,
}

impl Bm25 {
    /// Indexes texts.
    pub fn new<'a>(texts: impl IntoIterator<Item = &'a str>) -> Self {
        // In order, so that sums come out the same every time.
        let mut places: BTreeMap<String, Vec<(usize, usize)>> = BTreeMap::new();
        let mut lengths = Vec::new();
        for (index, text) in texts.into_iter().enumerate() {
            let mut length = 0;
            for word in words(text) {
                length += 1;
                let places = places.entry(word).or_default();
                match places.last_mut() {
                    Some((last, count)) if *last == index => *count += 1,
                    _ => places.push((index, 1)),
                }
            }
            lengths.push(length);
        }
        let total = lengths.len() as f64;
        let weight = |n: usize| (total - n as f64 + 0.5).ln() - (n as f64 + 0.5).ln();
        let sum: f64 = places.values().map(|places| weight(places.len())).sum();
        let floor = EPSILON * sum / places.len().max(1) as f64;
        let words = places.into_iter().map(|(word, places)| {
            let own = weight(places.len());
            let weight = if own < 0.0 { floor } else { own };
            (word, Word { weight, places })
        });
        Self {
            words: words.collect(),
            mean_length: lengths.iter().sum::<usize>() as f64 / total.max(1.0),
            lengths,
        }
    }

    /// The score of every text; 0 for one that has none of the words, among others.
    pub fn scores(&self, query: &str) -> Vec<f64> {
        let mut scores = vec![0.0; self.lengths.len()];
        for word in words(query).iter().filter_map(|word| self.words.get(word)) {
            for &(text, count) in &word.places {
                let count = count as f64;
                let length = self.lengths[text] as f64 / self.mean_length;
                scores[text] +=
                    word.weight * count * (K1 + 1.0) / (count + K1 * (1.0 - B + B * length));
            }
        }
        scores
    }

    /// The `count` best texts that have one of the words, best first; of equal ones the earlier.
    pub fn best(&self, query: &str, count: usize) -> Vec<usize> {
        let scores = self.scores(query);
        // Not those with a score: a word that half of the texts have weighs nothing.
        let asked = words(query);
        let hits = asked.iter().filter_map(|word| self.words.get(word));
        let found: BTreeSet<usize> = hits
            .flat_map(|word| word.places.iter().map(|&(text, _)| text))
            .collect();
        let mut order: Vec<usize> = found.into_iter().collect();
        order.sort_by(|a, b| scores[*b].total_cmp(&scores[*a]));
        order.truncate(count);
        order
    }
}

/// The words of a text that say something, in small letters.
fn words(text: &str) -> Vec<String> {
    text.to_lowercase()
        .split(|c: char| !c.is_alphanumeric())
        .filter(|word| !word.is_empty() && !STOP_WORDS.contains(word))
        .map(str::to_owned)
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const TEXTS: [&str; 5] = [
        "The lamp of Harrow Point burns whale oil.",
        "Its keeper is Edda Falk. The lamp!",
        "The tower (ninety-one steps) and the store, which holds barley, rope, six barrels of tar. Lamp.",
        "Boats from Nordvik come on Tuesdays.",
        "In fog the bell rings twice a minute; bell and lamp.",
    ];

    /// Scores of `rank_bm25` 0.2.2, `BM25Okapi`, of the same texts without stop words.
    #[test]
    fn scores_are_those_of_rank_bm25() {
        let index = Bm25::new(TEXTS);
        for (query, expected) in [
            (
                "lamp",
                [
                    0.266618605764364,
                    0.3108095348965791,
                    0.18689875686472027,
                    0.0,
                    0.24892268060301243,
                ],
            ),
            (
                "The BELL in the fog?",
                [0.0, 0.0, 0.0, 0.0, 2.6089023009744357],
            ),
            (
                "keeper lamp tower",
                [
                    0.266618605764364,
                    1.6461393885263258,
                    0.9898711937649997,
                    0.0,
                    0.24892268060301243,
                ],
            ),
            ("zebra", [0.0; 5]),
            ("steps steps tar", [0.0, 0.0, 2.408917310700838, 0.0, 0.0]),
        ] {
            for (score, expected) in index.scores(query).iter().zip(expected) {
                assert!(
                    (score - expected).abs() < 1e-12,
                    "{query}: {score}, {expected}"
                );
            }
        }
        assert_eq!(index.best("keeper lamp tower", 3), [1, 2, 0]);
        assert_eq!(index.best("zebra", 3), [0; 0]);
    }

    #[test]
    fn nothing_is_a_text_too() {
        assert!(Bm25::new([]).scores("lamp").is_empty());
        assert_eq!(Bm25::new(["", "the"]).scores("the"), [0.0, 0.0]);
    }

    #[test]
    fn a_word_that_half_of_the_texts_have_is_found() {
        let index = Bm25::new(["lamp", "bell"]);
        assert_eq!(index.scores("bell"), [0.0, 0.0]);
        assert_eq!(index.best("bell", 1), [1]);
        assert!(index.best("tower", 2).is_empty());
    }
}
