//! Checkpoints: one safetensors file with the trainable slots, both moments and the step, written
//! atomically, so that a resumed run goes on exactly where it was.

use std::collections::HashMap;
use std::path::{Path, PathBuf};

use burn::tensor::{Device, Tensor, TensorData};
use cartridges_model::atomic_file::{WriteError, write_bytes};
use safetensors::tensor::TensorView;
use safetensors::{Dtype, SafeTensors};

use crate::trainer::Trainer;

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

const KINDS: [&str; 3] = ["value", "first_moment", "second_moment"];

impl Trainer<'_> {
    /// Writes the state of the run. `run` names data, model and start, so that a checkpoint of
    /// another run is not taken for this one's.
    ///
    /// # Errors
    /// [`CheckpointError::Write`]; an older checkpoint stays as it was.
    pub fn save_checkpoint(&self, path: &Path, run: &str) -> Result<(), CheckpointError> {
        let values = self.cartridge.trainable();
        let mut tensors = Vec::with_capacity(values.len() * KINDS.len());
        for (i, (value, (first, second))) in values.iter().zip(&self.adam.moments).enumerate() {
            for (kind, tensor) in KINDS.iter().zip([value, first, second]) {
                tensors.push((format!("{kind}.{i}"), tensor.dims(), bytes(tensor, path)?));
            }
        }
        let metadata = HashMap::from([
            ("step".to_owned(), self.step.to_string()),
            ("run".to_owned(), self.run_name(run)),
        ]);
        let problem = |error: safetensors::SafeTensorError| content(path, error.to_string());
        let views = tensors
            .iter()
            .map(|(name, dims, bytes)| {
                let view = TensorView::new(Dtype::F32, dims.to_vec(), bytes).map_err(problem)?;
                Ok((name.as_str(), view))
            })
            .collect::<Result<Vec<_>, CheckpointError>>()?;
        let file = safetensors::serialize(views, Some(metadata)).map_err(problem)?;
        Ok(write_bytes(path, &file)?)
    }

    /// Takes over a checkpoint of the same run; `Ok(false)` if there is none.
    ///
    /// # Errors
    /// If it is damaged or belongs to another run; nothing is changed then.
    pub fn resume(&mut self, path: &Path, run: &str) -> Result<bool, CheckpointError> {
        let file = match std::fs::read(path) {
            Ok(file) => file,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
            Err(source) => {
                return Err(CheckpointError::Read {
                    path: path.to_owned(),
                    source,
                });
            }
        };
        let damaged = |error: safetensors::SafeTensorError| content(path, error.to_string());
        let (_, header) = SafeTensors::read_metadata(&file).map_err(damaged)?;
        let stored = header.metadata().clone().unwrap_or_default();
        if stored.get("run") != Some(&self.run_name(run)) {
            let problem = "it was made with other data, another model or other settings";
            return Err(content(path, problem.to_owned()));
        }
        let step = stored
            .get("step")
            .and_then(|s| s.parse::<usize>().ok())
            .ok_or_else(|| content(path, "it does not say which step it is of".to_owned()))?;
        let tensors = SafeTensors::deserialize(&file).map_err(damaged)?;
        let current = self.cartridge.trainable();
        let device = current[0].device();
        let mut lists: [Vec<Tensor<3>>; 3] = Default::default();
        for (i, like) in current.iter().enumerate() {
            for (kind, list) in KINDS.iter().zip(&mut lists) {
                let name = format!("{kind}.{i}");
                let view = tensors.tensor(&name).map_err(damaged)?;
                list.push(tensor(&view, like.dims(), &device).ok_or_else(|| {
                    content(
                        path,
                        format!("tensor {name} is not a finite f32 {:?}", like.dims()),
                    )
                })?);
            }
        }
        let [values, first, second] = lists;
        self.cartridge = self.cartridge.clone().with_trainable(values);
        self.adam.moments = first.into_iter().zip(second).collect();
        self.adam.updates = step;
        self.step = step;
        Ok(true)
    }

    /// What must be equal for a checkpoint to be this run's.
    fn run_name(&self, run: &str) -> String {
        let config = serde_json::to_string(&self.config).unwrap_or_default();
        format!("{run} {config}")
    }
}

fn content(path: &Path, problem: String) -> CheckpointError {
    CheckpointError::Content {
        path: path.to_owned(),
        problem,
    }
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
