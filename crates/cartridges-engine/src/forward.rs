//! One pass through the model over rows of several sequences.

use burn::tensor::{Int, Tensor, TensorData};
use cartridges_model::decoder::Packed;
use cartridges_ops::AttentionLayout;

use crate::engine::Engine;
use crate::error::EngineError;
use crate::memory::MemoryPast;
use crate::sequence::Sequence;

impl Engine {
    /// Gives a sequence's blocks back; the full ones stay stored until room is needed.
    pub(crate) fn close(&mut self, sequence: Sequence) {
        let ids = &sequence.tokens[..sequence.filled];
        self.memory
            .store(&sequence.root, ids, sequence.matched, &sequence.own);
    }

    /// Runs the next tokens of each sequence, as many as stand beside it, through the model; gives
    /// the residual stream `[n, h]` of all rows in order.
    pub(crate) fn forward(&mut self, work: &mut [(&mut Sequence, usize)]) -> Tensor<2> {
        let mut ids = Vec::new();
        let mut positions = Vec::new();
        let mut at = Vec::new();
        let mut runs = Vec::with_capacity(work.len());
        for (sequence, count) in work.iter_mut() {
            let new = sequence.filled..sequence.filled + *count;
            runs.extend(sequence.runs(*count, ids.len()));
            positions.extend(new.clone().map(|index| sequence.position(index) as u32));
            at.extend(sequence.rows(*count));
            ids.extend_from_slice(&sequence.tokens[new]);
            sequence.filled += *count;
        }
        let layout = match AttentionLayout::new(runs, ids.len(), self.memory.capacity()) {
            Ok(layout) => layout,
            Err(error) => unreachable!("the engine made a layout that contradicts itself: {error}"),
        };
        let model = self.model.clone();
        let batch = Packed {
            ids: &ids,
            positions: &positions,
            layout: &layout,
        };
        let mut past = MemoryPast {
            memory: &mut self.memory,
            at: at.into(),
        };
        model.decoder.hidden(batch, &mut past)
    }

    /// Logits `[rows · vocab]` of some rows of the residual stream.
    pub(crate) fn logits(
        &self,
        hidden: Tensor<2>,
        rows: &[usize],
    ) -> Result<Vec<f32>, EngineError> {
        let decoder = &self.model.decoder;
        let index: Vec<i32> = rows.iter().map(|row| *row as i32).collect();
        let data = TensorData::new(index, [rows.len()]);
        let index = Tensor::<1, Int>::from_data(data, decoder.device());
        let logits = decoder.logits(decoder.final_norm(hidden.select(0, index)));
        logits
            .into_data()
            .try_to_vec::<f32>()
            .map_err(|error| EngineError::Device(format!("{error:?}")))
    }
}
