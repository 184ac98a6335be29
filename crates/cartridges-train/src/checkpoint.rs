//! Checkpoints: one safetensors file with the trainable slots, both moments and the step, where there
//! are any the running average and the best cartridge, written atomically, so that a resumed run goes
//! on exactly where it was.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use burn::tensor::{Device, Tensor, TensorData};
use cartridges_model::atomic_file::{WriteError, write_bytes};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};

use crate::best::{Best, Kept};
use crate::trainer::{TrainError, Trainer};

/// A checkpoint that cannot be written, read or used.
#[derive(Debug, thiserror::Error)]
pub enum CheckpointError {
    /// It could not be written.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// It could not be read.
    #[error("cannot read checkpoint {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// It is damaged or belongs to another run.
    #[error("checkpoint {path}: {problem}; delete it to start this run afresh")]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        problem: String,
    },
}

const KINDS: [&str; 5] = ["value", "first_moment", "second_moment", "average", "best"];

impl Trainer<'_> {
    /// Writes the state of the run. `run` names data, model and start, so that a checkpoint of
    /// another run is not taken for this one's.
    ///
    /// # Errors
    /// [`CheckpointError::Write`]; an older checkpoint stays as it was.
    pub fn save_checkpoint(&self, path: &Path, run: &str) -> Result<(), CheckpointError> {
        Ok(write_bytes(path, &self.checkpoint_bytes(path, run)?)?)
    }

    /// The content of a checkpoint; `path` is for messages.
    pub(crate) fn checkpoint_bytes(
        &self,
        path: &Path,
        run: &str,
    ) -> Result<Vec<u8>, CheckpointError> {
        let values = self.cartridge.trainable();
        let (first, second) = self.adam.moments.iter().cloned().unzip();
        let average = self.average.clone().unwrap_or_default();
        let best = self.best.kept.as_ref().map(|kept| kept.tensors.clone());
        let lists: [Vec<Tensor<3>>; 5] = [values, first, second, average, best.unwrap_or_default()];
        let mut tensors = Vec::new();
        for (kind, list) in KINDS.iter().zip(&lists) {
            for (i, tensor) in list.iter().enumerate() {
                tensors.push((format!("{kind}.{i}"), tensor.dims(), bytes(tensor, path)?));
            }
        }
        let mut metadata = HashMap::from([
            ("step".to_owned(), self.step.to_string()),
            ("run".to_owned(), self.run_name(run)),
        ]);
        if let Some(kept) = &self.best.kept {
            // The shortest form of a float reads back as the same float.
            metadata.insert("best_score".to_owned(), kept.score.to_string());
            metadata.insert("best_step".to_owned(), kept.step.to_string());
            metadata.insert("scores_since_best".to_owned(), self.best.since.to_string());
        }
        let problem = |error: safetensors::SafeTensorError| content(path, error.to_string());
        let views = tensors
            .iter()
            .map(|(name, dims, bytes)| {
                let view = TensorView::new(Dtype::F32, dims.to_vec(), bytes).map_err(problem)?;
                Ok((name.as_str(), view))
            })
            .collect::<Result<Vec<_>, CheckpointError>>()?;
        safetensors::serialize(views, Some(metadata)).map_err(problem)
    }

    /// Takes over a checkpoint of the same run; `Ok(false)` if there is none.
    ///
    /// # Errors
    /// If it is damaged or belongs to another run; nothing is changed then.
    pub fn resume(&mut self, path: &Path, run: &str) -> Result<bool, CheckpointError> {
        match read(path)? {
            Some(file) => self.take_over(&file, path, run).map(|()| true),
            None => Ok(false),
        }
    }

    /// As [`Trainer::resume`] for a group: the first process reads the file, all go on from it.
    pub(crate) fn resume_together(&mut self, path: &Path, run: &str) -> Result<bool, TrainError> {
        let file = match self.leads() {
            true => read(path)?,
            false => None,
        };
        // Before it is shared: what is damaged stops here.
        if let Some(file) = &file {
            self.take_over(file, path, run)?;
        }
        let shared = self.group.share(file.unwrap_or_default())?;
        if !self.leads() && !shared.is_empty() {
            self.take_over(&shared, path, run)?;
        }
        Ok(!shared.is_empty())
    }

    pub(crate) fn take_over(
        &mut self,
        file: &[u8],
        path: &Path,
        run: &str,
    ) -> Result<(), CheckpointError> {
        let damaged = |error: safetensors::SafeTensorError| content(path, error.to_string());
        let (_, header) = SafeTensors::read_metadata(file).map_err(damaged)?;
        let stored = header.metadata().clone().unwrap_or_default();
        if stored.get("run") != Some(&self.run_name(run)) {
            let problem = "it was made with other data, another model or other settings";
            return Err(content(path, problem.to_owned()));
        }
        let step = number(&stored, "step", path)?;
        let tensors = SafeTensors::deserialize(file).map_err(damaged)?;
        let current = self.cartridge.trainable();
        let device = current[0].device();
        let list = |kind: &str| -> Result<Vec<Tensor<3>>, CheckpointError> {
            let one = |(i, like): (usize, &Tensor<3>)| {
                let name = format!("{kind}.{i}");
                let view = tensors.tensor(&name).map_err(damaged)?;
                let shape = like.dims();
                tensor(&view, shape, &device).ok_or_else(|| {
                    content(path, format!("tensor {name} is not a finite f32 {shape:?}"))
                })
            };
            current.iter().enumerate().map(one).collect()
        };
        let [value, first, second, average, best] = KINDS;
        let (values, first, second) = (list(value)?, list(first)?, list(second)?);
        let average = self.average.is_some().then(|| list(average)).transpose()?;
        let best = match stored.contains_key("best_score") {
            true => Best {
                kept: Some(Kept {
                    score: number(&stored, "best_score", path)?,
                    step: number(&stored, "best_step", path)?,
                    tensors: list(best)?,
                }),
                since: number(&stored, "scores_since_best", path)?,
            },
            false => Best::default(),
        };
        self.cartridge = self.cartridge.clone().with_trainable(values);
        self.adam.moments = first.into_iter().zip(second).collect();
        self.average = average;
        self.best = best;
        self.go_to(step);
        Ok(())
    }

    /// What must be equal for a checkpoint to be this run's.
    fn run_name(&self, run: &str) -> String {
        let config = serde_json::to_string(&self.config.essence()).unwrap_or_default();
        format!("{run} {config}")
    }
}

/// A checkpoint's bytes, if there is one.
pub(crate) fn read(path: &Path) -> Result<Option<Vec<u8>>, CheckpointError> {
    match std::fs::read(path) {
        Ok(file) => Ok(Some(file)),
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(CheckpointError::Read {
            path: path.to_owned(),
            source,
        }),
    }
}

pub(crate) fn content(path: &Path, problem: String) -> CheckpointError {
    CheckpointError::Content {
        path: path.to_owned(),
        problem,
    }
}

/// A number of the checkpoint's metadata.
fn number<T: std::str::FromStr>(
    stored: &HashMap<String, String>,
    field: &str,
    path: &Path,
) -> Result<T, CheckpointError> {
    let value = stored.get(field).and_then(|text| text.parse().ok());
    value.ok_or_else(|| content(path, format!("it has no {field} that is a number")))
}

fn bytes(tensor: &Tensor<3>, path: &Path) -> Result<Vec<u8>, CheckpointError> {
    let values = tensor
        .clone()
        .into_data()
        .try_to_vec::<f32>()
        .map_err(|error| content(path, format!("reading from the device failed: {error:?}")))?;
    Ok(values.iter().flat_map(|x| x.to_le_bytes()).collect())
}

fn tensor(view: &TensorView<'_>, dims: [usize; 3], device: &Device) -> Option<Tensor<3>> {
    if view.dtype() != Dtype::F32 || view.shape() != dims {
        return None;
    }
    let values: Vec<f32> = view
        .data()
        .chunks_exact(4)
        .map(|b| f32::from_le_bytes([b[0], b[1], b[2], b[3]]))
        .collect();
    let finite = values.iter().all(|x| x.is_finite());
    finite.then(|| Tensor::from_data(TensorData::new(values, dims), device))
}
