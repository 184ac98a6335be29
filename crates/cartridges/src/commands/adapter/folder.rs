//! Folders of merged adapters.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

/// Where a merged adapter keeps those that it is made of.
pub(super) const PARTS: &str = "parts";

/// A folder that is there whole or not at all.
pub(super) struct Fresh {
    building: TempDir,
    out: PathBuf,
}

impl Fresh {
    /// Begins a folder, which must not be there yet.
    pub(super) fn new(out: &Path) -> Result<Self> {
        let failed = || format!("cannot write {}", out.display());
        let taken = match fs::read_dir(out) {
            Ok(mut entries) => entries.next().is_some(),
            Err(error) if error.kind() == io::ErrorKind::NotFound => false,
            Err(error) => return Err(error).with_context(failed),
        };
        if taken {
            bail!(
                "{} is not empty: name a new folder with --out",
                out.display()
            );
        }
        let parent = match out.parent() {
            Some(parent) if !parent.as_os_str().is_empty() => parent,
            _ => Path::new("."),
        };
        fs::create_dir_all(parent).with_context(failed)?;
        let builder = tempfile::Builder::new().prefix(".tmp-").tempdir_in(parent);
        Ok(Self {
            building: builder.with_context(failed)?,
            out: out.to_owned(),
        })
    }

    /// Where it is built.
    pub(super) fn path(&self) -> &Path {
        self.building.path()
    }

    /// Puts it in its place.
    pub(super) fn finish(self) -> Result<PathBuf> {
        let failed = || format!("cannot write {}", self.out.display());
        #[cfg(unix)]
        {
            use std::os::unix::fs::PermissionsExt;
            let usual = fs::Permissions::from_mode(0o755);
            fs::set_permissions(self.building.path(), usual).with_context(failed)?;
        }
        if self.out.is_dir() {
            fs::remove_dir(&self.out).with_context(failed)?;
        }
        fs::rename(self.building.path(), &self.out).with_context(failed)?;
        // It is no temporary folder any more.
        let _ = self.building.keep();
        Ok(self.out)
    }
}

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
