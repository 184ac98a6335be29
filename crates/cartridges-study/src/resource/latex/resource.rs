//! The resource over a LaTeX source.

use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};

use super::arxiv::{Arxiv, ArxivId, behind_scheme};
use super::clean::{body, without_comments};
use super::expand::{expanded, main_files};
use super::source::{Source, normal};
use crate::resource::ResourceError;
use crate::resource::html::tidy;
use crate::resource::material::Material;
use crate::resource::notes::Notes;
use crate::resource::read::file_name;

/// A LaTeX source: a folder, a `.tex` file, or an archive (`.tar`, `.tar.gz`, `.tgz`, or arXiv's `.gz`
/// of a single file). Files are put in where the main file asks for them, comments go, text and
/// formulas stay as they are. Of the preamble, the title and the definitions of commands are kept.
///
/// Instead of a path, `arxiv_id` names a paper of arXiv; its source is fetched once and kept in the cache.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
pub struct LatexConfig {
    /// The folder, file or archive; this or `arxiv_id`.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub path: Option<PathBuf>,
    /// A paper of arXiv: `2506.06266`, `2506.06266v2`, or its address. Without a version, the one of the day
    /// of the first fetch stays.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub arxiv_id: Option<String>,
    /// Whether papers come from the cache only (default false).
    pub offline: bool,
    /// The main file, as a path in the folder or archive (default: the one that begins a document and
    /// that no other asks for; without one, all files in the order of their names).
    #[serde(skip_serializing_if = "Option::is_none")]
    pub main: Option<String>,
    /// Whether the whole preamble is kept (default false).
    pub preamble: bool,
}

impl LatexConfig {
    /// A source whose main file is to be found.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: Some(path.into()),
            ..Self::default()
        }
    }

    /// The paper that a text names, as `arxiv:2506.06266` or an address on arxiv.org.
    pub fn paper(text: &str) -> Option<Self> {
        let named = behind_scheme(text).is_some() || text.contains("arxiv.org/");
        ArxivId::parse(text).filter(|_| named).map(|_| Self {
            arxiv_id: Some(text.to_owned()),
            ..Self::default()
        })
    }

    /// Where the source is, and its name for people. A paper is fetched if need be.
    fn place(&self) -> Result<(PathBuf, String), ResourceError> {
        let field = |field, found: &str, expected| ResourceError::Field {
            kind: "latex",
            field,
            found: found.to_owned(),
            expected,
        };
        match (&self.path, &self.arxiv_id) {
            (Some(path), None) => Ok((path.clone(), file_name(path))),
            (None, Some(text)) => {
                let id = ArxivId::parse(text)
                    .ok_or_else(|| field("arxiv_id", text, "an identifier such as 2506.06266"))?;
                let path = Arxiv::from_env(self.offline, &id)?.source(&id)?;
                Ok((path, format!("arxiv:{id}")))
            }
            (Some(_), Some(id)) => Err(field("arxiv_id", id, "either it or path")),
            (None, None) => Err(field("path", "missing", "it or arxiv_id")),
        }
    }

    pub(in crate::resource) fn material(&self) -> Result<Material, ResourceError> {
        let mut notes = Notes::default();
        let (path, name) = self.place()?;
        let source = Source::open(&path, &mut notes)?;
        let text = self.text(&path, &source, &mut notes)?;
        let mut material = Material::running(name, tidy(&text));
        material.notes = notes;
        Ok(material)
    }

    fn text(
        &self,
        path: &Path,
        source: &Source,
        notes: &mut Notes,
    ) -> Result<String, ResourceError> {
        let missing = |what: String| ResourceError::Missing {
            path: path.to_owned(),
            what,
        };
        let main = match &self.main {
            Some(main) => Some(
                normal(main)
                    .filter(|main| source.files.contains_key(main))
                    .ok_or_else(|| missing(format!("file {main:?}")))?,
            ),
            None => {
                let mut found = main_files(source).into_iter();
                let main = found.next();
                for other in found {
                    notes.add("file is a document too, not read (set main)", other);
                }
                main
            }
        };
        let Some(main) = main else {
            return all(path, source, notes);
        };
        let whole = expanded(source, &main, notes);
        Ok(match self.preamble {
            true => whole,
            false => body(&whole),
        })
    }
}

/// Every `.tex` file in order, each behind a line with its name.
fn all(path: &Path, source: &Source, notes: &mut Notes) -> Result<String, ResourceError> {
    let mut parts = Vec::new();
    for (name, text) in &source.files {
        if !name.to_lowercase().ends_with(".bbl") {
            parts.push(format!("% File: {name}\n{}", without_comments(text)));
        }
    }
    match parts.len() {
        0 => {
            return Err(ResourceError::Missing {
                path: path.to_owned(),
                what: "LaTeX file (.tex, .ltx, .latex)".to_owned(),
            });
        }
        1 => parts[0] = parts[0].split_once('\n').map_or("", |p| p.1).to_owned(),
        n => notes.add_count("file read by itself, there is no main file", n),
    }
    Ok(parts.join("\n\n"))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::fs;

    #[test]
    fn a_folder_becomes_one_text() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        fs::write(
            at("paper.tex"),
            "\\documentclass{article}\n\\usepackage{x}\n\\title{Lamps}\n\\begin{document}\n% no\n\
             \\section{One}\n$a = b$ \\input{part}\n\\end{document}\n",
        )
        .unwrap();
        fs::write(at("part.tex"), "and more. % gone").unwrap();
        fs::write(at("fig.pdf"), "x").unwrap();
        let mut config = LatexConfig::new(folder.path());
        let material = config.material().unwrap();
        assert_eq!(
            material.text,
            "\\title{Lamps}\n\n\\section{One}\n$a = b$ and more."
        );
        let notes = material.notes.finish();
        assert_eq!(
            notes[0].to_string(),
            "file is no LaTeX text, not read (1: fig.pdf)"
        );
        config.preamble = true;
        assert!(config.material().unwrap().text.contains("usepackage"));
        config.main = Some("../paper.tex".to_owned());
        assert!(matches!(
            config.material(),
            Err(ResourceError::Missing { .. })
        ));
    }

    #[test]
    fn without_a_main_file_all_are_read() {
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("b.tex"), "two % c").unwrap();
        fs::write(folder.path().join("a.tex"), "one").unwrap();
        let material = LatexConfig::new(folder.path()).material().unwrap();
        assert_eq!(material.text, "% File: a.tex\none\n\n% File: b.tex\ntwo");
        let one = LatexConfig::new(folder.path().join("b.tex"));
        assert_eq!(one.material().unwrap().text, "two");
        let empty = tempfile::tempdir().unwrap();
        assert!(LatexConfig::new(empty.path()).material().is_err());
    }
}
