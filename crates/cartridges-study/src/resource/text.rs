//! A plain text, from a string or a file.

use std::path::{Path, PathBuf};

use cartridges_model::digest::hex;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::document::{Document, Resource, SharedCodec};
use super::error::ResourceError;
use super::material::Material;
use super::notes::Notes;
use super::read::{MAX_TEXT_BYTES, file_name, read_bytes, read_text};
use crate::chunker::{Chunker, Chunks};
use crate::seed_prompt::{SeedPrompt, SeedPrompts};

/// A text that stands in the configuration itself.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct TextConfig {
    /// The text.
    pub text: String,
}

impl TextConfig {
    pub(super) fn material(&self) -> Material {
        Material::running("text", self.text.clone())
    }
}

/// A text file.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FileConfig {
    /// The file.
    pub path: PathBuf,
    /// Its encoding by the names that web pages use, such as `latin1` or `shift_jis` (default: UTF-8,
    /// and a byte that does not fit is an error). With a name given, what does not fit is replaced
    /// and noted.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub encoding: Option<String>,
}

impl FileConfig {
    pub(super) fn material(&self) -> Result<Material, ResourceError> {
        let name = file_name(&self.path);
        let Some(label) = &self.encoding else {
            return Ok(Material::running(name, read_text(&self.path)?));
        };
        let encoding = encoding_rs::Encoding::for_label(label.as_bytes()).ok_or_else(|| {
            ResourceError::Field {
                kind: "file",
                field: "encoding",
                found: format!("{label:?}"),
                expected: "the name of an encoding, such as \"latin1\"",
            }
        })?;
        let bytes = read_bytes(&self.path, MAX_TEXT_BYTES)?;
        let (text, _, errors) = encoding.decode(&bytes);
        let mut notes = Notes::default();
        if errors {
            notes.add("file has bytes that form no character, replaced", &name);
        }
        let mut material = Material::running(name, text.into_owned());
        material.notes = notes;
        Ok(material)
    }
}

/// A plain text, from a string or a file. Contexts are random chunks.
pub struct TextResource {
    name: String,
    document: Document,
    chunks: Chunks,
    prompts: SeedPrompts,
}

impl TextResource {
    /// A resource over `text`.
    pub fn new(
        name: impl Into<String>,
        text: impl Into<String>,
        codec: SharedCodec,
        chunker: impl Into<Chunker>,
        prompts: impl Into<SeedPrompts>,
    ) -> Result<Self, ResourceError> {
        let name = name.into();
        let prompts = prompts.into();
        if prompts.is_empty() {
            return Err(ResourceError::NoSeedTypes { name });
        }
        let document = Document::new(&name, text.into(), codec)?;
        Ok(Self {
            chunks: document.chunks(&name, chunker.into())?,
            document,
            name,
            prompts,
        })
    }

    /// A resource over a UTF-8 file (a byte order mark is dropped); its name is the file's name.
    pub fn from_file(
        path: &Path,
        codec: SharedCodec,
        chunker: impl Into<Chunker>,
        prompts: impl Into<SeedPrompts>,
    ) -> Result<Self, ResourceError> {
        Self::new(file_name(path), read_text(path)?, codec, chunker, prompts)
    }
}

impl Resource for TextResource {
    fn name(&self) -> &str {
        &self.name
    }

    fn sample(
        &self,
        rng: &mut ChaCha8Rng,
        n: usize,
    ) -> Result<(String, Vec<SeedPrompt>), ResourceError> {
        let context =
            self.document
                .draw(&self.chunks, rng)
                .map_err(|source| ResourceError::Chunk {
                    name: self.name.clone(),
                    source,
                })?;
        Ok((context, self.prompts.draw(n, rng)))
    }

    fn document(&self) -> Option<&Document> {
        Some(&self.document)
    }

    fn fingerprint(&self) -> String {
        hex_sha256(self.document.text().as_bytes())
    }
}

/// SHA-256 in hexadecimal.
pub(super) fn hex_sha256(bytes: &[u8]) -> String {
    hex(&Sha256::digest(bytes))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chunker::TokenChunker;
    use crate::chunker::test_codec::WordCodec;
    use rand::SeedableRng;
    use std::sync::Arc;

    fn resource(text: &str) -> Result<TextResource, ResourceError> {
        let chunker = TokenChunker {
            min_tokens_per_chunk: 4,
            max_tokens_per_chunk: 8,
        };
        let codec: SharedCodec = Arc::new(WordCodec::default());
        TextResource::new("demo", text, codec, chunker, SeedPrompts::default())
    }

    #[test]
    fn contexts_are_windows_of_the_text() {
        let words: Vec<String> = (0..50).map(|i| format!("w{i}")).collect();
        let text = words.join(" ");
        let resource = resource(&text).unwrap();
        let mut rng = ChaCha8Rng::seed_from_u64(5);
        for _ in 0..50 {
            let (context, seeds) = resource.sample(&mut rng, 3).unwrap();
            assert!(text.contains(&context));
            assert!((4..=8).contains(&context.split_whitespace().count()));
            assert_eq!(seeds.len(), 3);
        }
        assert_eq!(
            hex_sha256(b"abc"),
            "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
        );
    }

    #[test]
    fn a_tiny_text_is_its_own_context() {
        let resource = resource("only five tokens in here").unwrap();
        let (context, _) = resource
            .sample(&mut ChaCha8Rng::seed_from_u64(5), 1)
            .unwrap();
        assert_eq!(context, "only five tokens in here");
    }

    #[test]
    fn an_empty_text_is_refused() {
        assert!(matches!(resource(" \n"), Err(ResourceError::Empty { .. })));
    }

    #[test]
    fn a_file_in_another_encoding_is_read_when_its_name_is_given() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("a.txt");
        std::fs::write(&path, b"caf\xe9").unwrap();
        let mut config = FileConfig {
            path,
            encoding: None,
        };
        assert!(matches!(
            config.material(),
            Err(ResourceError::NotText { offset: 3, .. })
        ));
        config.encoding = Some("latin1".to_owned());
        assert_eq!(config.material().unwrap().text, "café");
        config.encoding = Some("utf-8".to_owned());
        assert_eq!(config.material().unwrap().notes.finish()[0].count, 1);
        config.encoding = Some("klingon".to_owned());
        let error = config.material().err().unwrap().to_string();
        assert!(error.contains("klingon"), "{error}");
    }
}
