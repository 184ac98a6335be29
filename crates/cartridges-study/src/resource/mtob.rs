//! MTOB: a language learned from one grammar book (Tanzer et al., arXiv 2309.16575).

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::config::ResourceConfig;
use super::document::SharedCodec;
use super::error::ResourceError;
use super::json::read_values;
use super::material::{Material, Shape};
use super::notes::Notes;
use super::read::file_name;

/// Names of the fields of a pair, besides those in the configuration.
const PAIR_FIELDS: [(&str, &str); 2] = [("original", "translation"), ("original", "ground_truth")];

/// A grammar book, sentences with their translation, and a word list, of which at least one is given.
/// A context is a chunk of all of it, behind a sentence that says what it is.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct MtobConfig {
    /// The language (default `Kalamang`).
    pub language: String,
    /// The language of the translations (default `English`).
    pub translated_into: String,
    /// The grammar book: a text, LaTeX, HTML or PDF file.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub grammar_book: Option<PathBuf>,
    /// JSON file with sentence pairs: a list of objects, or an object with such lists.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sentences: Option<PathBuf>,
    /// Where the file with the pairs has several lists, the one to read, such as `train`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sentences_list: Option<String>,
    /// Names of a pair's fields, the sentence and its translation (default: `original` and
    /// `translation` or `ground_truth`).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub sentence_fields: Option<(String, String)>,
    /// JSON file with words: an object of words with their meaning (a text or a list of texts), or
    /// an object with such objects by direction.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub word_list: Option<PathBuf>,
}

impl Default for MtobConfig {
    fn default() -> Self {
        Self {
            language: "Kalamang".to_owned(),
            translated_into: "English".to_owned(),
            grammar_book: None,
            sentences: None,
            sentences_list: None,
            sentence_fields: None,
            word_list: None,
        }
    }
}

impl MtobConfig {
    pub(super) fn material(&self, codec: &SharedCodec) -> Result<Material, ResourceError> {
        let (language, other) = (&self.language, &self.translated_into);
        let mut notes = Notes::default();
        let mut parts = Vec::new();
        if let Some(path) = &self.grammar_book {
            let book = ResourceConfig::for_path(path).material(codec)?;
            notes.merge(&book.name, book.notes);
            let book = book.text.trim();
            parts.push(format!("<grammar-book>\n{book}\n</grammar-book>"));
        }
        if let Some(path) = &self.sentences {
            let lines = self.pairs(&read_values(path)?, path, &mut notes)?;
            parts.push(format!(
                "Sentences in {language} with their translation into {other}:\n<sentences>\n{}\n\
                 </sentences>",
                lines.join("\n")
            ));
        }
        if let Some(path) = &self.word_list {
            let lines = words(&read_values(path)?, path, &mut notes)?;
            parts.push(format!("<word-list>\n{}\n</word-list>", lines.join("\n")));
        }
        if parts.is_empty() {
            return Err(ResourceError::Field {
                kind: "mtob",
                field: "grammar_book",
                found: "missing".to_owned(),
                expected: "at least one of grammar_book, sentences and word_list",
            });
        }
        Ok(Material {
            name: language.clone(),
            text: parts.join("\n\n"),
            shape: Shape::Running {
                intro: format!(
                    "The following is an excerpt from a grammar book of the language {language}, \
                     with example sentences and words translated into {other}."
                ),
            },
            notes,
        })
    }

    /// A line per pair: `sentence: translation`.
    fn pairs(
        &self,
        root: &Value,
        path: &Path,
        notes: &mut Notes,
    ) -> Result<Vec<String>, ResourceError> {
        let format = |reason: String| ResourceError::format(path, "sentence pairs", reason);
        let list = match (root, &self.sentences_list) {
            (Value::Object(lists), Some(name)) => lists.get(name).and_then(Value::as_array),
            (Value::Array(list), None) => Some(list),
            (Value::Object(lists), None) => {
                let mut found = lists.values().filter_map(Value::as_array);
                found.next().filter(|_| found.next().is_none())
            }
            _ => None,
        };
        let list = list.ok_or_else(|| match &self.sentences_list {
            Some(name) => format(format!("there is no list {name:?} (sentences_list)")),
            None => format(
                "expected one list; where an object has several, set sentences_list".to_owned(),
            ),
        })?;
        let own = self.sentence_fields.as_ref();
        let fields: Vec<(&str, &str)> = match own {
            Some((a, b)) => vec![(a, b)],
            None => PAIR_FIELDS.to_vec(),
        };
        let mut lines = Vec::new();
        for (i, pair) in list.iter().enumerate() {
            let text = |field: &str| pair.get(field).and_then(Value::as_str).map(str::trim);
            let found = fields.iter().find_map(|(a, b)| Some((text(a)?, text(b)?)));
            match found {
                Some((a, b)) if !a.is_empty() && !b.is_empty() => lines.push(format!("{a}: {b}")),
                // The first entry of the benchmark's lists is a canary, there to be skipped.
                _ => notes.add(
                    "entry is no sentence pair, left out",
                    format!("{} {i}", file_name(path)),
                ),
            }
        }
        match lines.is_empty() {
            true => Err(format(format!(
                "no entry has two texts by the names {}",
                fields
                    .iter()
                    .map(|(a, b)| format!("{a:?} and {b:?}"))
                    .collect::<Vec<_>>()
                    .join(", or ")
            ))),
            false => Ok(lines),
        }
    }
}

/// A line per word: `word: meaning; meaning`.
fn words(root: &Value, path: &Path, notes: &mut Notes) -> Result<Vec<String>, ResourceError> {
    let format = |reason: &str| ResourceError::format(path, "a word list", reason);
    let Value::Object(all) = root else {
        return Err(format("expected an object of words"));
    };
    let mut lines = Vec::new();
    let mut line = |word: &str, meaning: &Value, lines: &mut Vec<String>| {
        let meanings: Vec<&str> = match meaning {
            Value::String(one) => vec![one],
            Value::Array(all) => all.iter().filter_map(Value::as_str).collect(),
            _ => Vec::new(),
        };
        let meanings: Vec<&str> = meanings
            .into_iter()
            .map(str::trim)
            .filter(|meaning| !meaning.is_empty())
            .collect();
        match meanings.is_empty() {
            true => notes.add("word without a meaning left out", word),
            false => lines.push(format!("{word}: {}", meanings.join("; "))),
        }
    };
    for (name, value) in all {
        match value {
            Value::Object(words) => {
                lines.push(format!("[{name}]"));
                for (word, meaning) in words {
                    line(word, meaning, &mut lines);
                }
            }
            meaning => line(name, meaning, &mut lines),
        }
    }
    match lines.is_empty() {
        true => Err(format("there is no word in it")),
        false => Ok(lines),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chunker::test_codec::ByteCodec;
    use proptest::prelude::*;
    use serde_json::json;
    use std::sync::Arc;

    #[test]
    fn book_sentences_and_words_become_one_text() {
        let folder = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = folder.path().join(name);
            std::fs::write(&path, text).unwrap();
            path
        };
        let config = MtobConfig {
            grammar_book: Some(write("book.txt", "Verbs come last.\n")),
            sentences: Some(write(
                "train.json",
                r#"[{"canary": "x"}, {"original": "Ma bot.", "translation": "He goes."}]"#,
            )),
            word_list: Some(write(
                "words.json",
                r#"{"ke": {"bot": ["verb", "to go"], "ma": []}, "ek": {"he": "ma"}}"#,
            )),
            ..MtobConfig::default()
        };
        let codec: SharedCodec = Arc::new(ByteCodec);
        let material = config.material(&codec).unwrap();
        assert_eq!(
            material.text,
            "<grammar-book>\nVerbs come last.\n</grammar-book>\n\nSentences in Kalamang with their \
             translation into English:\n<sentences>\nMa bot.: He goes.\n</sentences>\n\n\
             <word-list>\n[ke]\nbot: verb; to go\n[ek]\nhe: ma\n</word-list>"
        );
        let notes: Vec<String> = material
            .notes
            .finish()
            .iter()
            .map(|n| n.to_string())
            .collect();
        assert_eq!(
            notes,
            [
                "entry is no sentence pair, left out (1: train.json 0)",
                "word without a meaning left out (1: ma)"
            ]
        );
        assert!(MtobConfig::default().material(&codec).is_err());
    }

    #[test]
    fn lists_and_fields_can_be_named() {
        let root = json!({"note": "n", "train": [{"kgv": "a", "eng": "b"}], "test": [
            {"kgv": "c", "eng": "d"}]});
        let mut config = MtobConfig::default();
        let path = Path::new("pairs.json");
        let error = config
            .pairs(&root, path, &mut Notes::default())
            .unwrap_err();
        assert!(error.to_string().contains("sentences_list"), "{error}");
        config.sentences_list = Some("train".to_owned());
        let error = config
            .pairs(&root, path, &mut Notes::default())
            .unwrap_err();
        assert!(error.to_string().contains("ground_truth"), "{error}");
        config.sentence_fields = Some(("kgv".to_owned(), "eng".to_owned()));
        let lines = config.pairs(&root, path, &mut Notes::default()).unwrap();
        assert_eq!(lines, ["a: b"]);
    }

    proptest! {
        #[test]
        fn odd_values_never_panic(text in "[\\[\\]{}:,\"a0 ]{0,40}", inner in "[\\[\\]{}:,\"a ]{0,20}") {
            let config = MtobConfig::default();
            for text in [text, format!("[{{\"original\":{inner}}}]"), format!("{{\"a\":{inner}}}")] {
                if let Ok(value) = serde_json::from_str(&text) {
                    let _ = config.pairs(&value, Path::new("x"), &mut Notes::default());
                    let _ = words(&value, Path::new("x"), &mut Notes::default());
                }
            }
        }
    }
}
