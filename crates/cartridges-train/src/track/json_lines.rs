//! Lines of JSON: a step each in `train.jsonl`, a table's row each in `tables.jsonl`, everything else in
//! `scores.jsonl`.

use std::fs::OpenOptions;
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use serde::Serialize;
use serde_json::{Map, Value};

use super::table::Table;
use super::tracker::{RunStart, TrackError, Tracker};
use crate::report::StepReport;

/// Appends to the files of a folder. A run that goes on writes the steps since its checkpoint again;
/// the last line of a step counts.
#[derive(Debug)]
pub struct JsonLines {
    steps: PathBuf,
    scores: PathBuf,
    tables: PathBuf,
}

impl JsonLines {
    /// Logs to this folder, which must exist.
    pub fn new(folder: &Path) -> Self {
        Self {
            steps: folder.join("train.jsonl"),
            scores: folder.join("scores.jsonl"),
            tables: folder.join("tables.jsonl"),
        }
    }
}

impl Tracker for JsonLines {
    fn begin(&mut self, _: &RunStart<'_>) -> Result<(), TrackError> {
        for path in [&self.steps, &self.scores, &self.tables] {
            cut_half_a_line(path).map_err(TrackError::of(path))?;
        }
        Ok(())
    }

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

    fn table(&mut self, step: usize, table: &Table) -> Result<(), TrackError> {
        for row in &table.rows {
            let head = [
                ("step", Value::from(step)),
                ("table", table.name.as_str().into()),
            ];
            let mut line = Map::from_iter(head.map(|(name, value)| (name.to_owned(), value)));
            line.extend(table.record(row));
            append(&self.tables, &line)?;
        }
        Ok(())
    }
}

/// Cuts off what stands behind the last whole line, which a full disk has left.
fn cut_half_a_line(path: &Path) -> io::Result<()> {
    let mut file = match OpenOptions::new().read(true).write(true).open(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(()),
        file => file?,
    };
    const PIECE: u64 = 64 << 10;
    let length = file.metadata()?.len();
    let mut end = length;
    while end > 0 {
        let from = end.saturating_sub(PIECE);
        let mut piece = vec![0; (end - from) as usize];
        file.seek(SeekFrom::Start(from))?;
        file.read_exact(&mut piece)?;
        if let Some(at) = piece.iter().rposition(|b| *b == b'\n') {
            end = from + at as u64 + 1;
            break;
        }
        end = from;
    }
    match end == length {
        true => Ok(()),
        false => file.set_len(end),
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
