//! What can be wrong with a file of weights.

use crate::decoder::ConfigError;

/// Weights that cannot be opened or read.
#[derive(Debug, thiserror::Error)]
pub enum WeightsError {
    /// The system could not read a file.
    #[error("cannot read {file}: {source}")]
    Read {
        /// The file.
        file: String,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// A folder holds no weights.
    #[error("{folder} has neither model.safetensors nor model.safetensors.index.json")]
    NoWeights {
        /// The folder.
        folder: String,
    },
    /// The shard index is not one.
    #[error("shard index {file}: {reason}")]
    Index {
        /// The index file.
        file: String,
        /// What is wrong with it.
        reason: String,
    },
    /// The start of a file is not what its format says.
    #[error("{file}: {reason} (at byte {at})")]
    Header {
        /// The file.
        file: String,
        /// Where in the file.
        at: usize,
        /// What is wrong there.
        reason: String,
    },
    /// A metadata entry of a GGUF file is missing or has a value that cannot be used.
    #[error("{file}: metadata {key} is {found}, expected {expected}")]
    Metadata {
        /// The file.
        file: String,
        /// The entry.
        key: String,
        /// Its value.
        found: String,
        /// What is allowed.
        expected: String,
    },
    /// A tensor's description is impossible, or it stands where it would change the model.
    #[error("{file}: tensor {tensor}: {reason}")]
    Tensor {
        /// The file.
        file: String,
        /// The tensor, by the name it has in the file.
        tensor: String,
        /// What is wrong with it.
        reason: String,
    },
    /// A tensor is stored in a format that is not read here.
    #[error(
        "{file}: tensor {tensor} is stored as {dtype}, expected one of {}",
        crate::weights::Dtype::ALL.map(|d| d.name()).join(", ")
    )]
    UnsupportedDtype {
        /// The file.
        file: String,
        /// The tensor.
        tensor: String,
        /// Its format.
        dtype: String,
    },
    /// There is no tensor of that name.
    #[error("{file} has no tensor {tensor}")]
    MissingTensor {
        /// The file or folder.
        file: String,
        /// The tensor.
        tensor: String,
    },
    /// The caller's buffer does not fit the tensor.
    #[error("tensor {tensor} has {expected} values, the buffer {found}")]
    BufferLength {
        /// The tensor.
        tensor: String,
        /// How many values the tensor has.
        expected: usize,
        /// How many the buffer has.
        found: usize,
    },
    /// A value is infinite or not a number.
    #[error("{file}: tensor {tensor}: value {index} is {value}, expected a finite number")]
    NotFinite {
        /// The file.
        file: String,
        /// The tensor.
        tensor: String,
        /// Flat row-major index of the first such value.
        index: usize,
        /// The value.
        value: f32,
    },
    /// The metadata of a GGUF file describes no usable decoder.
    #[error("{file}: {source}")]
    Config {
        /// The file.
        file: String,
        /// What is wrong with it.
        #[source]
        source: ConfigError,
    },
}
