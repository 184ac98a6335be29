//! MTOB: translation of a language that is known from one grammar book (Tanzer et al., arXiv 2309.16575).

use std::path::Path;

use cartridges_study::resource::file_name;
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::Suite;
use super::error::SuiteError;
use super::read;
use crate::grade::Grade;
use crate::measure::MeasureOptions;
use crate::questions::Question;

const NAME: &str = "mtob";

/// Which way is translated.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Direction {
    /// Into English.
    #[default]
    Ke,
    /// From English.
    Ek,
}

/// Where the sentences are and how they are asked.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct MtobSuite {
    /// Which way is translated. Default: into English.
    pub direction: Direction,
    /// The list in a file that has several, such as `test_ke`. Default: the only one.
    pub list: Option<String>,
    /// Names of a pair's fields, the language's and English. Default: `original` and `ground_truth`, as the
    /// authors' files have them for their direction.
    pub fields: Option<(String, String)>,
    /// The language. Default Kalamang.
    pub language: String,
    /// Whether the model is to think before it answers.
    pub cot: bool,
}

impl Default for MtobSuite {
    fn default() -> Self {
        Self {
            direction: Direction::Ke,
            list: None,
            fields: None,
            language: "Kalamang".to_owned(),
            cot: false,
        }
    }
}

/// Sentences to translate; scored by chrF over all of them, and by chrF++ and BLEU. Entries without the
/// fields are skipped: the first of the authors' lists is a warning to those who crawl.
///
/// # Errors
/// [`SuiteError`], with the list.
pub fn mtob(path: &Path, settings: &MtobSuite) -> Result<Suite, SuiteError> {
    let wrong = |problem: String| SuiteError::format(NAME, path, problem);
    let root = read::json(NAME, path)?;
    let found = match (&root, &settings.list) {
        (Value::Array(list), None) => list,
        (Value::Object(lists), Some(name)) => lists
            .get(name)
            .and_then(Value::as_array)
            .ok_or_else(|| wrong(format!("there is no list `{name}`")))?,
        (Value::Object(lists), None) => {
            let names = lists.iter().filter(|(_, value)| value.is_array());
            let names: Vec<&String> = names.map(|(name, _)| name).collect();
            match names.as_slice() {
                [name] => lists[*name].as_array().unwrap_or_else(|| unreachable!()),
                _ => return Err(wrong(format!("name one of its lists: {names:?}"))),
            }
        }
        _ => return Err(wrong("expected a list of sentences".to_owned())),
    };
    let language = settings.language.as_str();
    let (from, into) = match settings.direction {
        Direction::Ke => (language, "English"),
        Direction::Ek => ("English", language),
    };
    let (source, target) = match (&settings.fields, settings.direction) {
        (Some((theirs, english)), Direction::Ke) => (theirs.as_str(), english.as_str()),
        (Some((theirs, english)), Direction::Ek) => (english.as_str(), theirs.as_str()),
        (None, _) => ("original", "ground_truth"),
    };
    let form = match settings.cot {
        true => {
            "Think about grammar and choice of words first. Then give the translation in this \
                 form:\n<answer>\nthe translation\n</answer>"
        }
        false => {
            "If you are not sure, give your best guess. Give nothing but the translation, and do \
                  not repeat the sentence."
        }
    };
    let mut questions = Vec::new();
    for (place, item) in found.iter().enumerate() {
        let (Some(sentence), Some(translation)) =
            (read::field(item, source), read::field(item, target))
        else {
            continue;
        };
        questions.push(Question {
            id: format!("{NAME}_{from}_to_{into}_{place}"),
            question: format!(
                "Translate this sentence from {from} into {into}: {sentence}\n\n{form}"
            ),
            answers: vec![translation.to_owned()],
            ..Question::default()
        });
    }
    if questions.is_empty() {
        return Err(wrong(format!(
            "it has no sentences with `{source}` and `{target}`"
        )));
    }
    let options = MeasureOptions {
        instruction: String::new(),
        lead: if settings.cot { "<answer>\n" } else { "" }.to_owned(),
        grade: Grade::Translation,
        max_new_tokens: if settings.cot { 512 } else { 96 },
        ..MeasureOptions::default()
    };
    Ok(Suite::new(
        NAME,
        format!("{} {from} to {into}", file_name(path)),
        questions,
        None,
        options,
    ))
}
