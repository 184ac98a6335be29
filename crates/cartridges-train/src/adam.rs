//! Adam (Kingma & Ba, arXiv 1412.6980) and AdamW (Loshchilov & Hutter, arXiv 1711.05101) with float32
//! master values and moments.

use burn::tensor::Tensor;

use crate::config::{Optimizer, TrainConfig};

/// The optimizer's state for a list of tensors.
#[derive(Debug, Clone)]
pub struct Adam {
    beta1: f64,
    beta2: f64,
    epsilon: f64,
    optimizer: Optimizer,
    weight_decay: f64,
    /// Updates done so far.
    pub(crate) updates: usize,
    /// First and second moments.
    pub(crate) moments: Vec<(Tensor<3>, Tensor<3>)>,
}

impl Adam {
    /// Fresh state for tensors of these shapes, without weight decay.
    pub fn new(parameters: &[Tensor<3>], beta1: f64, beta2: f64, epsilon: f64) -> Self {
        let moments = parameters
            .iter()
            .map(|p| (p.zeros_like(), p.zeros_like()))
            .collect();
        Self {
            beta1,
            beta2,
            epsilon,
            optimizer: Optimizer::Adam,
            weight_decay: 0.0,
            updates: 0,
            moments,
        }
    }

    /// Fresh state as the settings ask for.
    pub fn from_config(parameters: &[Tensor<3>], config: &TrainConfig) -> Self {
        Self {
            optimizer: config.optimizer,
            weight_decay: config.weight_decay,
            ..Self::new(parameters, config.beta1, config.beta2, config.epsilon)
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
                let (parameter, gradient) = match (self.weight_decay, self.optimizer) {
                    (0.0, _) => (parameter, gradient),
                    (decay, Optimizer::Adam) => {
                        let gradient = gradient + parameter.clone() * decay;
                        (parameter, gradient)
                    }
                    (decay, Optimizer::AdamW) => (parameter * (1.0 - lr * decay), gradient),
                };
                *first = first.clone() * beta1 + gradient.clone() * (1.0 - beta1);
                *second = second.clone() * beta2 + gradient.clone() * gradient * (1.0 - beta2);
                let scale = (second.clone() / correction2).sqrt() + epsilon;
                parameter - first.clone() / scale * (lr / correction1)
            })
            .collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use burn::tensor::TensorData;

    /// Two updates of one number, by the formulas of the papers.
    fn by_hand(optimizer: Optimizer, decay: f64, lr: f64, gradients: [f64; 2]) -> f64 {
        let (mut x, mut m, mut v) = (0.5, 0.0, 0.0);
        for (t, gradient) in gradients.into_iter().enumerate() {
            let g = match optimizer {
                Optimizer::Adam => gradient + decay * x,
                Optimizer::AdamW => gradient,
            };
            m = 0.9 * m + 0.1 * g;
            v = 0.99 * v + 0.01 * g * g;
            let t = t as i32 + 1;
            let step = m / (1.0 - 0.9f64.powi(t)) / ((v / (1.0 - 0.99f64.powi(t))).sqrt() + 1e-6);
            x -= match optimizer {
                Optimizer::Adam => lr * step,
                Optimizer::AdamW => lr * (step + decay * x),
            };
        }
        x
    }

    #[test]
    fn updates_are_those_of_the_papers() {
        let device = cartridges_ops::test_device();
        let tensor = |x: f64| Tensor::<3>::from_data(TensorData::from([[[x as f32]]]), &device);
        for optimizer in [Optimizer::Adam, Optimizer::AdamW] {
            for weight_decay in [0.0, 0.3] {
                let config = TrainConfig {
                    optimizer,
                    weight_decay,
                    beta2: 0.99,
                    epsilon: 1e-6,
                    ..TrainConfig::default()
                };
                let mut values = vec![tensor(0.5)];
                let mut adam = Adam::from_config(&values, &config);
                for gradient in [0.2, -0.7] {
                    values = adam.update(values, vec![tensor(gradient)], 0.1);
                }
                let found = values[0].clone().into_scalar::<f32>();
                let wanted = by_hand(optimizer, weight_decay, 0.1, [0.2, -0.7]);
                let off = (f64::from(found) - wanted).abs();
                assert!(off < 1e-6, "{optimizer:?} {weight_decay}: {found} {wanted}");
            }
        }
    }
}
