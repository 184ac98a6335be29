//! Checkpoints kept by their step's number.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use cartridges_model::atomic_file::{WriteError, write_bytes};

/// The newest checkpoint's name, under which a run finds it again.
pub const CHECKPOINT: &str = "checkpoint.safetensors";

const PREFIX: &str = "checkpoint-";
const SUFFIX: &str = ".safetensors";

/// Where the checkpoint of a step is kept.
pub fn numbered_checkpoint(folder: &Path, step: usize) -> PathBuf {
    folder.join(format!("{PREFIX}{step:06}{SUFFIX}"))
}

/// Keeps the newest checkpoint under its step's number too, and of those up to this step only the last
/// `keep`. Files of later steps, which an earlier run has left, stay. Does nothing for a `keep` of 0.
///
/// # Errors
/// [`WriteError`], which names the file.
pub fn keep_numbered(folder: &Path, step: usize, keep: usize) -> Result<(), WriteError> {
    if keep == 0 {
        return Ok(());
    }
    let (newest, path) = (folder.join(CHECKPOINT), numbered_checkpoint(folder, step));
    let fail = |path: &Path| {
        let path = path.to_owned();
        move |source: io::Error| WriteError { path, source }
    };
    remove(&path).map_err(fail(&path))?;
    // The newest is replaced as a whole and never written to, so that a second name for it is enough.
    if fs::hard_link(&newest, &path).is_err() {
        let bytes = fs::read(&newest).map_err(fail(&newest))?;
        write_bytes(&path, &bytes)?;
    }
    let mut steps = Vec::new();
    for entry in fs::read_dir(folder).map_err(fail(folder))? {
        let name = entry.map_err(fail(folder))?.file_name();
        let number = (name.to_str())
            .and_then(|name| name.strip_prefix(PREFIX)?.strip_suffix(SUFFIX))
            .and_then(|number| number.parse::<usize>().ok());
        steps.extend(number.filter(|n| *n <= step));
    }
    steps.sort_unstable();
    steps.dedup();
    for old in &steps[..steps.len().saturating_sub(keep)] {
        let path = numbered_checkpoint(folder, *old);
        remove(&path).map_err(fail(&path))?;
    }
    Ok(())
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_last_ones_stay_and_nothing_else_goes() {
        let folder = tempfile::tempdir().unwrap();
        let folder = folder.path();
        for other in [
            "checkpoint-old.safetensors",
            "checkpoint-000900.safetensors",
        ] {
            fs::write(folder.join(other), "other").unwrap();
        }
        for step in [5, 10, 15, 20] {
            write_bytes(&folder.join(CHECKPOINT), step.to_string().as_bytes()).unwrap();
            keep_numbered(folder, step, 2).unwrap();
        }
        let mut names: Vec<String> = fs::read_dir(folder)
            .unwrap()
            .map(|e| e.unwrap().file_name().into_string().unwrap())
            .collect();
        names.sort();
        let wanted = [
            "checkpoint-000015.safetensors",
            "checkpoint-000020.safetensors",
            "checkpoint-000900.safetensors",
            "checkpoint-old.safetensors",
            "checkpoint.safetensors",
        ];
        assert_eq!(names, wanted);
        let read = |step| fs::read_to_string(numbered_checkpoint(folder, step)).unwrap();
        assert_eq!((read(15), read(20)), ("15".to_owned(), "20".to_owned()));
        keep_numbered(folder, 25, 0).unwrap();
        assert!(!numbered_checkpoint(folder, 25).exists());
    }
}
