//! The run itself.

use std::collections::BTreeSet;
use std::fs::{File, TryLockError};
use std::io::{self, Read};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicBool, Ordering};

use cartridges_model::atomic_file::{WriteError, remove_unfinished, write_bytes};
use serde::Serialize;

use super::parts::{self, Part};
use super::plan_file::PlanFile;
use super::report::SynthesisReport;
use crate::client::{ChatClient, ClientError};
use crate::parquet::{
    ConversationFileError, ConversationReader, StreamOptions, write_conversation_stream,
};
use crate::resource::Resource;
use crate::self_study::{
    BatchesOutcome, Plan, PlanError, PlannedBatch, SelfStudyConfig, run_batches,
};
use crate::tool::{ToolBox, ToolError};

/// After this many steps in a row that gave nothing but failures, a run gives up.
const MAX_FAILED_STEPS: usize = 5;
/// The largest `plan.json` that is read.
const MAX_PLAN_BYTES: u64 = 16 << 20;

/// A run that cannot go on. What was finished before stays on disk.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The plan cannot be made.
    #[error(transparent)]
    Plan(#[from] PlanError),
    /// A tool cannot be had.
    #[error(transparent)]
    Tool(#[from] ToolError),
    /// The folder cannot be used.
    #[error("cannot use {path}: {source}")]
    Io {
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// Another process works in the folder.
    #[error("another run is working in {folder}")]
    Busy {
        /// The folder.
        folder: PathBuf,
    },
    /// `plan.json` cannot be understood.
    #[error("{path} is not a plan of this version ({reason}); choose another folder or delete it")]
    PlanFile {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        reason: String,
    },
    /// The folder holds another run.
    #[error(
        "{folder} holds a run of something else: {difference}; choose another folder, or delete it \
         to start over"
    )]
    OtherRun {
        /// The folder.
        folder: PathBuf,
        /// What differs.
        difference: String,
    },
    /// A file cannot be written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// A conversation file cannot be written or merged.
    #[error(transparent)]
    File(#[from] ConversationFileError),
    /// The model keeps failing.
    #[error("the model failed {steps} times in a row ({cause}): {message}")]
    GaveUp {
        /// Steps that failed.
        steps: usize,
        /// A short name of the last failure.
        cause: String,
        /// The last failure.
        message: String,
    },
    /// All tasks were tried and none gave a conversation.
    #[error("no conversation was made: dropped {:?}, failed {:?}", .0.dropped, .0.failed)]
    NothingMade(Box<SynthesisReport>),
}

/// How far a run is.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Progress {
    /// Tasks that are finished, dropped or failed.
    pub done: usize,
    /// All tasks.
    pub total: usize,
    /// Tokens generated and scored so far, earlier sessions included.
    pub tokens: u64,
    /// Requests answered in the current step.
    pub step_done: usize,
    /// Requests of the current step; 0 between steps.
    pub step_total: usize,
    /// Tasks of the current step.
    pub step_tasks: usize,
}

impl Progress {
    /// Tasks that are settled, those in work counted by the share of their requests.
    pub fn position(&self) -> usize {
        self.done + self.step_tasks * self.step_done / self.step_total.max(1)
    }
}

/// How a run ended.
#[derive(Debug, Clone, PartialEq)]
pub enum Outcome {
    /// Every task was tried, the data set is written.
    Finished {
        /// The data set.
        dataset: PathBuf,
        /// What was made.
        report: SynthesisReport,
    },
    /// The stop flag was raised; starting again goes on from here.
    Stopped {
        /// What was made so far.
        report: SynthesisReport,
    },
}

/// A run in a folder. The folder is locked for other processes as long as this lives.
pub struct SynthesisRun {
    folder: PathBuf,
    config: SelfStudyConfig,
    plan: Plan,
    plan_sha256: String,
    parts: Vec<Part>,
    next_part: u64,
    report: SynthesisReport,
    tools: ToolBox,
    _lock: File,
}

impl SynthesisRun {
    /// Plans a run and opens its folder, which is made if need be. Work that is already there is
    /// taken over if configuration, texts and model are the same, else it is an error.
    ///
    /// `model` names the model that will answer, best with a fingerprint of its weights.
    pub fn open(
        folder: &Path,
        config: SelfStudyConfig,
        resources: &[Box<dyn Resource>],
        model: &str,
    ) -> Result<Self, RunError> {
        let plan = Plan::new(&config, resources)?;
        let plan_file = PlanFile::new(&config, resources, model, &plan);
        let lock = lock(folder)?;
        let path = folder.join("plan.json");
        let there = read_plan(&path)?;
        if let Some(difference) = there.as_ref().and_then(|t| t.difference(&plan_file)) {
            return Err(RunError::OtherRun {
                folder: folder.to_owned(),
                difference,
            });
        }
        // They may be processes: not for a folder that is not ours, and not behind a plan without them.
        let tools = ToolBox::new(&config.tools, resources)?;
        if there.is_none() {
            write_json(&folder.join("config.json"), &config)?;
            write_json(&path, &plan_file)?;
        }
        let mut run = Self {
            folder: folder.to_owned(),
            report: SynthesisReport {
                planned: plan.num_tasks,
                ..SynthesisReport::default()
            },
            plan_sha256: plan_file.plan_sha256,
            config,
            plan,
            parts: Vec::new(),
            next_part: 0,
            tools,
            _lock: lock,
        };
        run.take_over_parts()?;
        Ok(run)
    }

    fn take_over_parts(&mut self) -> Result<(), RunError> {
        let folder = self.folder.join("parts");
        let io = |path: &Path| {
            let path = path.to_owned();
            move |source| RunError::Io { path, source }
        };
        let (paths, next) = parts::list(&folder).map_err(io(&folder))?;
        self.next_part = next;
        for path in paths {
            match parts::read(&path, &self.plan_sha256, self.plan.num_tasks) {
                Ok(part) => self.add_part(part),
                Err(error) => {
                    tracing::warn!(%error, "a part file cannot be used, its tasks are done again");
                    // Kept under another name: it is someone's data, and it must not be met again.
                    let aside = path.with_extension("parquet.damaged");
                    std::fs::rename(&path, &aside).map_err(io(&path))?;
                    self.report
                        .damaged_parts
                        .push(aside.to_string_lossy().into_owned());
                }
            }
        }
        Ok(())
    }

    fn add_part(&mut self, part: Part) {
        self.report.finished += part.tasks.len();
        for dropped in &part.dropped {
            *self
                .report
                .dropped
                .entry(dropped.cause.clone())
                .or_default() += 1;
        }
        self.report.counts.add(&part.counts);
        self.parts.push(part);
    }

    /// The plan.
    pub fn plan(&self) -> &Plan {
        &self.plan
    }

    /// What has been made so far.
    pub fn report(&self) -> &SynthesisReport {
        &self.report
    }

    /// Where the data set will be.
    pub fn dataset_path(&self) -> PathBuf {
        self.folder.join("dataset.parquet")
    }

    /// The batches that still have work.
    fn pending(&self) -> Vec<PlannedBatch> {
        let settled: BTreeSet<usize> = self
            .parts
            .iter()
            .flat_map(|part| {
                let dropped = part.dropped.iter().map(|d| d.task);
                part.tasks.iter().copied().chain(dropped)
            })
            .collect();
        self.plan
            .batches
            .iter()
            .filter_map(|batch| batch.without(|task| settled.contains(&task)))
            .collect()
    }

    /// Does what is left, writing a part after each step of `batches_in_parallel` batches, and merges
    /// the data set at the end. `stop` is looked at before each step.
    pub fn run(
        &mut self,
        client: &mut dyn ChatClient,
        stop: &AtomicBool,
        progress: &mut dyn FnMut(Progress),
    ) -> Result<Outcome, RunError> {
        self.report.failed.clear();
        self.report.last_failure = None;
        let mut failed_steps = 0;
        let pending = self.pending();
        let mut changed = false;
        progress(self.progress(0, 0, 0));
        for step in pending.chunks(self.config.batches_in_parallel) {
            if stop.load(Ordering::Relaxed) {
                return self.stopped();
            }
            let tasks = step.iter().map(|batch| batch.tasks.len()).sum();
            let now = self.progress(0, 0, tasks);
            let mut within = |step_done, step_total| {
                progress(Progress {
                    step_done,
                    step_total,
                    ..now
                });
            };
            client.begin_step();
            let result = run_batches(&self.config, step, client, &mut self.tools, &mut within);
            let outcome = match result {
                Ok(outcome) => outcome,
                Err(ClientError::Stopped) => return self.stopped(),
                // `run_batches` counts every other failure by itself.
                Err(error) => return Err(gave_up(1, error.cause(), error.to_string())),
            };
            let fruitless = outcome.conversations.is_empty() && outcome.dropped.is_empty();
            self.count_failures(&outcome);
            if !fruitless {
                let name = parts::file_name(self.next_part);
                let path = self.folder.join("parts").join(name);
                let part = parts::write(&path, &self.plan_sha256, &outcome)?;
                self.next_part += 1;
                self.add_part(part);
                changed = true;
            }
            progress(self.progress(0, 0, 0));
            failed_steps = if fruitless { failed_steps + 1 } else { 0 };
            if failed_steps == MAX_FAILED_STEPS
                && let Some(last) = outcome.failed.last()
            {
                self.write_report()?;
                return Err(gave_up(failed_steps, &last.cause, last.message.clone()));
            }
        }
        self.write_report()?;
        if self.report.finished == 0 {
            return Err(RunError::NothingMade(Box::new(self.report.clone())));
        }
        if changed || !self.dataset_is_current() {
            self.merge()?;
        }
        Ok(Outcome::Finished {
            dataset: self.dataset_path(),
            report: self.report.clone(),
        })
    }

    /// Writes `dataset.parquet` from what is finished and returns the number of conversations. A run
    /// that was stopped can be used this way without doing the rest.
    pub fn merge(&self) -> Result<usize, RunError> {
        let options = StreamOptions {
            tool_calls: !self.config.tools.is_empty(),
            ..StreamOptions::default()
        };
        let path = self.dataset_path();
        let rows = parts::merged(&self.parts);
        Ok(write_conversation_stream(&path, &options, rows)?)
    }

    fn dataset_is_current(&self) -> bool {
        ConversationReader::open(&self.dataset_path())
            .is_ok_and(|reader| reader.num_rows() == self.report.finished)
    }

    fn stopped(&self) -> Result<Outcome, RunError> {
        self.write_report()?;
        Ok(Outcome::Stopped {
            report: self.report.clone(),
        })
    }

    fn count_failures(&mut self, outcome: &BatchesOutcome) {
        for (cause, n) in outcome.failures_by_cause() {
            *self.report.failed.entry(cause).or_default() += n;
        }
        if let Some(last) = outcome.failed.last() {
            self.report.last_failure = Some(last.message.clone());
        }
    }

    fn progress(&self, step_done: usize, step_total: usize, step_tasks: usize) -> Progress {
        Progress {
            done: self.report.settled() + self.report.num_failed(),
            total: self.plan.num_tasks,
            tokens: self.report.tokens(),
            step_done,
            step_total,
            step_tasks,
        }
    }

    fn write_report(&self) -> Result<(), RunError> {
        write_json(&self.folder.join("report.json"), &self.report)
    }
}

fn gave_up(steps: usize, cause: &str, message: String) -> RunError {
    RunError::GaveUp {
        steps,
        cause: cause.to_owned(),
        message,
    }
}

fn lock(folder: &Path) -> Result<File, RunError> {
    let path = folder.join(".lock");
    let io = |source| RunError::Io {
        path: path.clone(),
        source,
    };
    std::fs::create_dir_all(folder).map_err(io)?;
    let file = File::options()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(io)?;
    match file.try_lock() {
        Ok(()) => {
            remove_unfinished(folder);
            remove_unfinished(&folder.join("parts"));
            Ok(file)
        }
        Err(TryLockError::WouldBlock) => Err(RunError::Busy {
            folder: folder.to_owned(),
        }),
        // Some network file systems have no locks; the run itself is still safe.
        Err(TryLockError::Error(error)) => {
            tracing::warn!(%error, "the folder cannot be locked");
            Ok(file)
        }
    }
}

fn read_plan(path: &Path) -> Result<Option<PlanFile>, RunError> {
    let io = |source| RunError::Io {
        path: path.to_owned(),
        source,
    };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(io(error)),
    };
    let mut bytes = Vec::new();
    file.take(MAX_PLAN_BYTES)
        .read_to_end(&mut bytes)
        .map_err(io)?;
    serde_json::from_slice(&bytes)
        .map(Some)
        .map_err(|error| RunError::PlanFile {
            path: path.to_owned(),
            reason: error.to_string(),
        })
}

fn write_json(path: &Path, value: &impl Serialize) -> Result<(), RunError> {
    let mut json = serde_json::to_vec_pretty(value).map_err(|error| RunError::Io {
        path: path.to_owned(),
        source: error.into(),
    })?;
    json.push(b'\n');
    Ok(write_bytes(path, &json)?)
}
