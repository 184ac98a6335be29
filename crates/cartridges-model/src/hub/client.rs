//! The hub, by way of the `hf-hub` crate, with time limits and plain errors.
//!
//! `hf-hub` 1.0 has no time limit of its own, so each call runs on a thread that is left behind if
//! it does not answer in time. It does not say when a body is not the stated one either: what it
//! stores is checked in `stored`.

use std::path::PathBuf;
use std::sync::mpsc::{RecvTimeoutError, sync_channel};
use std::thread;
use std::time::{Duration, Instant};

use hf_hub::repository::{CommitOperation, RepoTreeEntry};
use hf_hub::{HFClient, HFClientSync, HFError, HFRepositorySync, RepoTypeAny};

use super::progress::{Meter, human};
use super::reference::is_path_in_repo;
use super::{HubError, ResolveOptions};

/// How often a wait looks up.
const TICK: Duration = Duration::from_millis(250);
/// How often a transfer is tried.
const ATTEMPTS: u32 = 3;
/// The client gives up after ten seconds on a file that another process is fetching; this many
/// times it is asked again (about two hours).
const LOCK_WAITS: u32 = 720;
/// An upload may be this slow, in bytes per second, before it counts as standing still.
const SLOWEST_UPLOAD: u64 = 64 << 10;

/// What stands before the name of a dataset's repository, in addresses and in [`HubRepo::id`].
pub(crate) const DATASETS: &str = "datasets/";

/// What of a repository is asked for first.
struct Head {
    commit: Option<String>,
    private: Option<bool>,
}

/// One repository.
pub(crate) struct HubRepo<'a> {
    options: &'a ResolveOptions,
    client: HFClientSync,
    repo: HFRepositorySync<RepoTypeAny>,
    endpoint: String,
    gated: bool,
    /// What to do where the hub does not answer.
    without_hub: &'static str,
    /// `owner/name`, for a dataset `datasets/owner/name`.
    pub id: String,
}

/// A file of a repository.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct RemoteFile {
    /// Path in the repository.
    pub path: String,
    /// Length in bytes.
    pub bytes: u64,
    /// Whether it is kept as a large file, so that the hub states its sha256.
    pub large: bool,
}

impl<'a> HubRepo<'a> {
    /// As [`HubRepo::open`] for files of any kind, for which there is no other place.
    pub(crate) fn open_for_files(id: &str, options: &'a ResolveOptions) -> Result<Self, HubError> {
        Ok(Self {
            without_hub: "Check the network and run the command again",
            ..Self::open(id, false, options)?
        })
    }

    /// A handle on `id`, of a model or with [`DATASETS`] before it of a dataset. Nothing is asked yet.
    pub(crate) fn open(
        id: &str,
        gated: bool,
        options: &'a ResolveOptions,
    ) -> Result<Self, HubError> {
        let hub_error = |source| HubError::Hub {
            id: id.to_owned(),
            source: Box::new(source),
        };
        let mut builder = HFClient::builder()
            .cache_dir(options.hub_folder())
            .user_agent(concat!("cartridges/", env!("CARGO_PKG_VERSION")))
            .retry_max_attempts(2)
            .retry_base_delay(Duration::from_millis(150));
        if let Some(endpoint) = &options.endpoint {
            builder = builder.endpoint(endpoint);
        }
        if let Some(token) = options.token.as_deref().filter(|t| !t.trim().is_empty()) {
            builder = builder.token(token.trim());
        }
        let client: HFClientSync = builder.build_sync().map_err(hub_error)?;
        let (kind, name) = match id.strip_prefix(DATASETS) {
            Some(name) => (RepoTypeAny::Dataset, name),
            None => (RepoTypeAny::Model, id),
        };
        let (owner, name) = hf_hub::split_id(name);
        let endpoint = match &options.endpoint {
            Some(endpoint) => endpoint.clone(),
            None => std::env::var("HF_ENDPOINT").unwrap_or("https://huggingface.co".to_owned()),
        };
        Ok(Self {
            repo: client.repository(kind, owner, name),
            client,
            without_hub: "Check the network, or give a model file or folder with --model",
            endpoint: endpoint.trim_end_matches('/').to_owned(),
            gated,
            id: id.to_owned(),
            options,
        })
    }

    /// The commit that a revision means now. It is the first question, so it shows within `limit`
    /// whether the hub answers at all.
    pub(crate) fn commit(&self, revision: &str, limit: Duration) -> Result<String, HubError> {
        match self.head(Some(revision), limit)?.commit {
            Some(sha) if sha.len() == 40 && sha.bytes().all(|b| b.is_ascii_hexdigit()) => Ok(sha),
            other => Err(self.unreachable(&format!("it stated the commit as {other:?}"))),
        }
    }

    fn head(&self, revision: Option<&str>, limit: Duration) -> Result<Head, HubError> {
        let (client, repo) = (self.client.clone(), self.repo.clone());
        let wanted = revision.map(str::to_owned);
        let what = match revision {
            Some(revision) => format!("{} at {revision}", self.id),
            None => self.id.clone(),
        };
        self.within(limit, move || {
            let (owner, name) = (repo.owner(), repo.name());
            Ok(match repo.repo_type() {
                RepoTypeAny::Dataset => {
                    let repo = client.dataset(owner, name);
                    let info = repo.info().maybe_revision(wanted).send()?;
                    Head {
                        commit: info.sha,
                        private: info.private,
                    }
                }
                _ => {
                    let repo = client.model(owner, name);
                    let info = repo.info().maybe_revision(wanted).send()?;
                    Head {
                        commit: info.sha,
                        private: info.private,
                    }
                }
            })
        })?
        .map_err(|e| self.explain(e, &what))
    }

    /// Makes the repository if it is not there.
    ///
    /// # Errors
    /// If it cannot be made, or is to be private and is there and public.
    pub(crate) fn create(&self, private: bool) -> Result<(), HubError> {
        let limit = self.options.stall_timeout;
        let (client, repo) = (self.client.clone(), self.repo.clone());
        self.within(limit, move || {
            client
                .create_repository()
                .repo_id(&repo.repo_path())
                .repo_type(*repo.repo_type())
                .private(private)
                .exist_ok(true)
                .send()
        })?
        .map_err(|e| self.explain_push(e))?;
        if private && self.head(None, limit)?.private != Some(true) {
            return Err(HubError::Unusable {
                id: self.id.clone(),
                hint: "it is there already and not private; nothing was sent".to_owned(),
            });
        }
        Ok(())
    }

    /// Sends files of `bytes` bytes together as one commit, and gives its id where the hub states it.
    ///
    /// # Errors
    /// If the hub does not take it. Then nothing in the repository has changed.
    pub(crate) fn commit_files(
        &self,
        files: Vec<CommitOperation>,
        bytes: u64,
        message: &str,
    ) -> Result<Option<String>, HubError> {
        let (repo, message) = (self.repo.clone(), message.to_owned());
        let meter = Meter::start(&self.id, bytes, self.options);
        meter.say(&format!("sending {} to {}", human(bytes), self.id));
        let seen = meter.clone();
        // What goes in one piece tells of no progress while it is on its way.
        let limit = self.options.stall_timeout + Duration::from_secs(bytes / SLOWEST_UPLOAD);
        let result = run_aside(
            move || {
                repo.create_commit()
                    .operations(files)
                    .commit_message(message)
                    .progress(seen)
                    .send()
            },
            |_| {
                meter.tell();
                meter.still_for() < limit
            },
        );
        meter.finish();
        match result {
            Ok(result) => Ok(result.map_err(|e| self.explain_push(e))?.commit_oid),
            Err(aside) => Err(self.broke_off(match aside {
                Aside::TooLong => format!("nothing went for {} s", limit.as_secs()),
                Aside::Lost(reason) => reason,
            })),
        }
    }

    fn broke_off(&self, reason: String) -> HubError {
        HubError::Interrupted {
            file: self.id.clone(),
            reason,
        }
    }

    fn explain_push(&self, error: HFError) -> HubError {
        let status = match &error {
            HFError::AuthRequired { context }
            | HFError::Forbidden { context }
            | HFError::Http { context } => context.status.as_u16(),
            HFError::Request { source, .. } if !source.is_connect() => {
                return self.broke_off(causes(&error));
            }
            _ => 0,
        };
        match status {
            401 | 403 => HubError::WriteAccess {
                id: self.id.clone(),
                endpoint: self.endpoint.clone(),
                status,
            },
            _ => self.explain(error, &self.id),
        }
    }

    /// The files at a commit whose names are paths inside a folder: names become paths in the cache.
    pub(crate) fn files(&self, commit: &str) -> Result<Vec<RemoteFile>, HubError> {
        let mut files = self.all_files(commit)?;
        files.retain(|file| is_path_in_repo(&file.path));
        Ok(files)
    }

    /// All files at a commit, whatever their names.
    pub(crate) fn all_files(&self, commit: &str) -> Result<Vec<RemoteFile>, HubError> {
        let (repo, at) = (self.repo.clone(), commit.to_owned());
        let limit = self.options.stall_timeout;
        let entries = self
            .within(limit, move || {
                repo.list_tree().revision(at).recursive(true).send()
            })?
            .map_err(|e| self.explain(e, &self.id))?;
        Ok(entries
            .into_iter()
            .filter_map(|entry| match entry {
                RepoTreeEntry::File {
                    path, size, lfs, ..
                } => Some(RemoteFile {
                    bytes: lfs.as_ref().and_then(|l| l.size).unwrap_or(size),
                    large: lfs.is_some(),
                    path,
                }),
                _ => None,
            })
            .collect())
    }

    /// Fetches a file into the hub cache, or finds it there, and gives its path. Its content is not
    /// checked here.
    pub(crate) fn download(
        &self,
        commit: &str,
        file: &RemoteFile,
        meter: &Meter,
    ) -> Result<PathBuf, HubError> {
        let mut attempt = 1;
        let mut waits = 0;
        loop {
            let error = match self.download_once(commit, file, meter)? {
                Ok(path) => return Ok(path),
                Err(e) => e,
            };
            match &error {
                HFError::CacheLockTimeout { .. } if waits < LOCK_WAITS => {
                    if waits == 0 {
                        let path = &file.path;
                        meter.say(&format!("another process is fetching {path}; waiting"));
                    }
                    waits += 1;
                    continue;
                }
                HFError::Request { .. } if attempt < ATTEMPTS => attempt += 1,
                _ => return Err(self.explain_transfer(error, file)),
            }
            meter.say(&format!("{}; trying again", causes(&error)));
        }
    }

    fn download_once(
        &self,
        commit: &str,
        file: &RemoteFile,
        meter: &Meter,
    ) -> Result<Result<PathBuf, HFError>, HubError> {
        let (repo, at, name) = (self.repo.clone(), commit.to_owned(), file.path.clone());
        let seen = meter.clone();
        let limit = self.options.stall_timeout;
        let result = run_aside(
            move || {
                repo.download_file()
                    .filename(name)
                    .revision(at)
                    .progress(seen)
                    .send()
            },
            |_| {
                meter.tell();
                meter.still_for() < limit
            },
        );
        match result {
            Ok(result) => Ok(result),
            Err(reason) => Err(HubError::Interrupted {
                file: file.path.clone(),
                reason: match reason {
                    Aside::TooLong => format!("nothing came for {} s", limit.as_secs()),
                    Aside::Lost(reason) => reason,
                },
            }),
        }
    }

    /// Address of the hub.
    pub(crate) fn endpoint(&self) -> &str {
        &self.endpoint
    }

    fn within<T: Send + 'static>(
        &self,
        limit: Duration,
        work: impl FnOnce() -> T + Send + 'static,
    ) -> Result<T, HubError> {
        run_aside(work, |waited| waited < limit).map_err(|aside| match aside {
            Aside::TooLong => {
                self.unreachable(&format!("no answer within {:.1} s", limit.as_secs_f64()))
            }
            Aside::Lost(reason) => self.unreachable(&reason),
        })
    }

    fn unreachable(&self, reason: &str) -> HubError {
        HubError::Unreachable {
            endpoint: self.endpoint.clone(),
            reason: reason.to_owned(),
            hint: self.without_hub.to_owned(),
        }
    }

    fn access(&self, status: u16) -> HubError {
        let page = format!("{}/{}", self.endpoint, self.id);
        let hint = if status == 403 || self.gated {
            format!(
                "accept its terms at {page}, and set HF_TOKEN to a token of that account that may read it (HTTP {status})"
            )
        } else {
            format!(
                "set HF_TOKEN to a token that may read {page}; for a name that does not exist the hub answers the same (HTTP {status})"
            )
        };
        HubError::Access {
            id: self.id.clone(),
            hint,
        }
    }

    fn not_found(&self, what: &str) -> HubError {
        let hint = if std::path::Path::new(&self.id).exists() {
            format!(
                "check the spelling; the folder {} here was not taken since it has no config.json",
                self.id
            )
        } else {
            "check the spelling (owner/name[@revision][:file.gguf]); there is no local folder of that name either"
                .to_owned()
        };
        HubError::NotFound {
            what: what.to_owned(),
            hint,
        }
    }

    fn explain_transfer(&self, error: HFError, file: &RemoteFile) -> HubError {
        match error {
            HFError::Request { ref source, .. } if source.is_body() || source.is_decode() => {
                HubError::Interrupted {
                    file: file.path.clone(),
                    reason: causes(&error),
                }
            }
            other => self.explain(other, &format!("{} in {}", file.path, self.id)),
        }
    }

    /// Tells apart what a person can do something about.
    fn explain(&self, error: HFError, what: &str) -> HubError {
        match error {
            // A hub numbers its answers and names its errors; a filter on the way does neither.
            HFError::Forbidden { context }
            | HFError::RevisionNotFound {
                context: Some(context),
                ..
            } if context.request_id.is_none() && context.error_code.is_none() => {
                self.unreachable(&format!("HTTP {}, not as a hub says it", context.status))
            }
            HFError::AuthRequired { .. } => self.access(401),
            HFError::Forbidden { .. } => self.access(403),
            HFError::RepoNotFound { .. } => self.not_found(&self.id),
            // The client names the revision even where the whole repository is missing.
            HFError::RevisionNotFound { context, .. }
                if context
                    .as_ref()
                    .and_then(|c| c.error_code.as_deref())
                    .is_some_and(|code| code == "RepoNotFound") =>
            {
                self.not_found(&self.id)
            }
            HFError::RevisionNotFound { .. } | HFError::EntryNotFound { .. } => {
                self.not_found(what)
            }
            HFError::Http { ref context } => match context.status.as_u16() {
                401 => self.access(401),
                403 => self.access(403),
                404 => self.not_found(what),
                408 | 500..=599 => self.unreachable(&format!("HTTP {}", context.status)),
                _ => self.other(error),
            },
            HFError::Request { .. } | HFError::Xet { .. } | HFError::MalformedResponse { .. } => {
                self.unreachable(&causes(&error))
            }
            HFError::Io(source) => HubError::Io {
                action: "write into",
                path: self.options.hub_folder(),
                source,
            },
            other => self.other(other),
        }
    }

    fn other(&self, error: HFError) -> HubError {
        HubError::Hub {
            id: self.id.clone(),
            source: Box::new(error),
        }
    }
}

/// What lies behind an error. The outermost says only that a request failed, and the address.
fn causes(error: &HFError) -> String {
    let mut text = String::new();
    let mut next = std::error::Error::source(error);
    if let Some(cause) = next.and_then(std::error::Error::source) {
        next = Some(cause);
    }
    while let Some(cause) = next {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            if !text.is_empty() {
                text.push_str(": ");
            }
            text.push_str(&cause_text);
        }
        next = cause.source();
    }
    if text.is_empty() {
        error.to_string()
    } else {
        text
    }
}

/// Why [`run_aside`] has no result.
enum Aside {
    TooLong,
    Lost(String),
}

/// Runs `work` on its own thread while `go_on` (called with the time waited) says so. A thread
/// that is given up ends by itself, or with the program.
fn run_aside<T: Send + 'static>(
    work: impl FnOnce() -> T + Send + 'static,
    mut go_on: impl FnMut(Duration) -> bool,
) -> Result<T, Aside> {
    let (give, take) = sync_channel(1);
    thread::Builder::new()
        .name("hub".to_owned())
        .spawn(move || {
            // Nobody listens any more after a time-out.
            let _ = give.send(work());
        })
        .map_err(|e| Aside::Lost(format!("no thread: {e}")))?;
    let started = Instant::now();
    loop {
        match take.recv_timeout(TICK) {
            Ok(result) => return Ok(result),
            Err(RecvTimeoutError::Timeout) if go_on(started.elapsed()) => {}
            Err(RecvTimeoutError::Timeout) => return Err(Aside::TooLong),
            Err(RecvTimeoutError::Disconnected) => {
                return Err(Aside::Lost("the hub client stopped".to_owned()));
            }
        }
    }
}
