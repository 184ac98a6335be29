//! Adapters that are registered with a model and can be taken away again.

use std::collections::BTreeMap;
use std::sync::Arc;

use super::batch::BatchAdapters;
use super::error::AdapterError;
use super::host::HostAdapter;
use super::module::ThoughtAdapter;
use crate::decoder::Decoder;

/// A registered adapter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct AdapterHandle(u64);

/// An adapter on a device with what tells it from others.
#[derive(Debug)]
pub struct Registered {
    /// The adapter.
    pub adapter: Arc<ThoughtAdapter>,
    /// [`HostAdapter::digest`].
    pub digest: [u8; 32],
}

/// The adapters of a model. The model itself is never changed, so that without them its output is what
/// it was before, bit by bit.
#[derive(Debug, Default)]
pub struct AdapterRegistry {
    registered: BTreeMap<AdapterHandle, Registered>,
    next: u64,
}

impl AdapterRegistry {
    /// Puts an adapter on the model's device.
    ///
    /// # Errors
    /// If it does not fit the model.
    pub fn register(
        &mut self,
        adapter: &HostAdapter,
        decoder: &Decoder,
    ) -> Result<AdapterHandle, AdapterError> {
        adapter.check(decoder.config())?;
        self.next += 1;
        let handle = AdapterHandle(self.next);
        let registered = Registered {
            adapter: Arc::new(ThoughtAdapter::from_host(adapter, decoder.device())),
            digest: adapter.digest(),
        };
        self.registered.insert(handle, registered);
        Ok(handle)
    }

    /// A registered adapter.
    pub fn get(&self, handle: AdapterHandle) -> Option<&Registered> {
        self.registered.get(&handle)
    }

    /// Takes an adapter away, if it is there.
    pub fn remove(&mut self, handle: AdapterHandle) -> Option<Registered> {
        self.registered.remove(&handle)
    }

    /// All registered adapters, for every row of a batch.
    pub fn everywhere(&self) -> BatchAdapters {
        BatchAdapters::everywhere(self.registered.values().map(|r| r.adapter.clone()))
    }
}
