//! Sends a run to the server of Weights & Biases while it is written, on a thread of its own: whatever
//! the network does, training goes on. What could not be sent is counted and said, and stands in the
//! offline folder.
//!
//! The run is made by the mutation `upsertBucket`; history and summary go to its file stream, other files
//! to the addresses that `createRunFiles` gives, as in the package `wandb` 0.31.

use std::collections::{BTreeMap, VecDeque};
use std::path::PathBuf;
use std::sync::mpsc::{Receiver, RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use cartridges_model::wandb::{WandbClient, WandbError};
use serde_json::{Map, Value, json};

use crate::config::WandbConfig;

/// How long lines are gathered before they are sent.
const GATHER: Duration = Duration::from_millis(500);
/// Without news the server hears this often that the run lives; after minutes it takes it for dead.
const HEARTBEAT: Duration = Duration::from_secs(30);
/// The first wait after a failure; each is twice the one before.
const FIRST_WAIT: Duration = Duration::from_secs(1);
const LONGEST_WAIT: Duration = Duration::from_secs(60);
/// How long the end of a run goes on trying where sending fails.
const GRACE: Duration = Duration::from_secs(5);
/// Lines in one post.
const LINES_PER_POST: usize = 500;
/// Lines that are kept for later.
const MOST_LINES: usize = 100_000;

const UPSERT: &str = "mutation UpsertBucket ($name: String, $project: String, $entity: String, \
    $groupName: String, $displayName: String, $notes: String, $config: JSONString, \
    $tags: [String!]) { upsertBucket(input: {name: $name, groupName: $groupName, \
    modelName: $project, entityName: $entity, displayName: $displayName, notes: $notes, \
    config: $config, tags: $tags}) { bucket { id name displayName \
    project { name entity { name } } historyLineCount } inserted } }";

const CREATE_FILES: &str = "mutation CreateRunFiles ($entity: String!, $project: String!, \
    $run: String!, $files: [String!]!) { createRunFiles(input: {entityName: $entity, \
    projectName: $project, runName: $run, files: $files}) { runID uploadHeaders \
    files { name uploadUrl } } }";

/// What is to be sent.
enum News {
    /// A step's values.
    History(BTreeMap<String, Value>),
    /// A file under its name in the run.
    File(String, PathBuf),
    /// Everything was told.
    End,
}

/// The thread that sends. Dropping it without [`Uplink::end`] leaves the run unfinished on the server.
#[derive(Debug)]
pub(super) struct Uplink {
    news: Sender<News>,
    /// `false` whenever something was sent, `true` when it is over.
    signs: Receiver<bool>,
    thread: Option<JoinHandle<()>>,
}

impl Uplink {
    /// Begins a run of this id, or goes on with it. `folder` holds it offline.
    pub(super) fn start(
        client: WandbClient,
        config: &WandbConfig,
        id: &str,
        settings: &Map<String, Value>,
        folder: PathBuf,
    ) -> Self {
        let values = settings
            .iter()
            .map(|(name, value)| (name.clone(), json!({ "value": value })));
        let settings = Value::from(values.collect::<Map<_, _>>()).to_string();
        let given = |text: &str| (!text.is_empty()).then(|| text.to_owned());
        let upsert = json!({
            "name": id,
            "project": config.project,
            "entity": given(&config.entity),
            "groupName": given(&config.group),
            "displayName": given(&config.name),
            "notes": given(&config.notes),
            "tags": config.tags,
            "config": settings,
        });
        let (news, heard) = channel();
        let (signs_of_life, signs) = channel();
        let link = Link {
            client,
            id: id.to_owned(),
            upsert,
            folder,
            place: None,
            lines: VecDeque::new(),
            offset: 0,
            dropped: 0,
            summary: BTreeMap::new(),
            files: VecDeque::new(),
            failures: 0,
            wait: FIRST_WAIT,
            given_up: false,
            signs: signs_of_life,
        };
        let thread = std::thread::Builder::new()
            .name("wandb".to_owned())
            .spawn(move || link.run(&heard));
        let thread = thread
            .inspect_err(|error| tracing::warn!(%error, "no thread for Weights & Biases"))
            .ok();
        Self {
            news,
            signs,
            thread,
        }
    }

    // A thread that has given up hears nothing any more, and has said so.

    pub(super) fn history(&self, values: &BTreeMap<String, Value>) {
        let _ = self.news.send(News::History(values.clone()));
    }

    pub(super) fn file(&self, name: &str, path: PathBuf) {
        let _ = self.news.send(News::File(name.to_owned(), path));
    }

    /// Waits until everything is sent, but not for ever: a server that hangs is left alone.
    pub(super) fn end(mut self) {
        let _ = self.news.send(News::End);
        let Some(thread) = self.thread.take() else {
            return;
        };
        loop {
            match self.signs.recv_timeout(GRACE + GRACE / 2) {
                Ok(false) => {}
                Ok(true) | Err(RecvTimeoutError::Disconnected) => break,
                Err(RecvTimeoutError::Timeout) => {
                    tracing::warn!(
                        "the server of Weights & Biases does not answer; `wandb sync` sends what \
                         is missing"
                    );
                    return;
                }
            }
        }
        if thread.join().is_err() {
            tracing::warn!("the thread for Weights & Biases has failed");
        }
    }
}

/// The thread's state.
struct Link {
    client: WandbClient,
    id: String,
    upsert: Value,
    folder: PathBuf,
    /// Entity and project that the server has put the run in, once it has.
    place: Option<(String, String)>,
    lines: VecDeque<String>,
    /// Lines that the server has.
    offset: u64,
    /// Lines that are not kept any more.
    dropped: usize,
    summary: BTreeMap<String, Value>,
    files: VecDeque<(String, PathBuf)>,
    failures: usize,
    wait: Duration,
    given_up: bool,
    signs: Sender<bool>,
}

impl Link {
    fn run(mut self, heard: &Receiver<News>) {
        let mut next = Instant::now();
        let mut last_post = Instant::now();
        let mut until: Option<Instant> = None;
        loop {
            let first = match heard.recv_timeout(GATHER) {
                Ok(news) => Some(news),
                Err(RecvTimeoutError::Timeout) => None,
                // Nobody waits for the run's end, which never came.
                Err(RecvTimeoutError::Disconnected) if until.is_none() => break,
                Err(RecvTimeoutError::Disconnected) => {
                    std::thread::sleep(GATHER);
                    None
                }
            };
            // More may be there already.
            for news in first.into_iter().chain(heard.try_iter()) {
                match news {
                    News::History(values) => self.keep(values),
                    News::File(name, path) => self.files.push_back((name, path)),
                    News::End => {
                        // A last attempt is due at once.
                        until.get_or_insert_with(|| Instant::now() + GRACE);
                        (next, self.wait) = (Instant::now(), FIRST_WAIT);
                    }
                }
            }
            let now = Instant::now();
            let due = self.unsent() || until.is_some() || now - last_post >= HEARTBEAT;
            if !self.given_up && now >= next && due {
                match self.send(until.is_some()) {
                    Ok(()) if until.is_some() => break,
                    Ok(()) => (last_post, self.wait) = (Instant::now(), FIRST_WAIT),
                    Err(error) => {
                        self.failed(error);
                        next = Instant::now() + self.wait;
                        self.wait = (2 * self.wait).min(LONGEST_WAIT);
                    }
                }
            }
            if until.is_some_and(|until| self.given_up || Instant::now() >= until) {
                break;
            }
        }
        self.say_what_is_left();
        let _ = self.signs.send(true);
    }

    fn keep(&mut self, values: BTreeMap<String, Value>) {
        let line = serde_json::to_string(&values).unwrap_or_default();
        self.summary.extend(values);
        match self.lines.len() < MOST_LINES {
            true => self.lines.push_back(line),
            false => self.dropped += 1,
        }
    }

    fn unsent(&self) -> bool {
        !(self.lines.is_empty() && self.files.is_empty())
    }

    /// Sends what there is; with `complete` the run's end behind it.
    fn send(&mut self, complete: bool) -> Result<(), WandbError> {
        let (entity, project) = self.place()?;
        let stream = format!("files/{entity}/{project}/{}/file_stream", self.id);
        loop {
            let count = self.lines.len().min(LINES_PER_POST);
            let mut body = json!({ "files": {} });
            if count > 0 {
                let content: Vec<&String> = self.lines.iter().take(count).collect();
                let summary = serde_json::to_string(&self.summary).unwrap_or_default();
                body["files"] = json!({
                    "wandb-history.jsonl": { "offset": self.offset, "content": content },
                    "wandb-summary.json": { "offset": 0, "content": [summary] },
                });
            }
            self.client
                .post("sending a run's history", &stream, &body)?;
            self.lines.drain(..count);
            self.offset += count as u64;
            let _ = self.signs.send(false);
            if self.lines.is_empty() {
                break;
            }
        }
        while let Some((name, path)) = self.files.front().cloned() {
            self.send_file(&entity, &project, &name, &path)?;
            self.files.pop_front();
            let _ = self.signs.send(false);
        }
        if complete {
            let end = json!({ "files": {}, "complete": true, "exitcode": 0 });
            self.client.post("ending a run", &stream, &end)?;
        }
        Ok(())
    }

    /// Where the run is on the server; made there at the first call.
    fn place(&mut self) -> Result<(String, String), WandbError> {
        if let Some(place) = &self.place {
            return Ok(place.clone());
        }
        let data = self
            .client
            .graphql("beginning a run", UPSERT, self.upsert.clone())?;
        let bucket = &data["upsertBucket"]["bucket"];
        let project = &bucket["project"];
        let names = (project["entity"]["name"].as_str(), project["name"].as_str());
        let (Some(entity), Some(project)) = names else {
            let problem = "the answer does not say where the run is";
            return Err(self.client.answer("beginning a run", problem));
        };
        self.offset = bucket["historyLineCount"].as_u64().unwrap_or(0);
        let page = self
            .client
            .page(&format!("{entity}/{project}/runs/{}", self.id));
        tracing::info!("this run in Weights & Biases: {page}");
        let place = (entity.to_owned(), project.to_owned());
        self.place = Some(place.clone());
        Ok(place)
    }

    fn send_file(
        &self,
        entity: &str,
        project: &str,
        name: &str,
        path: &PathBuf,
    ) -> Result<(), WandbError> {
        let what = format!("sending {name}");
        let Ok(bytes) = std::fs::read(path) else {
            tracing::warn!(
                "{} is gone; it is not sent to Weights & Biases",
                path.display()
            );
            return Ok(());
        };
        let variables =
            json!({ "entity": entity, "project": project, "run": self.id, "files": [name] });
        let data = self.client.graphql(&what, CREATE_FILES, variables)?;
        let made = &data["createRunFiles"];
        let Some(url) = made["files"][0]["uploadUrl"].as_str() else {
            return Err(self
                .client
                .answer(&what, "the answer has no address for it"));
        };
        let headers = made["uploadHeaders"].as_array();
        let headers: Vec<&str> = headers
            .into_iter()
            .flatten()
            .filter_map(Value::as_str)
            .collect();
        self.client.put(&what, url, &headers, bytes)
    }

    fn failed(&mut self, error: WandbError) {
        self.failures += 1;
        let folder = self.folder.display();
        if !error.may_pass() {
            tracing::warn!("{error}; the run is not sent any more, {folder} holds it");
            self.given_up = true;
        } else if self.failures == 1 {
            tracing::warn!("{error}; training goes on, it is tried again, {folder} holds the run");
        } else {
            tracing::debug!(failures = self.failures, "{error}");
        }
    }

    fn say_what_is_left(&self) {
        let lines = self.lines.len() + self.dropped;
        if lines + self.files.len() > 0 || self.given_up {
            tracing::warn!(
                "{lines} steps and {} files were not sent to {} in {} attempts that failed; \
                 `wandb sync {}` sends them",
                self.files.len(),
                self.client.base(),
                self.failures,
                self.folder.display()
            );
        }
    }
}
