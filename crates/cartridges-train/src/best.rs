//! Early stopping: the best cartridge so far, and how long ago that was.

use burn::tensor::Tensor;

/// The state of early stopping; higher scores are better.
#[derive(Debug, Clone, Default)]
pub(crate) struct Best {
    /// Score, step and trainable tensors of the best cartridge; `None` before the first score.
    pub(crate) kept: Option<Kept>,
    /// Scores since then.
    pub(crate) since: usize,
}

/// A cartridge that was the best.
#[derive(Debug, Clone)]
pub(crate) struct Kept {
    pub(crate) score: f64,
    pub(crate) step: usize,
    pub(crate) tensors: Vec<Tensor<3>>,
}

impl Best {
    /// Takes a score; `true` if it is the best so far.
    pub(crate) fn take(&mut self, score: f64, step: usize, tensors: Vec<Tensor<3>>) -> bool {
        let better = self.kept.as_ref().is_none_or(|kept| score > kept.score);
        if better {
            let kept = Kept {
                score,
                step,
                tensors,
            };
            self.kept = Some(kept);
            self.since = 0;
        } else {
            self.since += 1;
        }
        better
    }

    /// Whether `patience` scores in a row were no better; never for a patience of 0.
    pub(crate) fn out_of_patience(&self, patience: usize) -> bool {
        patience > 0 && self.since >= patience
    }
}
