//! The files of a LaTeX source, from wherever they come.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::{Component, Path};

use flate2::read::GzDecoder;

use crate::resource::ResourceError;
use crate::resource::notes::Notes;
use crate::resource::read::{decode_lenient, file_name, read_bytes, read_limited};

/// The largest archive that is read, in bytes.
const MAX_ARCHIVE_BYTES: u64 = 512 << 20;
/// The largest archive when unpacked, figures included, in bytes.
const MAX_UNPACKED_BYTES: u64 = 1 << 30;
/// The most that the texts of a source may add up to, in bytes.
pub(super) const MAX_SOURCE_BYTES: u64 = 64 << 20;
/// The most files of a source.
const MAX_FILES: usize = 20_000;
/// How deep folders are walked into.
const MAX_DEPTH: usize = 32;
/// Extensions of files with text.
const TEXT_EXTENSIONS: [&str; 4] = ["tex", "ltx", "latex", "bbl"];

/// Text files by their path below the source's folder, with `/` between the parts.
#[derive(Debug, Default)]
pub(super) struct Source {
    pub(super) files: BTreeMap<String, String>,
    bytes: u64,
}

impl Source {
    /// Reads a folder, a `.tex` file, or an archive.
    pub(super) fn open(path: &Path, notes: &mut Notes) -> Result<Self, ResourceError> {
        let mut source = Self::default();
        if path.is_dir() {
            source.folder(path, path, "", 0, notes)?;
        } else if is_text(&path.to_string_lossy().to_lowercase()) {
            let bytes = read_bytes(path, MAX_SOURCE_BYTES)?;
            source.add(&file_name(path), &bytes, path, notes)?;
        } else {
            let bytes = read_bytes(path, MAX_ARCHIVE_BYTES)?;
            source.archive(&bytes, path, notes)?;
        }
        Ok(source)
    }

    fn folder(
        &mut self,
        root: &Path,
        folder: &Path,
        prefix: &str,
        depth: usize,
        notes: &mut Notes,
    ) -> Result<(), ResourceError> {
        if depth > MAX_DEPTH {
            notes.add("folder lies too deep, skipped", prefix);
            return Ok(());
        }
        for entry in fs::read_dir(folder).map_err(ResourceError::io(folder))? {
            let entry = entry.map_err(ResourceError::io(folder))?;
            let name = format!("{prefix}{}", entry.file_name().to_string_lossy());
            let path = entry.path();
            let kind = entry.file_type().map_err(ResourceError::io(&path))?;
            if kind.is_symlink() {
                notes.add("link not followed", name);
            } else if kind.is_dir() {
                self.folder(root, &path, &format!("{name}/"), depth + 1, notes)?;
            } else if kind.is_file() && is_text(&name) {
                let left = MAX_SOURCE_BYTES.saturating_sub(self.bytes);
                let bytes = read_bytes(&path, left)?;
                self.add(&name, &bytes, root, notes)?;
            } else {
                notes.add("file is no LaTeX text, not read", name);
            }
        }
        Ok(())
    }

    /// A tar archive, packed or not, or a single packed file.
    fn archive(
        &mut self,
        bytes: &[u8],
        path: &Path,
        notes: &mut Notes,
    ) -> Result<(), ResourceError> {
        if !bytes.starts_with(&[0x1f, 0x8b]) {
            return self.tar(bytes, path, notes);
        }
        // Peek into it: arXiv packs a paper of one file without an archive around it.
        let mut head = Vec::new();
        GzDecoder::new(bytes)
            .take(512)
            .read_to_end(&mut head)
            .map_err(|error| ResourceError::format(path, "gzip", error))?;
        if head.get(257..262) == Some(b"ustar") {
            return self.tar(GzDecoder::new(bytes), path, notes);
        }
        let text = read_limited(GzDecoder::new(bytes), path, MAX_SOURCE_BYTES)?;
        self.add("main.tex", &text, path, notes)
    }

    fn tar(
        &mut self,
        reader: impl Read,
        path: &Path,
        notes: &mut Notes,
    ) -> Result<(), ResourceError> {
        let format = |error: std::io::Error| ResourceError::format(path, "a tar archive", error);
        let mut archive = tar::Archive::new(reader.take(MAX_UNPACKED_BYTES));
        let mut seen = 0;
        let mut unpacked = 0_u64;
        for entry in archive.entries().map_err(format)? {
            let entry = entry.map_err(format)?;
            seen += 1;
            if seen > MAX_FILES {
                return Err(ResourceError::TooMany {
                    path: path.to_owned(),
                    what: "files",
                    limit: MAX_FILES,
                });
            }
            unpacked = unpacked.saturating_add(entry.size());
            if unpacked > MAX_UNPACKED_BYTES {
                return Err(ResourceError::TooLarge {
                    path: path.to_owned(),
                    limit: MAX_UNPACKED_BYTES,
                });
            }
            let name = String::from_utf8_lossy(&entry.path_bytes()).into_owned();
            let kind = entry.header().entry_type();
            if kind.is_dir() || kind.is_pax_global_extensions() {
                continue;
            }
            if !kind.is_file() {
                notes.add("link or device in the archive, skipped", name);
                continue;
            }
            let Some(inside) = normal(&name) else {
                notes.add("path leads out of the archive, skipped", name);
                continue;
            };
            if !is_text(&inside) {
                notes.add("file is no LaTeX text, not read", inside);
                continue;
            }
            let left = MAX_SOURCE_BYTES.saturating_sub(self.bytes);
            let bytes = read_limited(entry, path, left).map_err(|error| match error {
                ResourceError::Io { source, .. } => format(source),
                error => error,
            })?;
            self.add(&inside, &bytes, path, notes)?;
        }
        Ok(())
    }

    fn add(
        &mut self,
        name: &str,
        bytes: &[u8],
        path: &Path,
        notes: &mut Notes,
    ) -> Result<(), ResourceError> {
        self.bytes = self.bytes.saturating_add(bytes.len() as u64);
        if self.bytes > MAX_SOURCE_BYTES {
            return Err(ResourceError::TooLarge {
                path: path.to_owned(),
                limit: MAX_SOURCE_BYTES,
            });
        }
        if self.files.len() >= MAX_FILES {
            return Err(ResourceError::TooMany {
                path: path.to_owned(),
                what: "files",
                limit: MAX_FILES,
            });
        }
        match decode_lenient(bytes, name, notes) {
            Some(text) => {
                let text = text.replace("\r\n", "\n").replace('\r', "\n");
                self.files.insert(name.to_owned(), text);
            }
            None => notes.add("file is not text, skipped", name),
        }
        Ok(())
    }
}

fn is_text(name: &str) -> bool {
    Path::new(name)
        .extension()
        .and_then(|e| e.to_str())
        .is_some_and(|e| TEXT_EXTENSIONS.contains(&e.to_lowercase().as_str()))
}

/// A relative path without `.` and `..`; `None` if it leads out of where it begins.
pub(super) fn normal(path: &str) -> Option<String> {
    let mut parts: Vec<String> = Vec::new();
    for part in Path::new(path).components() {
        match part {
            Component::CurDir => {}
            Component::Normal(part) => parts.push(part.to_string_lossy().into_owned()),
            Component::ParentDir => {
                parts.pop()?;
            }
            Component::RootDir | Component::Prefix(_) => return None,
        }
    }
    (!parts.is_empty()).then(|| parts.join("/"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use flate2::{Compression, write::GzEncoder};
    use proptest::prelude::*;
    use std::io::Write;

    fn tar(files: &[(&str, &str)]) -> Vec<u8> {
        let mut out = tar::Builder::new(Vec::new());
        for (name, text) in files {
            let mut header = tar::Header::new_gnu();
            // Written by hand: the builder refuses paths that lead out.
            let field = &mut header.as_old_mut().name;
            field[..name.len()].copy_from_slice(name.as_bytes());
            header.set_size(text.len() as u64);
            header.set_mode(0o644);
            header.set_cksum();
            out.append(&header, text.as_bytes()).unwrap();
        }
        let mut link = tar::Header::new_gnu();
        link.set_entry_type(tar::EntryType::Symlink);
        link.set_size(0);
        out.append_link(&mut link, "link.tex", "/etc/passwd")
            .unwrap();
        out.into_inner().unwrap()
    }

    fn gz(bytes: &[u8]) -> Vec<u8> {
        let mut out = GzEncoder::new(Vec::new(), Compression::fast());
        out.write_all(bytes).unwrap();
        out.finish().unwrap()
    }

    #[test]
    fn archives_are_read_without_leaving_them() {
        let archive = tar(&[
            ("main.tex", "A"),
            ("./sec/one.tex", "B\r\n"),
            ("../evil.tex", "C"),
            ("/etc/evil.tex", "D"),
            ("fig.png", "E"),
        ]);
        for bytes in [archive.clone(), gz(&archive)] {
            let mut notes = Notes::default();
            let mut source = Source::default();
            source.archive(&bytes, Path::new("a"), &mut notes).unwrap();
            let files: Vec<_> = source.files.into_iter().collect();
            let file = |name: &str, text: &str| (name.to_owned(), text.to_owned());
            assert_eq!(files, [file("main.tex", "A"), file("sec/one.tex", "B\n")]);
            let notes: Vec<String> = notes.finish().iter().map(|n| n.to_string()).collect();
            assert_eq!(
                notes,
                [
                    "path leads out of the archive, skipped (2: ../evil.tex, /etc/evil.tex)",
                    "file is no LaTeX text, not read (1: fig.png)",
                    "link or device in the archive, skipped (1: link.tex)",
                ]
            );
        }
    }

    #[test]
    fn a_single_packed_file_is_the_paper() {
        let mut source = Source::default();
        let bytes = gz(b"\\documentclass{article}");
        source
            .archive(&bytes, Path::new("1234.gz"), &mut Notes::default())
            .unwrap();
        assert_eq!(source.files["main.tex"], "\\documentclass{article}");
        let mut damaged = gz(&tar(&[("main.tex", "A")]));
        damaged.truncate(40);
        let error = source
            .archive(&damaged, Path::new("paper.tgz"), &mut Notes::default())
            .unwrap_err();
        assert!(error.to_string().contains("paper.tgz"), "{error}");
    }

    #[test]
    fn paths_stay_inside() {
        assert_eq!(normal("./a/../b.tex"), Some("b.tex".to_owned()));
        assert_eq!(normal("a/../../b.tex"), None);
        assert_eq!(normal("/b.tex"), None);
    }

    proptest! {
        #[test]
        fn odd_bytes_never_panic(
            bytes in proptest::collection::vec(any::<u8>(), 0..600),
            changes in proptest::collection::vec((0usize..2000, any::<u8>()), 0..10),
        ) {
            let mut archive = tar(&[("main.tex", "A")]);
            for (at, byte) in changes {
                let at = at % archive.len();
                archive[at] = byte;
            }
            for bytes in [bytes.clone(), gz(&bytes), archive.clone(), gz(&archive)] {
                let mut source = Source::default();
                let _ = source.archive(&bytes, Path::new("x"), &mut Notes::default());
            }
        }
    }
}
