//! An offline run of Weights & Biases, which `wandb sync` uploads: `offline-run-TIME-ID/` with the log
//! `run-ID.wandb` (messages of wandb_internal.proto) and readable copies in `files/`. An online run is the
//! same, and is sent while it is written.

use std::collections::BTreeMap;
use std::fs::{self, OpenOptions};
use std::io::{self, Write};
use std::path::{Path, PathBuf};

use cartridges_model::atomic_file::write_bytes;
use cartridges_model::digest::hex;
use cartridges_model::wandb::WandbClient;
use chrono::{DateTime, Utc};
use rand::RngExt;
use serde_json::{Map, Value, json};
use sha2::{Digest, Sha256};

use super::protobuf::Message;
use super::records::WandbLog;
use super::table::Table;
use super::tracker::{RunStart, TrackError, Tracker};
use super::uplink::Uplink;
use crate::config::WandbConfig;
use crate::report::StepReport;

/// Writes a folder per part of a run; all parts have one id, so that they become one run.
#[derive(Debug)]
pub struct WandbOffline {
    folder: PathBuf,
    config: WandbConfig,
    client: Option<WandbClient>,
    run: Option<Run>,
}

#[derive(Debug)]
struct Run {
    /// Sends everything on, if the run is online.
    uplink: Option<Uplink>,
    log: WandbLog,
    log_path: PathBuf,
    /// Where the readable copies are.
    files: PathBuf,
    begun: DateTime<Utc>,
    /// Records so far.
    records: u64,
    /// Values of the step that is not written yet: Weights & Biases takes one record per step.
    step: usize,
    pending: BTreeMap<String, Value>,
    summary: BTreeMap<String, Value>,
}

impl WandbOffline {
    /// Logs to a new folder in this one, which is made when the run begins.
    pub fn new(folder: &Path, config: WandbConfig) -> Self {
        Self {
            folder: folder.to_owned(),
            config,
            client: None,
            run: None,
        }
    }

    /// Sends the run to this server too, while it is written.
    #[must_use]
    pub fn online(mut self, client: WandbClient) -> Self {
        self.client = Some(client);
        self
    }

    fn run(&mut self) -> Result<&mut Run, TrackError> {
        let folder = &self.folder;
        self.run.as_mut().ok_or_else(|| {
            let early = io::Error::other("the run has not begun");
            TrackError::of(folder)(early)
        })
    }

    /// The id of an earlier part of the run, from its folder's name.
    fn earlier_id(&self) -> Option<String> {
        let names = fs::read_dir(&self.folder).ok()?;
        let name = names
            .filter_map(|entry| entry.ok()?.file_name().into_string().ok())
            .filter(|name| name.starts_with("offline-run-"))
            .max()?;
        let id = name.rsplit('-').next()?;
        let plain = !id.is_empty() && id.bytes().all(|b| b.is_ascii_alphanumeric());
        plain.then(|| id.to_owned())
    }
}

impl Tracker for WandbOffline {
    fn begin(&mut self, start: &RunStart<'_>) -> Result<(), TrackError> {
        let earlier = (start.step > 0).then(|| self.earlier_id()).flatten();
        let id = earlier.unwrap_or_else(new_id);
        let (part, begun) = new_part(&self.folder, &id).map_err(TrackError::of(&self.folder))?;
        let files = part.join("files");
        fs::create_dir_all(&files).map_err(TrackError::of(&files))?;
        let log_path = part.join(format!("run-{id}.wandb"));
        let log = WandbLog::create(&log_path).map_err(TrackError::of(&log_path))?;

        let mut settings = match start.settings {
            Value::Object(settings) => settings.clone(),
            other => Map::from_iter([("settings".to_owned(), other.clone())]),
        };
        let sizes = start.sizes.scalars();
        settings.extend(sizes.map(|(name, x)| (name.to_owned(), Value::from(x as u64))));
        let yaml: String = settings
            .iter()
            .map(|(name, value)| format!("{name}:\n  value: {value}\n"))
            .collect();
        write_copy(&files.join("config.yaml"), yaml.as_bytes())?;

        let uplink = self
            .client
            .clone()
            .map(|client| Uplink::start(client, &self.config, &id, &settings, part.clone()));
        let mut run = Run {
            uplink,
            log,
            log_path,
            files,
            begun,
            records: 0,
            step: start.step,
            pending: BTreeMap::new(),
            summary: BTreeMap::new(),
        };
        let version = Message::new()
            .string(1, concat!("cartridges ", env!("CARGO_PKG_VERSION")))
            .string(2, "0.70.0");
        run.append(21, &Message::new().message(1, &version))?;
        let record = run_record(&id, &self.config, &settings, start.step, begun);
        run.append(17, &record)?;
        self.run = Some(run);
        Ok(())
    }

    fn step(&mut self, report: &StepReport) -> Result<(), TrackError> {
        self.scalars(report.step, &report.scalars())
    }

    fn scalars(&mut self, step: usize, values: &[(&str, f64)]) -> Result<(), TrackError> {
        let values = values
            .iter()
            .map(|(name, x)| ((*name).to_owned(), number(*x)));
        self.run()?.put(step, values)
    }

    fn text(&mut self, step: usize, name: &str, text: &str) -> Result<(), TrackError> {
        self.run()?
            .put(step, [(name.to_owned(), Value::from(text))])
    }

    fn table(&mut self, step: usize, table: &Table) -> Result<(), TrackError> {
        let run = self.run()?;
        let content = serde_json::to_vec(&table.wandb_file()).unwrap_or_default();
        let sha256 = hex(&Sha256::digest(&content));
        let name = &table.name;
        let path = format!("media/table/{name}_{step}_{}.table.json", &sha256[..20]);
        write_copy(&run.files.join(&path), &content)?;
        let item = Message::new().string(1, &path);
        run.append(6, &Message::new().message(1, &item))?;
        if let Some(uplink) = &run.uplink {
            uplink.file(&path, run.files.join(&path));
        }
        let value = json!({
            "_type": "table-file",
            "path": path,
            "sha256": sha256,
            "size": content.len(),
            "ncols": table.columns.len(),
            "nrows": table.rows.len(),
        });
        run.put(step, [(name.clone(), value)])
    }

    fn end(&mut self) -> Result<(), TrackError> {
        let Some(mut run) = self.run.take() else {
            return Ok(());
        };
        run.flush()?;
        let summary = serde_json::to_vec_pretty(&run.summary).unwrap_or_default();
        write_copy(&run.files.join("wandb-summary.json"), &summary)?;
        let seconds = (Utc::now() - run.begun).num_seconds();
        let exit = Message::new().int(2, u64::try_from(seconds).unwrap_or(0));
        run.append(18, &exit)?;
        run.log.sync().map_err(TrackError::of(&run.log_path))?;
        if let Some(uplink) = run.uplink.take() {
            uplink.end();
        }
        Ok(())
    }
}

impl Run {
    /// Adds values to those of a step; those of the step before are written then.
    fn put(
        &mut self,
        step: usize,
        values: impl IntoIterator<Item = (String, Value)>,
    ) -> Result<(), TrackError> {
        if step != self.step {
            self.flush()?;
            self.step = step;
        }
        self.pending.extend(values);
        Ok(())
    }

    fn flush(&mut self) -> Result<(), TrackError> {
        if self.pending.is_empty() {
            return Ok(());
        }
        let now = Utc::now();
        let mut values = std::mem::take(&mut self.pending);
        let millis = |span: chrono::TimeDelta| span.num_milliseconds() as f64 / 1e3;
        let timestamp = now.timestamp_micros() as f64 / 1e6;
        values.insert("_runtime".to_owned(), number(millis(now - self.begun)));
        values.insert("_timestamp".to_owned(), number(timestamp));
        values.insert("_step".to_owned(), Value::from(self.step));
        let mut history = Message::new();
        let mut summary = Message::new();
        for (name, value) in &values {
            let item = Message::new()
                .string(2, name)
                .string(16, &value.to_string());
            history = history.message(1, &item);
            summary = summary.message(1, &item);
        }
        let step = Message::new().int(1, self.step as u64);
        self.append(2, &history.message(2, &step))?;
        self.append(3, &summary)?;
        let path = self.files.join("wandb-history.jsonl");
        let write = || {
            let mut line = serde_json::to_string(&values)?;
            line.push('\n');
            let mut file = OpenOptions::new().create(true).append(true).open(&path)?;
            file.write_all(line.as_bytes())
        };
        write().map_err(TrackError::of(&path))?;
        if let Some(uplink) = &self.uplink {
            uplink.history(&values);
        }
        self.summary.extend(values);
        Ok(())
    }

    /// Appends a record of this kind (its field in `Record`).
    fn append(&mut self, kind: u64, content: &Message) -> Result<(), TrackError> {
        self.records += 1;
        let record = Message::new().int(1, self.records).message(kind, content);
        self.log
            .append(record.bytes())
            .map_err(TrackError::of(&self.log_path))
    }
}

/// The message `RunRecord`.
fn run_record(
    id: &str,
    config: &WandbConfig,
    settings: &Map<String, Value>,
    step: usize,
    begun: DateTime<Utc>,
) -> Message {
    let mut items = Message::new();
    for (name, value) in settings {
        let item = Message::new()
            .string(1, name)
            .string(16, &value.to_string());
        items = items.message(1, &item);
    }
    let time = Message::new()
        .int(1, u64::try_from(begun.timestamp()).unwrap_or(0))
        .int(2, u64::from(begun.timestamp_subsec_nanos()));
    let mut record = Message::new()
        .string(1, id)
        .some_string(2, &config.entity)
        .string(3, &config.project)
        .message(4, &items)
        .some_string(6, &config.group)
        .some_string(8, &config.name)
        .some_string(9, &config.notes);
    for tag in &config.tags {
        record = record.string(10, tag);
    }
    record.int(14, step as u64).message(17, &time)
}

/// JSON has no infinities; Weights & Biases takes their names.
fn number(x: f64) -> Value {
    match x {
        x if x.is_finite() => Value::from(x),
        x if x.is_nan() => Value::from("NaN"),
        x if x > 0.0 => Value::from("Infinity"),
        _ => Value::from("-Infinity"),
    }
}

/// Eight letters and digits, as Weights & Biases makes them. Not drawn by the run's seed: the same
/// run twice is two runs there.
fn new_id() -> String {
    const LETTERS: &[u8] = b"abcdefghijklmnopqrstuvwxyz0123456789";
    let mut rng = rand::rng();
    (0..8)
        .map(|_| char::from(LETTERS[rng.random_range(0..LETTERS.len())]))
        .collect()
}

/// A folder that is not there yet, named after the second it was made in.
fn new_part(folder: &Path, id: &str) -> io::Result<(PathBuf, DateTime<Utc>)> {
    fs::create_dir_all(folder)?;
    let begun = Utc::now();
    let mut named = begun;
    loop {
        let time = named.format("%Y%m%d_%H%M%S");
        let part = folder.join(format!("offline-run-{time}-{id}"));
        match fs::create_dir(&part) {
            Ok(()) => return Ok((part, begun)),
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {
                named += chrono::TimeDelta::seconds(1);
            }
            Err(error) => return Err(error),
        }
    }
}

fn write_copy(path: &Path, bytes: &[u8]) -> Result<(), TrackError> {
    write_bytes(path, bytes).map_err(|error| TrackError {
        path: error.path,
        source: error.source,
    })
}
