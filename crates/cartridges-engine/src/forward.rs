//! One pass through the model over rows of several sequences.

use std::sync::Arc;

use burn::tensor::{Int, Tensor, TensorData};
use cartridges_model::decoder::Packed;
use cartridges_ops::{AttentionLayout, KeyRange, QueryRun};

use crate::engine::{CartridgeHandle, Engine};
use crate::error::EngineError;
use crate::pool::{PoolPast, Rows};
use crate::residents::Shared;

/// A sequence in the pool.
pub struct Sequence {
    /// Rows of cartridges and stored prefixes, in order.
    past: Vec<Rows>,
    past_len: usize,
    /// Keeps the stored prefix alive.
    pub shared: Option<Shared>,
    /// The sequence's own rows; the first `len` are filled.
    pub own: Rows,
    len: usize,
}

impl Sequence {
    /// Position of the next token.
    fn position(&self) -> usize {
        self.past_len + self.len
    }

    /// Own rows that hold keys and values.
    pub fn filled(&self) -> usize {
        self.len
    }

    /// How many tokens of the prompt are in the pool already through a stored prefix.
    pub fn shared_len(&self) -> usize {
        self.shared.as_ref().map_or(0, |shared| shared.len)
    }
}

impl Engine {
    /// Reserves rows for what is new of `prompt` and `more` tokens after it.
    pub(crate) fn open(
        &mut self,
        cartridges: &[CartridgeHandle],
        prompt: &[u32],
        more: usize,
    ) -> Result<Sequence, EngineError> {
        let (past, shared) = self.past(cartridges, prompt);
        let own = self.take_rows(prompt.len() - shared.as_ref().map_or(0, |s| s.len) + more)?;
        Ok(Sequence {
            past_len: past.iter().map(|rows| rows.len).sum(),
            past,
            shared,
            own,
            len: 0,
        })
    }

    /// Gives a sequence's rows back.
    pub(crate) fn close(&mut self, sequence: Sequence) {
        self.pool.release(sequence.own);
    }

    /// Runs the next tokens of each sequence through the model; gives the residual stream `[n, h]`
    /// of all rows in order.
    pub(crate) fn forward(&mut self, work: &mut [(&mut Sequence, &[u32])]) -> Tensor<2> {
        let mut ids = Vec::new();
        let mut positions = Vec::new();
        let mut at = Vec::new();
        let mut runs = Vec::with_capacity(work.len());
        for (sequence, new) in work.iter_mut() {
            let first = sequence.own.start + sequence.len;
            let mut keys: Vec<KeyRange> = sequence
                .past
                .iter()
                .map(|rows| KeyRange {
                    start: rows.start,
                    len: rows.len,
                    causal: false,
                })
                .collect();
            keys.push(KeyRange {
                start: sequence.own.start,
                len: sequence.len + new.len(),
                causal: true,
            });
            runs.push(QueryRun {
                start: ids.len(),
                len: new.len(),
                keys,
            });
            let position = sequence.position() as u32;
            positions.extend((0..new.len() as u32).map(|i| position + i));
            at.extend(first..first + new.len());
            ids.extend_from_slice(new);
            sequence.len += new.len();
        }
        let layout = match AttentionLayout::new(runs, ids.len(), self.pool.capacity()) {
            Ok(layout) => layout,
            Err(error) => unreachable!("the engine made a layout that contradicts itself: {error}"),
        };
        let model = self.model.clone();
        let batch = Packed {
            ids: &ids,
            positions: &positions,
            layout: &layout,
        };
        let at: Arc<[usize]> = at.into();
        let mut past = PoolPast {
            pool: &mut self.pool,
            at,
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
        let values = logits
            .into_data()
            .try_to_vec::<f32>()
            .map_err(|error| EngineError::Device(format!("{error:?}")))?;
        // One NaN anywhere in a row makes its softmax meaningless.
        if values.iter().any(|x| x.is_nan()) {
            return Err(EngineError::NotFinite);
        }
        Ok(values)
    }
}
