//! LongHealth: fictional patients with long records (Adams et al., arXiv 2401.14490).

use std::path::PathBuf;

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::error::ResourceError;
use super::json::read_values;
use super::material::{Material, Part, Record, Shape};
use super::notes::Notes;
use super::read::file_name;

/// The benchmark's file: patients by id, each with `texts`, `name`, `birthday` and `diagnosis`. A
/// context has some notes of one patient; a note longer than the longest chunk becomes a chunk of it.
/// Questions and answers in the file are not read.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LongHealthConfig {
    /// The file, such as `benchmark_v5.json`.
    pub path: PathBuf,
    /// Patients that are read (default: all).
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub patient_ids: Vec<String>,
    /// Fewest notes in a context (default 1).
    #[serde(default = "one")]
    pub min_notes_per_prompt: usize,
    /// Most notes in a context (default 1).
    #[serde(default = "one")]
    pub max_notes_per_prompt: usize,
    /// A longer note is replaced by a window of so many characters (default: no limit).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub max_chars_per_note: Option<usize>,
}

fn one() -> usize {
    1
}

impl LongHealthConfig {
    /// All patients of a file.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            patient_ids: Vec::new(),
            min_notes_per_prompt: 1,
            max_notes_per_prompt: 1,
            max_chars_per_note: None,
        }
    }

    pub(super) fn material(&self) -> Result<Material, ResourceError> {
        self.validate()?;
        self.material_of(&read_values(&self.path)?)
    }

    fn validate(&self) -> Result<(), ResourceError> {
        let field = |field, found: String, expected| ResourceError::Field {
            kind: "longhealth",
            field,
            found,
            expected,
        };
        let (min, max) = (self.min_notes_per_prompt, self.max_notes_per_prompt);
        if min == 0 || min > max {
            return Err(field(
                "min_notes_per_prompt",
                min.to_string(),
                "at least 1 and at most max_notes_per_prompt",
            ));
        }
        if self.max_chars_per_note == Some(0) {
            return Err(field("max_chars_per_note", "0".to_owned(), "at least 1"));
        }
        Ok(())
    }

    fn material_of(&self, root: &Value) -> Result<Material, ResourceError> {
        let format = |reason: String| ResourceError::format(&self.path, "LongHealth", reason);
        let Value::Object(patients) = root else {
            return Err(format("expected an object of patients by id".to_owned()));
        };
        if let Some(id) = self
            .patient_ids
            .iter()
            .find(|id| !patients.contains_key(*id))
        {
            return Err(ResourceError::Missing {
                path: self.path.clone(),
                what: format!("patient {id:?}"),
            });
        }
        let mut notes = Notes::default();
        let mut text = String::new();
        let mut records = Vec::new();
        for (id, patient) in patients {
            if !self.patient_ids.is_empty() && !self.patient_ids.contains(id) {
                notes.add("patient not chosen, left out", id);
                continue;
            }
            let Some(texts) = patient.get("texts").and_then(Value::as_object) else {
                return Err(format(format!("patient {id:?} has no object `texts`")));
            };
            let about = |field| {
                patient
                    .get(field)
                    .and_then(Value::as_str)
                    .unwrap_or("unknown")
            };
            let header = format!(
                "Patient record\nName: {}\nID: {id}\nBirthday: {}\nDiagnosis: {}\nNumber of notes: \
                 {}",
                about("name"),
                about("birthday"),
                about("diagnosis"),
                texts.len()
            );
            if !text.is_empty() {
                text.push_str("\n\n");
            }
            text.push_str(&format!("<patient-record-{id}>\n{header}\n<notes>\n"));
            let mut parts = Vec::new();
            for (note, body) in texts {
                let Some(body) = body.as_str() else {
                    return Err(format(format!(
                        "note {note:?} of patient {id:?} is not a text"
                    )));
                };
                if body.trim().is_empty() {
                    notes.add("empty note left out", format!("{id}/{note}"));
                    continue;
                }
                let (open, close) = (format!("<{note}>"), format!("</{note}>"));
                text.push_str(&format!("{open}\n"));
                let start = text.len();
                text.push_str(body.trim());
                let body = start..text.len();
                text.push_str(&format!("\n{close}\n"));
                parts.push(Part { open, body, close });
            }
            text.push_str(&format!("</notes>\n</patient-record-{id}>"));
            records.push(Record {
                header: format!("{header}\n<notes>"),
                parts,
                footer: "</notes>".to_owned(),
            });
        }
        if records.iter().all(|record| record.parts.is_empty()) {
            return Err(ResourceError::Empty {
                name: file_name(&self.path),
            });
        }
        Ok(Material {
            name: file_name(&self.path),
            text,
            shape: Shape::Records {
                records,
                min_parts: self.min_notes_per_prompt,
                max_parts: self.max_notes_per_prompt,
                max_chars: self.max_chars_per_note,
            },
            notes,
        })
    }
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

    fn file() -> Value {
        json!({
            "patient_01": {
                "texts": {"text_0": "First note of Anna.", "text_1": "Second note of Anna."},
                "name": "Anna Sample", "birthday": "1970-01-01", "diagnosis": "Lymphoma",
                "questions": [{"question": "Secret?", "correct": "Yes"}]
            },
            "patient_02": {
                "texts": {"text_0": "Note of Ben."},
                "name": "Ben Sample", "birthday": "1980-02-02", "diagnosis": "Fracture"
            }
        })
    }

    fn load(config: &LongHealthConfig) -> LoadedResource {
        let codec: SharedCodec = Arc::new(WordCodec::default());
        let material = config.material_of(&file()).unwrap();
        LoadedResource::new(material, codec, &Drawing::default()).unwrap()
    }

    #[test]
    fn contexts_are_notes_of_one_patient() {
        let mut config = LongHealthConfig::new("benchmark_v5.json");
        config.max_notes_per_prompt = 2;
        let resource = load(&config);
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(1);
        let both = "Patient record\nName: Anna Sample\nID: patient_01\nBirthday: 1970-01-01\n\
                    Diagnosis: Lymphoma\nNumber of notes: 2\n<notes>\n\n<text_0>\nFirst note of \
                    Anna.\n</text_0>\n\n<text_1>\nSecond note of Anna.\n</text_1>\n</notes>";
        let drawn: Vec<String> = (0..60)
            .map(|_| resource.sample(&mut rng, 1).unwrap().0)
            .collect();
        assert!(drawn.contains(&both.to_owned()), "{}", drawn[0]);
        assert!(
            drawn
                .iter()
                .any(|c| !c.contains("First") && c.contains("Second"))
        );
        assert!(drawn.iter().any(|c| c.contains("Ben")));
        assert!(
            drawn
                .iter()
                .all(|c| c.contains("Anna") != c.contains("Ben"))
        );
        let text = resource.document().unwrap().text();
        assert!(text.starts_with("<patient-record-patient_01>\n"), "{text}");
        assert!(!text.contains("Secret"));
    }

    #[test]
    fn patients_are_chosen_and_notes_cut() {
        let mut config = LongHealthConfig::new("benchmark_v5.json");
        config.patient_ids = vec!["patient_02".to_owned()];
        config.max_chars_per_note = Some(4);
        let resource = load(&config);
        assert_eq!(
            resource.notes()[0].to_string(),
            "patient not chosen, left out (1: patient_01)"
        );
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(1);
        for _ in 0..20 {
            let (context, _) = resource.sample(&mut rng, 1).unwrap();
            let note = context.lines().nth(9).unwrap();
            let bare = note.trim_start_matches("... ").trim_end_matches(" ...");
            assert!(bare.len() == 4 && "Note of Ben.".contains(bare), "{note}");
            assert!(note.contains("..."), "{note}");
        }
        config.patient_ids = vec!["patient_09".to_owned()];
        let error = config.material_of(&file()).err().unwrap().to_string();
        assert!(error.contains("patient_09"), "{error}");
        config.min_notes_per_prompt = 2;
        assert!(config.validate().is_err());
    }

    proptest! {
        #[test]
        fn odd_values_never_panic(text in "[\\[\\]{}:,\"a0 ]{0,40}", texts in "[\\[\\]{}:,\"a ]{0,20}") {
            let config = LongHealthConfig::new("x.json");
            for text in [text, format!("{{\"p\":{{\"texts\":{texts}}}}}")] {
                if let Ok(value) = serde_json::from_str(&text) {
                    let _ = config.material_of(&value);
                }
            }
        }
    }
}
