//! Candidate answers: the gold answer among gold answers of other questions.

use crate::matching::normalised_words;
use crate::questions::QuestionList;
use crate::random::SplitMix64;

/// Candidates per question, as far as the list has enough different answers.
pub const CHOICES: usize = 4;

/// The candidate answers of one question.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Candidates {
    /// The answers, in shuffled order.
    pub texts: Vec<String>,
    /// Where the gold answer stands.
    pub gold: usize,
}

/// Candidates for each question of a list, in its order: its options, or if it has none, [`CHOICES`]. The wrong ones are gold answers of other
/// questions about the same document, so knowing the style of its answers does not help.
///
/// No wrong candidate has the same words as an accepted answer or as another candidate. There are
/// [`CHOICES`] of them, or fewer if the list has not that many different answers: a question
/// without any wrong candidate is always chosen rightly. Equal seeds give equal candidates.
pub fn candidates(list: &QuestionList, seed: u64) -> Vec<Candidates> {
    let golds: Vec<(&str, Vec<String>)> = list
        .questions
        .iter()
        .map(|q| (q.gold(), normalised_words(q.gold())))
        .collect();
    let of_one = |(index, question): (usize, &crate::questions::Question)| {
        let among = question.options.iter().position(|o| o == question.gold());
        if let Some(gold) = among {
            return Candidates {
                texts: question.options.clone(),
                gold,
            };
        }
        let mut rng = SplitMix64::stream(seed, index as u64);
        let mut taken: Vec<Vec<String>> = question
            .answers
            .iter()
            .map(|answer| normalised_words(answer))
            .collect();
        let mut order: Vec<usize> = (0..golds.len()).filter(|other| *other != index).collect();
        rng.shuffle(&mut order);
        let mut texts = vec![question.gold().to_owned()];
        for other in order {
            if texts.len() == CHOICES {
                break;
            }
            let (text, words) = &golds[other];
            if !taken.contains(words) {
                taken.push(words.clone());
                texts.push((*text).to_owned());
            }
        }
        let gold = rng.below(texts.len());
        texts.swap(0, gold);
        Candidates { texts, gold }
    };
    list.questions.iter().enumerate().map(of_one).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::questions::Question;

    fn list(answers: &[&[&str]]) -> QuestionList {
        let question = |(i, answers): (usize, &&[&str])| Question {
            id: i.to_string(),
            question: "?".into(),
            answers: answers.iter().map(|a| (*a).to_string()).collect(),
            ..Question::default()
        };
        QuestionList {
            id: "l".into(),
            licence: String::new(),
            corpus: String::new(),
            questions: answers.iter().enumerate().map(question).collect(),
        }
    }

    #[test]
    fn four_different_ones_with_the_gold_at_its_place() {
        let many: Vec<[String; 1]> = (0..40).map(|i| [format!("answer {i}")]).collect();
        let slices: Vec<Vec<&str>> = many.iter().map(|a| vec![a[0].as_str()]).collect();
        let slices: Vec<&[&str]> = slices.iter().map(Vec::as_slice).collect();
        let list = list(&slices);
        let all = candidates(&list, 1);
        let mut places = [0; CHOICES];
        for (c, q) in all.iter().zip(&list.questions) {
            assert_eq!(c.texts.len(), CHOICES);
            assert_eq!(c.texts[c.gold], q.gold());
            let mut unique = c.texts.clone();
            unique.sort_unstable();
            unique.dedup();
            assert_eq!(unique.len(), CHOICES);
            places[c.gold] += 1;
        }
        assert!(places.iter().all(|n| *n > 2), "{places:?}");
        assert_eq!(all, candidates(&list, 1));
        assert_ne!(all, candidates(&list, 2));
    }

    #[test]
    fn accepted_answers_are_never_wrong_candidates() {
        let list = list(&[
            &["six", "6"],
            &["SIX"],
            &["6"],
            &["fire"],
            &["Fire"],
            &["otter"],
        ]);
        for seed in 0..20 {
            let all = candidates(&list, seed);
            let mut first = all[0].texts.clone();
            first.sort_by_key(|t| t.to_lowercase());
            assert_eq!(first.len(), 3, "{first:?}");
            assert_eq!(first[0].to_lowercase(), "fire");
            assert_eq!(first[1..], ["otter", "six"]);
            // "SIX" accepts only itself; "6" is another answer to it.
            assert!(!all[1].texts.contains(&"six".to_string()));
        }
    }

    #[test]
    fn a_lone_question_has_its_gold_only() {
        let all = candidates(&list(&[&["six"]]), 0);
        assert_eq!(all[0].texts, ["six"]);
        assert_eq!(all[0].gold, 0);
    }
}
