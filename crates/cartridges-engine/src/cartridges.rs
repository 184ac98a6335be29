//! Cartridges that are resident in an engine.

use std::collections::HashMap;
use std::sync::Arc;

use cartridges_model::adapter::AdapterHandle;
use cartridges_model::cartridge::HostCartridge;
use sha2::{Digest, Sha256};

use crate::blocks::{BLOCK_ROWS, BlockId, blocks_for, row_at, row_ranges};
use crate::engine::Engine;
use crate::error::{EngineError, RequestError};
use crate::sequence::Before;

/// A cartridge that is resident in an engine.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct CartridgeHandle(u64);

struct Resident {
    digest: [u8; 32],
    blocks: Vec<BlockId>,
    slots: usize,
    /// Requests that wait for it or read it.
    users: usize,
    /// It goes when the last of them does.
    leaving: bool,
}

/// All resident cartridges.
#[derive(Default)]
pub struct Cartridges {
    residents: HashMap<CartridgeHandle, Resident>,
    next_handle: u64,
}

impl Cartridges {
    /// Counts a request in.
    pub fn begin(&mut self, handle: CartridgeHandle) {
        if let Some(resident) = self.residents.get_mut(&handle) {
            resident.users += 1;
        }
    }

    fn get(&self, handle: CartridgeHandle) -> Result<&Resident, RequestError> {
        let resident = self.residents.get(&handle);
        resident.ok_or(RequestError::UnknownCartridge)
    }

    /// Slots of some cartridges together.
    pub fn slots(&self, handles: &[CartridgeHandle]) -> Result<usize, RequestError> {
        handles.iter().try_fold(0, |sum, handle| {
            let resident = self.get(*handle)?;
            match resident.leaving {
                true => Err(RequestError::UnknownCartridge),
                false => Ok(sum + resident.slots),
            }
        })
    }

    /// Blocks of all cartridges together.
    pub fn blocks(&self) -> usize {
        self.residents.values().map(|r| r.blocks.len()).sum()
    }
}

impl Engine {
    /// Copies a cartridge into memory, where requests can name it.
    ///
    /// # Errors
    /// If its shape is not the model's or there is no room for it.
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
        let slots = cartridge.slots;
        let blocks = self.memory.take_after(None, blocks_for(slots));
        let blocks = blocks.ok_or(EngineError::NoRoom {
            needed: slots,
            limit: self.memory.limit() * BLOCK_ROWS,
        })?;
        let at: Arc<[usize]> = (0..slots)
            .filter_map(|index| row_at(&blocks, index))
            .collect();
        let device = self.model.decoder.device().clone();
        for (index, layer) in cartridge.layers.iter().enumerate() {
            let (keys, values) = cartridge.layer_tensors(layer, &device);
            self.memory.write(index, &at, keys, values);
        }
        let cartridges = &mut self.cartridges;
        cartridges.next_handle += 1;
        let handle = CartridgeHandle(cartridges.next_handle);
        let resident = Resident {
            digest: digest(cartridge),
            blocks,
            slots,
            users: 0,
            leaving: false,
        };
        cartridges.residents.insert(handle, resident);
        Ok(handle)
    }

    /// Takes a cartridge out of memory, with the prompt prefixes stored behind it, as soon as no
    /// request reads it any more. New requests cannot name it from now on.
    pub fn remove_cartridge(&mut self, handle: CartridgeHandle) {
        if let Some(resident) = self.cartridges.residents.get_mut(&handle) {
            resident.leaving = true;
        }
        self.drop_if_unused(handle);
    }

    /// Requests that wait for a cartridge or read it.
    pub fn cartridge_users(&self, handle: CartridgeHandle) -> usize {
        let resident = self.cartridges.residents.get(&handle);
        resident.map_or(0, |resident| resident.users)
    }

    /// Counts a request out.
    pub(crate) fn release_cartridges(&mut self, handles: &[CartridgeHandle]) {
        for handle in handles {
            if let Some(resident) = self.cartridges.residents.get_mut(handle) {
                resident.users = resident.users.saturating_sub(1);
            }
            self.drop_if_unused(*handle);
        }
    }

    fn drop_if_unused(&mut self, handle: CartridgeHandle) {
        let residents = &mut self.cartridges.residents;
        if !residents
            .get(&handle)
            .is_some_and(|resident| resident.leaving && resident.users == 0)
        {
            return;
        }
        let Some(gone) = residents.remove(&handle) else {
            return;
        };
        self.memory.release(gone.blocks);
        // The same cartridge may be there under another handle.
        if !residents.values().any(|r| r.digest == gone.digest) {
            self.memory.forget_digest(&gone.digest);
        }
    }

    /// What stands before a prompt.
    pub(crate) fn before(
        &self,
        cartridges: &[CartridgeHandle],
        adapters: &[AdapterHandle],
    ) -> Result<Before, RequestError> {
        let mut before = Before::default();
        for handle in cartridges {
            let resident = self.cartridges.get(*handle)?;
            before.root.cartridges.push(resident.digest);
            before
                .ranges
                .extend(row_ranges(&resident.blocks, resident.slots));
        }
        for handle in adapters {
            let registered = self.adapters.get(*handle);
            let registered = registered.ok_or(RequestError::UnknownAdapter)?;
            before.root.adapters.push(registered.digest);
            before.adapters.push(registered.adapter.clone());
        }
        Ok(before)
    }
}

fn digest(cartridge: &HostCartridge) -> [u8; 32] {
    let mut hash = Sha256::new();
    hash.update((cartridge.slots as u64).to_le_bytes());
    for layer in &cartridge.layers {
        for values in [&layer.key, &layer.value] {
            values.iter().for_each(|x| hash.update(x.to_le_bytes()));
        }
    }
    hash.finalize().into()
}
