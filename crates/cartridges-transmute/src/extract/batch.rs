//! Sequences behind a prefix, as one packed batch.

use burn::tensor::{Device, Int, Tensor, TensorData};
use cartridges_ops::{AttentionLayout, KeyRange, LayoutError, QueryRun};

/// A prefix and what follows it, several times: the prefix is computed once for all.
#[derive(Debug, Clone)]
pub(crate) struct Batch {
    pub ids: Vec<u32>,
    pub positions: Vec<u32>,
    pub layout: AttentionLayout,
    /// The rows that are looked at, on the device.
    pub index: Tensor<1, Int>,
}

impl Batch {
    /// `prefix` and the sequences behind it, all behind `slots` keys that are there already. Of each
    /// sequence the rows `.1` are looked at.
    pub(crate) fn new(
        slots: usize,
        prefix: &[u32],
        sequences: &[(&[u32], &[usize])],
        device: &Device,
    ) -> Result<Self, LayoutError> {
        let shared = slots + prefix.len();
        let range = |start, len, causal| KeyRange { start, len, causal };
        let mut ids = prefix.to_vec();
        let mut positions: Vec<u32> = (slots as u32..shared as u32).collect();
        let mut rows: Vec<i32> = Vec::new();
        let mut runs = Vec::new();
        let mut run = |start: usize, len: usize, seen: usize, first: usize| {
            let past = (seen > 0).then(|| range(0, seen, false));
            let keys = past.into_iter().chain([range(first, len, true)]);
            let keys = keys.collect();
            if len > 0 {
                runs.push(QueryRun { start, len, keys });
            }
        };
        run(0, prefix.len(), slots, slots);
        for (sequence, fit) in sequences {
            let start = ids.len();
            run(start, sequence.len(), shared, slots + start);
            rows.extend(fit.iter().map(|row| (start + row) as i32));
            positions.extend((shared..shared + sequence.len()).map(|p| p as u32));
            ids.extend_from_slice(sequence);
        }
        let layout = AttentionLayout::new(runs, ids.len(), slots + ids.len())?;
        let count = rows.len();
        let index = Tensor::from_data(TensorData::new(rows, [count]), device);
        Ok(Self {
            ids,
            positions,
            layout,
            index,
        })
    }
}
