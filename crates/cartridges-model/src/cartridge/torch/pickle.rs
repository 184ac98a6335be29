//! What a pickle holds: the values a cartridge file can have, and why others are refused.
//!
//! All values live in one arena and point to each other by index, so shared values cost nothing, cycles
//! are harmless, nothing recurses, and memory grows by a small constant per byte of the pickle.

use std::ops::Range;

use super::machine::Machine;
use crate::cartridge::dtype::CartridgeDtype;

/// Index of a value in the arena.
pub(crate) type Id = usize;

/// Why a pickle was refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PickleError {
    /// A class or function that does not belong into a cartridge or an adapter.
    #[error(
        "refers to Python's '{name}', which does not belong into such a file; nothing was executed"
    )]
    UnknownClass {
        /// Module and name, with a dot between.
        name: String,
    },
    /// An operation that the reference's files do not use.
    #[error("unknown operation 0x{code:02x} at byte {offset}")]
    UnknownOperation {
        /// The byte.
        code: u8,
        /// Where it is.
        offset: usize,
    },
    /// The pickle ends in the middle of something.
    #[error("ends at byte {offset}, in the middle of a value")]
    Truncated {
        /// Where it ends.
        offset: usize,
    },
    /// An operation on something it does not fit.
    #[error("at byte {offset}: {problem}")]
    Malformed {
        /// Where the operation is.
        offset: usize,
        /// What is wrong.
        problem: &'static str,
    },
}

/// Classes and functions a file may refer to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Class {
    OrderedDict,
    Set,
    ParameterList,
    RebuildTensor,
    RebuildParameter,
    Storage(CartridgeDtype),
}

impl Class {
    pub(crate) fn find(module: &str, name: &str) -> Result<Self, PickleError> {
        Ok(match (module, name) {
            ("collections", "OrderedDict") => Self::OrderedDict,
            ("__builtin__" | "builtins", "set") => Self::Set,
            ("torch.nn.modules.container", "ParameterList") => Self::ParameterList,
            ("torch._utils", "_rebuild_tensor_v2") => Self::RebuildTensor,
            ("torch._utils", "_rebuild_parameter") => Self::RebuildParameter,
            ("torch", "FloatStorage") => Self::Storage(CartridgeDtype::F32),
            ("torch", "HalfStorage") => Self::Storage(CartridgeDtype::F16),
            ("torch", "BFloat16Storage") => Self::Storage(CartridgeDtype::Bf16),
            _ => {
                let name = format!("{module}.{name}").chars().take(200).collect();
                return Err(PickleError::UnknownClass { name });
            }
        })
    }
}

/// A view of a storage, not yet compared with the storage's entry in the ZIP container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Tensor {
    /// Element type.
    pub(crate) dtype: CartridgeDtype,
    /// Number of the entry below `data/`.
    pub(crate) storage: u64,
    /// Elements in the storage.
    pub(crate) storage_len: u64,
    /// First element of the view.
    pub(crate) offset: u64,
    /// Size per axis, of a cartridge `[1, kv_heads, slots, head_dim]`; ones stand before fewer axes.
    pub(crate) shape: [u64; 4],
    /// Elements from one index to the next, per axis.
    pub(crate) stride: [u64; 4],
    /// How many axes it has; at most four.
    pub(crate) axes: u8,
}

/// A value.
#[derive(Debug)]
pub(crate) enum Node {
    None,
    Bool,
    Int(i64),
    /// A number that nothing here needs.
    Float,
    /// Position of UTF-8 text in the pickle.
    Text(Range<u32>),
    Class(Class),
    Tuple(Vec<Id>),
    List(Vec<Id>),
    Dict(Vec<(Id, Id)>),
    Set,
    Storage {
        dtype: CartridgeDtype,
        number: u64,
        len: u64,
    },
    Tensor(Box<Tensor>),
    /// A module list with the state dict that was given to it.
    ParameterList(Option<Id>),
}

/// All values of a pickle.
pub(crate) struct Pickle<'a> {
    pub(crate) bytes: &'a [u8],
    pub(crate) nodes: Vec<Node>,
    pub(crate) root: Id,
}

impl<'a> Pickle<'a> {
    /// Runs the machine over `bytes`. The caller bounds their number.
    pub(crate) fn parse(bytes: &'a [u8]) -> Result<Self, PickleError> {
        Machine::new(bytes).run()
    }

    pub(crate) fn root(&self) -> &Node {
        &self.nodes[self.root]
    }

    pub(crate) fn node(&self, id: Id) -> &Node {
        &self.nodes[id]
    }

    /// The text of a text value.
    pub(crate) fn text(&self, id: Id) -> Option<&'a str> {
        text(self.bytes, &self.nodes[id])
    }
}

/// The text at the position that a text value holds.
pub(crate) fn text<'a>(bytes: &'a [u8], node: &Node) -> Option<&'a str> {
    match node {
        Node::Text(range) => {
            str::from_utf8(bytes.get(range.start as usize..range.end as usize)?).ok()
        }
        _ => None,
    }
}
