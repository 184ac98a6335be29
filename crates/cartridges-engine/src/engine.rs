//! The engine: a model, its key/value memory, and who is using it.

use std::sync::Arc;

use cartridges_model::LanguageModel;
use cartridges_model::adapter::{AdapterError, AdapterHandle, AdapterRegistry, HostAdapter};

use crate::blocks::{BLOCK_ROWS, blocks_for};
use crate::cartridges::{CartridgeHandle, Cartridges};
use crate::error::RequestError;
use crate::memory::KvMemory;
use crate::radix::PrefixStats;
use crate::scheduler::Schedule;

/// Limits of an engine.
#[derive(Debug, Clone, Copy)]
pub struct EngineOptions {
    /// Sequences that are decoded together.
    pub max_batch: usize,
    /// Rows of key/value memory at most, over all sequences, cartridges and stored prefixes.
    pub max_kv_rows: usize,
    /// Tokens of prompts that go through the model in one pass; a quarter of it while others are
    /// being answered.
    pub prefill_rows: usize,
    /// Requests that may wait.
    pub max_queue: usize,
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self {
            max_batch: 32,
            max_kv_rows: 32 * 1024,
            prefill_rows: 1024,
            max_queue: usize::MAX,
        }
    }
}

/// What an engine holds and has done.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct EngineStats {
    /// Requests that wait.
    pub waiting: usize,
    /// Requests that run.
    pub running: usize,
    /// Rows of key/value memory in use, stored prefixes among them.
    pub kv_rows_used: usize,
    /// The most that ever were.
    pub kv_rows_high_water: usize,
    /// Rows there may be.
    pub kv_rows_limit: usize,
    /// Mistakes in the accounting of memory; always 0.
    pub kv_faults: u64,
    /// Rows of cartridges.
    pub cartridge_rows: usize,
    /// Stored prefixes.
    pub prefixes: PrefixStats,
    /// Times a request had to give up its memory.
    pub preemptions: u64,
}

/// Generates and scores with one model.
pub struct Engine {
    pub(crate) model: Arc<LanguageModel>,
    pub(crate) options: EngineOptions,
    pub(crate) memory: KvMemory,
    pub(crate) cartridges: Cartridges,
    pub(crate) adapters: AdapterRegistry,
    pub(crate) schedule: Schedule,
    /// A token that makes a pass panic.
    #[cfg(test)]
    pub(crate) poison: Option<u32>,
}

impl Engine {
    /// An engine with nothing in it.
    pub fn new(model: Arc<LanguageModel>, options: EngineOptions) -> Self {
        let decoder = &model.decoder;
        let memory = KvMemory::new(decoder.config(), decoder.device(), options.max_kv_rows);
        Self {
            model,
            options,
            memory,
            cartridges: Cartridges::default(),
            adapters: AdapterRegistry::default(),
            schedule: Schedule::default(),
            #[cfg(test)]
            poison: None,
        }
    }

    /// The model.
    pub fn model(&self) -> &Arc<LanguageModel> {
        &self.model
    }

    /// Drops all stored prompt prefixes that nobody reads, and the memory if nothing else is in it.
    pub fn forget_prefixes(&mut self) {
        self.memory.forget_unread();
    }

    /// Registers an adapter, which requests can name from now on.
    ///
    /// # Errors
    /// If it does not fit the model.
    pub fn add_adapter(&mut self, adapter: &HostAdapter) -> Result<AdapterHandle, AdapterError> {
        self.adapters.register(adapter, &self.model.decoder)
    }

    /// Takes an adapter away, with the prompt prefixes stored with it. Requests that run with it end
    /// with it; those that wait for it fail.
    pub fn remove_adapter(&mut self, handle: AdapterHandle) {
        if let Some(gone) = self.adapters.remove(handle) {
            self.memory.forget_digest(&gone.digest);
        }
    }

    /// What it holds now.
    pub fn stats(&self) -> EngineStats {
        let (waiting, running) = self.load();
        EngineStats {
            waiting,
            running,
            kv_rows_used: self.memory.blocks().used() * BLOCK_ROWS,
            kv_rows_high_water: self.memory.blocks().high_water() * BLOCK_ROWS,
            kv_rows_limit: self.memory.limit() * BLOCK_ROWS,
            kv_faults: self.memory.blocks().faults(),
            cartridge_rows: self.cartridges.blocks() * BLOCK_ROWS,
            prefixes: self.memory.tree.stats(),
            preemptions: self.schedule.preemptions,
        }
    }

    /// Checks a prompt and its limits.
    pub(crate) fn check(
        &self,
        cartridges: &[CartridgeHandle],
        adapters: &[AdapterHandle],
        prompt: &[u32],
        more: usize,
    ) -> Result<(), RequestError> {
        if prompt.is_empty() {
            return Err(RequestError::EmptyPrompt);
        }
        if let Err(id) = self.model.decoder.check_ids(prompt) {
            return Err(RequestError::TokenId(id));
        }
        if adapters.iter().any(|a| self.adapters.get(*a).is_none()) {
            return Err(RequestError::UnknownAdapter);
        }
        let slots = self.cartridges.slots(cartridges)?;
        let tokens = prompt.len().saturating_add(more);
        let needed = slots.saturating_add(tokens);
        let limit = self.model.decoder.config().max_position_embeddings;
        if needed > limit {
            return Err(RequestError::TooLong { needed, limit });
        }
        if blocks_for(tokens) + self.cartridges.blocks() > self.memory.limit() {
            return Err(self.too_small(tokens));
        }
        Ok(())
    }

    /// The refusal of a request with this many tokens.
    pub(crate) fn too_small(&self, tokens: usize) -> RequestError {
        let room = self.memory.limit().saturating_sub(self.cartridges.blocks());
        RequestError::TooLarge {
            needed: blocks_for(tokens) * BLOCK_ROWS,
            limit: room * BLOCK_ROWS,
        }
    }
}
