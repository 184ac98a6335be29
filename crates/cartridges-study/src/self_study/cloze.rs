//! Gaps to fill: sentences of the text with a name, a number or a rare word left out.
//!
//! A small model asks muddled questions about a text, and each leaves most of its facts untouched.
//! Here every answer is given by the text, so every fact is asked for and every answer is right, and
//! nothing has to be generated.

use std::collections::HashMap;
use std::ops::Range;

use super::coverage::SegmentedText;

/// Ways to ask; `GAP` is replaced by the sentence with its gap.
const ASK: [&str; 5] = [
    "What is missing here? \"GAP\" Answer with the name, number or word only.",
    "Fill in the gap with the exact words: \"GAP\"",
    "Which words belong in the gap? \"GAP\" Reply with the answer only.",
    "Complete the sentence: \"GAP\" Give a short answer.",
    "GAP\n\nWhat stands in the gap? Answer in a few words.",
];

/// How agent A is told to ask for what was left out; `PART` is the sentence, `ANSWER` what was left out.
const ASK_FOR: [&str; 3] = [
    "A part of the information says: \"PART\"\nWrite one short question whose answer is \"ANSWER\". Say \
     what it belongs to, so that the question is clear without the part. Do not give the answer. Write \
     only the question.",
    "The answer is \"ANSWER\", as in: \"PART\"\nWrite the question that someone who has not read this would \
     ask to get this answer. Name the place or the thing it is about. Write only the question.",
    "From the information: \"PART\"\nAsk for \"ANSWER\" in one question, in other words than the part uses, \
     and without the answer itself. Write only the question.",
];

/// What stands for the words that are left out.
const BLANK: &str = "____";
/// Words of a sentence that are kept on each side of the gap.
const REACH: usize = 16;
/// Words in a row that are asked for together.
const LONGEST_RUN: usize = 3;
/// How often a word may stand in the text to be worth a question.
const RARE: usize = 2;
/// Shorter words are not worth a question, unless they hold a digit.
const SHORTEST_WORD: usize = 3;

/// One gap.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Gap {
    /// The sentence it is in.
    pub window: Range<usize>,
    /// The request.
    pub prompt: String,
    /// What was left out.
    pub answer: String,
    /// What agent A is told so that it asks for the answer.
    pub ask: String,
}

/// How many gaps a sentence gets.
#[derive(Debug, Clone, Copy)]
pub(super) struct Density {
    /// At least so many, if it has as much to ask for.
    pub per_sentence: usize,
    /// One for every so many words, where that is more; 0: no more.
    pub words_per_gap: usize,
}

impl Density {
    fn gaps_in(self, words: usize) -> usize {
        let by_length = words.checked_div(self.words_per_gap).unwrap_or(0);
        self.per_sentence.max(by_length)
    }
}

/// The gaps of every sentence: first names and numbers, then words that are rare in the text, evenly
/// spread over the sentence.
pub(super) fn gaps(text: &SegmentedText<'_>, density: Density) -> Vec<Gap> {
    let sentences: Vec<Vec<&str>> = text
        .sentences()
        .map(|sentence| sentence.split_whitespace().collect())
        .collect();
    let mut counts: HashMap<String, usize> = HashMap::new();
    for word in sentences.iter().flatten() {
        *counts.entry(core(word).to_lowercase()).or_default() += 1;
    }
    let mut out = Vec::new();
    for (index, words) in sentences.iter().enumerate() {
        let spans = spans(words, &counts);
        let (facts, rare): (Vec<_>, Vec<_>) = spans.into_iter().partition(|s| s.is_fact);
        let wanted = density.gaps_in(words.len());
        let mut chosen: Vec<Range<usize>> = spread(facts, wanted);
        let room = wanted - chosen.len();
        chosen.extend(spread(rare, room));
        chosen.sort_by_key(|span| span.start);
        for span in chosen {
            let style = ASK[out.len() % ASK.len()];
            let answer = answer(words, &span);
            let part = words.join(" ");
            let ask = ASK_FOR[out.len() % ASK_FOR.len()];
            out.push(Gap {
                window: index..index + 1,
                prompt: style.replace("GAP", &with_gap(words, &span)),
                ask: ask.replace("PART", &part).replace("ANSWER", &answer),
                answer,
            });
        }
    }
    out
}

/// A candidate: words of a sentence.
struct Span {
    words: Range<usize>,
    /// A name or a number.
    is_fact: bool,
}

/// `count` of the spans, evenly spread.
fn spread(spans: Vec<Span>, count: usize) -> Vec<Range<usize>> {
    let n = spans.len();
    let take = count.min(n);
    (0..take)
        .map(|i| spans[i * n / take].words.clone())
        .collect()
}

/// Runs of names and numbers, and runs of words that are rare in the text.
fn spans(words: &[&str], counts: &HashMap<String, usize>) -> Vec<Span> {
    let kind = |at: usize| -> Option<bool> {
        let word = core(words[at]);
        // The first word of a sentence is written high anyway, and a number there is a heading's.
        let begins = at == 0 || words[at - 1].ends_with(['.', '!', '?']);
        if begins
            && words[at]
                .trim_end_matches('.')
                .chars()
                .all(char::is_numeric)
        {
            return None;
        }
        let starts_high = word.chars().next().is_some_and(char::is_uppercase);
        if word.chars().any(char::is_numeric) || (starts_high && !begins) {
            return Some(true);
        }
        let count = counts.get(&word.to_lowercase()).copied().unwrap_or(0);
        let long_enough = word.chars().count() >= SHORTEST_WORD;
        (count <= RARE && long_enough).then_some(false)
    };
    let mut out: Vec<Span> = Vec::new();
    let mut at = 0;
    while at < words.len() {
        let Some(is_fact) = kind(at) else {
            at += 1;
            continue;
        };
        let start = at;
        // A run ends with its kind, its length, or a mark between the words.
        loop {
            at += 1;
            let ended = words[at - 1].ends_with(|c: char| !c.is_alphanumeric());
            let full = at - start == LONGEST_RUN;
            if at == words.len() || ended || full || kind(at) != Some(is_fact) {
                break;
            }
        }
        out.push(Span {
            words: start..at,
            is_fact,
        });
    }
    out
}

/// A word without the marks around it.
fn core(word: &str) -> &str {
    word.trim_matches(|c: char| !c.is_alphanumeric())
}

/// The words of a span without the marks around them.
fn answer(words: &[&str], span: &Range<usize>) -> String {
    core(&words[span.clone()].join(" ")).to_owned()
}

/// The words around a span, with a blank in its place and in that of the same word elsewhere. Marks at
/// its ends stay.
fn with_gap(words: &[&str], span: &Range<usize>) -> String {
    let from = span.start.saturating_sub(REACH);
    let to = (span.end + REACH).min(words.len());
    let joined = words[span.clone()].join(" ");
    let hidden = core(&joined).to_lowercase();
    let shown: Vec<String> = words[from..span.start]
        .iter()
        .chain([&joined.as_str()])
        .chain(&words[span.end..to])
        .map(|word| blanked(word, &hidden))
        .collect();
    shown.join(" ")
}

/// The word, or a blank if it is the hidden one.
fn blanked(word: &str, hidden: &str) -> String {
    let inside = core(word);
    match word.split_once(inside) {
        Some((before, after)) if !inside.is_empty() && inside.to_lowercase() == *hidden => {
            format!("{before}{BLANK}{after}")
        }
        _ => word.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::chunker::TokenCodec;
    use crate::resource::{Resource, TextResource};
    use crate::self_study::SelfStudyConfig;
    use crate::self_study::coverage::segmented;

    /// One token per byte.
    struct Bytes;

    impl TokenCodec for Bytes {
        fn encode(&self, text: &str) -> Vec<u32> {
            text.bytes().map(u32::from).collect()
        }

        fn decode(&self, ids: &[u32]) -> String {
            let bytes: Vec<u8> = ids.iter().map(|id| *id as u8).collect();
            String::from_utf8_lossy(&bytes).into_owned()
        }
    }

    fn gaps_of(text: &str, per_sentence: usize) -> Vec<Gap> {
        let density = Density {
            per_sentence,
            words_per_gap: 0,
        };
        gaps_with(text, density)
    }

    fn gaps_with(text: &str, density: Density) -> Vec<Gap> {
        let config = SelfStudyConfig::default();
        let text: TextResource = config.text_resource("x", text, Arc::new(Bytes)).unwrap();
        let resources: Vec<Box<dyn Resource>> = vec![Box::new(text)];
        let texts = segmented(&resources);
        gaps(texts[0].as_ref().unwrap(), density)
    }

    #[test]
    fn names_numbers_and_rare_words_are_left_out_in_turn() {
        let text = "The keeper of the lamp is Edda Falk, who came in 1987. The keeper of the boat \
                    likes the barley soup.";
        let gaps = gaps_of(text, 3);
        let answers: Vec<&str> = gaps.iter().map(|g| g.answer.as_str()).collect();
        // Names and numbers first, then runs of rare words.
        assert_eq!(
            answers,
            [
                "keeper",
                "Edda Falk",
                "1987",
                "keeper",
                "boat likes",
                "barley soup"
            ]
        );
        let prompt = &gaps[1].prompt;
        assert!(
            prompt.contains("the lamp is ____, who came in 1987."),
            "{prompt}"
        );
        assert!(
            gaps[2].prompt.contains("who came in ____."),
            "{:?}",
            gaps[2]
        );
        for gap in &gaps {
            assert!(text.contains(&gap.answer), "{gap:?}");
        }
        assert!(gaps_of(text, 0).is_empty());
        let one: Vec<String> = gaps_of(text, 1).into_iter().map(|g| g.answer).collect();
        assert_eq!(one, ["Edda Falk", "keeper"]);
    }

    #[test]
    fn long_sentences_are_asked_about_in_every_part() {
        let text = "The cat sleeps here. Staff who work in the hall for four hours must drink two \
                    litres of water and rest in the canteen, where the cook serves barley soup.";
        let answers = |words_per_gap| -> Vec<String> {
            let density = Density {
                per_sentence: 2,
                words_per_gap,
            };
            let gaps = gaps_with(text, density);
            gaps.into_iter().map(|gap| gap.answer).collect()
        };
        // The short sentence has one run of rare words, the long one has more than two.
        assert_eq!(answers(0).len(), 3);
        let dense = answers(3);
        assert!(dense.len() > 7, "{dense:?}");
        assert!(dense.iter().any(|a| a.contains("barley")), "{dense:?}");
        assert_eq!(dense[0], answers(0)[0]);
    }

    #[test]
    fn headings_are_no_facts_and_a_word_is_hidden_wherever_it_stands() {
        let gaps = gaps_of(
            "5. Safety. The muster point is the house. If an otter is seen, note the otter.",
            99,
        );
        let answers: Vec<&str> = gaps.iter().map(|g| g.answer.as_str()).collect();
        for word in ["5", "the"] {
            assert!(!answers.contains(&word), "{answers:?}");
        }
        let otter = gaps.iter().find(|g| g.answer == "otter").unwrap();
        assert!(
            otter.prompt.contains("If an ____ is seen, note the ____."),
            "{otter:?}"
        );
    }

    #[test]
    fn odd_texts_have_no_gaps_or_sound_ones() {
        assert!(gaps_of("... --- !!! ???", 3).is_empty());
        for text in [
            "\u{3001}\u{3002}\u{6f22}\u{5b57}",
            "a a a a a",
            "“Édouard” vu à 12h30.",
        ] {
            for gap in gaps_of(text, 4) {
                assert!(
                    !gap.answer.is_empty() && gap.prompt.contains(BLANK),
                    "{gap:?}"
                );
            }
        }
    }
}
