//! The main file of a source, and the files put in where it asks for them.

use std::collections::BTreeMap;

use super::clean::without_comments;
use super::source::{MAX_SOURCE_BYTES, Source, normal};
use crate::resource::notes::Notes;

/// How deep files may ask for files.
const MAX_DEPTH: usize = 32;
/// How many files may be put in, copies counted.
const MAX_INSERTIONS: usize = 20_000;
/// Commands that put in a file, longest first; those with two arguments name its folder first.
const COMMANDS: [(&str, bool); 6] = [
    ("subfileinclude", false),
    ("subimport", true),
    ("include", false),
    ("subfile", false),
    ("import", true),
    ("input", false),
];
/// File names that main files often have, best first.
const MAIN_NAMES: [&str; 5] = ["main.tex", "ms.tex", "paper.tex", "article.tex", "root.tex"];

/// The main files of a source: those that begin a document and that no other file asks for; the best
/// guess first.
pub(super) fn main_files(source: &Source) -> Vec<String> {
    let clean: Vec<(&String, String)> = source
        .files
        .iter()
        .map(|(name, text)| (name, without_comments(text)))
        .collect();
    let mut asked_for: Vec<String> = Vec::new();
    for (name, text) in &clean {
        let mut rest = text.as_str();
        while let Some((_, found)) = next_command(rest) {
            asked_for.extend(resolve(source, name, &found.target).map(str::to_owned));
            rest = &rest[found.end..];
        }
    }
    let mut found: Vec<(&String, usize)> = clean
        .iter()
        .filter(|(_, text)| {
            text.contains(r"\begin{document}")
                && (text.contains(r"\documentclass") || text.contains(r"\documentstyle"))
        })
        .filter(|(name, _)| !asked_for.contains(name))
        .map(|(name, text)| (*name, text.len()))
        .collect();
    let rank = |name: &str| {
        let position = MAIN_NAMES.iter().position(|main| *main == name);
        position.unwrap_or(MAIN_NAMES.len())
    };
    found.sort_by_key(|(name, length)| (rank(name), std::cmp::Reverse(*length), (*name).clone()));
    found.into_iter().map(|(name, _)| name.clone()).collect()
}

/// A file without comments, with everything it asks for in its place. Files that are not there, that
/// ask for themselves, or that are too many are noted and left out.
pub(super) fn expanded(source: &Source, name: &str, notes: &mut Notes) -> String {
    let mut expansion = Expansion {
        source,
        // Once for all: a file can be asked for many times.
        clean: source
            .files
            .iter()
            .map(|(name, text)| (name.as_str(), without_comments(text)))
            .collect(),
        notes,
        out: String::new(),
        open: Vec::new(),
        insertions: 0,
        full: false,
    };
    expansion.file(name);
    expansion.out
}

struct Expansion<'a> {
    source: &'a Source,
    clean: BTreeMap<&'a str, String>,
    notes: &'a mut Notes,
    out: String,
    /// The files being put in, outermost first.
    open: Vec<&'a str>,
    insertions: usize,
    /// Whether a limit was reached.
    full: bool,
}

impl<'a> Expansion<'a> {
    fn file(&mut self, name: &str) {
        let Some((name, text)) = self.clean.remove_entry(name) else {
            return;
        };
        self.inside(name, part(&text, self.open.is_empty()));
        self.clean.insert(name, text);
    }

    fn inside(&mut self, name: &'a str, text: &str) {
        self.open.push(name);
        let mut rest = text;
        while let Some((start, found)) = next_command(rest) {
            self.push(&rest[..start]);
            rest = &rest[found.end..];
            if self.full {
                break;
            }
            match resolve(self.source, name, &found.target) {
                None => self
                    .notes
                    .add("file asked for is not in the source", found.target),
                Some(inner) if self.open.contains(&inner) => {
                    self.notes
                        .add("file asks for itself, not put in again", inner);
                }
                Some(inner) if self.open.len() >= MAX_DEPTH => {
                    self.notes
                        .add("file lies too deep in others, left out", inner);
                }
                Some(inner) => {
                    self.insertions += 1;
                    if self.insertions > MAX_INSERTIONS {
                        self.stop("too many files are put in, the rest is left out");
                    } else {
                        self.file(inner);
                    }
                }
            }
        }
        self.push(rest);
        self.open.pop();
    }

    fn push(&mut self, text: &str) {
        if self.full {
            return;
        }
        if self.out.len() as u64 + text.len() as u64 > MAX_SOURCE_BYTES {
            self.stop("the text grows beyond the largest size, the rest is left out");
        } else {
            self.out.push_str(text);
        }
    }

    fn stop(&mut self, why: &str) {
        self.full = true;
        self.notes.add(why, self.open.join(" > "));
    }
}

/// What a file puts in: all of it, or, if it is a document of its own inside another, its body.
fn part(text: &str, outermost: bool) -> &str {
    match text.split_once(r"\begin{document}") {
        Some((_, body)) if !outermost => body.split_once(r"\end{document}").map_or(body, |b| b.0),
        _ => text,
    }
}

struct Found {
    target: String,
    end: usize,
}

/// The next command that asks for a file: where it starts, what it asks for, where it ends.
fn next_command(text: &str) -> Option<(usize, Found)> {
    let mut at = 0;
    while let Some(found) = text[at..].find('\\') {
        let start = at + found;
        at = start + 1;
        // `\\input` is a line break and a word.
        if text[at..].starts_with('\\') {
            at += 1;
            continue;
        }
        let Some((name, folder)) = COMMANDS
            .into_iter()
            .find(|(name, _)| text[at..].starts_with(name))
        else {
            continue;
        };
        let behind = at + name.len();
        if text[behind..].starts_with(|c: char| c.is_ascii_alphabetic()) {
            continue;
        }
        let Some((first, end)) = argument(text, behind, name == "input") else {
            continue;
        };
        if !folder {
            return Some((start, Found { target: first, end }));
        }
        if let Some((second, end)) = argument(text, end, false) {
            let target = format!("{}/{second}", first.trim_end_matches('/'));
            let target = target.trim_start_matches('/').to_owned();
            return Some((start, Found { target, end }));
        }
    }
    None
}

/// An argument in braces, or for plain TeX's `\input` a word.
fn argument(text: &str, start: usize, word: bool) -> Option<(String, usize)> {
    let rest = text[start..].trim_start_matches(['*', ' ', '\n', '\t']);
    let at = text.len() - rest.len();
    if let Some(inner) = rest.strip_prefix('{') {
        let end = inner.find('}')?;
        return Some((inner[..end].trim().to_owned(), at + 1 + end + 1));
    }
    if !word || at == start {
        return None;
    }
    let end = rest
        .find(|c: char| c.is_whitespace() || matches!(c, '\\' | '{' | '}'))
        .unwrap_or(rest.len());
    (end > 0).then(|| (rest[..end].to_owned(), at + end))
}

/// The name in the source of a file that `from` asks for: beside the main file or beside `from`, with
/// or without its extension.
fn resolve<'a>(source: &'a Source, from: &str, target: &str) -> Option<&'a str> {
    let folder = from.rsplit_once('/').map_or("", |(folder, _)| folder);
    [target.to_owned(), format!("{folder}/{target}")]
        .iter()
        .map(|path| path.trim_start_matches('/'))
        .flat_map(|path| [format!("{path}.tex"), path.to_owned()])
        .filter_map(|path| normal(&path))
        .find_map(|path| source.files.get_key_value(&path))
        .map(|(name, _)| name.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn source(files: &[(&str, &str)]) -> Source {
        let mut source = Source::default();
        for (name, text) in files {
            source.files.insert((*name).to_owned(), (*text).to_owned());
        }
        source
    }

    #[test]
    fn files_are_put_in_where_they_are_asked_for() {
        let source = source(&[
            (
                "main.tex",
                "A \\input{sec/one} B\n\\include{two.tex}\n%\\input{gone}\n\\input three\nC \
                 \\includegraphics{x} \\input{missing}",
            ),
            ("sec/one.tex", "one[\\input{inner}]"),
            ("sec/inner.tex", "inner"),
            ("two.tex", "two \\input{main}"),
            (
                "three.tex",
                "\\documentclass{x}\\begin{document}three\\end{document}",
            ),
        ]);
        let mut notes = Notes::default();
        assert_eq!(
            expanded(&source, "main.tex", &mut notes),
            "A one[inner] B\ntwo \nthree\nC \\includegraphics{x} "
        );
        let notes: Vec<String> = notes.finish().iter().map(|n| n.to_string()).collect();
        assert_eq!(
            notes,
            [
                "file asks for itself, not put in again (1: main.tex)",
                "file asked for is not in the source (1: missing)"
            ]
        );
    }

    #[test]
    fn nothing_outside_the_source_is_reached() {
        let source = source(&[(
            "a/main.tex",
            "x\\input{../../../etc/passwd}\\input{/etc/passwd}y",
        )]);
        let mut notes = Notes::default();
        assert_eq!(expanded(&source, "a/main.tex", &mut notes), "xy");
        assert_eq!(notes.finish()[0].count, 2);
    }

    #[test]
    fn the_main_file_is_the_document_that_nobody_asks_for() {
        const DOCUMENT: &str = "\\documentclass{a}\\begin{document}x\\end{document}";
        let found = main_files(&source(&[
            (
                "z.tex",
                "\\documentclass{a}\\begin{document}\\subfile{part}\\end{document}",
            ),
            ("part.tex", DOCUMENT),
            ("notes.tex", "% \\documentclass{a}\\begin{document}"),
            ("appendix.tex", DOCUMENT),
            ("main.tex", DOCUMENT),
        ]));
        assert_eq!(found, ["main.tex", "z.tex", "appendix.tex"]);
    }

    #[test]
    fn a_tree_of_copies_stays_within_its_size() {
        // Each file asks twice for the next: without a limit, 2^30 copies of a kilobyte.
        let leaf = "x".repeat(1 << 10);
        let mut files = vec![("f30.tex".to_owned(), leaf)];
        for i in 0..30 {
            let next = i + 1;
            files.push((
                format!("f{i}.tex"),
                format!("\\input{{f{next}}}\\input{{f{next}}}"),
            ));
        }
        let files: Vec<(&str, &str)> = files
            .iter()
            .map(|(a, b)| (a.as_str(), b.as_str()))
            .collect();
        let mut notes = Notes::default();
        let text = expanded(&source(&files), "f0.tex", &mut notes);
        assert!(text.len() as u64 <= MAX_SOURCE_BYTES);
        assert!(!notes.finish().is_empty());
    }

    proptest! {
        #[test]
        fn odd_text_never_panics(
            a in "(\\\\(input|include|import|subfile)|[{}%\\\\\n é]|\\{[ab./]{0,4}\\}){0,40}",
            b in "(\\\\input|\\{[ab./]{0,4}\\}| ){0,10}",
        ) {
            let source = source(&[("a.tex", a.as_str()), ("b/b.tex", b.as_str())]);
            let _ = main_files(&source);
            let _ = expanded(&source, "a.tex", &mut Notes::default());
        }
    }
}
