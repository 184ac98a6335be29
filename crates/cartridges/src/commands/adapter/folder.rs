//! Folders of merged adapters.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};

/// Where a merged adapter keeps those that it is made of.
pub(super) const PARTS: &str = "parts";

/// The adapters that the one in `folder` is made of; itself if it is no merged one.
pub(super) fn parts(folder: &Path) -> Result<Vec<PathBuf>> {
    let within = folder.join(PARTS);
    if !within.is_dir() {
        return Ok(vec![folder.to_owned()]);
    }
    let failed = || format!("reading {}", within.display());
    let mut found = Vec::new();
    for entry in fs::read_dir(&within).with_context(failed)? {
        found.push(entry.with_context(failed)?.path());
    }
    found.sort();
    Ok(found)
}

/// Makes `to` a copy of the folder `from`. Files are never changed in place, so both share them where the
/// disk can do that: statistics have gigabytes.
pub(super) fn link_tree(from: &Path, to: &Path) -> Result<()> {
    let failed = |path: &Path| format!("copying {} to {}", path.display(), to.display());
    fs::create_dir_all(to).with_context(|| failed(from))?;
    for entry in fs::read_dir(from).with_context(|| failed(from))? {
        let entry = entry.with_context(|| failed(from))?;
        let (path, copy) = (entry.path(), to.join(entry.file_name()));
        let kind = fs::metadata(&path).with_context(|| failed(&path))?;
        if kind.is_dir() {
            link_tree(&path, &copy)?;
        } else if fs::hard_link(&path, &copy).is_err() {
            fs::copy(&path, &copy).with_context(|| failed(&path))?;
        }
    }
    Ok(())
}
