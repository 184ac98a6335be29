//! One pass through the model over rows of several sequences.

use std::sync::Arc;

use burn::tensor::{Int, Tensor, TensorData};
use cartridges_model::adapter::{BatchAdapters, ThoughtAdapter};
use cartridges_model::decoder::Packed;
use cartridges_ops::AttentionLayout;

use crate::engine::Engine;
use crate::error::EngineError;
use crate::memory::MemoryPast;
use crate::sequence::Sequence;

/// What a pass gave: the residual stream `[n, h]` of all rows in order, and the rows' adapters.
pub struct Passed {
    pub hidden: Tensor<2>,
    pub adapters: BatchAdapters,
}

impl Engine {
    /// Gives a sequence's blocks back; the full ones stay stored until room is needed.
    pub(crate) fn close(&mut self, sequence: Sequence) {
        let ids = &sequence.tokens[..sequence.filled];
        self.memory
            .store(&sequence.before.root, ids, sequence.matched, &sequence.own);
    }

    /// Runs the next tokens of each sequence, as many as stand beside it, through the model.
    pub(crate) fn forward(&mut self, work: &mut [(&mut Sequence, usize)]) -> Passed {
        let mut ids = Vec::new();
        let mut positions = Vec::new();
        let mut at = Vec::new();
        let mut runs = Vec::with_capacity(work.len());
        let mut adapted: Vec<(Arc<ThoughtAdapter>, Vec<usize>)> = Vec::new();
        for (sequence, count) in work.iter_mut() {
            let new = sequence.filled..sequence.filled + *count;
            runs.extend(sequence.runs(*count, ids.len()));
            positions.extend(new.clone().map(|index| sequence.position(index) as u32));
            at.extend(sequence.rows(*count));
            for adapter in &sequence.before.adapters {
                let rows = ids.len()..ids.len() + *count;
                match adapted.iter_mut().find(|(a, _)| Arc::ptr_eq(a, adapter)) {
                    Some((_, all)) => all.extend(rows),
                    None => adapted.push((adapter.clone(), rows.collect())),
                }
            }
            ids.extend_from_slice(&sequence.tokens[new]);
            sequence.filled += *count;
        }
        let layout = match AttentionLayout::new(runs, ids.len(), self.memory.capacity()) {
            Ok(layout) => layout,
            Err(error) => unreachable!("the engine made a layout that contradicts itself: {error}"),
        };
        #[cfg(test)]
        assert!(
            self.poison.is_none_or(|poison| !ids.contains(&poison)),
            "a test's panic"
        );
        let model = self.model.clone();
        let adapters = BatchAdapters::for_rows(adapted, ids.len(), model.decoder.device());
        let batch = Packed {
            ids: &ids,
            positions: &positions,
            layout: &layout,
            adapters: &adapters,
        };
        let mut past = MemoryPast {
            memory: &mut self.memory,
            at: at.into(),
        };
        let hidden = model.decoder.hidden(batch, &mut past);
        Passed { hidden, adapters }
    }

    /// Logits `[rows · vocab]` of some rows of a pass.
    pub(crate) fn logits(&self, passed: &Passed, rows: &[usize]) -> Result<Vec<f32>, EngineError> {
        let decoder = &self.model.decoder;
        let index: Vec<i32> = rows.iter().map(|row| *row as i32).collect();
        let data = TensorData::new(index, [rows.len()]);
        let index = Tensor::<1, Int>::from_data(data, decoder.device());
        let adapters = passed.adapters.select(rows, decoder.device());
        let hidden = passed.hidden.clone().select(0, index);
        let logits = decoder.logits(decoder.final_norm(hidden, &adapters), &adapters);
        logits
            .into_data()
            .try_to_vec::<f32>()
            .map_err(|error| EngineError::Device(format!("{error:?}")))
    }
}
