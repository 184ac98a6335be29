//! The one view on weights that the rest of the crate sees.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::Path;
use std::sync::OnceLock;

use cartridges_ops::{PackedLayout, PackedRows, Packing};
use rayon::prelude::*;

use crate::decoder::ModelConfig;

use super::dequant::dequantise;
use super::gguf::{self, Gguf, TokenizerParts};
use super::mapped::MappedFile;
use super::packed::Blocks;
use super::{Dtype, WeightsError, safetensors_folder};

/// Values that one task of the thread pool unpacks: 64 KiB of `f32`, a multiple of every block.
const TASK_VALUES: usize = 1 << 14;

/// A tensor in the host's memory.
#[derive(Debug, Clone, PartialEq)]
pub struct HostTensor {
    /// Row-major shape, Hugging Face order: `[out, in]` for a linear map.
    pub shape: Vec<usize>,
    /// `shape.iter().product()` values.
    pub values: Vec<f32>,
}

/// How a tensor is stored.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Stored {
    /// A format that can be read.
    Known(Dtype),
    /// Another one, by name: the tensor is listed, reading it is an error.
    Foreign(String),
}

/// Where a tensor is and how it is to be read.
#[derive(Debug)]
pub(super) struct Entry {
    pub(super) shape: Vec<usize>,
    pub(super) stored: Stored,
    /// Index into [`Weights::files`].
    pub(super) file: usize,
    /// Bytes of the file, checked when the file was opened to be as long as shape and format say.
    pub(super) range: Range<usize>,
    /// Rows per head, if the file keeps the two rotary halves of each head interleaved.
    pub(super) interleaved_head: Option<usize>,
}

/// Where the entries come from.
#[derive(Debug)]
enum Source {
    Safetensors,
    Gguf(Box<Gguf>),
}

/// The weights of a model: memory-mapped files and a table of the tensors in them, by Hugging Face
/// name.
///
/// Tensors are unpacked to `f32` one at a time, in parallel, and their pages are given back to the
/// system afterwards, so that loading a model needs little more memory than the result.
#[derive(Debug)]
pub struct Weights {
    pub(super) files: Vec<MappedFile>,
    pub(super) entries: BTreeMap<String, Entry>,
    name: String,
    source: Source,
    head_is_embedding: OnceLock<bool>,
}

impl Weights {
    /// Opens a folder in Hugging Face layout or, if `path` is a file, a GGUF file.
    ///
    /// # Errors
    /// As [`Weights::open_folder`] and [`Weights::open_gguf`].
    pub fn open(path: &Path) -> Result<Self, WeightsError> {
        if path.is_dir() {
            Self::open_folder(path)
        } else {
            Self::open_gguf(path)
        }
    }

    /// Opens `model.safetensors`, or the shards of `model.safetensors.index.json`, in `folder`.
    ///
    /// Tensors of other types than F32, F16 and BF16 are listed but cannot be read.
    ///
    /// # Errors
    /// If neither file is there, a header is damaged, the index names a file outside the folder, or
    /// a tensor of the index is not in its shard.
    pub fn open_folder(folder: &Path) -> Result<Self, WeightsError> {
        let (files, entries) = safetensors_folder::open(folder)?;
        Ok(Self {
            files,
            entries,
            name: folder.display().to_string(),
            source: Source::Safetensors,
            head_is_embedding: OnceLock::new(),
        })
    }

    /// Opens a GGUF file, version 2 or 3, little endian.
    ///
    /// Names, shapes and the row order of q and k are turned into Hugging Face's; tensors without
    /// a Hugging Face name keep their own.
    ///
    /// # Errors
    /// If the file is damaged or holds a tensor in a format that is not in [`Dtype`].
    pub fn open_gguf(path: &Path) -> Result<Self, WeightsError> {
        let file = MappedFile::open(path)?;
        let gguf = Gguf::parse(file.bytes(), file.name())?;
        let entries = gguf::layout::entries(&gguf)?;
        Ok(Self {
            name: file.name().to_owned(),
            files: vec![file],
            entries,
            source: Source::Gguf(Box::new(gguf)),
            head_is_embedding: OnceLock::new(),
        })
    }

    /// The GGUF header, if this is a GGUF file.
    pub fn gguf(&self) -> Option<&Gguf> {
        match &self.source {
            Source::Gguf(gguf) => Some(gguf),
            Source::Safetensors => None,
        }
    }

    /// The file or folder these weights came from, as text for messages.
    pub fn source_name(&self) -> &str {
        &self.name
    }

    /// All tensors, sorted by name.
    pub fn names(&self) -> impl Iterator<Item = &str> {
        self.entries.keys().map(String::as_str)
    }

    /// Row-major shape in Hugging Face order, `[out, in]` for a linear map.
    pub fn shape(&self, name: &str) -> Option<&[usize]> {
        self.entries.get(name).map(|e| e.shape.as_slice())
    }

    /// The stored format's name, as in `BF16` or `Q4_K`.
    pub fn dtype_name(&self, name: &str) -> Option<&str> {
        self.entries.get(name).map(|e| match &e.stored {
            Stored::Known(dtype) => dtype.name(),
            Stored::Foreign(foreign) => foreign,
        })
    }

    /// Bytes that the tensor takes in its file.
    pub fn stored_bytes(&self, name: &str) -> Option<usize> {
        self.entries.get(name).map(|e| e.range.len())
    }

    /// Gives `look` the bytes of a tensor as they stand in the file; `None` if there is no such tensor.
    pub fn with_stored<T>(&self, name: &str, look: impl FnOnce(&[u8]) -> T) -> Option<T> {
        let entry = self.entries.get(name)?;
        let file = &self.files[entry.file];
        file.expect(&entry.range);
        let seen = look(self.raw(entry));
        file.release(&entry.range);
        Some(seen)
    }

    /// Reads a tensor as `f32`.
    ///
    /// # Errors
    /// If there is no such tensor, its format is not in [`Dtype`], or a value is not finite.
    pub fn read(&self, name: &str) -> Result<HostTensor, WeightsError> {
        let (entry, dtype) = self.readable(name)?;
        let mut values = vec![0.0; entry.shape.iter().product()];
        self.fill(name, entry, dtype, &mut values)?;
        Ok(HostTensor {
            shape: entry.shape.clone(),
            values,
        })
    }

    /// Reads a tensor as `f32` into `out`, which must have exactly its length.
    ///
    /// # Errors
    /// As [`Weights::read`], and if the length differs. `out` holds unspecified values then.
    pub fn read_into(&self, name: &str, out: &mut [f32]) -> Result<(), WeightsError> {
        let (entry, dtype) = self.readable(name)?;
        let expected = entry.shape.iter().product();
        if out.len() != expected {
            return Err(WeightsError::BufferLength {
                tensor: name.to_owned(),
                expected,
                found: out.len(),
            });
        }
        self.fill(name, entry, dtype, out)
    }

    /// Reads a matrix as packed rows. Blocks that are stored like this already are taken as they are;
    /// other values are packed anew.
    ///
    /// # Errors
    /// As [`Weights::read`].
    pub fn read_packed(&self, name: &str, packing: Packing) -> Result<PackedRows, WeightsError> {
        let (entry, dtype) = self.readable(name)?;
        let width = entry.shape.last().copied().unwrap_or(1);
        let Some(blocks) = Blocks::of(dtype, packing, width) else {
            let tensor = self.read(name)?;
            return Ok(PackedRows::quantise(
                &tensor.values,
                PackedLayout { packing, width },
            ));
        };
        let file = &self.files[entry.file];
        file.expect(&entry.range);
        let rows = blocks.take(self.raw(entry), |row| {
            stored_row(entry.interleaved_head, row)
        });
        file.release(&entry.range);
        rows.map_err(|(index, value)| WeightsError::NotFinite {
            file: file.name().to_owned(),
            tensor: name.to_owned(),
            index,
            value,
        })
    }

    /// Whether the output head is stored and is, byte for byte, the embedding table.
    ///
    /// False if either is missing. The bytes are compared once; later calls are free.
    pub fn head_is_embedding(&self) -> bool {
        *self.head_is_embedding.get_or_init(|| {
            let table = self.entries.get("model.embed_tokens.weight");
            let head = self.entries.get("lm_head.weight");
            let (Some(table), Some(head)) = (table, head) else {
                return false;
            };
            if table.stored != head.stored || table.shape != head.shape {
                return false;
            }
            let same = self.raw(table) == self.raw(head);
            for entry in [table, head] {
                self.files[entry.file].release(&entry.range);
            }
            same
        })
    }

    /// The model description in a GGUF file's metadata; `None` for a folder, which has a
    /// `config.json`.
    ///
    /// Embedding and head count as tied if there is no head or it equals the embedding table.
    ///
    /// # Errors
    /// If the architecture is not llama, qwen2 or qwen3, an entry is missing or out of range, or the
    /// file asks for something that would change the numbers (sliding windows, other rope scalings,
    /// experts, partial rotary, further biases).
    pub fn config(&self) -> Option<Result<ModelConfig, WeightsError>> {
        self.gguf().map(|g| gguf::model_config::read(g, self))
    }

    /// The tokenizer of a GGUF file; `None` for a folder, which has a `tokenizer.json`.
    ///
    /// # Errors
    /// If an entry is missing, has another type, or does not fit the others.
    pub fn tokenizer_parts(&self) -> Option<Result<TokenizerParts, WeightsError>> {
        self.gguf().map(gguf::tokenizer_metadata::read)
    }

    /// The bytes of a tensor as they stand in the file.
    pub(super) fn raw(&self, entry: &Entry) -> &[u8] {
        // Ranges were checked against the file when it was opened.
        &self.files[entry.file].bytes()[entry.range.clone()]
    }

    fn readable(&self, name: &str) -> Result<(&Entry, Dtype), WeightsError> {
        let Some(entry) = self.entries.get(name) else {
            return Err(WeightsError::MissingTensor {
                file: self.name.clone(),
                tensor: name.to_owned(),
            });
        };
        match &entry.stored {
            Stored::Known(dtype) => Ok((entry, *dtype)),
            Stored::Foreign(foreign) => Err(WeightsError::UnsupportedDtype {
                file: self.files[entry.file].name().to_owned(),
                tensor: name.to_owned(),
                dtype: foreign.clone(),
            }),
        }
    }

    fn fill(
        &self,
        name: &str,
        entry: &Entry,
        dtype: Dtype,
        out: &mut [f32],
    ) -> Result<(), WeightsError> {
        let file = &self.files[entry.file];
        file.expect(&entry.range);
        let bytes = self.raw(entry);
        let bad = match entry.interleaved_head {
            None => fill_plain(dtype, bytes, out),
            Some(head_rows) => fill_interleaved(dtype, bytes, entry.shape[0], head_rows, out),
        };
        file.release(&entry.range);
        match bad {
            None => Ok(()),
            Some(index) => Err(WeightsError::NotFinite {
                file: file.name().to_owned(),
                tensor: name.to_owned(),
                index,
                value: out[index],
            }),
        }
    }
}

/// Unpacks values in stored order; returns the index of the first that is not finite.
fn fill_plain(dtype: Dtype, bytes: &[u8], out: &mut [f32]) -> Option<usize> {
    let task_bytes = TASK_VALUES / dtype.block_values() * dtype.block_bytes();
    out.par_chunks_mut(TASK_VALUES)
        .zip(bytes.par_chunks(task_bytes))
        .enumerate()
        .filter_map(|(task, (values, raw))| {
            dequantise(dtype, raw, values);
            first_bad(values).map(|i| task * TASK_VALUES + i)
        })
        .min()
}

/// Where row `row` of the Hugging Face layout is stored. In heads of `head_rows` interleaved rows the
/// stored row `2 j + s` is row `s * head_rows / 2 + j` (llama's GGUF converter interleaves the two halves
/// of every head, because GGML rotates neighbours).
fn stored_row(head_rows: Option<usize>, row: usize) -> usize {
    let Some(head_rows) = head_rows else {
        return row;
    };
    let (head, within, half) = (row / head_rows, row % head_rows, head_rows / 2);
    head * head_rows + 2 * (within % half) + within / half
}

/// Unpacks `rows` rows of heads of `head_rows` interleaved rows each.
fn fill_interleaved(
    dtype: Dtype,
    bytes: &[u8],
    rows: usize,
    head_rows: usize,
    out: &mut [f32],
) -> Option<usize> {
    // Rows are whole blocks and none is empty; the layout was checked when the file was opened.
    let columns = out.len() / rows;
    let row_bytes = bytes.len() / rows;
    let task_rows = (TASK_VALUES / columns).max(1);
    out.par_chunks_mut(task_rows * columns)
        .enumerate()
        .filter_map(|(task, values)| {
            for (i, row_values) in values.chunks_exact_mut(columns).enumerate() {
                let stored = stored_row(Some(head_rows), task * task_rows + i);
                let raw = &bytes[stored * row_bytes..][..row_bytes];
                dequantise(dtype, raw, row_values);
            }
            first_bad(values).map(|i| task * task_rows * columns + i)
        })
        .min()
}

fn first_bad(values: &[f32]) -> Option<usize> {
    // The search can stop early and so is not vectorised; the fold is.
    let finite = values.iter().fold(true, |ok, v| ok & v.is_finite());
    if finite {
        return None;
    }
    values.iter().position(|v| !v.is_finite())
}
