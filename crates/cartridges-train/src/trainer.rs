//! The training loop, one step at a time.

use std::error::Error;
use std::time::Instant;

use burn::tensor::Tensor;
use cartridges_model::cartridge::{Cartridge, CartridgeError, HostCartridge};
use cartridges_model::decoder::Decoder;
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;

use crate::adam::Adam;
use crate::best::Best;
use crate::checkpoint::CheckpointError;
use crate::config::{LossPer, TrainConfig, TrainConfigError};
use crate::example::Target;
use crate::gradient::row_gradient;
use crate::group::{Alone, Exchange, GroupError};
use crate::on_policy::Teacher;
use crate::packing::PackedRow;
use crate::report::{Sizes, StepReport};
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
    /// Other processes of the run cannot be worked with.
    #[error(transparent)]
    Group(#[from] GroupError),
    /// The student's answers could not be had.
    #[error("training on own answers before step {step}: {source}")]
    Teacher {
        /// The step.
        step: usize,
        /// What the teacher said.
        #[source]
        source: Box<dyn Error + Send + Sync>,
    },
    /// The settings ask for own answers, but nobody scores them.
    #[error("training: on_policy.every is {0}, but there is no teacher for it here")]
    NoTeacher(usize),
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

/// A cartridge in training.
pub struct Trainer<'a> {
    pub(crate) decoder: &'a Decoder,
    pub(crate) rows: Vec<PackedRow>,
    pub(crate) config: TrainConfig,
    pub(crate) cartridge: Cartridge,
    pub(crate) adam: Adam,
    /// The running average of the trained values, where the settings ask for it.
    pub(crate) average: Option<Vec<Tensor<3>>>,
    pub(crate) best: Best,
    pub(crate) step: usize,
    /// Tokens and trained positions of all steps so far.
    seen: (usize, usize),
    pub(crate) total: usize,
    /// The last step as the schedule sees it.
    pub(crate) planned: usize,
    /// Those who train the same cartridge.
    pub(crate) group: Box<dyn Exchange + 'a>,
    /// Who scores the student's own answers.
    teacher: Option<Box<dyn Teacher + 'a>>,
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
        let adam = Adam::from_config(&cartridge.trainable(), &config);
        let average = (config.ema_decay > 0.0).then(|| cartridge.trainable());
        let planned = match config.steps {
            0 => config.epochs * rows.len().div_ceil(config.rows_per_step),
            steps => steps,
        };
        let total = match config.max_steps {
            0 => planned,
            most => planned.min(most),
        };
        Ok(Self {
            decoder,
            rows,
            config,
            cartridge,
            adam,
            average,
            best: Best::default(),
            step: 0,
            seen: (0, 0),
            total,
            planned,
            group: Box::new(Alone),
            teacher: None,
        })
    }

    /// Brings the teacher that `on_policy` needs.
    pub fn with_teacher(mut self, teacher: Option<Box<dyn Teacher + 'a>>) -> Self {
        self.teacher = teacher;
        self
    }

    /// Trains together with other processes: each computes the gradient of its share of a step's rows.
    /// All must have been made alike and go through the same calls.
    ///
    /// # Errors
    /// If a step has fewer rows than there are processes.
    pub fn with_group(mut self, group: Box<dyn Exchange + 'a>) -> Result<Self, TrainError> {
        let (rows, size) = (self.config.rows_per_step, group.size());
        if rows < size {
            return Err(GroupError::TooFewRows { rows, size }.into());
        }
        self.group = group;
        Ok(self)
    }

    /// Whether this process keeps the logs and the checkpoints.
    pub fn leads(&self) -> bool {
        self.group.rank() == 0
    }

    /// Whether any process of the group is to stop.
    pub(crate) fn agree_to_stop(&mut self, stop: bool) -> Result<bool, TrainError> {
        let mut votes = [f64::from(u8::from(stop))];
        self.group.sum(Vec::new(), &mut votes)?;
        Ok(votes[0] > 0.0)
    }

    /// The score that the first process found.
    pub(crate) fn agree_on_score(&mut self, score: f64) -> Result<f64, TrainError> {
        let own = match self.leads() {
            true => score,
            false => 0.0,
        };
        let mut scores = [own];
        self.group.sum(Vec::new(), &mut scores)?;
        Ok(scores[0])
    }

    /// Steps done.
    pub fn steps_done(&self) -> usize {
        self.step
    }

    /// Steps in all.
    pub fn total_steps(&self) -> usize {
        self.total
    }

    /// The settings.
    pub fn config(&self) -> &TrainConfig {
        &self.config
    }

    /// How much is trained.
    pub fn sizes(&self) -> Sizes {
        let tensors = self.cartridge.trainable();
        Sizes {
            trainable_slots: self.cartridge.slots() - self.cartridge.frozen(),
            trainable_parameters: tensors.iter().map(|t| t.shape().num_elements()).sum(),
        }
    }

    /// The cartridge as it is now; with `ema_decay` its running average.
    ///
    /// # Errors
    /// If a value is not finite.
    pub fn cartridge(&self) -> Result<HostCartridge, TrainError> {
        Ok(self.evaluated().to_host()?)
    }

    /// The best cartridge of those that were scored, or [`Trainer::cartridge`] if none was.
    ///
    /// # Errors
    /// If a value is not finite.
    pub fn best_cartridge(&self) -> Result<HostCartridge, TrainError> {
        match &self.best.kept {
            Some(kept) => {
                let best = self.cartridge.clone().with_trainable(kept.tensors.clone());
                Ok(best.to_host()?)
            }
            None => self.cartridge(),
        }
    }

    /// Score and step of the best cartridge, if any was scored.
    pub fn best_score(&self) -> Option<(f64, usize)> {
        self.best.kept.as_ref().map(|kept| (kept.score, kept.step))
    }

    /// Takes the score of the cartridge as it is now, higher being better; `true` if it is the best
    /// so far.
    pub fn take_score(&mut self, score: f64) -> bool {
        let tensors = self.evaluated().trainable();
        self.best.take(score, self.step, tensors)
    }

    /// Whether `patience` scores in a row were no better than the best.
    pub fn out_of_patience(&self) -> bool {
        self.best.out_of_patience(self.config.patience)
    }

    /// What is evaluated and saved, on the device.
    pub fn evaluated(&self) -> Cartridge {
        let cartridge = self.cartridge.clone();
        match &self.average {
            Some(average) => cartridge.with_trainable(average.clone()),
            None => cartridge,
        }
    }

    /// Goes to a step whose values, moments and average were set.
    pub(crate) fn go_to(&mut self, step: usize) {
        self.adam.updates = step;
        self.step = step;
        let rows = step * self.config.rows_per_step;
        let (passes, rest) = (rows / self.rows.len(), rows % self.rows.len());
        let count = |i: usize| (self.rows[i].ids.len(), self.rows[i].num_positions());
        let add = |a: (usize, usize), b: (usize, usize)| (a.0 + b.0, a.1 + b.1);
        let whole = (0..self.rows.len()).map(count).fold((0, 0), add);
        let order = self.order(passes);
        let part = order[..rest].iter().map(|i| count(*i));
        self.seen = part.fold((whole.0 * passes, whole.1 * passes), add);
    }

    /// Index of the `n`-th row of the run: every pass over the data has its own order, which
    /// depends on the seed and the pass alone, so that a resumed run sees the same rows.
    fn row_index(&self, n: usize) -> usize {
        self.order(n / self.rows.len())[n % self.rows.len()]
    }

    /// The order of rows in a pass over the data.
    fn order(&self, epoch: usize) -> Vec<usize> {
        let mut order: Vec<usize> = (0..self.rows.len()).collect();
        let seed = self.config.seed.wrapping_add(1 + epoch as u64);
        order.shuffle(&mut ChaCha8Rng::seed_from_u64(seed));
        order
    }

    /// One optimizer step.
    ///
    /// # Errors
    /// [`TrainError::Diverged`] if the loss or the gradient is not finite, [`TrainError::Group`] if another
    /// process is lost; nothing is updated then.
    pub fn step(&mut self) -> Result<StepReport, TrainError> {
        let begin = Instant::now();
        let mut counts = Counts::default();
        let mut sum = None;
        let chosen = self.chosen();
        let own = chosen.iter().skip(self.group.rank());
        for index in own.step_by(self.group.size()) {
            let row = &self.rows[*index];
            let gradient = row_gradient(self.decoder, &self.cartridge, row, self.config.recompute);
            self.count(&mut counts, row, gradient.loss);
            add(&mut sum, gradient.tensors);
        }
        for row in self.own_answers()? {
            let gradient = row_gradient(self.decoder, &self.cartridge, &row, self.config.recompute);
            let positions = row.num_positions() as f64;
            let more = [gradient.loss - row.entropy(), self.divisor(&row), positions];
            counts.0[4..]
                .iter_mut()
                .zip(more)
                .for_each(|(a, b)| *a += b);
            add(&mut sum, gradient.tensors);
        }
        // Every process has a row, or it could not have joined.
        let sum = self.group.sum(sum.unwrap_or_default(), &mut counts.0)?;
        self.update(sum, &counts, begin)
    }

    /// This process's share of what the student answers before the next step.
    fn own_answers(&mut self) -> Result<Vec<PackedRow>, TrainError> {
        let every = self.config.on_policy.every;
        if every == 0 {
            return Ok(Vec::new());
        }
        let teacher = self.teacher.as_mut().ok_or(TrainError::NoTeacher(every))?;
        let step = self.step;
        if !step.is_multiple_of(every) {
            return Ok(Vec::new());
        }
        let (rank, size) = (self.group.rank(), self.group.size());
        let rows = teacher.rows(&self.cartridge, step, rank, size);
        let step = step + 1;
        rows.map_err(|source| TrainError::Teacher { step, source })
    }

    /// The rows of the next step.
    pub(crate) fn chosen(&self) -> Vec<usize> {
        let first = self.step * self.config.rows_per_step;
        (first..first + self.config.rows_per_step)
            .map(|n| self.row_index(n))
            .collect()
    }

    /// Counts a row with its summed loss.
    pub(crate) fn count(&self, counts: &mut Counts, row: &PackedRow, loss: f64) {
        let more = [
            loss,
            self.divisor(row),
            row.ids.len() as f64,
            row.num_positions() as f64,
        ];
        counts.0.iter_mut().zip(more).for_each(|(a, b)| *a += b);
    }

    /// Takes the step with a summed gradient.
    pub(crate) fn update(
        &mut self,
        sum: Vec<Tensor<3>>,
        counts: &Counts,
        begin: Instant,
    ) -> Result<StepReport, TrainError> {
        let first = self.step * self.config.rows_per_step;
        let [
            loss,
            divisor,
            tokens,
            targets,
            own_kl,
            own_divisor,
            own_positions,
        ] = counts.0;
        let (tokens, targets) = (tokens as usize, targets as usize);
        let (loss, count) = (loss / divisor, divisor + own_divisor);
        let lr = learning_rate(&self.config, self.step, self.planned);
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
        if let Some(average) = &mut self.average {
            let decay = self.config.ema_decay;
            for (average, value) in average.iter_mut().zip(&updated) {
                *average = average.clone() * decay + value.clone() * (1.0 - decay);
            }
        }
        self.cartridge = self.cartridge.clone().with_trainable(updated);
        self.step += 1;
        self.seen = (self.seen.0 + tokens, self.seen.1 + targets);
        Ok(StepReport {
            step: self.step,
            total: self.total,
            loss,
            lr,
            grad_norm,
            tokens,
            targets,
            epoch: first / self.rows.len(),
            rows: first + self.config.rows_per_step,
            total_tokens: self.seen.0,
            total_targets: self.seen.1,
            on_policy_kl: (own_positions > 0.0).then(|| own_kl / own_positions),
            seconds: begin.elapsed().as_secs_f64(),
        })
    }

    fn divisor(&self, row: &PackedRow) -> f64 {
        match self.config.loss_per {
            LossPer::Position => row.positions,
            LossPer::Pair => {
                let stored = row.targets.iter().filter(|t| t.id != Target::REST);
                stored.count() as f64
            }
        }
    }
}

/// Loss, what it is divided by, tokens and targets of some rows; then divergence, divisor and positions of
/// the student's own answers.
#[derive(Debug, Clone, Copy, Default)]
pub(crate) struct Counts(pub(crate) [f64; 7]);

/// Adds tensors to a sum that may not have begun.
pub(crate) fn add(sum: &mut Option<Vec<Tensor<3>>>, more: Vec<Tensor<3>>) {
    *sum = Some(match sum.take() {
        None => more,
        Some(sum) => sum.into_iter().zip(more).map(|(a, b)| a + b).collect(),
    });
}

/// The norm over all tensors together.
fn global_norm(tensors: &[Tensor<3>]) -> f64 {
    let squares = tensors
        .iter()
        .map(|t| f64::from((t.clone() * t.clone()).sum().into_scalar::<f32>()));
    squares.sum::<f64>().sqrt()
}
