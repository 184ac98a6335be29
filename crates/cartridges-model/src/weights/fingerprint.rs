//! A cheap, stable name for a set of weights.

use sha2::{Digest, Sha256};

use super::Weights;
use crate::digest::hex;

/// Bytes that are hashed at each end of a tensor.
const END_BYTES: usize = 4096;

impl Weights {
    /// A hash that tells one set of weights from another without reading all of it.
    ///
    /// Lower-case hex SHA-256 over the line `cartridges-weights-1\n` and then, for every tensor in
    /// the byte order of its Hugging Face name: name length and name, dtype length and dtype name,
    /// number of dimensions, the dimensions, the stored byte length, the first `min(4096, length)`
    /// raw bytes and the last `min(4096, length)` raw bytes. All numbers are little-endian `u64`.
    ///
    /// It does not depend on the sharding, the place of the files, metadata or the order in the file,
    /// but on the storage format: the same model as BF16 and as Q4_K has two fingerprints.
    /// Training a model changes the ends of its matrices, so other weights have another fingerprint;
    /// it is no protection against somebody who alters only the middle of a tensor.
    pub fn fingerprint(&self) -> String {
        let mut hash = Sha256::new();
        hash.update(b"cartridges-weights-1\n");
        for (name, entry) in &self.entries {
            let dtype = self.dtype_name(name).unwrap_or_default();
            let raw = self.raw(entry);
            for text in [name, dtype] {
                hash.update((text.len() as u64).to_le_bytes());
                hash.update(text.as_bytes());
            }
            hash.update((entry.shape.len() as u64).to_le_bytes());
            for dimension in &entry.shape {
                hash.update((*dimension as u64).to_le_bytes());
            }
            hash.update((raw.len() as u64).to_le_bytes());
            let ends = raw.len().min(END_BYTES);
            hash.update(&raw[..ends]);
            hash.update(&raw[raw.len() - ends..]);
        }
        hex(&hash.finalize())
    }
}
