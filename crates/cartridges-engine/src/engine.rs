//! The engine: a model, its pool, and what is resident in it.

use std::collections::HashMap;
use std::sync::Arc;

use burn::tensor::{Tensor, TensorData};
use cartridges_model::LanguageModel;
use cartridges_model::cartridge::HostCartridge;

use crate::error::EngineError;
use crate::pool::{KvPool, Rows};
use crate::residents::{Residents, Shared};

/// Limits of an engine.
#[derive(Debug, Clone, Copy)]
pub struct EngineOptions {
    /// Sequences that are decoded together.
    pub max_batch: usize,
    /// Rows of key/value memory at most, over all sequences, cartridges and stored prefixes.
    pub max_pool_rows: usize,
    /// Tokens of prompts that go through the model in one pass.
    pub prefill_rows: usize,
}

impl Default for EngineOptions {
    fn default() -> Self {
        Self {
            max_batch: 32,
            max_pool_rows: 128 * 1024,
            prefill_rows: 1024,
        }
    }
}

/// A cartridge that is resident in an engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CartridgeHandle(u64);

/// Generates and scores with one model.
pub struct Engine {
    pub(crate) model: Arc<LanguageModel>,
    pub(crate) options: EngineOptions,
    pub(crate) pool: KvPool,
    pub(crate) residents: Residents,
    cartridges: HashMap<CartridgeHandle, Rows>,
    next_handle: u64,
}

impl Engine {
    /// An engine with an empty pool.
    pub fn new(model: Arc<LanguageModel>, options: EngineOptions) -> Self {
        let decoder = &model.decoder;
        let pool = KvPool::new(decoder.config(), decoder.device(), options.max_pool_rows);
        Self {
            model,
            options,
            pool,
            residents: Residents::default(),
            cartridges: HashMap::new(),
            next_handle: 0,
        }
    }

    /// The model.
    pub fn model(&self) -> &Arc<LanguageModel> {
        &self.model
    }

    /// Copies a cartridge into the pool, where requests can name it.
    ///
    /// # Errors
    /// If its shape is not the model's or it does not fit into the pool.
    pub fn add_cartridge(
        &mut self,
        cartridge: &HostCartridge,
    ) -> Result<CartridgeHandle, EngineError> {
        let config = self.model.decoder.config();
        let found = (
            cartridge.layers.len(),
            cartridge.kv_heads,
            cartridge.head_dim,
        );
        let expected = (config.num_layers, config.num_kv_heads, config.head_dim);
        if found != expected {
            let words = |(l, h, d)| format!("{l} layers, {h} key/value heads of {d}");
            return Err(EngineError::CartridgeShape {
                found: words(found),
                expected: words(expected),
            });
        }
        let rows = self.take_rows(cartridge.slots)?;
        let at: Arc<[usize]> = (rows.start..rows.start + rows.len).collect();
        let device = self.model.decoder.device().clone();
        let shape = [cartridge.kv_heads, cartridge.slots, cartridge.head_dim];
        let upload = |values: &[f32]| {
            Tensor::<3>::from_data(TensorData::new(values.to_vec(), shape), &device)
                .permute([1, 0, 2])
        };
        for (layer, tensors) in cartridge.layers.iter().enumerate() {
            self.pool
                .write(layer, &at, upload(&tensors.key), upload(&tensors.value));
        }
        self.next_handle += 1;
        let handle = CartridgeHandle(self.next_handle);
        self.cartridges.insert(handle, rows);
        Ok(handle)
    }

    /// Takes a cartridge out of the pool, with the prompt prefixes stored behind it.
    pub fn remove_cartridge(&mut self, handle: CartridgeHandle) {
        if let Some(rows) = self.cartridges.remove(&handle) {
            self.residents.forget(handle, &mut self.pool);
            self.pool.release(rows);
        }
    }

    /// Drops all stored prompt prefixes.
    pub fn forget_prefixes(&mut self) {
        while self.residents.evict_one(&mut self.pool) {}
    }

    /// Rows for one use, at the cost of stored prefixes if need be.
    pub(crate) fn take_rows(&mut self, len: usize) -> Result<Rows, EngineError> {
        loop {
            if let Some(rows) = self.pool.take(len) {
                return Ok(rows);
            }
            if !self.residents.evict_one(&mut self.pool) {
                return Err(EngineError::PoolTooSmall {
                    needed: len,
                    limit: self.pool.limit(),
                });
            }
        }
    }

    /// Checks a prompt and its limits.
    pub(crate) fn check(
        &self,
        request: usize,
        cartridges: &[CartridgeHandle],
        prompt: &[u32],
        more: usize,
    ) -> Result<(), EngineError> {
        if prompt.is_empty() {
            return Err(EngineError::EmptyPrompt(request));
        }
        if let Err(id) = self.model.decoder.check_ids(prompt) {
            return Err(EngineError::TokenId { request, id });
        }
        let slots = self.slots(request, cartridges)?;
        let needed = slots.saturating_add(prompt.len()).saturating_add(more);
        let limit = self.model.decoder.config().max_position_embeddings;
        if needed > limit {
            return Err(EngineError::TooLong {
                request,
                needed,
                limit,
            });
        }
        Ok(())
    }

    /// Slots of some cartridges together.
    fn slots(&self, request: usize, handles: &[CartridgeHandle]) -> Result<usize, EngineError> {
        handles.iter().try_fold(0, |sum, handle| {
            let rows = self.cartridges.get(handle);
            rows.map(|rows| sum + rows.len)
                .ok_or(EngineError::UnknownCartridge(request))
        })
    }

    /// The past of a new sequence: cartridges, then the longest stored prefix of its prompt.
    pub(crate) fn past(
        &mut self,
        cartridges: &[CartridgeHandle],
        prompt: &[u32],
    ) -> (Vec<Rows>, Option<Shared>) {
        let mut ranges: Vec<Rows> = cartridges
            .iter()
            .filter_map(|handle| self.cartridges.get(handle).copied())
            .collect();
        let shared = self.residents.longest(cartridges, prompt);
        ranges.extend(shared.iter().flat_map(Shared::rows));
        (ranges, shared)
    }
}
