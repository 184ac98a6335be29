//! How far the student's next-token distributions are from the teacher's.

use std::sync::Arc;

use burn::tensor::Tensor;
use burn::tensor::activation::log_softmax;
use cartridges_model::adapter::{BatchAdapters, HostAdapter, ThoughtAdapter};
use cartridges_model::decoder::Decoder;

use crate::error::TransmuteError;
use crate::extract::values;
use crate::sweep::Material;

/// Rows of logits that are alive at a time.
const CHUNK: usize = 64;

/// `KL(teacher ‖ student)` of each row in nats, from states `[n, hidden]` behind the final norm.
pub(crate) fn divergences(
    decoder: &Decoder,
    teacher: &Tensor<2>,
    student: &Tensor<2>,
) -> Result<Vec<f32>, TransmuteError> {
    let [rows, _] = teacher.dims();
    let mut all = Vec::with_capacity(rows);
    for start in (0..rows).step_by(CHUNK) {
        let len = CHUNK.min(rows - start);
        let log_probs = |normed: &Tensor<2>| {
            let part = normed.clone().narrow(0, start, len);
            log_softmax(decoder.logits(part, BatchAdapters::NONE), 1)
        };
        let (p, q) = (log_probs(teacher), log_probs(student));
        all.extend(values((p.clone().exp() * (p - q)).sum_dim(1))?);
    }
    Ok(all)
}

/// The mean of [`divergences`] over several batches; 0 without rows.
pub(crate) fn mean_divergence(
    decoder: &Decoder,
    teacher: &[Tensor<2>],
    student: &[Tensor<2>],
) -> Result<f64, TransmuteError> {
    let (mut sum, mut rows) = (0.0, 0);
    for (teacher, student) in teacher.iter().zip(student) {
        let part = divergences(decoder, teacher, student)?;
        sum += part.iter().map(|x| f64::from(*x)).sum::<f64>();
        rows += part.len();
    }
    Ok(sum / rows.max(1) as f64)
}

/// An adapter for all rows of all batches.
pub(crate) fn everywhere(host: &HostAdapter, decoder: &Decoder) -> BatchAdapters {
    let adapter = ThoughtAdapter::from_host(host, decoder.device());
    BatchAdapters::everywhere([Arc::new(adapter)])
}

/// How far the student is from the teacher on the validation conversations, in nats per token: without an
/// adapter, and with it. 0 if there are no such conversations.
///
/// # Errors
/// [`TransmuteError`], if the conversations or the adapter do not fit the model.
pub fn validation_divergence(
    material: &Material<'_>,
    adapter: &HostAdapter,
) -> Result<(f64, f64), TransmuteError> {
    /// Tokens behind a prompt in one batch.
    const BATCH_TOKENS: usize = 2048;
    let decoder = material.decoder;
    adapter.check(decoder.config())?;
    let judge = material.paired(material.validation, BATCH_TOKENS, 0.0)?;
    let wanted = judge.teacher.finish(BatchAdapters::NONE);
    let judged = |adapters: &BatchAdapters| {
        mean_divergence(decoder, &wanted, &judge.student.clone().finish(adapters))
    };
    let without = judged(BatchAdapters::NONE)?;
    Ok((without, judged(&everywhere(adapter, decoder))?))
}
