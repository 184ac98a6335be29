//! Sparse cross entropy with the softmax done in place over the logits.

use burn::backend::{DType, Flex};
use burn_flex::FlexTensor;
use rayon::prelude::*;

use super::linear::{linear, linear_grad};
use super::simd::{self, vectorize};
use super::slices::{all_f32, contiguous, dims, tensor};
use crate::portable;
use crate::targets::{REST_FLOOR, TopkTargets};

pub fn topk_cross_entropy(
    hidden: FlexTensor,
    head: FlexTensor,
    targets: TopkTargets,
) -> (FlexTensor, FlexTensor) {
    if !all_f32(&[&hidden]) || !matches!(head.dtype(), DType::F32 | DType::BF16) {
        return portable::topk_cross_entropy::<Flex>(hidden, head, targets);
    }
    let (loss, grad) = cross_entropy_of_logits(linear(hidden, head.clone()), targets);
    (loss, linear_grad(grad, head))
}

/// The loss `[1]` and its gradient, which takes the logits' place.
pub fn cross_entropy_of_logits(
    logits: FlexTensor,
    targets: TopkTargets,
) -> (FlexTensor, FlexTensor) {
    if !all_f32(&[&logits]) {
        return portable::cross_entropy_of_logits::<Flex>(logits, targets);
    }
    let [_, vocab] = dims::<2>(&logits);
    let mut logits = contiguous(logits);
    let from = logits.layout().start_offset();
    let rows = targets.num_rows();
    let loss: f64 = logits.storage_mut::<f32>()[from..from + rows * vocab]
        .par_chunks_exact_mut(vocab)
        .enumerate()
        .map(|(row, logits)| row_loss(logits, &targets, row as u32))
        .sum();
    (tensor(vec![loss as f32], [1]), logits)
}

/// The loss of one row; the logits become their gradient `Σw · softmax − w`.
fn row_loss(logits: &mut [f32], targets: &TopkTargets, row: u32) -> f64 {
    let entries = targets.row(row);
    let mass: f64 = entries.iter().map(|e| f64::from(e.2)).sum();
    let weighted: f64 = entries
        .iter()
        .map(|&(_, id, w)| f64::from(w) * f64::from(logits[id as usize]))
        .sum();
    let rest = targets.rest().map_or(0.0, |rest| rest[row as usize]);
    let (log_sum, rest_loss) = match rest > 0.0 {
        true => softmax_with_rest(logits, entries, mass, f64::from(rest)),
        false => (softmax(logits, mass), 0.0),
    };
    for &(_, id, w) in entries {
        logits[id as usize] -= w;
    }
    mass * log_sum - weighted + rest_loss
}

/// The logits become `mass · softmax`; gives the log of the softmax's sum.
fn softmax(logits: &mut [f32], mass: f64) -> f64 {
    vectorize(
        #[inline(always)]
        || {
            let max = simd::max(logits);
            let sum = simd::exp_sum(logits, max);
            scale(logits, mass as f32 / sum);
            f64::from(max) + f64::from(sum).ln()
        },
    )
}

/// As [`softmax`], with the gradient of `−rest · log q` on top, where `q` is the mass of all tokens
/// but the candidates; gives the log of the softmax's sum and that term.
fn softmax_with_rest(
    logits: &mut [f32],
    entries: &[(u32, u32, f32)],
    mass: f64,
    rest: f64,
) -> (f64, f64) {
    // The candidates step aside, so that the others are summed by themselves.
    let mut candidates: Vec<(usize, f32)> = Vec::with_capacity(entries.len());
    for &(_, id, _) in entries {
        let logit = std::mem::replace(&mut logits[id as usize], f32::NEG_INFINITY);
        if logit != f32::NEG_INFINITY {
            candidates.push((id as usize, logit));
        }
    }
    vectorize(
        #[inline(always)]
        || {
            let max = (candidates.iter()).fold(simd::max(logits), |max, c| max.max(c.1));
            for &(id, _) in &candidates {
                logits[id] = max - 200.0;
            }
            let others = f64::from(simd::exp_sum(logits, max));
            let exp = |logit: f32| f64::from(logit - max).exp();
            let sum = others + candidates.iter().map(|c| exp(c.1)).sum::<f64>();
            let floored = others / sum < REST_FLOOR;
            let (pull, push) = match floored {
                true => (0.0, 0.0),
                false => (rest / sum, rest / others),
            };
            scale(logits, (mass / sum + pull - push) as f32);
            for &(id, logit) in &candidates {
                logits[id] = ((mass / sum + pull) * exp(logit)) as f32;
            }
            let q = (others / sum).max(REST_FLOOR);
            (f64::from(max) + sum.ln(), -rest * q.ln())
        },
    )
}

#[inline(always)]
fn scale(values: &mut [f32], factor: f32) {
    for x in values.iter_mut() {
        *x *= factor;
    }
}
