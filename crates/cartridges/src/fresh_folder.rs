//! A folder of results that is there whole or not at all.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, bail};
use tempfile::TempDir;

/// A folder that is there whole or not at all.
pub(crate) struct FreshFolder {
    building: TempDir,
    out: PathBuf,
}

impl FreshFolder {
    /// Begins a folder, which must not be there yet.
    pub(crate) fn new(out: &Path) -> Result<Self> {
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
    pub(crate) fn path(&self) -> &Path {
        self.building.path()
    }

    /// Puts it in its place.
    pub(crate) fn finish(self) -> Result<PathBuf> {
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
