//! What can go wrong with a cartridge: its contents, its files, or the model it is meant for.

use std::fmt;
use std::io;
use std::path::{Path, PathBuf};

use super::torch::PickleError;
use crate::atomic_file::WriteError;
use crate::tensor_folder::FolderError;

/// Which of a layer's two tensors.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Part {
    /// The keys (after rotary embedding).
    Key,
    /// The values.
    Value,
}

impl fmt::Display for Part {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Part::Key => "key",
            Part::Value => "value",
        })
    }
}

/// One property in which a cartridge and a model differ.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Difference {
    /// The name of the property as it is spelled in `cartridge.json`.
    pub property: &'static str,
    /// What the cartridge was made for.
    pub expected: String,
    /// What the model at hand has.
    pub found: String,
}

/// A cartridge that cannot be built, read, written or used with a model.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum CartridgeError {
    /// Its files.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// One field of a manifest is not what it should be.
    #[error("{path}: field '{field}' {problem}")]
    Field {
        /// The manifest file.
        path: PathBuf,
        /// The field's name.
        field: &'static str,
        /// What is wrong and what was expected.
        problem: String,
    },
    /// The pickle inside a `.pt` file was refused. Nothing in it was executed.
    #[error("{path}: data.pkl: {source}")]
    Pickle {
        /// The `.pt` file.
        path: PathBuf,
        /// Why it was refused.
        #[source]
        source: PickleError,
    },
    /// Sizes that contradict each other or are zero.
    #[error("cartridge {field}: {problem}")]
    Shape {
        /// The size in question.
        field: &'static str,
        /// What is wrong and what was expected.
        problem: String,
    },
    /// A layer's tensor has the wrong number of elements.
    #[error("cartridge layer {layer} {part}: {found} elements, expected {expected}")]
    Length {
        /// The layer, from 0.
        layer: usize,
        /// Key or value.
        part: Part,
        /// `kv_heads * slots * head_dim`.
        expected: usize,
        /// The number of elements given.
        found: usize,
    },
    /// A layer's tensor holds NaN, an infinity, or a number its element type cannot hold.
    #[error(
        "cartridge layer {layer} {part}: element {index} is {value}, expected a finite {dtype}"
    )]
    NotFinite {
        /// The layer, from 0.
        layer: usize,
        /// Key or value.
        part: Part,
        /// Position in the row-major `[kv_heads, slots, head_dim]` tensor.
        index: usize,
        /// The number found.
        value: f32,
        /// The element type that was to hold it.
        dtype: &'static str,
    },
    /// The content of a file is not a valid cartridge.
    #[error("{path}: {source}")]
    Content {
        /// The file.
        path: PathBuf,
        /// What is wrong with the content.
        #[source]
        source: Box<CartridgeError>,
    },
    /// The cartridge, or an adapter, was made for another model.
    #[error(
        "this {what} was made for {made_for} and does not fit {given}: {}. {advice}",
        list(differences)
    )]
    ModelMismatch {
        /// A cartridge or an adapter.
        what: &'static str,
        /// The model the cartridge was made for, with the start of its weights fingerprint.
        made_for: String,
        /// The model at hand, likewise.
        given: String,
        /// Every property that differs.
        differences: Vec<Difference>,
        /// What to do about it.
        advice: &'static str,
    },
}

impl CartridgeError {
    pub(super) fn read(path: &Path, source: io::Error) -> Self {
        FolderError::read(path, source).into()
    }

    pub(super) fn file(path: &Path, problem: impl Into<String>) -> Self {
        FolderError::file(path, problem).into()
    }

    pub(super) fn tensor(path: &Path, tensor: &str, problem: impl Into<String>) -> Self {
        FolderError::tensor(path, tensor, problem).into()
    }

    pub(super) fn shape(field: &'static str, problem: impl Into<String>) -> Self {
        Self::Shape {
            field,
            problem: problem.into(),
        }
    }

    /// Says in which file the content is that this error is about.
    pub(super) fn in_file(self, path: &Path) -> Self {
        Self::Content {
            path: path.to_owned(),
            source: Box::new(self),
        }
    }
}

impl From<WriteError> for CartridgeError {
    fn from(error: WriteError) -> Self {
        FolderError::from(error).into()
    }
}

fn list(differences: &[Difference]) -> String {
    let parts: Vec<String> = differences
        .iter()
        .map(|d| format!("{} is {}, expected {}", d.property, d.found, d.expected))
        .collect();
    parts.join("; ")
}
