//! Whether a file is the one that was stated: length and sha256.
//!
//! Hashing a large file takes seconds, so a passed check is remembered in a small stamp file that
//! names the file's length and time of change.

use std::fs::{self, File, Metadata};
use std::io::Read;
use std::path::{Path, PathBuf};
use std::time::UNIX_EPOCH;

use sha2::Sha256;

use super::HubError;
use crate::atomic_file::write_bytes;
use crate::digest::{hex, of_file};

/// What a file should be.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Stated<'a> {
    /// Length in bytes, where known.
    pub bytes: Option<u64>,
    /// sha256, lower-case hex.
    pub sha256: &'a str,
    /// `the hub` or `the model card`.
    pub by: &'static str,
}

/// sha256 of a file, lower-case hex.
pub(crate) fn sha256_file(path: &Path) -> Result<String, HubError> {
    let digest = of_file::<Sha256>(path).map_err(HubError::io("read", path))?;
    Ok(hex(&digest))
}

/// The stamp beside a file of our own cache.
pub(crate) fn stamp_beside(file: &Path) -> PathBuf {
    let mut name = file.as_os_str().to_owned();
    name.push(".ok");
    PathBuf::from(name)
}

/// Checks a file against what is stated, by the stamp if it still fits, else by its content.
///
/// `before_hashing` is called with the length if the content has to be read. The file is not
/// removed here.
pub(crate) fn check_file(
    file: &Path,
    stated: Stated<'_>,
    stamp: &Path,
    before_hashing: impl FnOnce(u64),
) -> Result<(), HubError> {
    let meta = fs::metadata(file).map_err(HubError::io("read", file))?;
    if let Some(expected) = stated.bytes
        && meta.len() != expected
    {
        return Err(HubError::Size {
            file: file.display().to_string(),
            expected,
            actual: meta.len(),
        });
    }
    let line = stamp_line(&meta, stated.sha256);
    if read_stamp(stamp).is_some_and(|found| found == line) {
        return Ok(());
    }
    before_hashing(meta.len());
    let actual = sha256_file(file)?;
    if actual != stated.sha256 {
        return Err(HubError::Digest {
            file: file.display().to_string(),
            stated_by: stated.by,
            expected: stated.sha256.to_owned(),
            actual,
        });
    }
    write_stamp(file, stated.sha256, stamp);
    Ok(())
}

/// Remembers that a file was checked. Without a stamp the next start hashes again, so a cache that
/// cannot be written is no error here.
pub(crate) fn write_stamp(file: &Path, sha256: &str, stamp: &Path) {
    let written = fs::metadata(file)
        .map_err(|e| e.to_string())
        .and_then(|meta| {
            write_bytes(stamp, stamp_line(&meta, sha256).as_bytes()).map_err(|e| e.to_string())
        });
    if let Err(reason) = written {
        tracing::debug!(%reason, "checked file not remembered");
    }
}

fn stamp_line(meta: &Metadata, sha256: &str) -> String {
    let nanos = meta
        .modified()
        .ok()
        .and_then(|t| t.duration_since(UNIX_EPOCH).ok())
        .map_or(0, |d| d.as_nanos());
    format!("sha256 {sha256} size {} mtime_ns {nanos}\n", meta.len())
}

fn read_stamp(stamp: &Path) -> Option<String> {
    let mut text = String::new();
    File::open(stamp)
        .ok()?
        .take(512)
        .read_to_string(&mut text)
        .ok()?;
    Some(text)
}

#[cfg(test)]
mod tests {
    use super::*;

    // FIPS 180-2, appendix B.1.
    const ABC: &str = "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";

    #[test]
    fn a_stamp_saves_the_second_hash_until_the_file_changes() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("f");
        fs::write(&file, "abc").unwrap();
        assert_eq!(sha256_file(&file).unwrap(), ABC);
        let stated = Stated {
            bytes: Some(3),
            sha256: ABC,
            by: "the hub",
        };
        let stamp = stamp_beside(&file);
        let hashed = |file: &Path| {
            let mut count = 0;
            let result = check_file(file, stated, &stamp, |_| count += 1);
            (count, result)
        };
        assert!(matches!(hashed(&file), (1, Ok(()))));
        assert!(matches!(hashed(&file), (0, Ok(()))));
        std::thread::sleep(std::time::Duration::from_millis(20));
        fs::write(&file, "abd").unwrap();
        assert!(matches!(
            hashed(&file),
            (
                1,
                Err(HubError::Digest {
                    stated_by: "the hub",
                    ..
                })
            )
        ));
        fs::write(&file, "ab").unwrap();
        assert!(matches!(
            hashed(&file),
            (
                0,
                Err(HubError::Size {
                    expected: 3,
                    actual: 2,
                    ..
                })
            )
        ));
    }
}
