//! Files of this machine into a repository of the hub.

use std::fs;
use std::path::PathBuf;

use hf_hub::repository::CommitOperation;

use super::client::HubRepo;
use super::reference::{check_repo_id, is_path_in_repo};
use super::{HubError, ResolveOptions};

/// A file as the repository will hold it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PushFile {
    /// Its path in the repository.
    pub path: String,
    /// What is in it.
    pub content: Content,
}

/// What is in a file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Content {
    /// The same as in this file.
    File(PathBuf),
    /// These bytes.
    Bytes(Vec<u8>),
}

/// What the hub made of it.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pushed {
    /// Where the repository is shown.
    pub page: String,
    /// The commit, where the hub states it.
    pub commit: Option<String>,
}

/// Sends files as one commit into the repository `id` (`owner/name`, for a dataset
/// `datasets/owner/name`), which is made if it is not there. Other files in it stay.
///
/// # Errors
/// If a file cannot be read, or the hub cannot be reached or refuses. Then the repository is as it was,
/// except that it may be there now and empty.
pub fn push_files(
    id: &str,
    files: &[PushFile],
    private: bool,
    message: &str,
    options: &ResolveOptions,
) -> Result<Pushed, HubError> {
    check_repo_id(id)?;
    if options.offline {
        return Err(HubError::Offline {
            what: format!("a way to {id}"),
            hint: "Unset HF_HUB_OFFLINE to send something".to_owned(),
        });
    }
    let mut bytes = 0;
    let mut operations = Vec::with_capacity(files.len());
    for file in files {
        if !is_path_in_repo(&file.path) {
            return Err(HubError::Unusable {
                id: id.to_owned(),
                hint: format!("{:?} is no path in a repository", file.path),
            });
        }
        operations.push(match &file.content {
            Content::File(path) => {
                bytes += fs::metadata(path)
                    .map_err(HubError::io("read", path))?
                    .len();
                CommitOperation::add_file(&file.path, path)
            }
            Content::Bytes(content) => {
                bytes += content.len() as u64;
                CommitOperation::add_bytes(&file.path, content.clone())
            }
        });
    }
    let repo = HubRepo::open_for_files(id, options)?;
    repo.create(private)?;
    let commit = repo.commit_files(operations, bytes, message)?;
    Ok(Pushed {
        page: format!("{}/{id}", repo.endpoint()),
        commit,
    })
}
