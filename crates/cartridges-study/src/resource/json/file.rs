//! The resource over a JSON file.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::outline::{MAX_NODES, Outline};
use super::paths::select;
use crate::resource::ResourceError;
use crate::resource::material::{Material, Shape};
use crate::resource::notes::Notes;
use crate::resource::read::{file_name, read_bytes};

/// The largest JSON file that is read, in bytes.
const MAX_JSON_BYTES: u64 = 256 << 20;

/// A JSON file, or one with a JSON value per line (`.jsonl`, `.ndjson`). Contexts are values with
/// their path, as large as the longest chunk allows.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct JsonConfig {
    /// The file.
    pub path: PathBuf,
    /// Paths of the values that are read (default: the whole file): keys and indices joined with
    /// `/`, and `*` for every one of them, as in `articles/*/body`.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub paths: Vec<String>,
    /// Whether contexts are single texts, numbers and the like, not lists and objects (default
    /// false).
    #[serde(default)]
    pub leaves_only: bool,
}

impl JsonConfig {
    /// The whole file.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            paths: Vec::new(),
            leaves_only: false,
        }
    }

    pub(in crate::resource) fn material(&self) -> Result<Material, ResourceError> {
        let bytes = read_bytes(&self.path, MAX_JSON_BYTES)?;
        self.material_of(&bytes)
    }

    fn material_of(&self, bytes: &[u8]) -> Result<Material, ResourceError> {
        let root = parse(bytes, &self.path)?;
        let mut outline = Outline::new(self.leaves_only);
        if self.paths.is_empty() {
            outline.value("", &root);
        }
        for path in &self.paths {
            let found = select(&root, path);
            if found.is_empty() {
                return Err(ResourceError::Missing {
                    path: self.path.clone(),
                    what: format!("value at {path:?}"),
                });
            }
            for (at, value) in found {
                if !outline.text.is_empty() {
                    outline.text.push_str("\n\n");
                }
                if !at.is_empty() {
                    outline.text.push_str(&at);
                    outline.text.push_str(":\n");
                }
                outline.value(&at, value);
            }
        }
        let mut notes = Notes::default();
        notes.add_count(
            &format!(
                "value beyond the first {MAX_NODES}, part of the text but not drawn by itself"
            ),
            outline.not_remembered,
        );
        if !outline.nodes.iter().any(|node| node.offered) {
            return Err(ResourceError::Empty {
                name: file_name(&self.path),
            });
        }
        Ok(Material {
            name: file_name(&self.path),
            text: outline.text,
            shape: Shape::Nodes(outline.nodes),
            notes,
        })
    }
}

fn parse(bytes: &[u8], path: &Path) -> Result<Value, ResourceError> {
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    let extension = path.extension().map(|e| e.to_string_lossy().to_lowercase());
    if !matches!(extension.as_deref(), Some("jsonl" | "ndjson")) {
        return serde_json::from_slice(bytes)
            .map_err(|error| ResourceError::format(path, "JSON", error));
    }
    let mut values = Vec::new();
    for (i, line) in bytes.split(|&b| b == b'\n').enumerate() {
        if line.trim_ascii().is_empty() {
            continue;
        }
        values.push(serde_json::from_slice(line).map_err(|error| {
            ResourceError::format(path, "JSON lines", format!("line {}: {error}", i + 1))
        })?);
    }
    Ok(Value::Array(values))
}

/// The value of a JSON file, or the list of those of a file with one per line.
pub(in crate::resource) fn read_values(path: &Path) -> Result<Value, ResourceError> {
    parse(&read_bytes(path, MAX_JSON_BYTES)?, path)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chunker::{TokenChunker, test_codec::ByteCodec};
    use crate::resource::loaded::{Drawing, LoadedResource};
    use crate::resource::{Resource, SharedCodec};
    use crate::seed_prompt::{SeedPrompts, SeedType};
    use proptest::prelude::*;
    use rand::SeedableRng;
    use std::collections::BTreeSet;
    use std::sync::Arc;

    const FILE: &str = r#"{"lamps": [{"name": "Ida", "colour": "red"},
        {"name": "Mia", "colour": "green"}], "keeper": "Jonas"}"#;

    fn material(text: &str, paths: &[&str]) -> Result<Material, ResourceError> {
        JsonConfig {
            path: PathBuf::from("lamps.json"),
            paths: paths.iter().map(|&p| p.to_owned()).collect(),
            leaves_only: false,
        }
        .material_of(text.as_bytes())
    }

    #[test]
    fn values_are_chosen_by_path() {
        let text = material(FILE, &["lamps/*/name", "keeper"]).unwrap().text;
        assert_eq!(
            text,
            "lamps/0/name:\nIda\n\nlamps/1/name:\nMia\n\nkeeper:\nJonas"
        );
        let error = material(FILE, &["lamps/5"]).err().unwrap().to_string();
        assert!(error.contains("lamps/5"), "{error}");
        let error = material("{\"a\": ", &[]).err().unwrap().to_string();
        assert!(
            error.contains("lamps.json") && error.contains("line 1"),
            "{error}"
        );
    }

    #[test]
    fn contexts_are_the_largest_values_that_fit() {
        let codec: SharedCodec = Arc::new(ByteCodec);
        let drawing = Drawing {
            chunker: TokenChunker {
                min_tokens_per_chunk: 60,
                max_tokens_per_chunk: 60,
            }
            .into(),
            prompts: SeedPrompts::from(&[SeedType::Generic][..]),
        };
        let resource = LoadedResource::new(material(FILE, &[]).unwrap(), codec, &drawing).unwrap();
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(1);
        let drawn: BTreeSet<String> = (0..100)
            .map(|_| resource.sample(&mut rng, 1).unwrap().0)
            .collect();
        let at = |path: &str| {
            let start = format!("The following is located at the path {path}:\n\n");
            drawn.iter().filter(|c| c.starts_with(&start)).count()
        };
        // A lamp fits as a whole, so its name is never drawn alone; both together do not.
        assert_eq!((at("lamps/0"), at("lamps/1"), at("keeper")), (1, 1, 1));
        assert_eq!(at("lamps/0/name"), 0);
        assert!(drawn.iter().all(|c| c.len() <= 60 + 60), "{drawn:#?}");
    }

    #[test]
    fn lines_are_values_of_a_list() {
        let path = Path::new("a.jsonl");
        let value = parse(b"{\"a\":1}\n\n[2]\n", path).unwrap();
        assert_eq!(value, serde_json::json!([{"a": 1}, [2]]));
        let error = parse(b"1\nx\n", path).unwrap_err().to_string();
        assert!(error.contains("line 2"), "{error}");
    }

    proptest! {
        #[test]
        fn odd_bytes_never_panic(
            bytes in prop_oneof![
                proptest::collection::vec(any::<u8>(), 0..100),
                "[\\[\\]{}:,\"a0-9. \\\\un-]{0,60}".prop_map(String::into_bytes),
            ],
            path in "[a0/*~]{0,8}",
        ) {
            let config = JsonConfig {
                path: PathBuf::from("x.json"),
                paths: vec![path],
                leaves_only: true,
            };
            let _ = config.material_of(&bytes);
        }
    }
}
