//! Which files make a data set.

use std::fs;
use std::path::{Path, PathBuf};

use super::error::ConversationFileError;

/// The one file of a run of self-study.
const WHOLE: &str = "dataset.parquet";
/// Folders of a data set in parts: as the reference has it on the hub, and in a run of its own.
const IN_PARTS: [&str; 2] = ["data", "artifact"];

/// The parquet files of a data set, in order: `path` itself if it is a file; of a folder
/// `dataset.parquet`, or else, as the reference lays them out, `data/*.parquet` (on the hub) or
/// `artifact/*.parquet` (a run), by name.
///
/// # Errors
/// If there is nothing of the kind.
pub fn dataset_files(path: &Path) -> Result<Vec<PathBuf>, ConversationFileError> {
    if !path.is_dir() {
        return Ok(vec![path.to_owned()]);
    }
    let whole = path.join(WHOLE);
    if whole.is_file() {
        return Ok(vec![whole]);
    }
    for name in IN_PARTS {
        let entries = fs::read_dir(path.join(name))
            .into_iter()
            .flatten()
            .flatten();
        let mut parts: Vec<PathBuf> = entries
            .map(|entry| entry.path())
            .filter(|path| path.extension().is_some_and(|e| e == "parquet") && path.is_file())
            .collect();
        parts.sort();
        if !parts.is_empty() {
            return Ok(parts);
        }
    }
    Err(ConversationFileError::NoDataSet {
        path: path.to_owned(),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_layouts_are_told_apart() {
        let folder = tempfile::tempdir().unwrap();
        let at = |name: &str| folder.path().join(name);
        let make = |name: &str| {
            fs::create_dir_all(at(name).parent().unwrap()).unwrap();
            fs::write(at(name), "").unwrap();
        };
        let found = || dataset_files(folder.path());
        assert!(found().unwrap_err().to_string().contains("dataset.parquet"));
        make("artifact/dataset.parquet");
        assert_eq!(found().unwrap(), [at("artifact/dataset.parquet")]);
        make("data/train-00001-of-00002.parquet");
        make("data/train-00000-of-00002.parquet");
        make("data/notes.txt");
        let parts = [0, 1].map(|i| at(&format!("data/train-0000{i}-of-00002.parquet")));
        assert_eq!(found().unwrap(), parts);
        make("dataset.parquet");
        assert_eq!(found().unwrap(), [at("dataset.parquet")]);
        assert_eq!(dataset_files(&parts[1]).unwrap(), [parts[1].clone()]);
    }
}
