//! What can go wrong with an adapter.

use std::path::{Path, PathBuf};

use super::target::Target;
use crate::cartridge::CartridgeError;
use crate::tensor_folder::FolderError;

/// An adapter that cannot be built, read, written or used with a model.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum AdapterError {
    /// Its files.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// A field of its manifest.
    #[error("{path}: field '{field}' {problem}")]
    Field {
        /// The manifest file.
        path: PathBuf,
        /// The field's name.
        field: String,
        /// What is wrong and what was expected.
        problem: String,
    },
    /// A path that names no place of a decoder.
    #[error(
        "'{0}' is no target of an adapter; expected model.layers.N.SITE with SITE one of \
         self_attn.q_proj, .k_proj, .v_proj, .o_proj, mlp.gate_proj, .up_proj, .down_proj, or \
         model.norm, or lm_head"
    )]
    UnknownTarget(String),
    /// One of its patches.
    #[error("adapter at {target}: {problem}")]
    Patch {
        /// Where.
        target: Target,
        /// What is wrong and what was expected.
        problem: String,
    },
    /// Its patches have ranks too different to be padded to one.
    #[error(
        "padding every patch to the largest rank, {rank}, would take {bytes} bytes, most of them zeros; \
         give the patches similar ranks"
    )]
    Ranks {
        /// The largest rank.
        rank: usize,
        /// Bytes with padding.
        bytes: usize,
    },
    /// A `.pt` file that cannot be read.
    #[error(transparent)]
    Torch(Box<CartridgeError>),
    /// It has no patches.
    #[error("the adapter changes nothing: it has no patches")]
    Empty,
    /// It was made for another model.
    #[error(transparent)]
    OtherModel(Box<CartridgeError>),
}

impl AdapterError {
    pub(super) fn patch(target: Target, problem: impl Into<String>) -> Self {
        Self::Patch {
            target,
            problem: problem.into(),
        }
    }

    pub(super) fn field(path: &Path, field: impl Into<String>, problem: impl Into<String>) -> Self {
        Self::Field {
            path: path.to_owned(),
            field: field.into(),
            problem: problem.into(),
        }
    }
}

impl From<CartridgeError> for AdapterError {
    fn from(error: CartridgeError) -> Self {
        Self::Torch(Box::new(error))
    }
}
