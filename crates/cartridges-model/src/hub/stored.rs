//! The hub cache on disk, in the layout that the hub's own tools share:
//! `models--OWNER--NAME/{refs/REVISION, snapshots/COMMIT/FILE -> ../../blobs/ETAG, blobs/ETAG}`.
//!
//! The ETag of a large file is its sha256 as the hub states it, so a blob's name says what its
//! content has to be. `hf-hub` 1.0 stores whatever came; here it is checked.

use std::fs::{self, File};
use std::io::Read;
use std::path::{Path, PathBuf};

use super::client::{DATASETS, RemoteFile};
use super::progress::human;
use super::reference::is_revision;
use super::verify::{Stated, check_file, sha256_file, write_stamp};
use super::{HubError, ResolveOptions};
use crate::atomic_file::write_bytes;
use crate::digest::is_sha256;

/// Hashing less than this takes no time worth a word.
const WORTH_A_WORD: u64 = 256 << 20;

fn repo_folder(id: &str, options: &ResolveOptions) -> PathBuf {
    // A dataset's id begins with the word already.
    let kind = if id.starts_with(DATASETS) {
        ""
    } else {
        "models--"
    };
    let name = format!("{kind}{}", id.replace('/', "--"));
    options.hub_folder().join(name)
}

fn is_commit(revision: &str) -> bool {
    revision.len() == 40 && revision.bytes().all(|b| b.is_ascii_hexdigit())
}

/// The commit and folder of a revision in the cache, if there is one.
pub(crate) fn snapshot(
    id: &str,
    revision: &str,
    options: &ResolveOptions,
) -> Option<(String, PathBuf)> {
    let repo = repo_folder(id, options);
    let commit = if is_commit(revision) {
        revision.to_owned()
    } else if is_revision(revision) {
        let mut text = String::new();
        let file = File::open(repo.join("refs").join(revision)).ok()?;
        file.take(64).read_to_string(&mut text).ok()?;
        text.trim().to_owned()
    } else {
        return None;
    };
    let folder = repo.join("snapshots").join(&commit);
    (is_commit(&commit) && folder.is_dir()).then_some((commit, folder))
}

/// Notes in the cache which commit a revision means, so that it is found offline.
pub(crate) fn note_revision(
    id: &str,
    revision: &str,
    commit: &str,
    options: &ResolveOptions,
) -> Result<(), HubError> {
    if is_commit(revision) || !is_revision(revision) {
        return Ok(());
    }
    let path = repo_folder(id, options).join("refs").join(revision);
    write_bytes(&path, commit.as_bytes()).map_err(|e| HubError::Io {
        action: "write",
        path: e.path,
        source: e.source,
    })
}

/// Checks a file of the cache: its length if the hub stated one just now, and its sha256 if the
/// hub states that. A file that is not right is removed. Gives the sha256, where it is known.
pub(crate) fn check_stored(
    path: &Path,
    remote: Option<&RemoteFile>,
    options: &ResolveOptions,
) -> Result<Option<String>, HubError> {
    let result = check_kept(path, remote, options);
    if let Err(HubError::Size { .. } | HubError::Digest { .. }) = result {
        remove_stored(path);
    }
    result
}

fn check_kept(
    path: &Path,
    remote: Option<&RemoteFile>,
    options: &ResolveOptions,
) -> Result<Option<String>, HubError> {
    let blob = fs::canonicalize(path).map_err(HubError::io("read", path))?;
    let actual = fs::metadata(&blob)
        .map_err(HubError::io("read", &blob))?
        .len();
    if let Some(remote) = remote
        && remote.bytes != actual
    {
        return Err(HubError::Size {
            file: remote.path.clone(),
            expected: remote.bytes,
            actual,
        });
    }
    let tell = |bytes: u64| {
        if bytes >= WORTH_A_WORD {
            options.say(&format!("checking {} ({})", path.display(), human(bytes)));
        }
    };
    let stamps = options
        .models_folder()
        .unwrap_or_else(|_| options.hub_folder())
        .join(".hub-checked");
    let stamp = |sha256: &str| stamps.join(format!("{sha256}.ok"));
    let name = blob.file_name().and_then(|n| n.to_str()).unwrap_or("");
    if is_sha256(name) {
        let stated = Stated {
            bytes: None,
            sha256: name,
            by: "the hub",
        };
        check_file(path, stated, &stamp(name), tell)?;
        return Ok(Some(name.to_owned()));
    }
    // Where links need rights (Windows), the cache has copies; the blob beside them has the name.
    if remote.is_some_and(|r| r.large) {
        tell(actual);
        let digest = sha256_file(path)?;
        if !blobs_of(path).is_some_and(|blobs| blobs.join(&digest).is_file()) {
            return Err(HubError::Digest {
                file: path.display().to_string(),
                stated_by: "the hub",
                expected: "another digest".to_owned(),
                actual: digest,
            });
        }
        write_stamp(path, &digest, &stamp(&digest));
        return Ok(Some(digest));
    }
    Ok(None)
}

/// `.../models--O--N/snapshots/COMMIT/...` to `.../models--O--N/blobs`.
fn blobs_of(path: &Path) -> Option<PathBuf> {
    let snapshots = path
        .ancestors()
        .find(|a| a.file_name().is_some_and(|n| n == "snapshots"))?;
    Some(snapshots.parent()?.join("blobs"))
}

/// Removes a file of the cache with what it links to.
pub(crate) fn remove_stored(path: &Path) {
    if let Ok(blob) = fs::canonicalize(path) {
        let _ = fs::remove_file(blob);
    }
    let _ = fs::remove_file(path);
}

/// Removes what broken transfers left of a repository. The client starts such files anew anyway;
/// one that another process is writing is locked and stays.
pub(crate) fn sweep_broken(id: &str, options: &ResolveOptions) {
    let repo = repo_folder(id, options);
    let Some(name) = repo.file_name() else {
        return;
    };
    let locks = options.hub_folder().join(".locks").join(name);
    let entries = fs::read_dir(repo.join("blobs"));
    for entry in entries.into_iter().flatten().flatten() {
        let path = entry.path();
        let is_broken = path.extension().is_some_and(|e| e == "incomplete");
        let Some(etag) = path.file_stem().filter(|_| is_broken) else {
            continue;
        };
        let lock = File::open(locks.join(format!("{}.lock", etag.to_string_lossy())));
        if lock.is_ok_and(|file| file.try_lock().is_ok()) {
            let _ = fs::remove_file(&path);
        }
    }
}
