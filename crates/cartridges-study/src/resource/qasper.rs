//! QASPER: papers on language processing (Dasigi et al., arXiv 2105.03011).

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::error::ResourceError;
use super::json::read_values;
use super::material::{Material, Part, Record, Shape};
use super::notes::Notes;
use super::read::file_name;

/// The papers that the reference studies, all of QASPER's training set.
pub const QASPER_PAPERS: [&str; 16] = [
    "1908.06606",
    "1704.05572",
    "1905.08949",
    "1808.09920",
    "1603.01417",
    "1808.03986",
    "1907.08501",
    "1603.07044",
    "1903.00172",
    "1912.01046",
    "1909.00542",
    "1811.08048",
    "2004.02393",
    "1703.06492",
    "1607.06275",
    "1703.04617",
];

/// Papers from a file of the data set: an object of papers by id, a list, or a paper per line, each
/// with `title`, `abstract` and `full_text` (sections with paragraphs, as a list or as columns). A
/// record with its text in `input` is taken as a paper of one section. A context has some sections of
/// one paper behind its title and abstract. Questions and answers are not read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct QasperConfig {
    /// The file, such as `qasper-train-v0.3.json`.
    pub path: PathBuf,
    /// Papers that are read (default: all); [`QASPER_PAPERS`] are those of the reference.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub paper_ids: Vec<String>,
    /// Fewest sections in a context (default 1).
    #[serde(default = "one")]
    pub min_sections_per_prompt: usize,
    /// Most sections in a context (default 3).
    #[serde(default = "three")]
    pub max_sections_per_prompt: usize,
}

fn one() -> usize {
    1
}

fn three() -> usize {
    3
}

impl QasperConfig {
    /// All papers of a file.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            paper_ids: Vec::new(),
            min_sections_per_prompt: one(),
            max_sections_per_prompt: three(),
        }
    }

    pub(super) fn material(&self) -> Result<Material, ResourceError> {
        let (min, max) = (self.min_sections_per_prompt, self.max_sections_per_prompt);
        if min == 0 || min > max {
            return Err(ResourceError::Field {
                kind: "qasper",
                field: "min_sections_per_prompt",
                found: min.to_string(),
                expected: "at least 1 and at most max_sections_per_prompt",
            });
        }
        self.material_of(&read_values(&self.path)?)
    }

    fn material_of(&self, root: &Value) -> Result<Material, ResourceError> {
        let papers: Vec<(String, &Value)> = match root {
            Value::Object(papers) => papers.iter().map(|(id, p)| (id.clone(), p)).collect(),
            Value::Array(papers) => papers
                .iter()
                .enumerate()
                .map(|(i, paper)| match paper.get("id").and_then(Value::as_str) {
                    Some(id) => (id.to_owned(), paper),
                    None => ((i + 1).to_string(), paper),
                })
                .collect(),
            _ => {
                let reason = "expected an object of papers by id or a list of papers";
                return Err(ResourceError::format(&self.path, "QASPER", reason));
            }
        };
        for id in &self.paper_ids {
            if !papers.iter().any(|(there, _)| there == id) {
                return Err(ResourceError::Missing {
                    path: self.path.clone(),
                    what: format!("paper {id:?}"),
                });
            }
        }
        let mut notes = Notes::default();
        let mut text = String::new();
        let mut records = Vec::new();
        for (id, paper) in papers {
            if !self.paper_ids.is_empty() && !self.paper_ids.contains(&id) {
                notes.add("paper not chosen, left out", id);
                continue;
            }
            let sections = sections(paper, &id, &mut notes);
            if sections.is_empty() {
                notes.add("paper without text left out", id);
                continue;
            }
            let line = |field: &str| match paper.get(field).and_then(Value::as_str) {
                Some(value) if !value.trim().is_empty() => {
                    format!("\n<{field}>{}</{field}>", value.trim())
                }
                _ => String::new(),
            };
            let header = format!("<paper id=\"{id}\">{}{}", line("title"), line("abstract"));
            if !text.is_empty() {
                text.push_str("\n\n");
            }
            text.push_str(&header);
            let mut parts = Vec::new();
            for (name, body) in sections {
                let open = format!("<section name=\"{name}\">");
                text.push_str(&format!("\n\n{open}\n"));
                let start = text.len();
                text.push_str(&body);
                let body = start..text.len();
                let close = "</section>".to_owned();
                text.push_str(&format!("\n{close}"));
                parts.push(Part { open, body, close });
            }
            text.push_str("\n</paper>");
            records.push(Record {
                header,
                parts,
                footer: "</paper>".to_owned(),
            });
        }
        if records.is_empty() {
            return Err(ResourceError::Missing {
                path: self.path.clone(),
                what: "paper with text in `full_text` or `input`".to_owned(),
            });
        }
        Ok(Material {
            name: file_name(&self.path),
            text,
            shape: Shape::Records {
                records,
                min_parts: self.min_sections_per_prompt,
                max_parts: self.max_sections_per_prompt,
                max_chars: None,
            },
            notes,
        })
    }
}

/// The sections of a paper that have text: name and text.
fn sections(paper: &Value, id: &str, notes: &mut Notes) -> Vec<(String, String)> {
    if let Some(text) = paper.get("input").and_then(Value::as_str) {
        let text = text.trim();
        return match text.is_empty() {
            true => Vec::new(),
            false => vec![("Text".to_owned(), text.to_owned())],
        };
    }
    let (names, paragraphs): (Vec<&Value>, Vec<&Value>) = match paper.get("full_text") {
        Some(Value::Array(sections)) => sections
            .iter()
            .map(|section| (&section["section_name"], &section["paragraphs"]))
            .unzip(),
        Some(Value::Object(columns)) => {
            let column = |name: &str| columns.get(name).and_then(Value::as_array);
            let names = column("section_name").map(|c| c.iter().collect());
            let paragraphs = column("paragraphs").map(|c| c.iter().collect());
            (names.unwrap_or_default(), paragraphs.unwrap_or_default())
        }
        _ => (Vec::new(), Vec::new()),
    };
    if names.len() != paragraphs.len() {
        notes.add("paper with more names than sections, or fewer", id);
    }
    let mut out = Vec::new();
    for (i, paragraphs) in paragraphs.iter().enumerate() {
        let name = names.get(i).and_then(|name| name.as_str());
        let name = name.unwrap_or("Unnamed").replace('"', "'");
        let paragraphs: Vec<&str> = paragraphs
            .as_array()
            .map(|p| p.iter().filter_map(Value::as_str).collect())
            .unwrap_or_default();
        let body = paragraphs.join("\n\n");
        match body.trim() {
            "" => notes.add("section without text left out", format!("{id}: {name}")),
            body => out.push((name, body.to_owned())),
        }
    }
    out
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chunker::test_codec::WordCodec;
    use crate::resource::loaded::{Drawing, LoadedResource};
    use crate::resource::{Resource, SharedCodec};
    use proptest::prelude::*;
    use rand::SeedableRng;
    use serde_json::json;
    use std::sync::Arc;

    fn by_id() -> Value {
        json!({
            "1908.06606": {"title": "On lamps", "abstract": "We light.", "full_text": [
                {"section_name": "Introduction", "paragraphs": ["One.", "Two."]},
                {"section_name": "Empty", "paragraphs": []},
                {"section_name": "Method", "paragraphs": ["Three."]}
            ], "qas": [{"question": "Secret?"}]},
            "2222.00001": {"title": "Other", "abstract": "", "full_text": []}
        })
    }

    #[test]
    fn all_layouts_give_the_same_paper() {
        let config = QasperConfig::new("qasper.json");
        let first = config.material_of(&by_id()).unwrap();
        assert_eq!(
            first.text,
            "<paper id=\"1908.06606\">\n<title>On lamps</title>\n<abstract>We light.</abstract>\n\n\
             <section name=\"Introduction\">\nOne.\n\nTwo.\n</section>\n\n<section name=\"Method\">\n\
             Three.\n</section>\n</paper>"
        );
        let notes: Vec<String> = first.notes.finish().iter().map(|n| n.to_string()).collect();
        assert_eq!(
            notes,
            [
                "section without text left out (1: 1908.06606: Empty)",
                "paper without text left out (1: 2222.00001)"
            ]
        );
        let columns = json!([{"id": "1908.06606", "title": "On lamps", "abstract": "We light.",
            "full_text": {"section_name": ["Introduction", "Method"],
                          "paragraphs": [["One.", "Two."], ["Three."]]}}]);
        assert_eq!(config.material_of(&columns).unwrap().text, first.text);
        let plain = json!([{"input": "Whole text."}]);
        assert!(
            config
                .material_of(&plain)
                .unwrap()
                .text
                .contains("Whole text.")
        );
    }

    #[test]
    fn contexts_are_sections_of_a_chosen_paper() {
        let mut config = QasperConfig::new("qasper.json");
        config.paper_ids = vec![QASPER_PAPERS[0].to_owned()];
        config.max_sections_per_prompt = 1;
        let codec: SharedCodec = Arc::new(WordCodec::default());
        let material = config.material_of(&by_id()).unwrap();
        let resource = LoadedResource::new(material, codec, &Drawing::default()).unwrap();
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(1);
        for _ in 0..20 {
            let (context, _) = resource.sample(&mut rng, 1).unwrap();
            assert!(context.starts_with("<paper id=\"1908.06606\">\n<title>On lamps"));
            assert!(
                context.contains("One.") != context.contains("Three."),
                "{context}"
            );
            assert!(context.ends_with("</section>\n</paper>") && !context.contains("Secret"));
        }
        config.paper_ids = vec!["0000.00000".to_owned()];
        let error = config.material_of(&by_id()).err().unwrap().to_string();
        assert!(error.contains("0000.00000"), "{error}");
    }

    proptest! {
        #[test]
        fn odd_values_never_panic(full_text in "[\\[\\]{}:,\"a0 ]{0,40}") {
            let config = QasperConfig::new("x.json");
            for text in [full_text.clone(), format!("[{{\"full_text\":{full_text}}}]")] {
                if let Ok(value) = serde_json::from_str(&text) {
                    let _ = config.material_of(&value);
                }
            }
        }
    }
}
