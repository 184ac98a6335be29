//! Which kind of resource a path is, by its name.

use std::fs;
use std::path::Path;

use super::config::ResourceConfig;
use super::directory::DirectoryConfig;
use super::html::HtmlConfig;
use super::json::JsonConfig;
use super::latex::LatexConfig;
use super::longhealth::LongHealthConfig;
use super::mail::{MailConfig, is_mail};
use super::pdf::PdfConfig;
use super::qasper::QasperConfig;
use super::text::FileConfig;

impl ResourceConfig {
    /// The resource that a path most likely is, with the defaults of its type: a folder with `.tex`
    /// files in it is LaTeX, another one a directory; files are told by their extension, and
    /// LongHealth and QASPER by their name; everything else is a text file. `arxiv:2506.06266`, or an
    /// address on arxiv.org, is that paper's LaTeX source. Nothing is opened but a folder.
    pub fn for_path(path: &Path) -> Self {
        if let Some(paper) = path.to_str().and_then(LatexConfig::paper)
            && !path.exists()
        {
            return Self::Latex(paper);
        }
        if path.is_dir() {
            return match has_tex(path) {
                true => Self::Latex(LatexConfig::new(path)),
                false => Self::Directory(DirectoryConfig::new(path)),
            };
        }
        let name = path
            .file_name()
            .map(|name| name.to_string_lossy().to_lowercase())
            .unwrap_or_default();
        if is_mail(path) {
            return Self::Mail(MailConfig::new(path));
        }
        let (_, extension) = name.rsplit_once('.').unwrap_or(("", ""));
        match extension {
            "html" | "htm" | "xhtml" => Self::Html(HtmlConfig {
                path: path.to_owned(),
            }),
            "pdf" => Self::Pdf(PdfConfig {
                path: path.to_owned(),
                password: None,
            }),
            "tex" | "ltx" | "latex" | "tar" | "tgz" | "gz" => Self::Latex(LatexConfig::new(path)),
            "json" if name.contains("longhealth") || name.starts_with("benchmark_v5") => {
                Self::LongHealth(LongHealthConfig::new(path))
            }
            "json" | "jsonl" if name.contains("qasper") => Self::Qasper(QasperConfig::new(path)),
            "json" | "jsonl" | "ndjson" => Self::Json(JsonConfig::new(path)),
            _ => Self::File(FileConfig {
                path: path.to_owned(),
                encoding: None,
            }),
        }
    }
}

/// Whether a folder has LaTeX files in it; not if it cannot be read, which loading it will tell.
fn has_tex(folder: &Path) -> bool {
    fs::read_dir(folder).is_ok_and(|entries| {
        entries.flatten().any(|entry| {
            Path::new(&entry.file_name())
                .extension()
                .is_some_and(|e| e.eq_ignore_ascii_case("tex"))
        })
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn names_tell_the_type() {
        for (name, kind) in [
            ("a/notes.txt", "file"),
            ("README", "file"),
            ("page.HTML", "html"),
            ("paper.pdf", "pdf"),
            ("2106.01234.tar.gz", "latex"),
            ("src.tgz", "latex"),
            ("paper.tex", "latex"),
            ("All mail.mbox", "mail"),
            ("one.eml", "mail"),
            ("data.json", "json"),
            ("data.jsonl", "json"),
            ("benchmark_v5.json", "longhealth"),
            ("qasper-train-v0.3.json", "qasper"),
            ("arxiv:2506.06266", "latex"),
            ("https://arxiv.org/abs/2506.06266v1", "latex"),
            ("2506.06266", "file"),
        ] {
            assert_eq!(
                ResourceConfig::for_path(Path::new(name)).kind(),
                kind,
                "{name}"
            );
        }
        let folder = tempfile::tempdir().unwrap();
        let kind = || ResourceConfig::for_path(folder.path()).kind();
        assert_eq!(kind(), "directory");
        std::fs::write(folder.path().join("main.tex"), "x").unwrap();
        assert_eq!(kind(), "latex");
    }
}
