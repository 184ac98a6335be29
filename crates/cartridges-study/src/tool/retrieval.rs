//! A search in the texts of the run.

use serde::{Deserialize, Serialize};
use serde_json::{Value, json};

use super::bm25::Bm25;
use super::error::ToolError;
use super::tool_set::{ToolDefinition, ToolSet};
use crate::resource::Resource;

const NAME: &str = "retrieve";
/// Stands between passages that do not follow each other.
const OMITTED: &str = "\n\n[... omitted chunks ...]\n\n";

/// A search by BM25 in the texts of all resources, cut into passages. The model calls it as `retrieve`
/// with a `query` and, if it wants more than one passage, `top_k`.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct RetrievalConfig {
    /// The longest passage in characters (default 2000; the reference has 10 000). Passages end at a
    /// paragraph, a line or a word.
    pub max_chars_per_chunk: usize,
    /// The most passages that one call gives, whatever `top_k` says (default 5).
    pub max_top_k: usize,
}

impl Default for RetrievalConfig {
    fn default() -> Self {
        Self {
            max_chars_per_chunk: 2000,
            max_top_k: 5,
        }
    }
}

impl RetrievalConfig {
    pub(super) fn check(&self) -> Result<(), ToolError> {
        for (field, value) in [
            ("max_chars_per_chunk", self.max_chars_per_chunk),
            ("max_top_k", self.max_top_k),
        ] {
            if value == 0 {
                return Err(ToolError::Field {
                    kind: "retrieval",
                    field,
                    found: "0".to_owned(),
                    expected: "at least 1",
                });
            }
        }
        Ok(())
    }
}

struct Passage {
    /// The text's place among the resources.
    resource: usize,
    text: String,
}

/// The tool.
pub struct Retrieval {
    names: Vec<String>,
    passages: Vec<Passage>,
    index: Bm25,
    max_top_k: usize,
    definitions: [ToolDefinition; 1],
}

impl Retrieval {
    /// Indexes the texts of `resources`.
    ///
    /// # Errors
    /// If the configuration makes no sense or no resource has a text.
    pub fn new(
        config: &RetrievalConfig,
        resources: &[Box<dyn Resource>],
    ) -> Result<Self, ToolError> {
        config.check()?;
        let mut passages = Vec::new();
        for (resource, document) in resources.iter().enumerate() {
            let Some(document) = document.document() else {
                continue;
            };
            let texts = cut(document.text(), config.max_chars_per_chunk);
            passages.extend(texts.into_iter().map(|text| Passage {
                resource,
                text: text.to_owned(),
            }));
        }
        if passages.is_empty() {
            return Err(ToolError::NoText);
        }
        let index = Bm25::new(passages.iter().map(|passage| passage.text.as_str()));
        Ok(Self {
            names: resources.iter().map(|r| r.name().to_owned()).collect(),
            index,
            passages,
            max_top_k: config.max_top_k,
            definitions: [ToolDefinition {
                name: NAME.to_owned(),
                description:
                    "Searches the whole text, of which only a part is in view, for words and \
                    gives the passages that fit best, in the order of the text."
                        .to_owned(),
                input_schema: json!({
                    "type": "object",
                    "properties": {
                        "query": {
                            "type": "string",
                            "description": "Words that the passage should have.",
                        },
                        "top_k": {
                            "type": "integer",
                            "description": "How many passages to give.",
                            "default": 1,
                            "minimum": 1,
                            "maximum": config.max_top_k,
                        },
                    },
                    "required": ["query"],
                }),
            }],
        })
    }
}

impl ToolSet for Retrieval {
    fn definitions(&self) -> &[ToolDefinition] {
        &self.definitions
    }

    fn call(&mut self, _: &str, input: &Value) -> Result<String, String> {
        let query = input.get("query").and_then(Value::as_str);
        let query = query.ok_or("`query` is missing, expected a text")?;
        let top_k = match input.get("top_k") {
            None | Some(Value::Null) => 1,
            Some(value) => value
                .as_u64()
                .filter(|&k| k > 0)
                .ok_or_else(|| format!("`top_k` is {value}, expected a number of at least 1"))?,
        };
        let count = usize::try_from(top_k)
            .unwrap_or(usize::MAX)
            .min(self.max_top_k);
        let mut found = self.index.best(query, count);
        if found.is_empty() {
            return Err("no passage has any of these words".to_owned());
        }
        found.sort_unstable();
        let mut out = String::new();
        let mut before: Option<usize> = None;
        for at in found {
            let passage = &self.passages[at];
            let follows = before
                .is_some_and(|b| b + 1 == at && self.passages[b].resource == passage.resource);
            if before.is_some() {
                out.push_str(if follows { "\n" } else { OMITTED });
            }
            if self.names.len() > 1 && !follows {
                out.push_str(&format!("From {}:\n", self.names[passage.resource]));
            }
            out.push_str(&passage.text);
            before = Some(at);
        }
        Ok(out)
    }
}

/// Pieces of at most `longest` characters that end at a paragraph, else at a line, else at a space, if
/// there is one in their last half. Blank ones are left out.
fn cut(text: &str, longest: usize) -> Vec<&str> {
    let mut out = Vec::new();
    let mut rest = text;
    while let Some((end, _)) = rest.char_indices().nth(longest) {
        let (head, half) = (&rest[..end], end / 2);
        let at = ["\n\n", "\n", " "]
            .iter()
            .find_map(|mark| {
                head.rfind(mark)
                    .filter(|&at| at > half)
                    .map(|at| at + mark.len())
            })
            .unwrap_or(end);
        out.push(&rest[..at]);
        rest = &rest[at..];
    }
    out.push(rest);
    out.retain(|piece| !piece.trim().is_empty());
    out.into_iter().map(str::trim_end).collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::self_study::SelfStudyConfig;
    use crate::self_study::tests::resources;

    const TEXT: &str = "The lamp burns whale oil.\n\nIts keeper is Edda Falk, who came from Nordvik.\n\n\
        The bell rings in fog.\n\nBoats come on Tuesdays.";

    fn tool(longest: usize) -> Retrieval {
        let config = RetrievalConfig {
            max_chars_per_chunk: longest,
            max_top_k: 3,
        };
        Retrieval::new(&config, &resources(&SelfStudyConfig::default(), TEXT)).unwrap()
    }

    #[test]
    fn passages_come_in_the_order_of_the_text() {
        let mut tool = tool(50);
        let mut ask = |input: Value| tool.call("retrieve", &input);
        assert_eq!(
            ask(json!({"query": "Who is the keeper?"})).unwrap(),
            "Its keeper is Edda Falk, who came from Nordvik."
        );
        assert_eq!(
            ask(json!({"query": "boats lamp", "top_k": 9})).unwrap(),
            format!(
                "The lamp burns whale oil.{OMITTED}The bell rings in fog.\n\nBoats come on Tuesdays."
            )
        );
        assert_eq!(
            ask(json!({"query": "keeper bell", "top_k": 2})).unwrap(),
            "Its keeper is Edda Falk, who came from Nordvik.\nThe bell rings in fog.\n\nBoats come on \
             Tuesdays."
        );
        for (input, said) in [
            (json!({"query": "zebra"}), "no passage"),
            (json!({}), "`query`"),
            (json!({"query": "bell", "top_k": 0}), "`top_k` is 0"),
            (json!({"query": "bell", "top_k": "two"}), "`top_k`"),
        ] {
            let error = ask(input).unwrap_err();
            assert!(error.contains(said), "{error}");
        }
    }

    #[test]
    fn pieces_are_bounded_and_lose_nothing_but_white_space() {
        for longest in [1, 7, 30, 50, 1000] {
            let pieces = cut(TEXT, longest);
            assert!(pieces.iter().all(|p| p.chars().count() <= longest));
            let squeeze = |text: &str| text.split_whitespace().collect::<String>();
            assert_eq!(squeeze(&pieces.concat()), squeeze(TEXT));
        }
        assert_eq!(cut("ééééé", 2), ["éé", "éé", "é"]);
        assert!(cut(" \n ", 2).is_empty());
    }

    #[test]
    fn nothing_to_search_and_odd_numbers_are_refused() {
        let error = Retrieval::new(&RetrievalConfig::default(), &[])
            .err()
            .unwrap();
        assert!(matches!(error, ToolError::NoText));
        let config = RetrievalConfig {
            max_top_k: 0,
            ..RetrievalConfig::default()
        };
        let error = Retrieval::new(&config, &[]).err().unwrap();
        assert!(error.to_string().contains("max_top_k"), "{error}");
    }
}
