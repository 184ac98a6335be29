//! Files and batches, held in memory.

use std::collections::HashMap;
use std::sync::{Mutex, MutexGuard, PoisonError};

use axum::body::Bytes;

use crate::api_error::{ApiError, Kind};
use crate::app::now;
use crate::openai::records::{Batch, Status, StoredFile};
use crate::options::ServerOptions;

#[derive(Default)]
struct Held {
    files: HashMap<String, StoredFile>,
    batches: HashMap<String, Batch>,
}

impl Held {
    fn running_bytes(&self) -> usize {
        let running = self.batches.values().filter(|batch| batch.ended.is_none());
        running
            .map(|batch| batch.bytes)
            .fold(0, usize::saturating_add)
    }
}

/// All files and batches.
#[derive(Default)]
pub(crate) struct Store {
    held: Mutex<Held>,
}

impl Store {
    /// The lock is only held for moments, and what is behind it is whole even after a panic.
    fn held(&self) -> MutexGuard<'_, Held> {
        self.held.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Keeps a file if there is room.
    pub fn add_file(
        &self,
        owner: &str,
        name: String,
        purpose: String,
        content: Bytes,
        options: &ServerOptions,
    ) -> Result<StoredFile, ApiError> {
        let mut held = self.held();
        let bytes: usize = held.files.values().map(|file| file.content.len()).sum();
        let full = held.files.len() >= options.max_files
            || bytes.saturating_add(content.len()) > options.max_stored_bytes;
        if full {
            let message = "no room for another file: delete some first";
            return Err(ApiError::new(Kind::TooLarge, message));
        }
        let id = uuid::Uuid::new_v4().to_string();
        let owner = owner.to_owned();
        let file = StoredFile {
            id: id.clone(),
            owner,
            name,
            purpose,
            created: now(),
            content,
        };
        held.files.insert(id, file.clone());
        Ok(file)
    }

    /// The file of that id.
    pub fn file(&self, owner: &str, id: &str) -> Result<StoredFile, ApiError> {
        let held = self.held();
        let file = held.files.get(id).filter(|file| file.owner == owner);
        file.cloned().ok_or_else(|| none("file", id))
    }

    /// All files of an owner, the newest first.
    pub fn files(&self, owner: &str) -> Vec<StoredFile> {
        let held = self.held();
        let mut files: Vec<_> = held
            .files
            .values()
            .filter(|file| file.owner == owner)
            .cloned()
            .collect();
        files.sort_by_key(|file| std::cmp::Reverse(file.created));
        files
    }

    /// Forgets a file.
    pub fn remove_file(&self, owner: &str, id: &str) -> Result<(), ApiError> {
        self.file(owner, id)?;
        self.held().files.remove(id);
        Ok(())
    }

    /// Keeps a batch; the oldest ended one makes room.
    pub fn add_batch(&self, batch: Batch, options: &ServerOptions) -> Result<(), ApiError> {
        let mut held = self.held();
        if held.running_bytes().saturating_add(batch.bytes) > options.max_stored_bytes {
            return Err(ApiError::new(
                Kind::Busy,
                "the batches that run leave no room",
            ));
        }
        if held.batches.len() >= options.max_batches {
            let ended = held.batches.values().filter(|batch| batch.ended.is_some());
            let oldest = ended
                .min_by_key(|batch| batch.created)
                .map(|batch| batch.id.clone());
            match oldest {
                Some(id) => held.batches.remove(&id),
                None => return Err(ApiError::new(Kind::Busy, "too many batches are running")),
            };
        }
        held.batches.insert(batch.id.clone(), batch);
        Ok(())
    }

    /// Notes an answer (or an error, if not `fine`) of a batch; false if there is no room for it.
    pub fn count_answer(
        &self,
        id: &str,
        fine: bool,
        bytes: usize,
        options: &ServerOptions,
    ) -> bool {
        self.change_batch(id, |batch| {
            batch.counts[if fine { 1 } else { 2 }] += 1;
            batch.bytes = batch.bytes.saturating_add(bytes);
        });
        self.held().running_bytes() <= options.max_stored_bytes
    }

    /// The batch of that id.
    pub fn batch(&self, owner: &str, id: &str) -> Result<Batch, ApiError> {
        let held = self.held();
        let batch = held.batches.get(id).filter(|batch| batch.owner == owner);
        batch.cloned().ok_or_else(|| none("batch", id))
    }

    /// All batches of an owner, the newest first.
    pub fn batches(&self, owner: &str) -> Vec<Batch> {
        let held = self.held();
        let mut batches: Vec<_> = held
            .batches
            .values()
            .filter(|batch| batch.owner == owner)
            .cloned()
            .collect();
        batches.sort_by_key(|batch| std::cmp::Reverse(batch.created));
        batches
    }

    /// Changes a batch that has not ended.
    pub fn change_batch(&self, id: &str, change: impl FnOnce(&mut Batch)) {
        let mut held = self.held();
        if let Some(batch) = held
            .batches
            .get_mut(id)
            .filter(|batch| batch.ended.is_none())
        {
            change(batch);
        }
    }

    /// Ends a batch, unless it has ended.
    pub fn end_batch(&self, id: &str, status: Status, problem: Option<String>) {
        self.change_batch(id, |batch| {
            (batch.status, batch.ended, batch.problem) = (status, Some(now()), problem);
            if let Some(task) = batch.task.take() {
                task.abort();
            }
        });
    }

    /// Ends all batches.
    pub fn end_all(&self) {
        let ids: Vec<String> = self.held().batches.keys().cloned().collect();
        for id in ids {
            self.end_batch(&id, Status::Cancelled, None);
        }
    }
}

fn none(what: &str, id: &str) -> ApiError {
    ApiError::new(Kind::NotFound, format!("there is no {what} `{id}`"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn files_are_limited_and_belong_to_someone() {
        let store = Store::default();
        let options = ServerOptions {
            max_files: 2,
            max_stored_bytes: 10,
            ..ServerOptions::default()
        };
        let add = |owner: &str, size: usize| {
            let content = Bytes::from(vec![0; size]);
            store.add_file(owner, "n".into(), "batch".into(), content, &options)
        };
        let file = add("a", 6).unwrap();
        assert!(add("a", 5).is_err(), "too many bytes");
        add("b", 4).unwrap();
        assert!(add("a", 0).is_err(), "too many files");
        assert!(store.file("a", &file.id).is_ok());
        assert!(store.file("b", &file.id).is_err());
        assert!(store.remove_file("b", &file.id).is_err());
        assert_eq!(store.files("a").len(), 1);
        store.remove_file("a", &file.id).unwrap();
        assert!(add("a", 5).is_ok());
    }

    fn batch(id: &str, bytes: usize, ended: Option<u64>) -> Batch {
        Batch {
            id: id.into(),
            owner: String::new(),
            endpoint: String::new(),
            input: String::new(),
            window: String::new(),
            metadata: serde_json::Value::Null,
            status: Status::InProgress,
            output: None,
            problem: None,
            created: 0,
            ended,
            counts: [1, 0, 0],
            bytes,
            task: None,
        }
    }

    #[test]
    fn running_batches_are_limited() {
        let store = Store::default();
        let options = ServerOptions {
            max_batches: 2,
            max_stored_bytes: 10,
            ..ServerOptions::default()
        };
        store.add_batch(batch("a", 6, None), &options).unwrap();
        assert!(
            store.add_batch(batch("b", 5, None), &options).is_err(),
            "too many bytes"
        );
        store.add_batch(batch("c", 1, Some(1)), &options).unwrap();
        store.add_batch(batch("d", 4, None), &options).unwrap();
        assert!(store.batch("", "c").is_err(), "made room");
        assert!(
            store.add_batch(batch("e", 0, None), &options).is_err(),
            "too many"
        );
        assert!(!store.count_answer("a", true, 1, &options));
        assert_eq!(store.batch("", "a").unwrap().counts, [1, 1, 0]);
        store.end_all();
        assert_eq!(
            store.batch("", "a").unwrap().describe()["status"],
            "cancelled"
        );
    }
}
