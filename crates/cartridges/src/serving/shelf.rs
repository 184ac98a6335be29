//! The cartridges, or the adapters, of one folder: found by name, loaded when asked for, kept while there
//! is room.

use std::collections::HashMap;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::SystemTime;

use cartridges_model::LanguageModel;
use cartridges_model::cartridge::{CartridgeManifest, HostCartridge};
use cartridges_model::hub::{ResolveOptions, fetch_files};
use cartridges_serve::{CartridgeInfo, JobError};

use super::engine_thread::EngineThread;
use super::ware::Ware;

/// What a fetched file may have beyond the budget for tensors.
const OVERHEAD: u64 = 1 << 20;
/// Folders that a listing looks at.
const LONGEST_LIST: usize = 10_000;

/// A folder of wares in front of an engine. Clones share it.
pub struct Shelf<W: Ware>(Arc<Inner<W>>);

impl<W: Ware> Clone for Shelf<W> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

struct Inner<W: Ware> {
    /// Without symbolic links.
    folder: Option<PathBuf>,
    model: Arc<LanguageModel>,
    engine: EngineThread,
    budget: u64,
    state: Mutex<State<W::Handle>>,
    /// One loads at a time: reading and checking a file takes all the disk there is.
    loading: Mutex<()>,
    hits: AtomicU64,
    misses: AtomicU64,
}

struct State<H> {
    entries: HashMap<String, Entry<H>>,
    clock: u64,
    /// The engine's restarts when the handles were made.
    restarts: u64,
}

struct Entry<H> {
    handle: H,
    bytes: u64,
    version: Version,
    loans: usize,
    used: u64,
}

/// Length and time of the files: what was made again is loaded again.
type Version = [(u64, Option<SystemTime>); 2];

/// The right to use what is resident. While it lives it is not put away.
pub struct Loan<W: Ware> {
    shelf: Arc<Inner<W>>,
    id: String,
    /// What requests name.
    pub handle: W::Handle,
}

impl<W: Ware> Drop for Loan<W> {
    fn drop(&mut self) {
        if let Some(entry) = self.shelf.state().entries.get_mut(&self.id)
            && entry.handle == self.handle
        {
            entry.loans = entry.loans.saturating_sub(1);
        }
    }
}

impl<W: Ware> Inner<W> {
    fn state(&self) -> MutexGuard<'_, State<W::Handle>> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Where one stands; never outside the folder, whatever links there are in it.
    fn path(&self, id: &str) -> Result<PathBuf, JobError> {
        let missing = || missing::<W>(id);
        let folder = self.folder.as_ref().ok_or_else(missing)?;
        let plain = id
            .bytes()
            .all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b));
        if !plain || id.is_empty() || id.bytes().all(|b| b == b'.') {
            return Err(missing());
        }
        let path = folder.join(id);
        for file in W::FILES {
            let real = fs::canonicalize(path.join(file)).map_err(|_| missing())?;
            if !real.starts_with(folder) {
                tracing::warn!(id, "a link leads out of the folder of {}s", W::NOUN);
                return Err(missing());
            }
        }
        Ok(path)
    }

    /// What is resident in this version, if it is.
    fn lend(self: &Arc<Self>, id: &str, version: &Version) -> Option<Loan<W>> {
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

    /// Puts away what nobody has used for the longest time.
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
            W::remove(entry.handle, &self.engine);
        }
        true
    }

    /// Loads one into the engine, at the cost of unused ones if need be.
    fn bring(
        self: &Arc<Self>,
        id: &str,
        path: &Path,
        version: Version,
    ) -> Result<Loan<W>, JobError> {
        let unusable = |error: &str| unusable::<W>(id, error);
        let (ware, manifest) = W::load(path).map_err(|error| {
            // The message names files of this machine.
            tracing::warn!(id, %error, "a {} cannot be loaded", W::NOUN);
            unusable("its files are damaged")
        })?;
        ware.check(&manifest, &self.model)
            .map_err(|error| unusable(&error))?;
        let bytes = ware.bytes();
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
        let ware = Arc::new(ware);
        let handle = loop {
            match ware.add(&self.engine) {
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
            W::remove(old.handle, &self.engine);
        }
        drop(state);
        Ok(Loan {
            shelf: self.clone(),
            id: id.to_owned(),
            handle,
        })
    }
}

impl<W: Ware> Shelf<W> {
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
            state: Mutex::new(State {
                entries: HashMap::new(),
                clock: 0,
                restarts: 0,
            }),
            loading: Mutex::default(),
            hits: AtomicU64::new(0),
            misses: AtomicU64::new(0),
        })))
    }

    /// Takes one off the shelf, loading it if need be. `again` loads it in any case.
    ///
    /// # Errors
    /// If it is not there, damaged, made for another model, or there is no room.
    pub fn borrow(&self, id: &str, again: bool) -> Result<Loan<W>, JobError> {
        let inner = &self.0;
        let path = inner.path(id)?;
        let version = version::<W>(&path).map_err(|_| missing::<W>(id))?;
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

    /// Brings what the hub repository holds: `repo` into the folder as `id`. With `again` in place of
    /// one that is there; without, one that somebody has brought meanwhile will do.
    ///
    /// # Errors
    /// If it cannot be fetched, is damaged, or made for another model.
    pub fn fetch(
        &self,
        repo: &str,
        id: &str,
        again: bool,
        hub: &ResolveOptions,
    ) -> Result<(), JobError> {
        let inner = &self.0;
        let refused = |error: &dyn std::fmt::Display| {
            tracing::warn!(repo, %error, "a {} cannot be fetched", W::NOUN);
            JobError::NotFound(format!("{} {repo} could not be fetched", W::NOUN))
        };
        let folder = inner.folder.as_ref();
        let folder = folder.ok_or_else(|| refused(&"this server has no folder for it"))?;
        let _one = inner.loading.lock().unwrap_or_else(PoisonError::into_inner);
        if !again && inner.path(id).is_ok() {
            return Ok(());
        }
        let cached =
            fetch_files(repo, &W::FILES, inner.budget + OVERHEAD, hub).map_err(|e| refused(&e))?;
        let (ware, manifest) = W::load(&cached).map_err(|e| refused(&e))?;
        ware.check(&manifest, &inner.model)
            .map_err(|error| unusable::<W>(id, &error))?;
        place(&W::FILES, &cached, folder, id).map_err(|e| refused(&e))
    }

    /// Times one was in memory already, and times it was not.
    pub fn counts(&self) -> (u64, u64) {
        let count = |x: &AtomicU64| x.load(Ordering::Relaxed);
        (count(&self.0.hits), count(&self.0.misses))
    }

    /// The names and manifests of those that can be read, by name.
    fn names(&self) -> Vec<(String, W::Manifest)> {
        let Some(folder) = &self.0.folder else {
            return Vec::new();
        };
        let entries = match fs::read_dir(folder) {
            Ok(entries) => entries,
            Err(error) if error.kind() == ErrorKind::NotFound => return Vec::new(),
            Err(error) => {
                tracing::warn!(%error, "the folder of {}s cannot be listed", W::NOUN);
                return Vec::new();
            }
        };
        let mut list: Vec<(String, W::Manifest)> = entries
            .take(LONGEST_LIST)
            .filter_map(|entry| {
                let id = entry.ok()?.file_name().into_string().ok()?;
                let path = self.0.path(&id).ok()?;
                Some((id, W::manifest(&path)?))
            })
            .collect();
        list.sort_by(|a, b| a.0.cmp(&b.0));
        list
    }
}

impl Shelf<HostCartridge> {
    /// The cartridges that can be read, by name.
    pub fn list(&self) -> Vec<CartridgeInfo> {
        let names = self.names().into_iter();
        names
            .map(|(id, manifest)| self.describe(id, &manifest))
            .collect()
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

fn missing<W: Ware>(id: &str) -> JobError {
    JobError::NotFound(format!("{} {id} is not on this server", W::NOUN))
}

fn unusable<W: Ware>(id: &str, error: &str) -> JobError {
    JobError::Invalid(format!("{} {id} cannot be used: {error}", W::NOUN))
}

fn version<W: Ware>(path: &Path) -> std::io::Result<Version> {
    let of = |file: &str| -> std::io::Result<(u64, Option<SystemTime>)> {
        let data = fs::metadata(path.join(file))?;
        Ok((data.len(), data.modified().ok()))
    };
    Ok([of(W::FILES[0])?, of(W::FILES[1])?])
}

/// Puts `names` of the folder `files` into `folder/id`: a reader sees the old ones, for a moment none, or the
/// new ones, never some of each. If it fails the old ones stay.
fn place(names: &[&str], files: &Path, folder: &Path, id: &str) -> std::io::Result<()> {
    let new = tempfile::TempDir::with_prefix_in(".fetched-", folder)?;
    for file in names {
        fs::copy(files.join(file), new.path().join(file))?;
    }
    let target = folder.join(id);
    let old = tempfile::TempDir::with_prefix_in(".replaced-", folder)?;
    let aside = old.path().join(id);
    let replaces = target.exists();
    if replaces {
        fs::rename(&target, &aside)?;
    }
    fs::rename(new.path(), &target).or_else(|error| {
        if replaces {
            fs::rename(&aside, &target)?;
        }
        Err(error)
    })
}

#[cfg(test)]
mod tests {
    use cartridges_engine::EngineOptions;
    use cartridges_model::cartridge::{CartridgeDtype, ModelIdentity, random_vectors, save};
    use cartridges_model::decoder::{Decoder, ModelConfig};
    use cartridges_model::text::ChatTokenizer;
    use cartridges_model::weights::Weights;
    use tempfile::TempDir;

    use super::*;

    fn model() -> Arc<LanguageModel> {
        let fixtures = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures");
        let folder = fixtures.join("tiny-qwen2");
        let config = ModelConfig::from_file(&folder.join("config.json")).unwrap();
        let weights = Weights::open_folder(&folder).unwrap();
        let device = cartridges_ops::test_device();
        Arc::new(LanguageModel {
            text: ChatTokenizer::from_folder(&fixtures.join("tokenizers/smollm2")).unwrap(),
            identity: ModelIdentity {
                id: "tiny-qwen2".to_owned(),
                config_fingerprint: "0".repeat(16),
                weights_fingerprint: "1".repeat(64),
                tokenizer_fingerprint: "2".repeat(64),
                num_layers: config.num_layers,
                num_kv_heads: config.num_kv_heads,
                head_dim: config.head_dim,
                rope: serde_json::json!({ "theta": 1e6 }),
            },
            decoder: Decoder::load(config, &weights, &device, &mut |_, _| ()).unwrap(),
        })
    }

    fn put(model: &LanguageModel, folder: &Path, slots: usize) -> u64 {
        let cartridge = random_vectors(&model.decoder, slots, 1, slots as u64).unwrap();
        let how = serde_json::json!({ "program": "test" });
        save(
            folder,
            &cartridge,
            &model.identity,
            &how,
            CartridgeDtype::F32,
        )
        .unwrap();
        cartridge.byte_len(CartridgeDtype::F32) as u64
    }

    fn shelf(model: &Arc<LanguageModel>, folder: &Path, budget: u64) -> Shelf<HostCartridge> {
        let engine = EngineThread::start(model.clone(), EngineOptions::default()).unwrap();
        Shelf::new(Some(folder), model.clone(), engine, budget).unwrap()
    }

    fn resident(shelf: &Shelf<HostCartridge>) -> Vec<String> {
        let list = shelf.list();
        let there = list.into_iter().filter(|info| info.resident);
        there.map(|info| info.id).collect()
    }

    #[test]
    fn what_is_in_use_stays_and_what_was_used_least_recently_goes() {
        let (model, folder) = (model(), TempDir::new().unwrap());
        let bytes = ["a", "b", "c"].map(|id| put(&model, &folder.path().join(id), 20))[0];
        let shelf = shelf(&model, folder.path(), 2 * bytes);
        let a = shelf.borrow("a", false).unwrap();
        drop(shelf.borrow("b", false).unwrap());
        // `a` is older but in use.
        let c = shelf.borrow("c", false).unwrap();
        assert_eq!(resident(&shelf), ["a", "c"]);
        assert_eq!(shelf.borrow("b", false).err(), Some(JobError::Busy));
        let handle = a.handle;
        drop(a);
        assert_eq!(shelf.borrow("a", false).unwrap().handle, handle);
        drop(c);
        drop(shelf.borrow("b", false).unwrap());
        assert_eq!(resident(&shelf), ["a", "b"]);
        assert_eq!(shelf.counts(), (1, 5));
        // The engine's memory follows: two cartridges of 20 slots in blocks of 16.
        let begin = std::time::Instant::now();
        while shelf.0.engine.told().stats.cartridge_rows != 2 * 32 {
            assert!(begin.elapsed().as_secs() < 20);
            std::thread::sleep(std::time::Duration::from_millis(5));
        }
    }

    #[test]
    fn a_cartridge_that_was_made_again_is_loaded_again() {
        let (model, folder) = (model(), TempDir::new().unwrap());
        put(&model, &folder.path().join("a"), 20);
        let shelf = shelf(&model, folder.path(), 1 << 30);
        let old = shelf.borrow("a", false).unwrap();
        assert_eq!(shelf.borrow("a", false).unwrap().handle, old.handle);
        assert_ne!(shelf.borrow("a", true).unwrap().handle, old.handle);
        put(&model, &folder.path().join("a"), 30);
        let new = shelf.borrow("a", false).unwrap();
        assert_ne!(new.handle, old.handle);
        // Giving the old one back does not count for the new one.
        drop(old);
        assert_eq!(shelf.0.state().entries["a"].loans, 1);
    }

    #[test]
    fn what_was_fetched_takes_the_place_of_what_was_there() {
        let (model, home) = (model(), TempDir::new().unwrap());
        let folder = home.path().join("shelf");
        put(&model, &folder.join("a"), 20);
        let shelf = shelf(&model, &folder, 1 << 30);
        assert!(shelf.borrow("b", false).is_err());
        for (id, slots) in [("b", 20), ("a", 30)] {
            let cached = home.path().join(format!("cached-{id}"));
            put(&model, &cached, slots);
            let into = shelf.0.path("a").unwrap();
            place(&HostCartridge::FILES, &cached, into.parent().unwrap(), id).unwrap();
            drop(shelf.borrow(id, false).unwrap());
            let list = shelf.list();
            let info = list.iter().find(|info| info.id == id).unwrap();
            assert_eq!(info.tokens, slots);
        }
        // Nothing else is left behind.
        assert_eq!(fs::read_dir(&folder).unwrap().count(), 2);
        let hub = ResolveOptions {
            endpoint: Some("http://127.0.0.1:9".to_owned()),
            ..ResolveOptions::default()
        };
        for repo in ["owner/name", "../a", "a"] {
            let error = shelf.fetch(repo, "c", false, &hub).unwrap_err();
            assert!(
                error.to_string().contains("could not be fetched"),
                "{error}"
            );
        }
    }

    #[test]
    fn what_is_too_large_damaged_or_elsewhere_is_refused() {
        let (model, folder) = (model(), TempDir::new().unwrap());
        let large = put(&model, &folder.path().join("shelf/large"), 40);
        put(&model, &folder.path().join("shelf/cut"), 20);
        put(&model, &folder.path().join("outside"), 20);
        let inside = folder.path().join("shelf");
        std::fs::write(inside.join("cut/cartridge.safetensors"), b"short").unwrap();
        #[cfg(unix)]
        std::os::unix::fs::symlink(folder.path().join("outside"), inside.join("link")).unwrap();
        let shelf = shelf(&model, &inside, large - 1);
        let refusal = |id: &str| shelf.borrow(id, false).err().unwrap().to_string();
        assert!(refusal("large").contains("limit"), "{}", refusal("large"));
        assert!(refusal("cut").contains("damaged"), "{}", refusal("cut"));
        for id in ["link", "none", "..", ".", "", "../outside", "a/b"] {
            assert!(refusal(id).contains("not on this server"), "{id}");
        }
        assert!(resident(&shelf).is_empty());
        assert!(
            Shelf::<HostCartridge>::new(
                Some(&inside.join("no")),
                model.clone(),
                shelf.0.engine.clone(),
                1
            )
            .is_err()
        );
    }
}
