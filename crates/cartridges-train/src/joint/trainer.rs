//! One step of several cartridges.

use std::collections::HashMap;
use std::path::Path;
use std::time::Instant;

use burn::tensor::Tensor;
use cartridges_model::atomic_file::write_bytes;
use cartridges_model::cartridge::Cartridge;
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};

use super::config::JointConfig;
use super::visibility::Visibility;
use crate::checkpoint::{CheckpointError, content, read};
use crate::gradient::gradient_among;
use crate::report::StepReport;
use crate::trainer::{Counts, TrainError, Trainer, add};

/// Cartridges in training on one model, each on its own rows. A step takes `rows_per_step` rows of each;
/// what a conversation loses among others moves all cartridges that it sees.
pub struct JointTrainer<'a> {
    trainers: Vec<Trainer<'a>>,
    config: JointConfig,
}

impl<'a> JointTrainer<'a> {
    /// Joins trainers of one model with the same settings. All take as many steps as the longest: where
    /// `epochs` count and one has fewer rows, it goes over them more often.
    ///
    /// # Errors
    /// If a setting is out of range or there is no trainer.
    pub fn new(mut trainers: Vec<Trainer<'a>>, config: JointConfig) -> Result<Self, TrainError> {
        config.validate()?;
        let longest = trainers.iter().map(|t| (t.planned, t.total)).max();
        let (planned, total) = longest.ok_or(TrainError::NoRows)?;
        for trainer in &mut trainers {
            (trainer.planned, trainer.total) = (planned, total);
        }
        Ok(Self { trainers, config })
    }

    /// The cartridges' trainers, in order.
    pub fn trainers(&self) -> &[Trainer<'a>] {
        &self.trainers
    }

    /// Steps done.
    pub fn steps_done(&self) -> usize {
        self.trainers[0].step
    }

    /// Steps in all.
    pub fn total_steps(&self) -> usize {
        self.trainers[0].total
    }

    /// One optimizer step of every cartridge; gives their reports in order.
    ///
    /// # Errors
    /// [`TrainError::Diverged`] if a loss or a gradient is not finite.
    pub fn step(&mut self) -> Result<Vec<StepReport>, TrainError> {
        let begin = Instant::now();
        let count = self.trainers.len();
        let mut own_sums = Vec::with_capacity(count);
        // What conversations of others do to a cartridge, each already divided by its own divisor.
        let mut foreign: Vec<Option<Vec<Tensor<3>>>> = vec![None; count];
        for own in 0..count {
            let (counts, mut sums) = self.gradients(own);
            own_sums.push((counts, sums[own].take()));
            let divisor = counts.0[1];
            for (sum, total) in sums.into_iter().zip(&mut foreign) {
                if let Some(sum) = sum {
                    add(total, sum.into_iter().map(|t| t / divisor).collect());
                }
            }
        }
        let all = self.trainers.iter_mut().zip(own_sums).zip(foreign);
        all.map(|((trainer, (counts, mut sum)), foreign)| {
            if let Some(foreign) = foreign {
                // The update divides everything by the cartridge's own divisor.
                let divisor = counts.0[1];
                add(&mut sum, foreign.into_iter().map(|t| t * divisor).collect());
            }
            trainer.update(sum.unwrap_or_default(), &counts, begin)
        })
        .collect()
    }

    /// The summed gradient of a cartridge's own rows with respect to every cartridge that they see.
    fn gradients(&self, own: usize) -> (Counts, Vec<Option<Vec<Tensor<3>>>>) {
        let trainer = &self.trainers[own];
        let count = self.trainers.len();
        let (seed, step) = (trainer.config.seed, trainer.step);
        let mut visibility = Visibility::new(self.config, seed, step, own, count);
        let mut counts = Counts::default();
        let mut sums: Vec<Option<Vec<Tensor<3>>>> = vec![None; count];
        for index in trainer.chosen() {
            let row = &trainer.rows[index];
            let mut seen: Vec<Vec<usize>> = row.lengths.iter().map(|_| visibility.draw()).collect();
            let mut visible: Vec<usize> = seen.concat();
            visible.sort_unstable();
            visible.dedup();
            // From numbers in the set to numbers among those that stand before this row.
            for number in seen.iter_mut().flatten() {
                *number = visible.partition_point(|v| v < number);
            }
            let before: Vec<&Cartridge> = visible
                .iter()
                .map(|i| &self.trainers[*i].cartridge)
                .collect();
            let recompute = trainer.config.recompute;
            let gradient = gradient_among(trainer.decoder, &before, &seen, row, recompute);
            trainer.count(&mut counts, row, gradient.loss);
            let each = gradient.tensors.len() / visible.len();
            for (number, tensors) in visible.iter().zip(gradient.tensors.chunks(each)) {
                add(&mut sums[*number], tensors.to_vec());
            }
        }
        (counts, sums)
    }

    /// Writes the state of all cartridges in one file, so that they never are at different steps.
    ///
    /// # Errors
    /// [`CheckpointError`]; an older checkpoint stays as it was.
    pub fn save_checkpoint(&self, path: &Path, run: &str) -> Result<(), CheckpointError> {
        let problem = |error: safetensors::SafeTensorError| content(path, error.to_string());
        let run = self.run_name(run);
        let states = self
            .trainers
            .iter()
            .map(|trainer| trainer.checkpoint_bytes(path, &run))
            .collect::<Result<Vec<_>, _>>()?;
        let views = states
            .iter()
            .enumerate()
            .map(|(number, state)| {
                let view = TensorView::new(Dtype::U8, vec![state.len()], state);
                Ok((number.to_string(), view.map_err(problem)?))
            })
            .collect::<Result<Vec<_>, CheckpointError>>()?;
        let kind = HashMap::from([("kind".to_owned(), "joint training".to_owned())]);
        let file = safetensors::serialize(views, Some(kind)).map_err(problem)?;
        Ok(write_bytes(path, &file)?)
    }

    /// Takes over a checkpoint of the same run; `Ok(false)` if there is none.
    ///
    /// # Errors
    /// If it is damaged or belongs to another run.
    pub fn resume(&mut self, path: &Path, run: &str) -> Result<bool, CheckpointError> {
        let Some(file) = read(path)? else {
            return Ok(false);
        };
        let damaged = |error: safetensors::SafeTensorError| content(path, error.to_string());
        let states = SafeTensors::deserialize(&file).map_err(damaged)?;
        let run = self.run_name(run);
        for (number, trainer) in self.trainers.iter_mut().enumerate() {
            let state = states.tensor(&number.to_string()).map_err(damaged)?;
            trainer.take_over(state.data(), path, &run)?;
        }
        Ok(true)
    }

    fn run_name(&self, run: &str) -> String {
        let joint = serde_json::to_string(&self.config).unwrap_or_default();
        format!("{run} {joint} {}", self.trainers.len())
    }
}
