//! Lines of JSON: a step each in `train.jsonl`, everything else in `scores.jsonl`.

use std::fs::OpenOptions;
use std::io::Write;
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::{Map, Value};

use super::tracker::{TrackError, Tracker};
use crate::report::StepReport;

/// Appends to the files of a folder. A run that goes on writes the steps since its checkpoint again;
/// the last line of a step counts.
#[derive(Debug)]
pub struct JsonLines {
    steps: PathBuf,
    scores: PathBuf,
}

impl JsonLines {
    /// Logs to this folder, which must exist.
    pub fn new(folder: &Path) -> Self {
        Self {
            steps: folder.join("train.jsonl"),
            scores: folder.join("scores.jsonl"),
        }
    }
}

impl Tracker for JsonLines {
    fn step(&mut self, report: &StepReport) -> Result<(), TrackError> {
        append(&self.steps, report)
    }

    fn scalars(&mut self, step: usize, values: &[(&str, f64)]) -> Result<(), TrackError> {
        let mut line = Map::from_iter([("step".to_owned(), Value::from(step))]);
        line.extend(
            values
                .iter()
                .map(|(name, x)| ((*name).to_owned(), Value::from(*x))),
        );
        append(&self.scores, &line)
    }

    fn text(&mut self, step: usize, name: &str, text: &str) -> Result<(), TrackError> {
        append(
            &self.scores,
            &serde_json::json!({ "step": step, name: text }),
        )
    }
}

fn append(path: &Path, line: &impl Serialize) -> Result<(), TrackError> {
    let write = || {
        let mut line = serde_json::to_string(line)?;
        line.push('\n');
        let mut file = OpenOptions::new().create(true).append(true).open(path)?;
        file.write_all(line.as_bytes())
    };
    write().map_err(TrackError::of(path))
}
