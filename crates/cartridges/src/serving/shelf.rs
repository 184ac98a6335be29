//! The cartridges of one folder: found by name, loaded when asked for, kept while there is room.

use std::collections::HashMap;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use cartridges_engine::CartridgeHandle;
use cartridges_model::LanguageModel;
use cartridges_model::cartridge::{CartridgeManifest, HostCartridge, load, load_manifest};
use cartridges_serve::{CartridgeInfo, JobError};

use super::engine_thread::EngineThread;

/// What a cartridge folder holds.
const FILES: [&str; 2] = ["cartridge.json", "cartridge.safetensors"];
/// Folders that a listing looks at.
const LONGEST_LIST: usize = 10_000;

/// A folder of cartridges in front of an engine. Clones share it.
#[derive(Clone)]
pub struct Shelf(Arc<Inner>);

struct Inner {
    /// Without symbolic links.
    folder: Option<PathBuf>,
    model: Arc<LanguageModel>,
    engine: EngineThread,
    budget: u64,
    state: Mutex<State>,
    /// One loads at a time: reading and checking a file takes all the disk there is.
    loading: Mutex<()>,
    hits: AtomicU64,
    misses: AtomicU64,
}

#[derive(Default)]
struct State {
    entries: HashMap<String, Entry>,
    clock: u64,
    /// The engine's restarts when the handles were made.
    restarts: u64,
}

struct Entry {
    handle: CartridgeHandle,
    bytes: u64,
    version: Version,
    loans: usize,
    used: u64,
}

/// Length and time of the files: a cartridge that was made again is loaded again.
type Version = [(u64, Option<SystemTime>); 2];

/// The right to use a resident cartridge. While it lives the cartridge is not put away.
pub struct Loan {
    shelf: Arc<Inner>,
    id: String,
    /// What requests name.
    pub handle: CartridgeHandle,
}

impl Drop for Loan {
    fn drop(&mut self) {
        if let Some(entry) = self.shelf.state().entries.get_mut(&self.id)
            && entry.handle == self.handle
        {
            entry.loans = entry.loans.saturating_sub(1);
        }
    }
}

impl Inner {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where a cartridge stands; never outside the folder, whatever links there are in it.
    fn path(&self, id: &str) -> Result<PathBuf, JobError> {
        let missing = || JobError::NotFound(format!("cartridge {id} is not on this server"));
        let folder = self.folder.as_ref().ok_or_else(missing)?;
        let plain = id
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
        if !plain || id.is_empty() || id.bytes().all(|b| b == b'.') {
            return Err(missing());
        }
        let path = folder.join(id);
        for file in FILES {
            let real = fs::canonicalize(path.join(file)).map_err(|_| missing())?;
            if !real.starts_with(folder) {
                tracing::warn!(cartridge = id, "a link leads out of the folder");
                return Err(missing());
            }
        }
        Ok(path)
    }

    /// A resident cartridge of this version, if there is one.
    fn lend(self: &Arc<Self>, id: &str, version: &Version) -> Option<Loan> {
        let restarts = self.engine.told().restarts;
        let mut state = self.state();
        if state.restarts != restarts {
            state.entries.clear();
            state.restarts = restarts;
        }
        state.clock += 1;
        let now = state.clock;
        let entry = state.entries.get_mut(id)?;
        if entry.version != *version {
            return None;
        }
        entry.used = now;
        entry.loans += 1;
        Some(Loan {
            shelf: self.clone(),
            id: id.to_owned(),
            handle: entry.handle,
        })
    }

    /// Puts away the cartridge that nobody has used for the longest time.
    fn put_one_away(&self) -> bool {
        let mut state = self.state();
        let unused = state.entries.iter().filter(|(_, entry)| entry.loans == 0);
        let Some(id) = unused
            .min_by_key(|(_, entry)| entry.used)
            .map(|(id, _)| id.clone())
        else {
            return false;
        };
        if let Some(entry) = state.entries.remove(&id) {
            self.engine.remove(entry.handle);
        }
        true
    }

    /// Loads a cartridge into the engine, at the cost of unused ones if need be.
    fn bring(self: &Arc<Self>, id: &str, path: &Path, version: Version) -> Result<Loan, JobError> {
        let unusable = |error: &dyn std::fmt::Display| {
            JobError::Invalid(format!("cartridge {id} cannot be used: {error}"))
        };
        let (cartridge, manifest) = load(path).map_err(|error| {
            // The message names files of this machine.
            tracing::warn!(cartridge = id, %error, "a cartridge cannot be loaded");
            unusable(&"its files are damaged")
        })?;
        manifest
            .check(&self.model.identity, false)
            .map_err(|error| unusable(&error))?;
        let bytes = size(&cartridge);
        if bytes > self.budget {
            let limit = format!(
                "it has {bytes} bytes, the server's limit is {}",
                self.budget
            );
            return Err(unusable(&limit));
        }
        let total = || self.state().entries.values().map(|e| e.bytes).sum::<u64>();
        while total() + bytes > self.budget {
            if !self.put_one_away() {
                return Err(JobError::Busy);
            }
        }
        let cartridge = Arc::new(cartridge);
        let handle = loop {
            match self.engine.add(cartridge.clone()) {
                Ok(handle) => break handle,
                Err(_) if self.put_one_away() => {}
                Err(error) => return Err(unusable(&error)),
            }
        };
        let mut state = self.state();
        state.clock += 1;
        let entry = Entry {
            handle,
            bytes,
            version,
            loans: 1,
            used: state.clock,
        };
        if let Some(old) = state.entries.insert(id.to_owned(), entry) {
            // Those who read it still do so; the engine waits for them.
            self.engine.remove(old.handle);
        }
        drop(state);
        Ok(Loan {
            shelf: self.clone(),
            id: id.to_owned(),
            handle,
        })
    }
}

impl Shelf {
    /// A shelf over `folder`, of which at most `budget` bytes are in the engine's memory.
    ///
    /// # Errors
    /// If the folder is not there.
    pub fn new(
        folder: Option<&Path>,
        model: Arc<LanguageModel>,
        engine: EngineThread,
        budget: u64,
    ) -> std::io::Result<Self> {
        Ok(Self(Arc::new(Inner {
            folder: folder.map(fs::canonicalize).transpose()?,
            model,
            engine,
            budget,
            state: Mutex::default(),
            loading: Mutex::default(),
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
        })))
    }

    /// Takes a cartridge off the shelf, loading it if need be. `again` loads it in any case.
    ///
    /// # Errors
    /// If it is not there, damaged, made for another model, or there is no room.
    pub fn borrow(&self, id: &str, again: bool) -> Result<Loan, JobError> {
        let inner = &self.0;
        let path = inner.path(id)?;
        let missing = |_| JobError::NotFound(format!("cartridge {id} is not on this server"));
        let version = version(&path).map_err(missing)?;
        if !again && let Some(loan) = inner.lend(id, &version) {
            inner.hits.fetch_add(1, Ordering::Relaxed);
            return Ok(loan);
        }
        let _one = inner.loading.lock().unwrap_or_else(PoisonError::into_inner);
        // Somebody may have loaded it meanwhile.
        if !again && let Some(loan) = inner.lend(id, &version) {
            inner.hits.fetch_add(1, Ordering::Relaxed);
            return Ok(loan);
        }
        inner.misses.fetch_add(1, Ordering::Relaxed);
        inner.bring(id, &path, version)
    }

    /// Times a cartridge was in memory already, and times it was not.
    pub fn counts(&self) -> (u64, u64) {
        let count = |x: &AtomicU64| x.load(Ordering::Relaxed);
        (count(&self.0.hits), count(&self.0.misses))
    }

    /// The cartridges that can be read, by name.
    pub fn list(&self) -> Vec<CartridgeInfo> {
        let Some(folder) = &self.0.folder else {
            return Vec::new();
        };
        let entries = match fs::read_dir(folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => return Vec::new(),
            Err(error) => {
                tracing::warn!(%error, "the cartridge folder cannot be listed");
                return Vec::new();
            }
        };
        let mut list: Vec<CartridgeInfo> = entries
            .take(LONGEST_LIST)
            .filter_map(|entry| {
                let id = entry.ok()?.file_name().into_string().ok()?;
                let path = self.0.path(&id).ok()?;
                let manifest = load_manifest(&path).ok()?;
                Some(self.describe(id, &manifest))
            })
            .collect();
        list.sort_by(|a, b| a.id.cmp(&b.id));
        list
    }

    fn describe(&self, id: String, manifest: &CartridgeManifest) -> CartridgeInfo {
        let base = &manifest.base_model;
        let values = 2 * base.num_layers * base.num_kv_heads * base.head_dim * manifest.slots;
        let resident = self.0.state().entries.contains_key(&id);
        let corpus = manifest.made_by.get("corpus").and_then(|x| x.as_str());
        CartridgeInfo {
            id,
            tokens: manifest.slots,
            bytes: 4 * values as u64,
            origin: match corpus {
                Some(corpus) => format!("{corpus}, for {}", base.id),
                None => format!("for {}", base.id),
            },
            resident,
        }
    }
}

fn version(path: &Path) -> std::io::Result<Version> {
    let of = |file: &str| -> std::io::Result<(u64, Option<SystemTime>)> {
        let data = fs::metadata(path.join(file))?;
        Ok((data.len(), data.modified().ok()))
    };
    Ok([of(FILES[0])?, of(FILES[1])?])
}

fn size(cartridge: &HostCartridge) -> u64 {
    let values: usize = cartridge
        .layers
        .iter()
        .map(|layer| layer.key.len() + layer.value.len())
        .sum();
    4 * values as u64
}
