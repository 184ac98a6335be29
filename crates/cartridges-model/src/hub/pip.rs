//! Fetching one wheel with pip.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use super::{HubError, ResolveOptions};

/// Commands that may be pip, best first.
const USUAL: &[&[&str]] = &[&["python3", "-m", "pip"], &["python", "-m", "pip"]];

/// Fetches the wheel of `package` (`name==version`) into `folder`, which is empty, and gives its
/// path. Nothing of the package is installed or run.
pub(crate) fn fetch_wheel(
    card: &str,
    package: &str,
    folder: &Path,
    options: &ResolveOptions,
) -> Result<PathBuf, HubError> {
    let own: Vec<Vec<String>>;
    let commands: &[Vec<String>] = if options.pip_command.is_empty() {
        own = USUAL
            .iter()
            .map(|words| words.iter().map(|w| (*w).to_owned()).collect())
            .collect();
        &own
    } else {
        std::slice::from_ref(&options.pip_command)
    };
    for command in commands {
        let output = match run(command, package, folder) {
            Ok(output) => output,
            Err(e) if e.kind() == io::ErrorKind::NotFound => continue,
            Err(e) => {
                return Err(HubError::PipFailed {
                    package: package.to_owned(),
                    detail: format!("{} did not start: {e}", command.join(" ")),
                });
            }
        };
        let said = String::from_utf8_lossy(&output.stderr);
        if output.status.success() {
            return only_wheel(folder, package);
        }
        // Windows answers for a Python that is not installed with a hint at its shop.
        if said.contains("No module named pip") || said.contains("Python was not found") {
            continue;
        }
        if said.contains("No space left on device") {
            let full = io::Error::new(io::ErrorKind::StorageFull, format!("pip: {}", tail(&said)));
            return Err(HubError::io("write", folder)(full));
        }
        return Err(HubError::PipFailed {
            package: package.to_owned(),
            detail: format!("{}: {}", output.status, tail(&said)),
        });
    }
    let tried: Vec<String> = commands.iter().map(|c| c.join(" ")).collect();
    Err(HubError::PipMissing {
        card: card.to_owned(),
        tried: tried.join(", "),
    })
}

fn run(command: &[String], package: &str, folder: &Path) -> io::Result<Output> {
    let (program, first) = command
        .split_first()
        .ok_or_else(|| io::Error::from(io::ErrorKind::NotFound))?;
    Command::new(program)
        .args(first)
        .args(["download", "-q", "--no-deps", "--only-binary=:all:"])
        .args([
            "--no-cache-dir",
            "--no-input",
            "--disable-pip-version-check",
        ])
        .args(["-d", ".", package])
        // `python -m` looks for modules in the current folder first, so that has to be an empty one.
        .current_dir(folder)
        .stdin(Stdio::null())
        .output()
}

fn only_wheel(folder: &Path, package: &str) -> Result<PathBuf, HubError> {
    let mut wheels = Vec::new();
    for entry in fs::read_dir(folder).map_err(HubError::io("read", folder))? {
        let path = entry.map_err(HubError::io("read", folder))?.path();
        if path.extension().is_some_and(|e| e == "whl") {
            wheels.push(path);
        }
    }
    match wheels.pop() {
        Some(wheel) if wheels.is_empty() => Ok(wheel),
        _ => Err(HubError::Wheel {
            package: package.to_owned(),
            message: "pip ended well but did not leave one .whl file".to_owned(),
        }),
    }
}

/// The last lines of what a command said, which hold the reason.
fn tail(text: &str) -> String {
    let lines: Vec<&str> = text
        .lines()
        .map(str::trim)
        .filter(|l| !l.is_empty())
        .collect();
    let last = lines[lines.len().saturating_sub(3)..].join(" | ");
    if last.is_empty() {
        return "it said nothing".to_owned();
    }
    let start = last.len().saturating_sub(600);
    let start = (start..last.len())
        .find(|i| last.is_char_boundary(*i))
        .unwrap_or(last.len());
    last[start..].to_owned()
}
