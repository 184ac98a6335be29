//! What a folder of self-study holds.

use std::path::Path;

use anyhow::Result;
use serde_json::{Value, json};

use super::table::{beginning, fields};
use super::{Findings, View, conversations};
use crate::opening::read_json;

/// Far more than any real plan or report.
const LARGEST_JSON: u64 = 256 << 20;

/// The folder of a synthesis run, finished or not.
pub(super) fn run_folder(folder: &Path, view: &View) -> Result<Findings> {
    let plan = read_json(&folder.join("plan.json"), LARGEST_JSON)?;
    let report_path = folder.join("report.json");
    let report = match report_path.is_file() {
        true => Some(read_json(&report_path, LARGEST_JSON)?),
        false => None,
    };
    let dataset = folder.join("dataset.parquet");
    let dataset = match dataset.is_file() {
        true => Some(conversations::file(&dataset, view)?),
        false => None,
    };

    let text_of = |value: &Value, key: &str| match value.get(key) {
        None | Some(Value::Null) => "(not stated)".to_owned(),
        Some(Value::String(text)) => text.clone(),
        Some(other) => other.to_string(),
    };
    let names: Vec<&str> = plan
        .get("resources")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
        .filter_map(|resource| resource.get("name")?.as_str())
        .collect();
    let mut rows = vec![
        ("synthesis run", folder.display().to_string()),
        ("model", text_of(&plan, "model")),
        ("texts", beginning(&names.join(", "), 200)),
        ("tasks", text_of(&plan, "num_tasks")),
    ];
    match &report {
        None => rows.push((
            "state",
            "no report: stopped before its first step ended".to_owned(),
        )),
        Some(report) => {
            rows.push(("finished", text_of(report, "finished")));
            rows.push(("dropped", counts(report.get("dropped"))));
            rows.push(("failed", counts(report.get("failed"))));
            if let Some(cause) = report.get("last_failure").and_then(Value::as_str) {
                rows.push(("last failure", beginning(cause, 200)));
            }
        }
    }
    if dataset.is_none() {
        rows.push((
            "data set",
            "not written yet; the same command goes on with the run".into(),
        ));
    }
    let mut text = fields(&rows);
    if let Some(config) = plan.get("config").and_then(Value::as_object) {
        text += "\nsettings\n";
        let settings: Vec<(&str, String)> = config
            .iter()
            .map(|(name, value)| (name.as_str(), beginning(&value.to_string(), 100)))
            .collect();
        text += &fields(&settings);
    }
    if let Some(dataset) = &dataset {
        text += &format!("\n{}", dataset.text);
    }
    let json = json!({
        "kind": "synthesis_run",
        "path": folder,
        "plan": plan,
        "report": report,
        "dataset": dataset.as_ref().map(|d| &d.json),
    });
    Ok(Findings {
        json,
        text,
        html: dataset.and_then(|d| d.html),
    })
}

/// The model that the run around a data set was made with, if its plan says so.
pub(super) fn model_of(dataset: &Path) -> Option<String> {
    let plan = read_json(&dataset.parent()?.join("plan.json"), LARGEST_JSON).ok()?;
    Some(plan.get("model")?.as_str()?.to_owned())
}

/// `3 (2 empty, 1 too long)`.
fn counts(value: Option<&Value>) -> String {
    let entries = value.and_then(Value::as_object);
    let total: u64 = entries
        .into_iter()
        .flatten()
        .filter_map(|(_, n)| n.as_u64())
        .sum();
    let causes: Vec<String> = entries
        .into_iter()
        .flatten()
        .map(|(cause, n)| format!("{n} {cause}"))
        .collect();
    match causes.is_empty() {
        true => total.to_string(),
        false => format!("{total} ({})", causes.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn causes_are_summed() {
        assert_eq!(counts(None), "0");
        assert_eq!(counts(Some(&json!({"a": 2, "b": 1}))), "3 (2 a, 1 b)");
    }
}
