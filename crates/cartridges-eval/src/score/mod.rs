//! Scores of generated texts, equal to the published implementations.

mod answer;
mod bleu;
mod choice;
mod chrf;
mod difflib;
#[cfg(test)]
mod fixtures;
mod metric;
mod needle;
mod ngrams;
mod squad;
mod tokenizer_13a;
mod white_space;

pub use answer::{
    after_thinking, final_answer, reply, tagged_answer, tagged_answers, without_end_markers,
};
pub use bleu::Bleu;
pub use choice::{Choice, lettered_option, nearest_option};
pub use chrf::Chrf;
pub use difflib::{difflib_nearest, difflib_ratio};
pub use metric::{CorpusMetric, corpus_value, sum_statistics};
pub use needle::{NamedVariables, needle_found, needle_text, tracked_variables};
pub use squad::{SquadExactMatch, SquadF1, squad_exact_match, squad_f1, squad_normalised};
