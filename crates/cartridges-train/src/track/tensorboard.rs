//! TensorBoard's event files: TensorFlow's records of `Event` messages (tensorflow/core/util/event.proto
//! and framework/summary.proto).

use std::fs::{self, File, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use super::protobuf::Message;
use super::records::tf_record;
use super::table::Table;
use super::tracker::{RunStart, TrackError, Tracker};
use crate::report::StepReport;

/// Writes one event file per part of a run.
#[derive(Debug)]
pub struct TensorBoard {
    folder: PathBuf,
    open: Option<(File, PathBuf)>,
}

impl TensorBoard {
    /// Logs to this folder, which is made when the run begins.
    pub fn new(folder: &Path) -> Self {
        Self {
            folder: folder.to_owned(),
            open: None,
        }
    }

    /// The open file; a new one if there is none yet.
    fn file(&mut self) -> Result<&mut (File, PathBuf), TrackError> {
        match &mut self.open {
            Some(_) => {}
            none => {
                let fail = TrackError::of(&self.folder);
                let (mut file, path) = create(&self.folder).map_err(fail)?;
                let version = event(0).string(3, "brain.Event:2");
                file.write_all(&tf_record(version.bytes()))
                    .map_err(TrackError::of(&path))?;
                *none = Some((file, path));
            }
        }
        self.open.as_mut().ok_or_else(|| {
            let closed = io::Error::other("the event file is closed");
            TrackError::of(&self.folder)(closed)
        })
    }

    fn write(&mut self, event: &Message) -> Result<(), TrackError> {
        let (file, path) = self.file()?;
        file.write_all(&tf_record(event.bytes()))
            .map_err(TrackError::of(path))
    }
}

impl Tracker for TensorBoard {
    fn begin(&mut self, start: &RunStart<'_>) -> Result<(), TrackError> {
        if start.step > 0 {
            // TensorBoard forgets the steps behind this one, which will be done again.
            let started = Message::new().int(1, 1);
            self.write(&event(start.step as u64 + 1).message(7, &started))?;
        }
        let sizes = start.sizes.scalars();
        self.scalars(start.step, &sizes)?;
        let settings = serde_json::to_string_pretty(start.settings).unwrap_or_default();
        // Text is shown as Markdown.
        let indented = settings.replace('\n', "\n    ");
        self.text(start.step, "settings", &format!("    {indented}"))
    }

    fn step(&mut self, report: &StepReport) -> Result<(), TrackError> {
        self.scalars(report.step, &report.scalars())
    }

    fn scalars(&mut self, step: usize, values: &[(&str, f64)]) -> Result<(), TrackError> {
        let mut summary = Message::new();
        for (name, x) in values {
            let value = Message::new().string(1, name).float(2, *x as f32);
            summary = summary.message(1, &value);
        }
        self.write(&event(step as u64).message(5, &summary))
    }

    fn text(&mut self, step: usize, name: &str, text: &str) -> Result<(), TrackError> {
        const DT_STRING: u64 = 7;
        let shape = Message::new().message(2, &Message::new().int(1, 1));
        let tensor = Message::new()
            .int(1, DT_STRING)
            .message(2, &shape)
            .string(8, text);
        let plugin = Message::new().string(1, "text");
        let value = Message::new()
            .string(1, name)
            .message(8, &tensor)
            .message(9, &Message::new().message(1, &plugin));
        let summary = Message::new().message(1, &value);
        self.write(&event(step as u64).message(5, &summary))
    }

    fn table(&mut self, step: usize, table: &Table) -> Result<(), TrackError> {
        self.text(step, &table.name, &table.markdown())
    }

    fn end(&mut self) -> Result<(), TrackError> {
        match self.open.take() {
            Some((file, path)) => file.sync_all().map_err(TrackError::of(&path)),
            None => Ok(()),
        }
    }
}

/// An event of now.
fn event(step: u64) -> Message {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let seconds = now.map_or(0.0, |d| d.as_secs_f64());
    Message::new().double(1, seconds).int(2, step)
}

/// A file that is not there yet; TensorBoard reads a folder's files in the order of their names.
fn create(folder: &Path) -> io::Result<(File, PathBuf)> {
    fs::create_dir_all(folder)?;
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let seconds = now.map_or(0, |d| d.as_secs());
    let process = std::process::id();
    for n in 0.. {
        let name = format!("events.out.tfevents.{seconds:010}.cartridges.{process}.{n}");
        let path = folder.join(name);
        match OpenOptions::new().write(true).create_new(true).open(&path) {
            Ok(file) => return Ok((file, path)),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    Err(io::Error::other("no free name"))
}
