//! The resource over a LaTeX source.

use std::path::PathBuf;

use serde::{Deserialize, Serialize};

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
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct LatexConfig {
    /// The folder, file or archive.
    pub path: PathBuf,
    /// The main file, as a path in the folder or archive (default: the one that begins a document and
    /// that no other asks for; without one, all files in the order of their names).
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub main: Option<String>,
    /// Whether the whole preamble is kept (default false).
    #[serde(default)]
    pub preamble: bool,
}

impl LatexConfig {
    /// A source whose main file is to be found.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            main: None,
            preamble: false,
        }
    }

    pub(in crate::resource) fn material(&self) -> Result<Material, ResourceError> {
        let mut notes = Notes::default();
        let source = Source::open(&self.path, &mut notes)?;
        let text = self.text(&source, &mut notes)?;
        let mut material = Material::running(file_name(&self.path), tidy(&text));
        material.notes = notes;
        Ok(material)
    }

    fn text(&self, source: &Source, notes: &mut Notes) -> Result<String, ResourceError> {
        let missing = |what: String| ResourceError::Missing {
            path: self.path.clone(),
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
            return self.all(source, notes);
        };
        let whole = expanded(source, &main, notes);
        Ok(match self.preamble {
            true => whole,
            false => body(&whole),
        })
    }

    /// Every `.tex` file in order, each behind a line with its name.
    fn all(&self, source: &Source, notes: &mut Notes) -> Result<String, ResourceError> {
        let mut parts = Vec::new();
        for (name, text) in &source.files {
            if !name.to_lowercase().ends_with(".bbl") {
                parts.push(format!("% File: {name}\n{}", without_comments(text)));
            }
        }
        match parts.len() {
            0 => {
                return Err(ResourceError::Missing {
                    path: self.path.clone(),
                    what: "LaTeX file (.tex, .ltx, .latex)".to_owned(),
                });
            }
            1 => parts[0] = parts[0].split_once('\n').map_or("", |p| p.1).to_owned(),
            n => notes.add_count("file read by itself, there is no main file", n),
        }
        Ok(parts.join("\n\n"))
    }
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
