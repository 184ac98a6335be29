//! Reading the files of suites.

use std::path::Path;

use cartridges_study::resource::read_text;
use serde_json::Value;

use super::error::SuiteError;

/// A JSON file: its value. Of a file with a value per line (`.jsonl`, or any that is no JSON as a whole)
/// the list of these.
pub(super) fn json(suite: &'static str, path: &Path) -> Result<Value, SuiteError> {
    let text = read_text(path)?;
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
