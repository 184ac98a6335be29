//! Sparse cross entropy with the softmax done in place over the logits.

use burn::backend::{DType, Flex};
use burn_flex::FlexTensor;
use rayon::prelude::*;

use super::linear::{linear, linear_grad};
use super::simd::{self, vectorize};
use super::slices::{all_f32, contiguous, dims, tensor};
use crate::portable;
use crate::targets::TopkTargets;

pub fn topk_cross_entropy(
    hidden: FlexTensor,
    head: FlexTensor,
    targets: TopkTargets,
) -> (FlexTensor, FlexTensor) {
    if !all_f32(&[&hidden]) || !matches!(head.dtype(), DType::F32 | DType::BF16) {
        return portable::topk_cross_entropy::<Flex>(hidden, head, targets);
    }
    let [vocab, _] = dims::<2>(&head);
    let mut logits = contiguous(linear(hidden, head.clone()));
    let from = logits.layout().start_offset();
    let rows = targets.num_rows();
    let loss: f64 = logits.storage_mut::<f32>()[from..from + rows * vocab]
        .par_chunks_exact_mut(vocab)
        .enumerate()
        .map(|(row, logits)| row_loss(logits, &targets, row as u32))
        .sum();
    let grad = linear_grad(logits, head);
    (tensor(vec![loss as f32], [1]), grad)
}

/// The loss of one row; the logits become their gradient `Σw · softmax − w`.
fn row_loss(logits: &mut [f32], targets: &TopkTargets, row: u32) -> f64 {
    let entries = targets.entries();
    let from = entries.partition_point(|e| e.0 < row);
    let to = entries.partition_point(|e| e.0 <= row);
    let entries = &entries[from..to];
    let mass: f64 = entries.iter().map(|e| f64::from(e.2)).sum();
    let weighted: f64 = entries
        .iter()
        .map(|&(_, id, w)| f64::from(w) * f64::from(logits[id as usize]))
        .sum();
    let log_sum = vectorize(
        #[inline(always)]
        || {
            let max = simd::max(logits);
            let sum = simd::exp_sum(logits, max);
            let scale = mass as f32 / sum;
            for x in logits.iter_mut() {
                *x *= scale;
            }
            f64::from(max) + f64::from(sum).ln()
        },
    );
    for &(_, id, w) in entries {
        logits[id as usize] -= w;
    }
    mass * log_sum - weighted
}
