//! Texts to study and the contexts drawn from them.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rand_chacha::ChaCha8Rng;
use sha2::{Digest, Sha256};

use crate::chunker::{ChunkError, TokenChunker, TokenCodec, window_text};
use crate::seed_prompt::{SeedPrompt, SeedType, generate_many};

/// A codec that a resource can keep.
pub type SharedCodec = Arc<dyn TokenCodec + Send + Sync>;

/// The largest text file that is read, in bytes.
pub const MAX_TEXT_BYTES: u64 = 1 << 30;

/// A text that cannot be studied.
#[derive(Debug, thiserror::Error)]
pub enum ResourceError {
    /// The file cannot be read.
    #[error("cannot read {path}: {source}")]
    Io {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The file is larger than [`MAX_TEXT_BYTES`].
    #[error("{path} is larger than {MAX_TEXT_BYTES} bytes")]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// The file is not UTF-8.
    #[error("{path} is not UTF-8 text: the byte at offset {offset} does not fit")]
    NotText {
        /// The file.
        path: PathBuf,
        /// The first byte that is not text.
        offset: usize,
    },
    /// There is nothing in it.
    #[error("the text `{name}` is empty: there is nothing to study")]
    Empty {
        /// The resource.
        name: String,
    },
    /// No seed types were chosen.
    #[error("the resource `{name}` has no seed types to draw from")]
    NoSeedTypes {
        /// The resource.
        name: String,
    },
    /// Windows cannot be drawn.
    #[error("the text `{name}` cannot be cut into chunks: {source}")]
    Chunk {
        /// The resource.
        name: String,
        /// Why.
        #[source]
        source: ChunkError,
    },
}

/// A text with its tokens.
#[derive(Clone)]
pub struct Document {
    text: String,
    tokens: Vec<u32>,
    codec: SharedCodec,
}

impl Document {
    /// Tokenises a text; `name` is for the error if there is nothing in it.
    pub fn new(name: &str, text: String, codec: SharedCodec) -> Result<Self, ResourceError> {
        let empty = || ResourceError::Empty {
            name: name.to_owned(),
        };
        if text.trim().is_empty() {
            return Err(empty());
        }
        let tokens = codec.encode(&text);
        if tokens.is_empty() {
            return Err(empty());
        }
        Ok(Self {
            text,
            tokens,
            codec,
        })
    }

    /// The whole text.
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Its token ids.
    pub fn tokens(&self) -> &[u32] {
        &self.tokens
    }

    /// The codec that made them.
    pub fn codec(&self) -> &dyn TokenCodec {
        &*self.codec
    }

    /// The text of a token window, without broken characters at its ends; the original text where
    /// the window is everything.
    pub fn window_text(&self, window: std::ops::Range<usize>) -> String {
        if window.start == 0 && window.end >= self.tokens.len() {
            return self.text.clone();
        }
        window_text(self.codec(), &self.tokens, window)
    }
}

/// Something to study.
pub trait Resource: Send + Sync {
    /// A short name, stored with every conversation.
    fn name(&self) -> &str;

    /// One context and `n` seed prompts that share it.
    fn sample(
        &self,
        rng: &mut ChaCha8Rng,
        n: usize,
    ) -> Result<(String, Vec<SeedPrompt>), ResourceError>;

    /// The text as a whole, for walking through it systematically; `None` if it has no order.
    fn document(&self) -> Option<&Document>;

    /// A digest of everything that `sample` draws from.
    fn fingerprint(&self) -> String;
}

/// A plain text, from a string or a file. Contexts are random token windows.
pub struct TextResource {
    name: String,
    document: Document,
    chunker: TokenChunker,
    seed_types: Vec<SeedType>,
}

impl TextResource {
    /// A resource over `text`.
    pub fn new(
        name: impl Into<String>,
        text: impl Into<String>,
        codec: SharedCodec,
        chunker: TokenChunker,
        seed_types: &[SeedType],
    ) -> Result<Self, ResourceError> {
        let name = name.into();
        if seed_types.is_empty() {
            return Err(ResourceError::NoSeedTypes { name });
        }
        if let Err(source) = chunker.validate() {
            return Err(ResourceError::Chunk { name, source });
        }
        Ok(Self {
            document: Document::new(&name, text.into(), codec)?,
            name,
            chunker,
            seed_types: seed_types.to_vec(),
        })
    }

    /// A resource over a UTF-8 file (a byte order mark is dropped); its name is the file's name.
    pub fn from_file(
        path: &Path,
        codec: SharedCodec,
        chunker: TokenChunker,
        seed_types: &[SeedType],
    ) -> Result<Self, ResourceError> {
        let name = path
            .file_name()
            .unwrap_or(path.as_os_str())
            .to_string_lossy()
            .into_owned();
        Self::new(name, read_text(path)?, codec, chunker, seed_types)
    }
}

/// Reads a UTF-8 file of at most [`MAX_TEXT_BYTES`].
pub fn read_text(path: &Path) -> Result<String, ResourceError> {
    let io = |source| ResourceError::Io {
        path: path.to_owned(),
        source,
    };
    let mut bytes = Vec::new();
    File::open(path)
        .map_err(io)?
        .take(MAX_TEXT_BYTES + 1)
        .read_to_end(&mut bytes)
        .map_err(io)?;
    if bytes.len() as u64 > MAX_TEXT_BYTES {
        return Err(ResourceError::TooLarge {
            path: path.to_owned(),
        });
    }
    let text = String::from_utf8(bytes).map_err(|e| ResourceError::NotText {
        path: path.to_owned(),
        offset: e.utf8_error().valid_up_to(),
    })?;
    Ok(match text.strip_prefix('\u{feff}') {
        Some(rest) => rest.to_owned(),
        None => text,
    })
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
        let window = self
            .chunker
            .window(self.document.tokens(), rng)
            .map_err(|source| ResourceError::Chunk {
                name: self.name.clone(),
                source,
            })?;
        let context = self.document.window_text(window);
        Ok((context, generate_many(&self.seed_types, n, rng)))
    }

    fn document(&self) -> Option<&Document> {
        Some(&self.document)
    }

    fn fingerprint(&self) -> String {
        hex_sha256(self.document.text.as_bytes())
    }
}

/// SHA-256 in hexadecimal.
pub(crate) fn hex_sha256(bytes: &[u8]) -> String {
    Sha256::digest(bytes)
        .iter()
        .map(|byte| format!("{byte:02x}"))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::chunker::test_codec::WordCodec;
    use rand::SeedableRng;

    fn resource(text: &str) -> Result<TextResource, ResourceError> {
        let chunker = TokenChunker {
            min_tokens_per_chunk: 4,
            max_tokens_per_chunk: 8,
        };
        let codec: SharedCodec = Arc::new(WordCodec::default());
        TextResource::new("demo", text, codec, chunker, &SeedType::ALL)
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
    fn empty_missing_and_binary_inputs_are_named() {
        assert!(matches!(resource(" \n"), Err(ResourceError::Empty { .. })));
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("gone.txt");
        let error = read_text(&path).unwrap_err().to_string();
        assert!(error.contains("gone.txt"), "{error}");
        std::fs::write(&path, b"ab\xff").unwrap();
        assert!(matches!(
            read_text(&path),
            Err(ResourceError::NotText { offset: 2, .. })
        ));
        std::fs::write(&path, "\u{feff}ab").unwrap();
        assert_eq!(read_text(&path).unwrap(), "ab");
    }
}
