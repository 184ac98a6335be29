//! Question lists: questions about one document, each with the answers that count as right.

use std::collections::HashSet;
use std::io::Read;
use std::path::Path;

use serde::{Deserialize, Serialize};
use serde_json::{Map, Value};

use crate::matching::normalised_words;

/// Far above any real list.
const LARGEST_FILE: u64 = 64 << 20;

/// A question list that cannot be used.
#[derive(Debug, thiserror::Error)]
pub enum QuestionError {
    /// The file could not be read.
    #[error("cannot read the question list {file}: {source}")]
    Read {
        /// The file.
        file: String,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The file is larger than any real list.
    #[error("the question list {file} is larger than {limit} bytes")]
    TooLarge {
        /// The file.
        file: String,
        /// The most bytes read.
        limit: u64,
    },
    /// The text is not JSON.
    #[error("the question list {file} is not JSON: {reason}")]
    Json {
        /// The file.
        file: String,
        /// The parser's words, with line and column.
        reason: String,
    },
    /// A field of the list is missing or wrong.
    #[error("question list {file}: field `{field}`: {problem}")]
    List {
        /// The file.
        file: String,
        /// The field.
        field: &'static str,
        /// What was expected.
        problem: String,
    },
    /// A field of a question is missing or wrong.
    #[error("question list {file}: question {question}: field `{field}`: {problem}")]
    Question {
        /// The file.
        file: String,
        /// The question's id, or its place from 1 where it has none.
        question: String,
        /// The field.
        field: String,
        /// What was expected.
        problem: String,
    },
}

/// One question.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Question {
    /// A name that no other question of the list has.
    pub id: String,
    /// What is asked.
    pub question: String,
    /// Answers that count as right; the first is the gold answer. Never empty.
    pub answers: Vec<String>,
    /// All answers to choose from, the gold answer among them; empty for a free answer.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub options: Vec<String>,
    /// What was asked and answered before it.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub earlier: Vec<(String, String)>,
}

impl Question {
    /// The answer whose likelihood is measured.
    pub fn gold(&self) -> &str {
        self.answers.first().map_or("", String::as_str)
    }
}

/// Questions about one document.
#[derive(Debug, Clone, PartialEq, Eq, Serialize)]
pub struct QuestionList {
    /// Name of the list; the file's where it has none.
    pub id: String,
    /// Terms of use; empty if the file does not say.
    pub licence: String,
    /// File name of the document, beside the list; empty if the file does not say.
    pub corpus: String,
    /// The questions; at least one.
    pub questions: Vec<Question>,
}

impl QuestionList {
    /// Reads and checks a list from a JSON file.
    ///
    /// # Errors
    /// [`QuestionError`], with the file, the question and the field.
    pub fn from_file(path: &Path) -> Result<Self, QuestionError> {
        let file = path.display().to_string();
        let mut text = String::new();
        std::fs::File::open(path)
            .and_then(|f| f.take(LARGEST_FILE + 1).read_to_string(&mut text))
            .map_err(|source| QuestionError::Read {
                file: file.clone(),
                source,
            })?;
        if text.len() as u64 > LARGEST_FILE {
            return Err(QuestionError::TooLarge {
                file,
                limit: LARGEST_FILE,
            });
        }
        Self::from_json(&text, &file)
    }

    /// Reads and checks a list from JSON text; `name` stands for the file in errors. Unknown
    /// fields are allowed beside `questions` but not within a question.
    ///
    /// # Errors
    /// [`QuestionError`], with the name, the question and the field.
    pub fn from_json(text: &str, name: &str) -> Result<Self, QuestionError> {
        // Windows editors like to put a byte order mark in front.
        let text = text.strip_prefix('\u{feff}').unwrap_or(text);
        let json: Value = serde_json::from_str(text).map_err(|error| QuestionError::Json {
            file: name.to_owned(),
            reason: error.to_string(),
        })?;
        let wrong = |field, problem: &str| QuestionError::List {
            file: name.to_owned(),
            field,
            problem: problem.to_owned(),
        };
        let Value::Object(top) = json else {
            return Err(QuestionError::Json {
                file: name.to_owned(),
                reason: "expected an object with `questions`".to_owned(),
            });
        };
        let optional = |field| match top.get(field) {
            None | Some(Value::Null) => Ok(String::new()),
            Some(Value::String(text)) => Ok(text.clone()),
            Some(_) => Err(wrong(field, "expected a text")),
        };
        let id = match optional("id")? {
            id if id.trim().is_empty() => name.to_owned(),
            id => id,
        };
        let (licence, corpus) = (optional("licence")?, optional("corpus")?);
        let Some(Value::Array(items)) = top.get("questions") else {
            return Err(wrong("questions", "expected a list"));
        };
        if items.is_empty() {
            return Err(wrong("questions", "the list is empty"));
        }
        let mut questions = Vec::with_capacity(items.len());
        let mut ids = HashSet::new();
        for (index, item) in items.iter().enumerate() {
            let question = Reader::new(name, index, item)?.read()?;
            if !ids.insert(question.id.clone()) {
                return Err(QuestionError::Question {
                    file: name.to_owned(),
                    question: format!("`{}`", question.id),
                    field: "id".to_owned(),
                    problem: "another question has the same id".to_owned(),
                });
            }
            questions.push(question);
        }
        Ok(Self {
            id,
            licence,
            corpus,
            questions,
        })
    }
}

/// One question's JSON, with what errors name.
struct Reader<'a> {
    file: &'a str,
    question: String,
    fields: &'a Map<String, Value>,
}

impl<'a> Reader<'a> {
    fn new(file: &'a str, index: usize, item: &'a Value) -> Result<Self, QuestionError> {
        let place = format!("number {}", index + 1);
        let Some(fields) = item.as_object() else {
            return Err(QuestionError::Question {
                file: file.to_owned(),
                question: place,
                field: "questions".to_owned(),
                problem: "expected an object with `id`, `question` and `answers`".to_owned(),
            });
        };
        let question = match fields.get("id") {
            Some(Value::String(id)) if !id.trim().is_empty() => format!("`{id}`"),
            _ => place,
        };
        Ok(Self {
            file,
            question,
            fields,
        })
    }

    fn read(&self) -> Result<Question, QuestionError> {
        let known = ["id", "question", "answers", "options"];
        if let Some(field) = self.fields.keys().find(|k| !known.contains(&k.as_str())) {
            return Err(self.wrong(field, "is not a field of a question"));
        }
        let id = self.text("id")?;
        let question = self.text("question")?;
        let answers = self.texts("answers")?;
        let options = match self.fields.get("options") {
            None | Some(Value::Null) => Vec::new(),
            Some(_) => self.texts("options")?,
        };
        if !options.is_empty() && !options.contains(&answers[0]) {
            return Err(self.wrong("options", "the first of `answers` is not among them"));
        }
        Ok(Question {
            id,
            question,
            answers,
            options,
            earlier: Vec::new(),
        })
    }

    /// A list of texts, at least one.
    fn texts(&self, field: &str) -> Result<Vec<String>, QuestionError> {
        let Some(Value::Array(items)) = self.fields.get(field) else {
            return Err(self.wrong(field, "expected a list of texts"));
        };
        if items.is_empty() {
            return Err(self.wrong(field, "the list is empty"));
        }
        let text = |(index, item): (usize, &Value)| {
            let field = format!("{field}[{index}]");
            let text = item
                .as_str()
                .ok_or_else(|| self.wrong(&field, "expected a text"))?
                .trim();
            match normalised_words(text).is_empty() {
                true => Err(self.wrong(&field, "expected a text with a letter or a digit")),
                false => Ok(text.to_owned()),
            }
        };
        items.iter().enumerate().map(text).collect()
    }

    fn text(&self, field: &str) -> Result<String, QuestionError> {
        match self.fields.get(field) {
            Some(Value::String(text)) if !text.trim().is_empty() => Ok(text.trim().to_owned()),
            _ => Err(self.wrong(field, "expected a text that is not empty")),
        }
    }

    fn wrong(&self, field: &str, problem: &str) -> QuestionError {
        QuestionError::Question {
            file: self.file.to_owned(),
            question: self.question.clone(),
            field: field.to_owned(),
            problem: problem.to_owned(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const DEMO: &str = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../assets/harrow_point/questions.json"
    );

    #[test]
    fn the_demo_list_is_read() {
        let list = QuestionList::from_file(Path::new(DEMO)).unwrap();
        assert_eq!(list.corpus, "corpus.txt");
        assert!(list.questions.len() >= 18);
        assert_eq!(list.questions[1].gold(), "six");
        assert_eq!(list.questions[1].answers, ["six", "6"]);
    }

    #[test]
    fn a_list_without_a_name_has_that_of_its_file() {
        let json = r#"{"questions":[{"id":"a","question":"q?","answers":["x"]}]}"#;
        assert_eq!(
            QuestionList::from_json(json, "q.json").unwrap().id,
            "q.json"
        );
    }

    #[test]
    fn refusals_name_file_question_and_field() {
        let two = |second: &str| {
            format!(
                r#"{{"id":"l","note":1,"questions":[{{"id":"a","question":"q?","answers":["x"]}},{second}]}}"#
            )
        };
        let cases: [(String, &[&str]); 14] = [
            ("{".into(), &["not JSON", "line 1"]),
            ("[]".into(), &["expected an object"]),
            (r#"{"id":7,"questions":[]}"#.into(), &["`id`", "a text"]),
            (r#"{"id":"l"}"#.into(), &["`questions`", "a list"]),
            (
                r#"{"id":"l","questions":[]}"#.into(),
                &["`questions`", "empty"],
            ),
            (two("3"), &["number 2", "object"]),
            (
                two(r#"{"question":"q","answers":["x"]}"#),
                &["number 2", "`id`"],
            ),
            (
                two(r#"{"id":"a","question":"q","answers":["x"]}"#),
                &["`a`", "same id"],
            ),
            (
                two(r#"{"id":"b","question":" ","answers":["x"]}"#),
                &["`b`", "`question`"],
            ),
            (
                two(r#"{"id":"b","question":"q","answers":"x"}"#),
                &["`b`", "`answers`"],
            ),
            (
                two(r#"{"id":"b","question":"q","answers":[]}"#),
                &["`b`", "`answers`", "empty"],
            ),
            (
                two(r#"{"id":"b","question":"q","answers":["x","-"]}"#),
                &["`b`", "`answers[1]`"],
            ),
            (
                two(r#"{"id":"b","question":"q","answers":["x"],"options":["y","z"]}"#),
                &["`b`", "`options`", "not among"],
            ),
            (
                two(r#"{"id":"b","question":"q","answer":["x"]}"#),
                &["`b`", "`answer`"],
            ),
        ];
        for (json, words) in cases {
            let error = QuestionList::from_json(&json, "list.json")
                .unwrap_err()
                .to_string();
            for word in words.iter().chain(&["list.json"]) {
                assert!(error.contains(word), "{json}: {error}: no {word}");
            }
        }
        let error = QuestionList::from_file(Path::new("/nowhere/q.json")).unwrap_err();
        assert!(error.to_string().contains("/nowhere/q.json"));
    }
}
