//! Files of a repository of the hub, checked, in the hub's cache.

use std::fs;
use std::path::{Path, PathBuf};

use super::client::HubRepo;
use super::reference::{check_repo_id, is_path_in_repo};
use super::snapshot::Visit;
use super::stored::{check_stored, note_revision, snapshot};
use super::{HubError, ResolveOptions};

/// What a repository holds.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Pulled {
    /// The commit.
    pub commit: String,
    /// The folder in the hub's cache that holds the files; none if there are none.
    pub folder: Option<PathBuf>,
    /// The files that were wanted, by path.
    pub files: Vec<PulledFile>,
    /// Paths of those that were not; nothing is known of them offline.
    pub left_out: Vec<String>,
}

/// A file in the hub's cache.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PulledFile {
    /// Its path in the repository, which does not lead out of a folder.
    pub path: String,
    /// Where it lies.
    pub cached: PathBuf,
}

/// Fetches the files of the repository `id` (`owner/name`, for a dataset `datasets/owner/name`) that are
/// wanted. What is in the cache already is not fetched again; offline the cache is all there is.
///
/// # Errors
/// If the hub cannot be reached or has no such repository, a file's name leads out of its folder (nothing
/// is fetched then), or a file is not what the hub says it is.
pub fn pull_files(
    id: &str,
    wanted: &dyn Fn(&str) -> bool,
    options: &ResolveOptions,
) -> Result<Pulled, HubError> {
    check_repo_id(id)?;
    let revision = options.revision.as_deref().unwrap_or("main");
    if options.offline {
        return from_cache(id, revision, wanted, options);
    }
    let repo = HubRepo::open_for_files(id, options)?;
    let commit = repo.commit(revision, options.stall_timeout)?;
    let mut files = repo.all_files(&commit)?;
    if let Some(file) = files.iter().find(|f| !is_path_in_repo(&f.path)) {
        return Err(HubError::Unusable {
            id: id.to_owned(),
            hint: format!(
                "it names a file {:?}, which would lie outside of its folder; nothing was fetched",
                file.path
            ),
        });
    }
    files.sort_by(|a, b| a.path.cmp(&b.path));
    let visit = Visit {
        repo: &repo,
        commit: &commit,
        files: &files,
        options,
    };
    let mut pulled = Pulled {
        commit: commit.clone(),
        folder: None,
        files: Vec::new(),
        left_out: Vec::new(),
    };
    for file in &files {
        match wanted(&file.path) {
            false => pulled.left_out.push(file.path.clone()),
            true => pulled.files.push(PulledFile {
                path: file.path.clone(),
                cached: visit.get(file)?.0,
            }),
        }
    }
    // Only now: whoever asks offline gets all or nothing.
    note_revision(id, revision, &commit, options)?;
    if !pulled.files.is_empty() {
        pulled.folder = snapshot(id, &commit, options).map(|(_, folder)| folder);
    }
    Ok(pulled)
}

fn from_cache(
    id: &str,
    revision: &str,
    wanted: &dyn Fn(&str) -> bool,
    options: &ResolveOptions,
) -> Result<Pulled, HubError> {
    let (commit, folder) = snapshot(id, revision, options).ok_or_else(|| HubError::Offline {
        what: format!("{id} at {revision}"),
        hint: "Unset HF_HUB_OFFLINE to fetch it".to_owned(),
    })?;
    let mut files = Vec::new();
    list(&folder, "", &mut files)?;
    files.retain(|file| wanted(&file.path));
    files.sort_by(|a, b| a.path.cmp(&b.path));
    for file in &files {
        check_stored(&file.cached, None, options)?;
    }
    Ok(Pulled {
        commit,
        folder: (!files.is_empty()).then_some(folder),
        files,
        left_out: Vec::new(),
    })
}

fn list(folder: &Path, before: &str, files: &mut Vec<PulledFile>) -> Result<(), HubError> {
    for entry in fs::read_dir(folder).map_err(HubError::io("read", folder))? {
        let entry = entry.map_err(HubError::io("read", folder))?;
        let Ok(name) = entry.file_name().into_string() else {
            continue;
        };
        let (path, cached) = (format!("{before}{name}"), entry.path());
        match cached.is_dir() {
            true => list(&cached, &format!("{path}/"), files)?,
            false => files.push(PulledFile { path, cached }),
        }
    }
    Ok(())
}
