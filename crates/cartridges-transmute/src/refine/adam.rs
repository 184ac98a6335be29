//! Adam (Kingma & Ba, arXiv 1412.6980) without decay.

use burn::tensor::Tensor;

const BETAS: (f64, f64) = (0.9, 0.999);
const EPSILON: f64 = 1e-8;

/// First and second moments of some matrices.
#[derive(Debug)]
pub(super) struct Adam {
    moments: Vec<(Tensor<2>, Tensor<2>)>,
    updates: i32,
}

impl Adam {
    pub(super) fn new(matrices: &[Tensor<2>]) -> Self {
        let zeros = matrices.iter().map(|m| (m.zeros_like(), m.zeros_like()));
        Self {
            moments: zeros.collect(),
            updates: 0,
        }
    }

    /// One update at rate `lr`.
    pub(super) fn update(
        &mut self,
        matrices: Vec<Tensor<2>>,
        gradients: Vec<Tensor<2>>,
        lr: f64,
    ) -> Vec<Tensor<2>> {
        self.updates += 1;
        let (first_beta, second_beta) = BETAS;
        let first_correction = 1.0 - first_beta.powi(self.updates);
        let second_correction = 1.0 - second_beta.powi(self.updates);
        let all = matrices.into_iter().zip(gradients).zip(&mut self.moments);
        all.map(|((matrix, gradient), (first, second))| {
            let square = gradient.clone() * gradient.clone();
            *first = first.clone() * first_beta + gradient * (1.0 - first_beta);
            *second = second.clone() * second_beta + square * (1.0 - second_beta);
            let size = (second.clone() / second_correction).sqrt() + EPSILON;
            matrix - first.clone() / first_correction / size * lr
        })
        .collect()
    }
}
