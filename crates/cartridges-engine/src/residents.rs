//! Prompt prefixes whose keys and values stay in the pool, to be read by several sequences.

use std::sync::Arc;

use crate::engine::CartridgeHandle;
use crate::pool::{KvPool, Rows};

/// Tokens behind some cartridges, with the pool rows that hold them.
#[derive(Debug)]
pub struct Resident {
    cartridges: Vec<CartridgeHandle>,
    ids: Vec<u32>,
    /// In token order; only the last part is the resident's own, the others belong to `parent`.
    parts: Vec<Rows>,
    #[allow(dead_code)] // held so that the rows it lends stay alive
    parent: Option<Arc<Resident>>,
}

/// A number of leading tokens of a resident, kept alive while it is in use.
#[derive(Debug, Clone)]
pub struct Shared {
    pub resident: Arc<Resident>,
    pub len: usize,
}

impl Shared {
    /// The pool rows of these tokens.
    pub fn rows(&self) -> Vec<Rows> {
        let mut left = self.len;
        let mut rows = Vec::new();
        for part in &self.resident.parts {
            let len = part.len.min(left);
            if len > 0 {
                rows.push(Rows {
                    start: part.start,
                    len,
                });
            }
            left -= len;
        }
        rows
    }
}

/// All residents, the most recently used last.
#[derive(Default)]
pub struct Residents {
    list: Vec<Arc<Resident>>,
}

impl Residents {
    /// The longest stored beginning of `prompt`, at most `prompt.len() - 1` tokens, so that one is
    /// left to compute logits from.
    pub fn longest(&mut self, cartridges: &[CartridgeHandle], prompt: &[u32]) -> Option<Shared> {
        let common = |resident: &Resident| {
            let same = resident.ids.iter().zip(prompt).take_while(|(a, b)| a == b);
            same.count().min(prompt.len() - 1)
        };
        let (at, len) = self
            .list
            .iter()
            .enumerate()
            .filter(|(_, resident)| resident.cartridges == cartridges)
            .map(|(at, resident)| (at, common(resident)))
            .max_by_key(|(_, len)| *len)?;
        if len == 0 {
            return None;
        }
        let resident = self.list.remove(at);
        self.list.push(resident.clone());
        Some(Shared { resident, len })
    }

    /// Stores `ids`, of which the first stand in `shared` and the rest in `own`.
    pub fn insert(
        &mut self,
        cartridges: Vec<CartridgeHandle>,
        ids: Vec<u32>,
        shared: Option<&Shared>,
        own: Rows,
    ) {
        let mut parts = shared.map(Shared::rows).unwrap_or_default();
        parts.push(own);
        self.list.push(Arc::new(Resident {
            cartridges,
            ids,
            parts,
            parent: shared.map(|s| s.resident.clone()),
        }));
    }

    /// Gives the rows of the least recently used resident that nobody reads back to the pool.
    pub fn evict_one(&mut self, pool: &mut KvPool) -> bool {
        let Some(at) = self.list.iter().position(|r| Arc::strong_count(r) == 1) else {
            return false;
        };
        release(self.list.remove(at), pool);
        true
    }

    /// Drops everything that stands behind `cartridge`.
    pub fn forget(&mut self, cartridge: CartridgeHandle, pool: &mut KvPool) {
        let (gone, kept): (Vec<_>, Vec<_>) = std::mem::take(&mut self.list)
            .into_iter()
            .partition(|r| r.cartridges.contains(&cartridge));
        self.list = kept;
        gone.into_iter()
            .for_each(|resident| release(resident, pool));
    }
}

/// Frees a resident's own rows.
fn release(resident: Arc<Resident>, pool: &mut KvPool) {
    if let Some(own) = resident.parts.last() {
        pool.release(*own);
    }
}
