//! Loss and gradient of one batch with respect to an adapter's matrices.

use std::sync::Arc;

use burn::tensor::Tensor;
use cartridges_engine::{log_sum, top};
use cartridges_model::adapter::{BatchAdapters, ThoughtAdapter};
use cartridges_model::decoder::Decoder;
use cartridges_ops::{TopkTargets, topk_cross_entropy};
use rayon::prelude::*;

use crate::error::TransmuteError;
use crate::extract::{Stream, values};

/// Rows of logits that are alive at a time.
const CHUNK: usize = 64;

/// What the student's distributions at the rows of a batch are to be.
#[derive(Debug, Clone)]
pub(super) struct Wanted {
    targets: TopkTargets,
    /// `Σ p log p` over candidates and the rest, per batch.
    negative_entropy: f64,
    /// The teacher's states behind each layer, `[n, hidden]`; none if they are not looked at.
    hidden: Vec<Tensor<2>>,
}

impl Wanted {
    /// The `k` most likely tokens and the rest, from states `[n, hidden]` behind the final norm.
    pub(super) fn new(
        decoder: &Decoder,
        normed: &Tensor<2>,
        k: usize,
        hidden: Vec<Tensor<2>>,
    ) -> Result<Self, TransmuteError> {
        let [rows, _] = normed.dims();
        let k = k.min(decoder.config().vocab_size);
        let (mut entries, mut rest) = (Vec::with_capacity(rows * k), Vec::with_capacity(rows));
        let mut negative_entropy = 0.0;
        for start in (0..rows).step_by(CHUNK) {
            let len = CHUNK.min(rows - start);
            let part = normed.clone().narrow(0, start, len);
            let logits = decoder.logits(part, BatchAdapters::NONE);
            let found: Vec<Vec<(u32, f32)>> = values(logits)?
                .par_chunks(decoder.config().vocab_size)
                .map(|logits| top(logits, k, 1.0, log_sum(logits, 1.0)))
                .collect();
            for (row, likely) in found.into_iter().enumerate() {
                let mut left = 1.0;
                for (id, log_p) in likely {
                    let p = f64::from(log_p).exp();
                    left -= p;
                    negative_entropy += p * f64::from(log_p);
                    entries.push(((start + row) as u32, id, p as f32));
                }
                // A rest below this is rounding.
                let left = if left > 1e-6 { left } else { 0.0 };
                negative_entropy += if left > 0.0 { left * left.ln() } else { 0.0 };
                rest.push(left as f32);
            }
        }
        let targets = TopkTargets::new(entries, rows, decoder.config().vocab_size)?;
        Ok(Self {
            targets: targets.with_rest(rest)?,
            negative_entropy,
            hidden,
        })
    }
}

/// The loss of batch `at` per row, `KL + hidden · Σ_layers ‖x_T - x_S‖₁ / ‖x_T‖₁`, and its gradient in the
/// order of [`ThoughtAdapter::matrices`]. Only the layers' inputs are kept; each layer is run again on the
/// way back, down to `lowest`, the first with a patch.
pub(super) fn gradient(
    start: &Stream<'_>,
    at: usize,
    adapter: &Arc<ThoughtAdapter>,
    wanted: &Wanted,
    hidden_weight: f64,
    lowest: usize,
) -> Result<(f64, Vec<Tensor<2>>), TransmuteError> {
    let decoder = start.decoder();
    let index = start.batches[at].index.clone();
    let rows = index.dims()[0].max(1) as f64;
    let plain = BatchAdapters::everywhere([adapter.clone()]);
    let count = decoder.config().num_layers;
    let mut states = vec![start.state(at)];
    for layer in 0..count {
        let x = states[layer].clone();
        states.push(start.layer(layer, at, x, &plain));
    }
    let top = states[count].clone().autodiff().require_grad();
    let normed = decoder.final_norm(top.clone().select(0, index.clone()), BatchAdapters::NONE);
    let (loss, slope) = topk_cross_entropy(normed.clone().inner(), decoder.head(), &wanted.targets);
    let mut loss = (loss + wanted.negative_entropy) / rows;
    let mut tape = (normed * (slope / rows).autodiff()).sum().backward();
    let mut flowing = match top.grad_remove(&mut tape) {
        Some(gradient) => gradient,
        None => states[count].zeros_like(),
    };
    let tracked = adapter.matrices().into_iter();
    let tracked = tracked.map(|m| m.autodiff().require_grad()).collect();
    let tracked = Arc::new(adapter.with_matrices(tracked));
    let leaves = tracked.matrices();
    let adapters = BatchAdapters::everywhere([tracked]);
    let mut gradients: Vec<Tensor<2>> = adapter.matrices().iter().map(Tensor::zeros_like).collect();
    for layer in (lowest..count).rev() {
        if let Some(wanted) = wanted.hidden.get(layer) {
            let found = states[layer + 1].clone().select(0, index.clone());
            let size = wanted
                .clone()
                .abs()
                .sum()
                .into_scalar::<f32>()
                .max(f32::MIN_POSITIVE);
            let apart = found - wanted.clone();
            let share = hidden_weight / f64::from(size);
            loss += share * f64::from(apart.clone().abs().sum().into_scalar::<f32>());
            let slope = apart.sign() * share;
            let add = burn::tensor::IndexingUpdateOp::Add;
            flowing = flowing.select_assign(0, index.clone(), slope, add);
        }
        let input = states[layer].clone().autodiff().require_grad();
        let y = start.layer(layer, at, input.clone(), &adapters);
        let mut tape = (y * flowing.clone().autodiff()).sum().backward();
        for (leaf, gradient) in leaves.iter().zip(&mut gradients) {
            if let Some(found) = leaf.grad_remove(&mut tape) {
                *gradient = gradient.clone() + found;
            }
        }
        if let Some(below) = input.grad_remove(&mut tape) {
            flowing = below;
        }
    }
    Ok((loss, gradients))
}
