//! The files of a folder.

use std::fs;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::error::ResourceError;
use super::html::visible_text;
use super::material::{ItemText, Material, Shape};
use super::notes::Notes;
use super::pdf::text_of_pages;
use super::read::{MAX_TEXT_BYTES, decode_lenient, file_name, read_bytes};

/// Extensions read where none are chosen: the reference's, and other marked-up text.
const DEFAULT_EXTENSIONS: [&str; 11] = [
    "py", "txt", "json", "yaml", "yml", "toml", "ini", "xml", "md", "rst", "tex",
];
/// How deep folders are walked into.
const MAX_DEPTH: usize = 64;

/// The files of a folder, in the order of their names. Contexts are chunks of one file, behind a line
/// with its name. Links are not followed. `.html` and `.pdf` files are read as what they are.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct DirectoryConfig {
    /// The folder.
    pub path: PathBuf,
    /// Extensions of the files that are read, with or without the full stop, whatever their case
    /// (default: py, txt, json, yaml, yml, toml, ini, xml, md, rst, tex); `*` reads every file.
    #[serde(default = "default_extensions")]
    pub extensions: Vec<String>,
    /// Whether folders inside are read too (default true).
    #[serde(default = "yes")]
    pub recursive: bool,
    /// Whether files and folders whose name begins with a full stop are read too (default false).
    #[serde(default)]
    pub hidden: bool,
    /// The most files that are read (default 10000); more are an error.
    #[serde(default = "default_max_files")]
    pub max_files: usize,
}

fn default_extensions() -> Vec<String> {
    DEFAULT_EXTENSIONS.map(str::to_owned).to_vec()
}

fn yes() -> bool {
    true
}

fn default_max_files() -> usize {
    10_000
}

impl DirectoryConfig {
    /// The folder with all defaults.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            extensions: default_extensions(),
            recursive: true,
            hidden: false,
            max_files: default_max_files(),
        }
    }

    pub(super) fn material(&self) -> Result<Material, ResourceError> {
        let mut walk = Walk {
            config: self,
            extensions: self
                .extensions
                .iter()
                .map(|e| e.trim_start_matches('.').to_lowercase())
                .collect(),
            files: Vec::new(),
            notes: Notes::default(),
        };
        walk.folder(&self.path, "", 0)?;
        let Walk {
            files, mut notes, ..
        } = walk;
        let mut all = ItemText::default();
        for (path, name) in files {
            let left = MAX_TEXT_BYTES.saturating_sub(all.text.len() as u64);
            match read(&path, &name, left, &mut notes) {
                Ok(Some(text)) if text.trim().is_empty() => notes.add("file is empty", &name),
                Ok(Some(text)) => all.push(format!("File: {name}"), &text),
                Ok(None) => notes.add("file is not text, skipped", &name),
                Err(ResourceError::TooLarge { .. }) => {
                    return Err(ResourceError::TooLarge {
                        path: self.path.clone(),
                        limit: MAX_TEXT_BYTES,
                    });
                }
                Err(error) => notes.add("file cannot be read, skipped", error.to_string()),
            }
        }
        if all.items.is_empty() {
            let extensions = self.extensions.join(", ");
            let told: Vec<String> = notes.finish().iter().map(ToString::to_string).collect();
            return Err(ResourceError::Missing {
                path: self.path.clone(),
                what: format!(
                    "text in files with the extensions {extensions} [{}]",
                    told.join("; ")
                ),
            });
        }
        Ok(Material {
            name: file_name(&self.path),
            text: all.text,
            shape: Shape::Items(all.items),
            notes,
        })
    }
}

/// The text of a file by its extension; `None` if it is none.
fn read(
    path: &Path,
    name: &str,
    left: u64,
    notes: &mut Notes,
) -> Result<Option<String>, ResourceError> {
    let bytes = read_bytes(path, left)?;
    match extension(path).as_str() {
        "html" | "htm" | "xhtml" => visible_text(&bytes, path, notes).map(Some),
        "pdf" => {
            let mut of_pages = Notes::default();
            let text = text_of_pages(bytes, path, "", &mut of_pages)?;
            notes.merge(name, of_pages);
            Ok(Some(text))
        }
        _ => Ok(decode_lenient(&bytes, name, notes)),
    }
}

fn extension(path: &Path) -> String {
    path.extension()
        .map(|e| e.to_string_lossy().to_lowercase())
        .unwrap_or_default()
}

struct Walk<'a> {
    config: &'a DirectoryConfig,
    extensions: Vec<String>,
    files: Vec<(PathBuf, String)>,
    notes: Notes,
}

impl Walk<'_> {
    /// Collects the files of a folder; `prefix` is its name below the first one, with a slash.
    fn folder(&mut self, folder: &Path, prefix: &str, depth: usize) -> Result<(), ResourceError> {
        if depth > MAX_DEPTH {
            self.notes.add("folder lies too deep, skipped", prefix);
            return Ok(());
        }
        let mut entries = Vec::new();
        for entry in fs::read_dir(folder).map_err(ResourceError::io(folder))? {
            let entry = entry.map_err(ResourceError::io(folder))?;
            entries.push((entry.file_name(), entry));
        }
        entries.sort_by(|a, b| a.0.cmp(&b.0));
        for (name, entry) in entries {
            let name = name.to_string_lossy();
            let shown = format!("{prefix}{name}");
            let path = entry.path();
            // The type of the entry itself: a link is a link, wherever it leads.
            let kind = entry.file_type().map_err(ResourceError::io(&path))?;
            if name.starts_with('.') && !self.config.hidden {
                self.notes.add("hidden file or folder skipped", shown);
            } else if kind.is_symlink() {
                self.notes.add("link not followed", shown);
            } else if kind.is_dir() {
                if !self.config.recursive {
                    self.notes.add("folder inside not read", shown);
                } else if let Err(error) = self.folder(&path, &format!("{shown}/"), depth + 1) {
                    match error {
                        ResourceError::Io { .. } => self
                            .notes
                            .add("folder cannot be read, skipped", error.to_string()),
                        error => return Err(error),
                    }
                }
            } else if !kind.is_file() {
                self.notes.add("neither file nor folder, skipped", shown);
            } else if !self.wanted(&path) {
                self.notes.add("file has another extension, skipped", shown);
            } else {
                if self.files.len() >= self.config.max_files {
                    return Err(ResourceError::TooMany {
                        path: self.config.path.clone(),
                        what: "files to read (max_files)",
                        limit: self.config.max_files,
                    });
                }
                self.files.push((path, shown));
            }
        }
        Ok(())
    }

    fn wanted(&self, path: &Path) -> bool {
        let extension = extension(path);
        self.extensions.iter().any(|e| e == "*" || *e == extension)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::resource::contexts::Contexts;
    use proptest::prelude::*;

    fn texts(config: &DirectoryConfig) -> (String, Vec<String>) {
        let material = config.material().unwrap();
        let notes = material.notes.finish();
        (
            material.text,
            notes.iter().map(ToString::to_string).collect(),
        )
    }

    #[test]
    fn files_are_read_in_order_and_the_rest_is_told() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::create_dir(at("sub")).unwrap();
        fs::write(at("b.txt"), "second\n").unwrap();
        fs::write(at("a.MD"), "first").unwrap();
        fs::write(at("sub/c.html"), "<p>third <b>one</b></p>").unwrap();
        fs::write(at("d.txt"), b"a\0b").unwrap();
        fs::write(at("e.png"), "no").unwrap();
        fs::write(at(".hidden.txt"), "no").unwrap();
        let mut config = DirectoryConfig::new(folder.path());
        config.extensions.push(".HTML".to_owned());
        let (text, notes) = texts(&config);
        assert_eq!(
            text,
            "File: a.MD\n\nfirst\n\nFile: b.txt\n\nsecond\n\nFile: sub/c.html\n\nthird one"
        );
        assert_eq!(
            notes,
            [
                "hidden file or folder skipped (1: .hidden.txt)",
                "file has another extension, skipped (1: e.png)",
                "file is not text, skipped (1: d.txt)",
            ]
        );
        config.recursive = false;
        assert!(!texts(&config).0.contains("third"));
        config.max_files = 1;
        assert!(matches!(
            config.material(),
            Err(ResourceError::TooMany { limit: 1, .. })
        ));
        config = DirectoryConfig::new(folder.path());
        config.extensions = vec!["rs".to_owned()];
        let error = config.material().err().unwrap().to_string();
        assert!(error.contains("rs") && error.contains("(5:"), "{error}");
    }

    #[cfg(unix)]
    #[test]
    fn links_are_not_followed() {
        let folder = tempfile::tempdir().unwrap();
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("secret.txt"), "secret").unwrap();
        fs::write(folder.path().join("a.txt"), "plain").unwrap();
        let link = |target: &Path, name: &str| {
            std::os::unix::fs::symlink(target, folder.path().join(name)).unwrap();
        };
        link(&outside.path().join("secret.txt"), "link.txt");
        link(outside.path(), "folder");
        link(folder.path(), "loop");
        let (text, notes) = texts(&DirectoryConfig::new(folder.path()));
        assert_eq!(text, "File: a.txt\n\nplain");
        assert_eq!(notes, ["link not followed (3: folder, link.txt, loop)"]);
    }

    #[test]
    fn contexts_are_chunks_of_one_file_under_its_name() {
        use crate::chunker::{TokenChunker, test_codec::ByteCodec};
        use crate::resource::Document;
        use rand::SeedableRng;
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("a.txt"), "short").unwrap();
        fs::write(folder.path().join("b.txt"), "x".repeat(95)).unwrap();
        let material = DirectoryConfig::new(folder.path()).material().unwrap();
        let codec: crate::resource::SharedCodec = std::sync::Arc::new(ByteCodec);
        let document = Document::new("d", material.text, codec.clone()).unwrap();
        let chunker = TokenChunker {
            min_tokens_per_chunk: 10,
            max_tokens_per_chunk: 10,
        };
        let contexts =
            Contexts::new("d", &document, material.shape, codec, chunker.into()).unwrap();
        let mut rng = rand_chacha::ChaCha8Rng::seed_from_u64(1);
        let drawn: Vec<String> = (0..1100)
            .map(|_| contexts.draw(&document, &mut rng).unwrap())
            .collect();
        let short = drawn
            .iter()
            .filter(|c| *c == "File: a.txt\n\nshort")
            .count();
        // One chunk of eleven.
        assert!((60..=140).contains(&short), "{short}");
        let long = format!("File: b.txt\n\n{}", "x".repeat(10));
        assert_eq!(drawn.iter().filter(|c| **c == long).count(), 1100 - short);
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]
        #[test]
        fn odd_bytes_never_panic(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            let folder = tempfile::tempdir().unwrap();
            for name in ["a.txt", "b.html", "c.pdf"] {
                fs::write(folder.path().join(name), &bytes).unwrap();
            }
            let mut config = DirectoryConfig::new(folder.path());
            config.extensions = vec!["*".to_owned()];
            let _ = config.material();
        }
    }
}
