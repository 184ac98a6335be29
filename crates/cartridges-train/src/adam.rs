//! Adam (Kingma & Ba, arXiv 1412.6980) with float32 master values and moments, no decay.

use burn::tensor::Tensor;

/// The optimizer's state for a list of tensors.
#[derive(Debug, Clone)]
pub struct Adam {
    beta1: f64,
    beta2: f64,
    epsilon: f64,
    /// Updates done so far.
    pub(crate) updates: usize,
    /// First and second moments.
    pub(crate) moments: Vec<(Tensor<3>, Tensor<3>)>,
}

impl Adam {
    /// Fresh state for tensors of these shapes.
    pub fn new(parameters: &[Tensor<3>], beta1: f64, beta2: f64, epsilon: f64) -> Self {
        let moments = parameters
            .iter()
            .map(|p| (p.zeros_like(), p.zeros_like()))
            .collect();
        Self {
            beta1,
            beta2,
            epsilon,
            updates: 0,
            moments,
        }
    }

    /// One update of all parameters at rate `lr`.
    ///
    /// # Panics
    /// If the lists differ in length from the one the state was made for.
    pub fn update(
        &mut self,
        parameters: Vec<Tensor<3>>,
        gradients: Vec<Tensor<3>>,
        lr: f64,
    ) -> Vec<Tensor<3>> {
        assert_eq!(parameters.len(), self.moments.len());
        assert_eq!(gradients.len(), self.moments.len());
        self.updates += 1;
        let correction1 = 1.0 - self.beta1.powi(self.updates as i32);
        let correction2 = 1.0 - self.beta2.powi(self.updates as i32);
        let (beta1, beta2, epsilon) = (self.beta1, self.beta2, self.epsilon);
        parameters
            .into_iter()
            .zip(gradients)
            .zip(&mut self.moments)
            .map(|((parameter, gradient), (first, second))| {
                *first = first.clone() * beta1 + gradient.clone() * (1.0 - beta1);
                *second = second.clone() * beta2 + gradient.clone() * gradient * (1.0 - beta2);
                let scale = (second.clone() / correction2).sqrt() + epsilon;
                parameter - first.clone() / scale * (lr / correction1)
            })
            .collect()
    }
}
