//! Reading reports back.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

use crate::report::Report;

use super::error::PageError;

/// A report with every answer to ten thousand questions has some tens of MiB.
const LIMIT: u64 = 512 << 20;

/// The file that a path stands for: itself, or `report.json` in it.
pub(super) fn report_file(path: &Path) -> PathBuf {
    match path.is_dir() {
        true => path.join("report.json"),
        false => path.to_owned(),
    }
}

/// The reports in a file, or in a folder's `report.json`: one, or a list as this crate's page writes it.
///
/// # Errors
/// [`PageError`] with the file, and with the field where it is JSON but no report.
pub fn load_reports(path: &Path) -> Result<Vec<Report>, PageError> {
    let path = report_file(path);
    let failed = |source| PageError::Read {
        path: path.clone(),
        source,
    };
    let file = File::open(&path).map_err(failed)?;
    let mut text = Vec::new();
    file.take(LIMIT + 1)
        .read_to_end(&mut text)
        .map_err(failed)?;
    if text.len() as u64 > LIMIT {
        return Err(PageError::TooLarge { path, limit: LIMIT });
    }
    let list = text.iter().find(|b| !b.is_ascii_whitespace()) == Some(&b'[');
    let reports: Vec<Report> = match list {
        true => parsed(&path, &text)?,
        false => vec![parsed(&path, &text)?],
    };
    match reports.is_empty() {
        true => Err(PageError::Empty { path }),
        false => Ok(reports),
    }
}

fn parsed<T: DeserializeOwned>(path: &Path, text: &[u8]) -> Result<T, PageError> {
    let mut reader = serde_json::Deserializer::from_slice(text);
    let found: Result<T, _> = serde_path_to_error::deserialize(&mut reader);
    let wrong = |field: String, error: &serde_json::Error| PageError::NoReport {
        path: path.to_owned(),
        field,
        reason: error.to_string(),
    };
    let value = found.map_err(|e| wrong(e.path().to_string(), e.inner()))?;
    reader.end().map_err(|e| wrong(".".to_owned(), &e))?;
    Ok(value)
}
