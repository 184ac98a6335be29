//! What an answer that the model wrote is worth.

use serde::{Deserialize, Serialize};

use crate::matching::answer_occurs;
use crate::measurement::Score;
use crate::questions::Question;
use crate::score::{
    Bleu, Chrf, CorpusMetric, SquadExactMatch, SquadF1, lettered_option, nearest_option,
    needle_found, reply, squad_f1, sum_statistics, tagged_answer, tracked_variables,
};
use crate::statistics::{ratio, resampled};

/// How answers are graded.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Grade {
    /// An accepted answer occurs in it ([`answer_occurs`]).
    #[default]
    Occurs,
    /// What stands in `<answer>` is nearest to the right option (LongHealth); without `<answer>`, the answer
    /// names the right option and no other.
    Option,
    /// What stands in `<answer>` names the right option's letter (MMLU).
    Letter,
    /// Words in common with an accepted answer (SQuAD, QASPER).
    Words,
    /// A translation: chrF, chrF++ and BLEU over all questions.
    Translation,
    /// The hidden values (NIAH).
    Needle,
    /// The variables of a chain (variable tracking).
    Variables,
}

/// What one answer is worth.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Mark {
    /// From 0 to 1.
    pub score: f64,
    /// Right or wrong, where the grade knows only these.
    pub right: Option<bool>,
    /// Whether there is an answer in the form that was asked for.
    pub answered: bool,
}

impl Mark {
    fn right(right: bool, answered: bool) -> Self {
        Self {
            score: f64::from(u8::from(right)),
            right: Some(right),
            answered,
        }
    }

    fn share(score: f64, answered: bool) -> Self {
        Self {
            score,
            right: None,
            answered,
        }
    }
}

impl Grade {
    pub(crate) fn mark(self, question: &Question, completion: &str) -> Mark {
        let words = answer_text(completion);
        match self {
            Self::Occurs => Mark::right(
                answer_occurs(completion, &question.answers),
                !words.is_empty(),
            ),
            Self::Option => {
                let mut choice = nearest_option(completion, &question.options);
                if !choice.answered {
                    choice.picked = only_named(words, &question.options);
                    choice.answered = choice.picked.is_some();
                }
                let right = choice.has_text(&question.options, question.gold());
                Mark::right(right, choice.answered)
            }
            Self::Letter => {
                let choice = lettered_option(completion, question.options.len());
                let right = choice.has_text(&question.options, question.gold());
                Mark::right(right, choice.answered)
            }
            Self::Words => Mark::share(squad_f1(words, &question.answers), !words.is_empty()),
            Self::Translation => {
                let chrf = Chrf::chars();
                let sums = chrf.statistics(words, &references(question));
                Mark::share(chrf.value(&sums) / 100.0, !words.is_empty())
            }
            Self::Needle => Mark::right(
                needle_found(completion, &question.answers),
                !words.is_empty(),
            ),
            Self::Variables => {
                let found = tracked_variables(completion, &question.answers);
                Mark::share(found.f1, found.answered)
            }
        }
    }

    /// The metrics over all questions, from the samples of each.
    pub(crate) fn scores(
        self,
        questions: &[Question],
        answers: &[Vec<String>],
        seed: u64,
    ) -> Vec<Score> {
        let all = || questions.iter().zip(answers);
        let mean = |name: &str, of: &dyn Fn(&Question, &str) -> f64| {
            let row = |(question, answers): (&Question, &Vec<String>)| {
                let sum: f64 = answers.iter().map(|answer| of(question, answer)).sum();
                [sum, answers.len() as f64]
            };
            let rows: Vec<[f64; 2]> = all().map(row).collect();
            ratio(&rows, seed).map(|estimate| Score {
                name: name.to_owned(),
                best: 1.0,
                estimate,
            })
        };
        // Metrics count to 100; those that are shares of questions are reported as shares.
        let corpus = |metric: &dyn CorpusMetric, best: f64| {
            let row = |(question, answers): (&Question, &Vec<String>)| {
                let samples = answers
                    .iter()
                    .map(|answer| metric.statistics(answer_text(answer), &references(question)));
                let samples: Vec<Vec<f64>> = samples.collect();
                sum_statistics(samples.iter().map(Vec::as_slice))
            };
            let rows: Vec<Vec<f64>> = all().map(row).collect();
            let value = |sums: &[f64]| Some(metric.value(sums) * best / 100.0);
            resampled(&rows, seed, value).map(|estimate| Score {
                name: metric.name().to_owned(),
                best,
                estimate,
            })
        };
        let accuracy = |question: &Question, answer: &str| self.mark(question, answer).score;
        let found = match self {
            Self::Occurs | Self::Words => {
                vec![corpus(&SquadExactMatch, 1.0), corpus(&SquadF1, 1.0)]
            }
            Self::Option | Self::Letter | Self::Needle => vec![mean("accuracy", &accuracy)],
            Self::Translation => vec![
                corpus(&Chrf::chars(), 100.0),
                corpus(&Chrf::plus_plus(), 100.0),
                corpus(&Bleu, 100.0),
            ],
            Self::Variables => {
                let of = |question: &Question, answer: &str| {
                    tracked_variables(answer, &question.answers)
                };
                vec![
                    mean("F1", &|q, a| of(q, a).f1),
                    mean("precision", &|q, a| of(q, a).precision),
                    mean("recall", &|q, a| of(q, a).recall),
                ]
            }
        };
        found.into_iter().flatten().collect()
    }
}

/// The option that an answer names, if all others that it names are parts of it.
fn only_named(answer: &str, options: &[String]) -> Option<usize> {
    let named = |option: &&String| answer_occurs(answer, &[option.as_str()]);
    let found: Vec<&String> = options.iter().filter(named).collect();
    let whole = |one: &&&String| {
        found
            .iter()
            .all(|other| answer_occurs(one, &[other.as_str()]))
    };
    let one = found.iter().find(whole)?;
    options.iter().position(|option| option == *one)
}

fn references(question: &Question) -> Vec<&str> {
    question.answers.iter().map(String::as_str).collect()
}

/// What stands in `<answer>`, else all that is not thinking.
fn answer_text(completion: &str) -> &str {
    tagged_answer(completion).unwrap_or_else(|| reply(completion))
}
