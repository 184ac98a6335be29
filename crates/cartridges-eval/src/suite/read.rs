//! Reading the files of suites.

use std::io::Read;
use std::path::Path;

use serde_json::Value;

use super::error::SuiteError;

/// Far above any real file.
const LARGEST: u64 = 1 << 30;

/// The text of a file, without a byte order mark.
pub(super) fn text(path: &Path) -> Result<String, SuiteError> {
    let mut text = String::new();
    std::fs::File::open(path)
        .and_then(|file| file.take(LARGEST + 1).read_to_string(&mut text))
        .map_err(|source| SuiteError::Read {
            path: path.to_owned(),
            source,
        })?;
    if text.len() as u64 > LARGEST {
        return Err(SuiteError::TooLarge {
            path: path.to_owned(),
            limit: LARGEST,
        });
    }
    Ok(match text.strip_prefix('\u{feff}') {
        Some(rest) => rest.to_owned(),
        None => text,
    })
}

/// A JSON file: its value. Of a file with a value per line (`.jsonl`, or any that is no JSON as a whole)
/// the list of these.
pub(super) fn json(suite: &'static str, path: &Path) -> Result<Value, SuiteError> {
    let text = text(path)?;
    let wrong = |problem: String| SuiteError::format(suite, path, problem);
    let by_line = path.extension().is_some_and(|end| end == "jsonl");
    let mut whole = None;
    if !by_line {
        match serde_json::from_str(&text) {
            Ok(value) => return Ok(value),
            Err(problem) => whole = Some(problem),
        }
    }
    let lines = (1..).zip(text.lines());
    let lines = lines.filter(|(_, line)| !line.trim().is_empty());
    let values = lines.map(|(number, line)| {
        serde_json::from_str(line).map_err(|error| match (number, whole.take()) {
            (1, Some(problem)) => wrong(problem.to_string()),
            _ => wrong(format!("line {number}: {error}")),
        })
    });
    values.collect::<Result<Vec<Value>, _>>().map(Value::Array)
}

/// A text field that is not blank.
pub(super) fn field<'a>(value: &'a Value, name: &str) -> Option<&'a str> {
    let text = value.get(name)?.as_str()?.trim();
    (!text.is_empty()).then_some(text)
}

/// A list of texts.
pub(super) fn texts(value: &Value, name: &str) -> Option<Vec<String>> {
    let items = value.get(name)?.as_array()?.iter();
    items
        .map(|item| item.as_str().map(|text| text.trim().to_owned()))
        .collect()
}
