//! How much of a document a cartridge holds.
//!
//! The same questions are asked without the document, with it in a system message, and behind a
//! cartridge. Three numbers tell how close the cartridge comes to the document: the likelihood of
//! the gold answers, the choice among four candidate answers, and the answers that are generated.
#![recursion_limit = "256"]
#![deny(missing_docs)]

mod candidates;
mod condition;
mod error;
mod figure;
mod grade;
mod matching;
mod measure;
mod measurement;
mod page;
mod prompt;
mod questions;
mod random;
mod report;
mod retriever;
mod score;
mod statistics;
mod suite;
mod unrelated;
mod written;

pub use candidates::{CHOICES, Candidates, candidates};
pub use condition::Condition;
pub use error::EvalError;
pub use figure::{Figure, Ground, PngError, escaped};
pub use grade::Grade;
pub use matching::{answer_occurs, normalised_words};
pub use measure::{MeasureOptions, generate_answers, measure, messages};
pub use measurement::{
    Build, CandidateRecord, ConditionKind, Graded, Measurement, QuestionRecord, Score,
};
pub use page::{
    BreakEven, Page, PageError, PageFiles, break_even_with_caching, break_even_with_reading,
    load_reports, page, write_page,
};
pub use prompt::{chat_ids, prompt_ids, thinking_off};
pub use questions::{Question, QuestionError, QuestionList};
pub use report::{Corpus, Machine, Report, Throughput, Timing, gap_closed};
pub use retriever::Retriever;
pub use score::{
    Bleu, Choice, Chrf, CorpusMetric, NamedVariables, SquadExactMatch, SquadF1, after_thinking,
    corpus_value, difflib_nearest, difflib_ratio, final_answer, lettered_option, nearest_option,
    needle_found, needle_text, reply, squad_exact_match, squad_f1, squad_normalised,
    sum_statistics, tagged_answer, tagged_answers, tracked_variables, without_end_markers,
};
pub use statistics::Estimate;
pub use suite::{
    Direction, MtobSuite, Suite, SuiteError, longhealth, mmlu, mtob, multi_turn, needles, qasper,
    quality, variables,
};
pub use unrelated::perplexity;
pub use written::{GeneratedAnswer, Written, measure_written};
