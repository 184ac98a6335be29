//! The training loop, one step at a time.

use std::time::Instant;

use burn::tensor::Tensor;
use cartridges_model::cartridge::{Cartridge, CartridgeError, HostCartridge};
use cartridges_model::decoder::Decoder;
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use serde::{Deserialize, Serialize};

use crate::adam::Adam;
use crate::checkpoint::CheckpointError;
use crate::config::{LossPer, TrainConfig, TrainConfigError};
use crate::gradient::row_gradient;
use crate::packing::PackedRow;
use crate::schedule::learning_rate;

/// Training that cannot begin or go on.
#[derive(Debug, thiserror::Error)]
pub enum TrainError {
    /// A setting is out of range.
    #[error(transparent)]
    Config(#[from] TrainConfigError),
    /// The cartridge does not fit the model or is not finite.
    #[error(transparent)]
    Cartridge(#[from] CartridgeError),
    /// A checkpoint cannot be written or does not fit.
    #[error(transparent)]
    Checkpoint(#[from] CheckpointError),
    /// There is no data.
    #[error("there are no packed rows to train on")]
    NoRows,
    /// The cartridge leaves nothing to train.
    #[error("all {0} slots are frozen; at least one must be trainable")]
    AllFrozen(usize),
    /// The loss left the numbers.
    #[error(
        "the loss of step {step} is {loss}; training has diverged, try a lower learning rate \
         (it was {lr:e})"
    )]
    Diverged {
        /// The step.
        step: usize,
        /// Its loss.
        loss: f64,
        /// Its learning rate.
        lr: f64,
    },
}

/// What one step did.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct StepReport {
    /// The step, from 1.
    pub step: usize,
    /// Steps in all.
    pub total: usize,
    /// Loss before the update.
    pub loss: f64,
    /// Learning rate.
    pub lr: f64,
    /// Global norm of the gradient before clipping.
    pub grad_norm: f64,
    /// Tokens that went through the model.
    pub tokens: usize,
    /// Seconds the step took.
    pub seconds: f64,
}

/// A cartridge in training.
pub struct Trainer<'a> {
    decoder: &'a Decoder,
    rows: Vec<PackedRow>,
    pub(crate) config: TrainConfig,
    pub(crate) cartridge: Cartridge,
    pub(crate) adam: Adam,
    pub(crate) step: usize,
    total: usize,
}

impl<'a> Trainer<'a> {
    /// Prepares training of `start` on packed rows.
    ///
    /// # Errors
    /// If a setting is out of range, there are no rows, or the cartridge is not one of this model.
    pub fn new(
        decoder: &'a Decoder,
        start: &HostCartridge,
        rows: Vec<PackedRow>,
        config: TrainConfig,
    ) -> Result<Self, TrainError> {
        config.validate()?;
        start.validate()?;
        if rows.is_empty() {
            return Err(TrainError::NoRows);
        }
        if start.trainable() == 0 {
            return Err(TrainError::AllFrozen(start.slots));
        }
        let cartridge = Cartridge::from_host(start, decoder.device());
        let adam = Adam::new(
            &cartridge.trainable(),
            config.beta1,
            config.beta2,
            config.epsilon,
        );
        let total = match config.steps {
            0 => config.epochs * rows.len().div_ceil(config.rows_per_step),
            steps => steps,
        };
        Ok(Self {
            decoder,
            rows,
            config,
            cartridge,
            adam,
            step: 0,
            total,
        })
    }

    /// Steps done.
    pub fn steps_done(&self) -> usize {
        self.step
    }

    /// Steps in all.
    pub fn total_steps(&self) -> usize {
        self.total
    }

    /// The cartridge as it is now.
    ///
    /// # Errors
    /// If a value is not finite.
    pub fn cartridge(&self) -> Result<HostCartridge, TrainError> {
        Ok(self.cartridge.to_host()?)
    }

    /// Index of the `n`-th row of the run: every pass over the data has its own order, which
    /// depends on the seed and the pass alone, so that a resumed run sees the same rows.
    fn row_index(&self, n: usize) -> usize {
        let (epoch, at) = (n / self.rows.len(), n % self.rows.len());
        let mut order: Vec<usize> = (0..self.rows.len()).collect();
        let seed = self.config.seed.wrapping_add(1 + epoch as u64);
        order.shuffle(&mut ChaCha8Rng::seed_from_u64(seed));
        order[at]
    }

    /// One optimizer step.
    ///
    /// # Errors
    /// [`TrainError::Diverged`] if the loss or the gradient is not finite; nothing is updated then.
    pub fn step(&mut self) -> Result<StepReport, TrainError> {
        let begin = Instant::now();
        let first = self.step * self.config.rows_per_step;
        let chosen: Vec<usize> = (first..first + self.config.rows_per_step)
            .map(|n| self.row_index(n))
            .collect();
        let count: f64 = chosen.iter().map(|i| self.divisor(&self.rows[*i])).sum();
        let mut loss = 0.0;
        let mut tokens = 0;
        let mut sum: Option<Vec<Tensor<3>>> = None;
        for index in chosen {
            let row = &self.rows[index];
            let gradient = row_gradient(self.decoder, &self.cartridge, row, self.config.recompute);
            loss += gradient.loss;
            tokens += row.ids.len();
            sum = Some(match sum {
                None => gradient.tensors,
                Some(sum) => sum
                    .into_iter()
                    .zip(gradient.tensors)
                    .map(|(a, b)| a + b)
                    .collect(),
            });
        }
        let loss = loss / count;
        let lr = learning_rate(&self.config, self.step, self.total);
        let sum = sum.unwrap_or_default();
        let grad_norm = global_norm(&sum) / count;
        if !(loss.is_finite() && grad_norm.is_finite()) {
            return Err(TrainError::Diverged {
                step: self.step + 1,
                loss,
                lr,
            });
        }
        let limit = self.config.max_grad_norm;
        let clip = match limit > 0.0 && grad_norm > limit {
            true => limit / grad_norm,
            false => 1.0,
        };
        let gradients = sum.into_iter().map(|g| g * (clip / count)).collect();
        let updated = self.adam.update(self.cartridge.trainable(), gradients, lr);
        self.cartridge = self.cartridge.clone().with_trainable(updated);
        self.step += 1;
        Ok(StepReport {
            step: self.step,
            total: self.total,
            loss,
            lr,
            grad_norm,
            tokens,
            seconds: begin.elapsed().as_secs_f64(),
        })
    }

    fn divisor(&self, row: &PackedRow) -> f64 {
        match self.config.loss_per {
            LossPer::Position => row.positions,
            LossPer::Pair => row.targets.len() as f64,
        }
    }
}

/// The norm over all tensors together.
fn global_norm(tensors: &[Tensor<3>]) -> f64 {
    let squares = tensors
        .iter()
        .map(|t| f64::from((t.clone() * t.clone()).sum().into_scalar::<f32>()));
    squares.sum::<f64>().sqrt()
}
