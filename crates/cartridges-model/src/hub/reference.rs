//! What a person may write to name a model.

use std::fmt;
use std::path::{Path, PathBuf};

use super::card::{cards, find_card};
use super::client::DATASETS;
use super::{HubError, ModelCard};

/// A model as a person names it. [`fmt::Display`] writes a form that [`ModelRef::parse`] reads.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ModelRef {
    /// A local folder in Hugging Face layout.
    Folder(PathBuf),
    /// A local GGUF file.
    Gguf(PathBuf),
    /// A model card, by its name.
    Card(String),
    /// A model on the hub: `owner/name[@revision][:file.gguf]`.
    Hub {
        /// `owner/name`.
        id: String,
        /// Branch, tag or commit, if one was named.
        revision: Option<String>,
        /// GGUF file in the repository, if one was named.
        file: Option<String>,
    },
}

impl ModelRef {
    /// Reads a model reference: a folder, a `.gguf` file, a card's name or alias, or a hub id
    /// `owner/name[@revision][:file.gguf]`.
    ///
    /// A folder or file that exists wins over a card or hub id of the same spelling; a hub id that
    /// is a card's own means that card.
    ///
    /// # Errors
    /// An error that says what to write instead if the text names none of these.
    pub fn parse(text: &str) -> Result<Self, HubError> {
        let text = text.trim();
        if text.is_empty() {
            return Err(bad(text, FORMS.to_owned()));
        }
        let path = expand_home(text);
        if path.is_dir() {
            let fallback = match local_folder(&path) {
                Ok(found) => return Ok(found),
                Err(e) => e,
            };
            // A folder that only happens to be called like a model does not hide the model.
            return match find_card(text)? {
                Some(card) => Ok(Self::Card(card.name.clone())),
                None => Err(fallback),
            };
        }
        if path.exists() {
            return local_file(path);
        }
        if let Some(card) = find_card(text)? {
            return Ok(Self::Card(card.name.clone()));
        }
        if let Some(rest) = text
            .strip_prefix("https://")
            .or_else(|| text.strip_prefix("http://"))
        {
            let id: Vec<&str> = rest.split('/').skip(1).take(2).collect();
            return Err(bad(
                text,
                format!(
                    "write the hub id without the address, like {}",
                    id.join("/")
                ),
            ));
        }
        if looks_like_path(text) {
            return Err(missing_path(path, text));
        }
        if text.contains('/') {
            return hub_reference(text);
        }
        Err(bad(text, near_names(text)?))
    }
}

impl fmt::Display for ModelRef {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Folder(path) | Self::Gguf(path) => write!(f, "{}", path.display()),
            Self::Card(name) => f.write_str(name),
            Self::Hub { id, revision, file } => {
                f.write_str(id)?;
                if let Some(revision) = revision {
                    write!(f, "@{revision}")?;
                }
                if let Some(file) = file {
                    write!(f, ":{file}")?;
                }
                Ok(())
            }
        }
    }
}

const FORMS: &str = "give a folder, a .gguf file, a model name (like qwen2.5-coder-0.5b), \
                     or a hub id (owner/name[@revision][:file.gguf])";

fn bad(text: &str, hint: String) -> HubError {
    HubError::BadReference {
        text: text.to_owned(),
        hint,
    }
}

/// `~/x` from a config file, where no shell expands it.
fn expand_home(text: &str) -> PathBuf {
    let rest = text.strip_prefix("~/");
    let home = std::env::home_dir().filter(|home| !home.as_os_str().is_empty());
    match (rest, home) {
        (Some(rest), Some(home)) => home.join(rest),
        _ => PathBuf::from(text),
    }
}

fn has_extension(path: &Path, extension: &str) -> bool {
    path.extension()
        .is_some_and(|e| e.eq_ignore_ascii_case(extension))
}

fn local_folder(path: &Path) -> Result<ModelRef, HubError> {
    if path.join("config.json").is_file() {
        return Ok(ModelRef::Folder(path.to_owned()));
    }
    let ggufs = ggufs_in(path);
    let hint = match ggufs.as_slice() {
        [one] => return Ok(ModelRef::Gguf(path.join(one))),
        [] => {
            "the folder has no config.json; give the folder that has config.json, tokenizer.json \
               and the .safetensors files"
                .to_owned()
        }
        many => format!(
            "the folder has several .gguf files, give one of them: {}",
            some(many)
        ),
    };
    Err(HubError::NotAModel {
        path: path.to_owned(),
        hint,
    })
}

fn local_file(path: PathBuf) -> Result<ModelRef, HubError> {
    if has_extension(&path, "gguf") {
        return Ok(ModelRef::Gguf(path));
    }
    let hint = if has_extension(&path, "safetensors") || has_extension(&path, "json") {
        "give the folder that holds it".to_owned()
    } else if ["bin", "pt", "pth", "ckpt"]
        .iter()
        .any(|e| has_extension(&path, e))
    {
        "pickled weights are not loaded; give a folder with .safetensors weights or a .gguf file"
            .to_owned()
    } else {
        "expected a folder or a .gguf file".to_owned()
    };
    Err(HubError::NotAModel { path, hint })
}

fn missing_path(path: PathBuf, text: &str) -> HubError {
    let parent = match path.parent() {
        Some(p) if !p.as_os_str().is_empty() => p,
        _ => Path::new("."),
    };
    let mut hint = if !parent.is_dir() {
        let above = parent.ancestors().find(|a| a.is_dir());
        match above.filter(|a| !a.as_os_str().is_empty()) {
            Some(above) => format!(
                "of this path, {} is the last folder that exists",
                above.display()
            ),
            None => "check the spelling".to_owned(),
        }
    } else {
        match ggufs_in(parent).as_slice() {
            [] => format!("{} exists and has no .gguf file", parent.display()),
            found => format!("{} has {}", parent.display(), some(found)),
        }
    };
    // `owner/name.gguf` may have been meant as a file on the hub.
    if !text.starts_with(['/', '.', '~']) && text.matches('/').count() == 2 {
        let (id, file) = text.rsplit_once('/').unwrap_or((text, ""));
        hint.push_str(&format!("; for a file on the hub write {id}:{file}"));
    }
    HubError::PathMissing { path, hint }
}

/// GGUF files of a folder, sorted; none if it cannot be read.
fn ggufs_in(folder: &Path) -> Vec<String> {
    let mut names: Vec<String> = std::fs::read_dir(folder)
        .into_iter()
        .flatten()
        .flatten()
        .filter(|e| has_extension(&e.path(), "gguf"))
        .map(|e| e.file_name().to_string_lossy().into_owned())
        .collect();
    names.sort();
    names
}

/// The first few names of a list.
pub(crate) fn some<T: AsRef<str>>(names: &[T]) -> String {
    let mut text = names
        .iter()
        .take(6)
        .map(AsRef::as_ref)
        .collect::<Vec<_>>()
        .join(", ");
    if names.len() > 6 {
        text.push_str(&format!(" and {} more", names.len() - 6));
    }
    text
}

fn looks_like_path(text: &str) -> bool {
    let before_file = text.split(':').next().unwrap_or(text);
    let before_revision = before_file.split('@').next().unwrap_or(before_file);
    text.starts_with(['/', '.', '~'])
        || text.contains('\\')
        || text.ends_with('/')
        || before_revision.matches('/').count() > 1
        || (!text.contains(':') && has_extension(Path::new(text), "gguf"))
}

fn hub_reference(text: &str) -> Result<ModelRef, HubError> {
    let (head, file) = match text.split_once(':') {
        Some((head, file)) => (head, Some(file)),
        None => (text, None),
    };
    let (id, revision) = match head.split_once('@') {
        Some((id, revision)) => (id, Some(revision)),
        None => (head, None),
    };
    if !is_hub_id(id) {
        return Err(bad(
            text,
            format!("{id:?} is not owner/name with letters, digits and . _ -"),
        ));
    }
    if let Some(revision) = revision
        && !is_revision(revision)
    {
        return Err(bad(
            text,
            format!("after @ comes a branch, tag or commit, not {revision:?}"),
        ));
    }
    if let Some(file) = file
        && !is_gguf_in_repo(file)
    {
        return Err(bad(
            text,
            format!(
                "after : comes a .gguf file of the repository, not {file:?} (@revision goes before :)"
            ),
        ));
    }
    if let Some(card) = card_of_hub_id(id, revision, file)? {
        return Ok(ModelRef::Card(card.name.clone()));
    }
    Ok(ModelRef::Hub {
        id: id.to_owned(),
        revision: revision.map(str::to_owned),
        file: file.map(str::to_owned),
    })
}

/// The card that stands for exactly this hub reference.
fn card_of_hub_id(
    id: &str,
    revision: Option<&str>,
    file: Option<&str>,
) -> Result<Option<&'static ModelCard>, HubError> {
    Ok(cards()?.iter().find(|card| {
        card.hub.id.eq_ignore_ascii_case(id)
            && revision.is_none_or(|r| r == card.hub.revision)
            && file.is_none_or(|f| card.hub.file.as_deref() == Some(f))
    }))
}

/// `owner/name` as the hub allows it.
pub(crate) fn is_hub_id(id: &str) -> bool {
    let part = |part: &str| {
        !part.is_empty()
            && part.len() <= 96
            && !part.starts_with(['.', '-'])
            && part
                .bytes()
                .all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b))
    };
    id.split_once('/')
        .is_some_and(|(owner, name)| part(owner) && part(name))
}

/// The hub's `owner/name` of a model that a person or a record names by a card or by its id, with or
/// without revision and file; none for a path.
pub fn hub_id(text: &str) -> Option<String> {
    if let Ok(Some(card)) = find_card(text) {
        return Some(card.hub.id.clone());
    }
    let id = text.split([':', '@']).next().unwrap_or(text);
    let is_path = Path::new(text).exists();
    (is_hub_id(id) && !is_path).then(|| id.to_owned())
}

/// `owner/name` with or without `datasets/` before it.
pub(crate) fn check_repo_id(id: &str) -> Result<(), HubError> {
    match is_hub_id(id.strip_prefix(DATASETS).unwrap_or(id)) {
        true => Ok(()),
        false => Err(bad(
            id,
            "a repository is named owner/name, a dataset also datasets/owner/name".to_owned(),
        )),
    }
}

/// A revision becomes part of a path in the cache, so it may not climb out of it.
pub(crate) fn is_revision(revision: &str) -> bool {
    !revision.is_empty()
        && revision.len() <= 200
        && revision
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"._-/+".contains(&b))
        && revision
            .split('/')
            .all(|part| !part.is_empty() && part != "." && part != "..")
}

/// A relative path inside a repository that ends in `.gguf` and does not climb out.
pub(crate) fn is_gguf_in_repo(file: &str) -> bool {
    has_extension(Path::new(file), "gguf") && is_path_in_repo(file)
}

/// A relative path that stays inside its repository.
pub(crate) fn is_path_in_repo(file: &str) -> bool {
    !file.contains(['\\', ':', '\0'])
        && file
            .split('/')
            .all(|part| !part.is_empty() && part != "." && part != "..")
}

/// What to write instead of an unknown name.
fn near_names(text: &str) -> Result<String, HubError> {
    let lower = text.to_ascii_lowercase();
    let cards = cards()?;
    let near: Vec<&str> = cards
        .iter()
        .filter(|card| {
            std::iter::once(&card.name)
                .chain(&card.aliases)
                .any(|n| n.starts_with(&lower) || edits(n, &lower) <= 3)
        })
        .map(|card| card.name.as_str())
        .collect();
    if !near.is_empty() {
        return Ok(format!("did you mean {}?", near.join(" or ")));
    }
    let all: Vec<&str> = cards.iter().map(|card| card.name.as_str()).collect();
    Ok(format!("known names are {}; or {FORMS}", all.join(", ")))
}

/// Levenshtein distance in bytes.
fn edits(a: &str, b: &str) -> usize {
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, x) in a.bytes().enumerate() {
        let mut diagonal = i;
        row[0] = i + 1;
        for (j, y) in b.bytes().enumerate() {
            let replaced = diagonal + usize::from(x != y);
            diagonal = row[j + 1];
            row[j + 1] = replaced.min(row[j] + 1).min(diagonal + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    fn hub(id: &str, revision: Option<&str>, file: Option<&str>) -> ModelRef {
        ModelRef::Hub {
            id: id.into(),
            revision: revision.map(Into::into),
            file: file.map(Into::into),
        }
    }

    #[test]
    fn names_and_hub_ids_are_told_apart() {
        let cases = [
            ("qwen3-4b", ModelRef::Card("qwen3-4b".into())),
            (" SmolLM2 ", ModelRef::Card("smollm2-135m".into())),
            ("Qwen/Qwen3-4B", ModelRef::Card("qwen3-4b".into())),
            ("qwen/qwen3-4b@main", ModelRef::Card("qwen3-4b".into())),
            ("Qwen/Qwen3-4B@abc", hub("Qwen/Qwen3-4B", Some("abc"), None)),
            ("a/b", hub("a/b", None, None)),
            ("a/b@refs/pr/1", hub("a/b", Some("refs/pr/1"), None)),
            ("a/b:x.gguf", hub("a/b", None, Some("x.gguf"))),
            ("a/b@v1:q/x.gguf", hub("a/b", Some("v1"), Some("q/x.gguf"))),
        ];
        for (text, expected) in cases {
            let parsed = ModelRef::parse(text).unwrap_or_else(|e| panic!("{text}: {e}"));
            assert_eq!(parsed, expected, "{text}");
            assert_eq!(ModelRef::parse(&parsed.to_string()).unwrap(), expected);
        }
    }

    #[test]
    fn near_misses_say_what_to_do() {
        let cases = [
            ("", "give a folder"),
            ("qwen2.5-coder-05b", "did you mean qwen2.5-coder-0.5b"),
            ("nothing-like-it", "known names are"),
            ("https://huggingface.co/a/b/tree/main", "like a/b"),
            ("a/b:c.safetensors", "after : comes a .gguf"),
            ("a/b:x.gguf@v1", "@revision goes before"),
            ("a/b:../x.gguf", "after : comes a .gguf"),
            ("a/b@../..", "after @ comes"),
            ("a/b c", "letters, digits"),
            ("no/such/folder/m.gguf", "check the spelling"),
            ("/no-such-folder/m.gguf", "/ is the last folder"),
            ("own/name/x.gguf", "write own/name:x.gguf"),
        ];
        for (text, hint) in cases {
            let error = ModelRef::parse(text).unwrap_err().to_string();
            assert!(error.contains(hint), "{text}: {error}");
        }
    }

    #[test]
    fn local_files_and_folders_win() {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        let parse = |path: &Path| ModelRef::parse(path.to_str().unwrap());
        let hint = |path: &Path| parse(path).unwrap_err().to_string();

        assert!(hint(dir.path()).contains("no config.json"));
        std::fs::write(at("a.gguf"), "x").unwrap();
        assert_eq!(parse(&at("a.gguf")).unwrap(), ModelRef::Gguf(at("a.gguf")));
        assert_eq!(parse(dir.path()).unwrap(), ModelRef::Gguf(at("a.gguf")));
        std::fs::write(at("b.GGUF"), "x").unwrap();
        assert!(hint(dir.path()).contains("a.gguf, b.GGUF"));
        assert!(hint(&at("c.gguf")).contains("a.gguf"));
        for (name, part) in [
            ("m.safetensors", "give the folder"),
            ("pytorch_model.bin", "pickled"),
            ("x.txt", "expected a folder"),
        ] {
            std::fs::write(at(name), "x").unwrap();
            assert!(hint(&at(name)).contains(part), "{name}");
        }
        std::fs::write(at("config.json"), "{}").unwrap();
        assert_eq!(
            parse(dir.path()).unwrap(),
            ModelRef::Folder(dir.path().to_owned())
        );
    }

    #[test]
    fn edit_distance() {
        assert_eq!(edits("kitten", "sitting"), 3);
        assert_eq!(edits("", "abc"), 3);
        assert_eq!(edits("same", "same"), 0);
    }
}
