//! The header of a GGUF file.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Range;

use super::cursor::Cursor;
use super::value::{self, Value};
use crate::weights::{Dtype, WeightsError};

/// Alignment of tensor data when `general.alignment` is absent.
const DEFAULT_ALIGNMENT: u64 = 32;

/// Largest alignment that is believed, in bytes.
const ALIGNMENT_LIMIT: u64 = 1 << 20;

/// GGML tensors have at most four dimensions.
const DIMENSION_LIMIT: u32 = 4;

/// A parsed header: what a GGUF file says about itself and where its tensors are.
#[derive(Debug, Clone)]
pub struct Gguf {
    /// Format version, 2 or 3.
    pub version: u32,
    /// Metadata by key.
    pub metadata: BTreeMap<String, Value>,
    /// Tensors in file order, names all different.
    pub tensors: Vec<TensorInfo>,
    pub(super) file: String,
}

/// One tensor of a GGUF file.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TensorInfo {
    /// GGUF's own name, as in `blk.0.attn_q.weight`.
    pub name: String,
    /// Row-major shape: the file's dimensions, which begin with the fastest, reversed.
    pub shape: Vec<usize>,
    /// Storage format.
    pub dtype: Dtype,
    /// Bytes of the file that hold it: in range, and as many as shape and format need.
    pub range: Range<usize>,
}

impl Gguf {
    /// Parses the header of `bytes`, the whole content of a file that messages call `file`.
    ///
    /// # Errors
    /// If anything is not as the format says: magic, version, a length or count that the file's size
    /// cannot hold, text that is not UTF-8, an unknown type, a name that stands twice, a tensor that
    /// is misaligned or reaches outside the file.
    pub fn parse(bytes: &[u8], file: &str) -> Result<Self, WeightsError> {
        let mut cursor = Cursor::new(bytes, file);
        if cursor.fixed::<4>("the magic")? != *b"GGUF" {
            return Err(WeightsError::Header {
                file: file.to_owned(),
                at: 0,
                reason: "not a GGUF file".to_owned(),
            });
        }
        let version = cursor.u32("the version")?;
        match version {
            2 | 3 => {}
            _ if (1..=3).contains(&version.swap_bytes()) => {
                return Err(cursor.error("big-endian GGUF is not supported"));
            }
            _ => return Err(cursor.error(format!("GGUF version {version}, expected 2 or 3"))),
        }
        // Fewest bytes: name length, one dimension, count, type, offset; key length, type, value.
        let tensor_count = cursor.count(32, "the number of tensors")?;
        let entry_count = cursor.count(13, "the number of metadata entries")?;
        let metadata = read_metadata(&mut cursor, entry_count)?;
        let mut gguf = Self {
            version,
            metadata,
            tensors: Vec::new(),
            file: file.to_owned(),
        };
        let alignment = gguf.alignment()?;
        let raw = (0..tensor_count)
            .map(|_| RawInfo::read(&mut cursor))
            .collect::<Result<Vec<_>, _>>()?;
        let data = (cursor.position() as u64).next_multiple_of(alignment);
        let mut seen = BTreeSet::new();
        for info in raw {
            let info = info
                .locate(data, alignment, bytes.len())
                .map_err(|(tensor, problem)| problem.into_error(file, tensor))?;
            if !seen.insert(info.name.clone()) {
                return Err(WeightsError::Tensor {
                    file: file.to_owned(),
                    tensor: info.name,
                    reason: "stands twice".to_owned(),
                });
            }
            gguf.tensors.push(info);
        }
        Ok(gguf)
    }

    fn alignment(&self) -> Result<u64, WeightsError> {
        const KEY: &str = "general.alignment";
        let alignment = self.unsigned(KEY)?.unwrap_or(DEFAULT_ALIGNMENT);
        if !alignment.is_power_of_two() || alignment > ALIGNMENT_LIMIT {
            return Err(self.metadata_error(
                KEY,
                alignment,
                format!("a power of two up to {ALIGNMENT_LIMIT}"),
            ));
        }
        Ok(alignment)
    }
}

fn read_metadata(
    cursor: &mut Cursor,
    count: usize,
) -> Result<BTreeMap<String, Value>, WeightsError> {
    let mut metadata = BTreeMap::new();
    for _ in 0..count {
        let key = cursor.text("a metadata key")?;
        let value = value::read(cursor, &key)?;
        if metadata.contains_key(&key) {
            return Err(cursor.error(format!("metadata {key} stands twice")));
        }
        metadata.insert(key, value);
    }
    Ok(metadata)
}

/// A tensor's description as it stands in the file.
struct RawInfo {
    name: String,
    dimensions: Vec<u64>,
    kind: u32,
    offset: u64,
}

enum Problem {
    Foreign(String),
    Other(String),
}

impl Problem {
    fn into_error(self, file: &str, tensor: String) -> WeightsError {
        let file = file.to_owned();
        match self {
            Self::Foreign(dtype) => WeightsError::UnsupportedDtype {
                file,
                tensor,
                dtype,
            },
            Self::Other(reason) => WeightsError::Tensor {
                file,
                tensor,
                reason,
            },
        }
    }
}

impl RawInfo {
    fn read(cursor: &mut Cursor) -> Result<Self, WeightsError> {
        let name = cursor.text("a tensor name")?;
        let count = cursor.u32("a number of dimensions")?;
        if !(1..=DIMENSION_LIMIT).contains(&count) {
            return Err(cursor.error(format!(
                "tensor {name} has {count} dimensions, expected 1 to {DIMENSION_LIMIT}"
            )));
        }
        let dimensions = (0..count)
            .map(|_| cursor.u64("a dimension"))
            .collect::<Result<_, _>>()?;
        Ok(Self {
            name,
            dimensions,
            kind: cursor.u32("a tensor type")?,
            offset: cursor.u64("a tensor offset")?,
        })
    }

    /// Checks the description and turns the offset into a range of the file.
    fn locate(
        self,
        data: u64,
        alignment: u64,
        file_len: usize,
    ) -> Result<TensorInfo, (String, Problem)> {
        match self.try_locate(data, alignment, file_len) {
            Ok((shape, dtype, range)) => Ok(TensorInfo {
                name: self.name,
                shape,
                dtype,
                range,
            }),
            Err(problem) => Err((self.name, problem)),
        }
    }

    fn try_locate(
        &self,
        data: u64,
        alignment: u64,
        file_len: usize,
    ) -> Result<(Vec<usize>, Dtype, Range<usize>), Problem> {
        let other = |reason: String| Problem::Other(reason);
        let dtype = Dtype::from_ggml(self.kind).map_err(Problem::Foreign)?;
        let shape: Vec<usize> = self
            .dimensions
            .iter()
            .rev()
            .map(|d| usize::try_from(*d).ok().filter(|d| *d > 0))
            .collect::<Option<_>>()
            .ok_or_else(|| other(format!("impossible dimensions {:?}", self.dimensions)))?;
        let columns = shape.last().copied().unwrap_or(1);
        if !columns.is_multiple_of(dtype.block_values()) {
            return Err(other(format!(
                "rows of {columns} values are not whole {} blocks of {}",
                dtype.name(),
                dtype.block_values()
            )));
        }
        let length = shape
            .iter()
            .try_fold(1usize, |product, d| product.checked_mul(*d))
            .filter(|values| values.checked_mul(size_of::<f32>()).is_some())
            .and_then(|values| dtype.byte_len(values))
            .ok_or_else(|| other(format!("shape {shape:?} overflows")))?;
        if !self.offset.is_multiple_of(alignment) {
            return Err(other(format!(
                "offset {} is not a multiple of {alignment}",
                self.offset
            )));
        }
        let range = data
            .checked_add(self.offset)
            .and_then(|start| usize::try_from(start).ok())
            .and_then(|start| Some(start..start.checked_add(length)?))
            .filter(|range| range.end <= file_len)
            .ok_or_else(|| {
                other(format!(
                    "{length} bytes at offset {} of the data, which begins at byte {data}, \
                     do not fit a file of {file_len} bytes",
                    self.offset
                ))
            })?;
        Ok((shape, dtype, range))
    }
}
