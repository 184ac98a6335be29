//! Finished conditions of an evaluation, kept until all are.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use cartridges_eval::Measurement;
use cartridges_model::atomic_file::write_bytes;

/// Measurements by what they are of, in a file beside the report to come.
#[derive(Debug)]
pub struct Kept {
    file: Option<PathBuf>,
    rows: BTreeMap<String, Measurement>,
}

impl Kept {
    /// Those of an evaluation that was stopped. A file that cannot be understood counts as none.
    pub fn open(out: Option<&Path>) -> Self {
        let file = out.map(|out| out.join("unfinished.json"));
        let bytes = file.as_ref().and_then(|file| std::fs::read(file).ok());
        let rows = bytes.and_then(|bytes| serde_json::from_slice(&bytes).ok());
        Self {
            file,
            rows: rows.unwrap_or_default(),
        }
    }

    /// The measurement of `key`, if there is one.
    pub fn get(&self, key: &str) -> Option<&Measurement> {
        self.rows.get(key)
    }

    /// Keeps one more.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub fn put(&mut self, key: String, row: &Measurement) -> Result<()> {
        self.rows.insert(key, row.clone());
        match &self.file {
            Some(file) => Ok(write_bytes(file, &serde_json::to_vec(&self.rows)?)?),
            None => Ok(()),
        }
    }

    /// Drops all: the report is there.
    ///
    /// # Errors
    /// If the file cannot be removed.
    pub fn finish(self) -> Result<()> {
        match self.file.filter(|file| file.exists()) {
            Some(file) => std::fs::remove_file(&file).with_context(|| file.display().to_string()),
            None => Ok(()),
        }
    }
}
