//! Statistics on disk: one safetensors file with `second [p, p]`, `cross [q, p]` and `sums [2]` (the sum
//! of the weights, the energy of the targets) in f64, and in its header a JSON record of what is in them.

use std::collections::{BTreeMap, HashMap};
use std::fs::File;
use std::io::{self, BufReader, Read, Write};
use std::path::Path;

use cartridges_model::atomic_file::write_atomic;
use cartridges_model::digest::hex;
use safetensors::Dtype;
use safetensors::tensor::{Metadata, TensorInfo};
use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use crate::error::TransmuteError;
use crate::matrix::Matrix;
use crate::statistics::{CorpusId, CorpusShare, SiteStatistics};

/// The only format version there is so far.
const FORMAT_VERSION: u32 = 1;
/// A record of five thousand corpora is about 500 kB.
const MAX_HEADER: u64 = 4 << 20;
const RECORD: &str = "record";
/// Values that are encoded at a time.
const PIECE: usize = 8192;

#[derive(Debug, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
struct Record {
    format_version: u32,
    inputs: usize,
    outputs: usize,
    intercept: bool,
    corpora: BTreeMap<CorpusId, CorpusShare>,
    /// Of the tensors' bytes.
    sha256: String,
}

impl SiteStatistics {
    /// Saves them atomically: a reader sees the old file or the whole new one.
    ///
    /// # Errors
    /// [`TransmuteError::Write`]; an older file stays as it was.
    pub fn save(&self, path: &Path) -> Result<(), TransmuteError> {
        let mut hash = Sha256::new();
        let hashed = self.write_tensors(|bytes| {
            hash.update(bytes);
            Ok(())
        });
        let record = Record {
            format_version: FORMAT_VERSION,
            inputs: self.inputs,
            outputs: self.outputs,
            intercept: self.intercept,
            corpora: self.corpora.clone(),
            sha256: hex(&hash.finalize()),
        };
        let header = hashed
            .and_then(|()| header(&record))
            .map_err(|e| TransmuteError::file(path, e.to_string()))?;
        write_atomic(path, |w: &mut dyn Write| {
            w.write_all(&(header.len() as u64).to_le_bytes())?;
            w.write_all(&header)?;
            self.write_tensors(|bytes| w.write_all(bytes))
        })?;
        Ok(())
    }

    /// Loads what [`Self::save`] wrote.
    ///
    /// # Errors
    /// [`TransmuteError::Read`], or [`TransmuteError::File`] if the file is damaged: of another length
    /// than its header explains, with other content than its hash says, or with values that no rows give.
    pub fn load(path: &Path) -> Result<Self, TransmuteError> {
        let read = |source| TransmuteError::Read {
            path: path.to_owned(),
            source,
        };
        let wrong = |problem: String| TransmuteError::file(path, problem);
        let file = File::open(path).map_err(read)?;
        let length = file.metadata().map_err(read)?.len();
        let mut reader = BufReader::with_capacity(1 << 18, file);
        let (record, data_length) = read_header(&mut reader, length).map_err(wrong)?;
        let wide = |n: usize| n as u64;
        let p = wide(record.inputs).saturating_add(u64::from(record.intercept));
        let q = wide(record.outputs);
        let values = (p.saturating_mul(p.saturating_add(q))).saturating_add(2);
        if values.saturating_mul(8) != data_length {
            let problem =
                format!("holds {data_length} bytes of tensors, expected {values} values of f64");
            return Err(wrong(problem));
        }
        let mut statistics = Self::new(record.inputs, record.outputs, record.intercept)?;
        let mut hash = Sha256::new();
        let mut next = |values: &mut [f64]| -> Result<(), TransmuteError> {
            let mut bytes = [0; 8 * PIECE];
            for piece in values.chunks_mut(PIECE) {
                let bytes = &mut bytes[..8 * piece.len()];
                reader.read_exact(bytes).map_err(read)?;
                hash.update(&*bytes);
                for (value, bytes) in piece.iter_mut().zip(bytes.as_chunks().0) {
                    *value = f64::from_le_bytes(*bytes);
                }
            }
            match values.iter().find(|x| !x.is_finite()) {
                Some(odd) => Err(wrong(format!("holds {odd}, expected finite numbers"))),
                None => Ok(()),
            }
        };
        next(statistics.second_lower.values_mut())?;
        next(statistics.cross.values_mut())?;
        let mut sums = [0.0; 2];
        next(&mut sums)?;
        let found = hex(&hash.finalize());
        if found != record.sha256 {
            let expected = record.sha256;
            let problem = format!("its tensors have sha256 {found}, the header says {expected}");
            return Err(wrong(problem));
        }
        keep_lower(&mut statistics.second_lower)
            .map_err(|(i, j)| wrong(format!("tensor 'second' is not symmetric at {i}, {j}")))?;
        for share in record.corpora.values() {
            share.check().map_err(|e| wrong(e.to_string()))?;
        }
        [statistics.weight, statistics.target_energy] = sums;
        statistics.corpora = record.corpora;
        Ok(statistics)
    }

    /// The bytes of `second`, `cross` and `sums`, in this order.
    fn write_tensors(&self, mut write: impl FnMut(&[u8]) -> io::Result<()>) -> io::Result<()> {
        let mut put = |values: &[f64]| {
            let mut bytes = Vec::with_capacity(8 * PIECE);
            values.chunks(PIECE).try_for_each(|piece| {
                bytes.clear();
                bytes.extend(piece.iter().flat_map(|x| x.to_le_bytes()));
                write(&bytes)
            })
        };
        let width = self.width();
        let mut whole = vec![0.0; width];
        for (i, row) in self.second_lower.iter_rows().enumerate() {
            whole.copy_from_slice(row);
            for (j, value) in whole.iter_mut().enumerate().skip(i + 1) {
                *value = self.second_lower.values()[j * width + i];
            }
            put(&whole)?;
        }
        put(self.cross.values())?;
        put(&[self.weight, self.target_energy])
    }
}

fn header(record: &Record) -> io::Result<Vec<u8>> {
    let (p, q) = (
        record.inputs + usize::from(record.intercept),
        record.outputs,
    );
    let mut offset = 0;
    let tensors = [
        ("second", vec![p, p]),
        ("cross", vec![q, p]),
        ("sums", vec![2]),
    ];
    let infos = tensors.map(|(name, shape)| {
        let from = offset;
        offset += 8 * shape.iter().product::<usize>();
        let info = TensorInfo {
            dtype: Dtype::F64,
            shape,
            data_offsets: (from, offset),
        };
        (name.to_owned(), info)
    });
    let text = serde_json::to_string(record)?;
    let metadata = HashMap::from([(RECORD.to_owned(), text)]);
    let header = Metadata::new(Some(metadata), infos.into()).map_err(io::Error::other)?;
    let mut bytes = serde_json::to_vec(&header)?;
    // Padding keeps the tensors aligned for readers that map the file.
    bytes.resize(bytes.len().next_multiple_of(8), b' ');
    Ok(bytes)
}

/// The record, and the length of the data behind the header.
fn read_header(reader: &mut impl Read, length: u64) -> Result<(Record, u64), String> {
    let mut prefix = [0; 8];
    if length < 8 {
        return Err(format!("has {length} bytes, too short for safetensors"));
    }
    let text = |e: io::Error| e.to_string();
    reader.read_exact(&mut prefix).map_err(text)?;
    let size = u64::from_le_bytes(prefix);
    if size > MAX_HEADER || size > length - 8 {
        return Err(format!(
            "claims a header of {size} bytes; the file has {length}, at most {MAX_HEADER} are read"
        ));
    }
    let mut bytes = vec![0; size as usize];
    reader.read_exact(&mut bytes).map_err(text)?;
    let bad = |e: serde_json::Error| format!("bad safetensors header: {e}");
    let found: Metadata = serde_json::from_slice(&bytes).map_err(bad)?;
    let record = found.metadata().as_ref().and_then(|m| m.get(RECORD));
    let record = record.ok_or("has no record of what is in it; expected saved statistics")?;
    let record: Record = serde_json::from_str(record).map_err(|e| format!("its record: {e}"))?;
    if record.format_version != FORMAT_VERSION {
        let version = record.format_version;
        return Err(format!(
            "has format version {version}, this program reads version {FORMAT_VERSION}"
        ));
    }
    let (p, q) = (
        record.inputs.saturating_add(record.intercept.into()),
        record.outputs,
    );
    let expected = [
        ("second", vec![p, p]),
        ("cross", vec![q, p]),
        ("sums", vec![2]),
    ];
    let names = found.offset_keys();
    for (i, (name, shape)) in expected.iter().enumerate() {
        let info = found
            .info(name)
            .filter(|_| names.get(i).is_some_and(|n| n == name));
        if info.is_none_or(|info| info.dtype != Dtype::F64 || info.shape != *shape) {
            return Err(format!(
                "tensor '{name}' is missing or out of place; expected F64 {shape:?}, tensor {i} of 3"
            ));
        }
    }
    if names.len() != expected.len() {
        return Err(format!("holds {} tensors, expected 3", names.len()));
    }
    Ok((record, length - 8 - size))
}

/// Clears what is above the diagonal, or says where it is not what is below.
fn keep_lower(matrix: &mut Matrix) -> Result<(), (usize, usize)> {
    let size = matrix.rows();
    let values = matrix.values_mut();
    for i in 0..size {
        for j in i + 1..size {
            if values[i * size + j] != values[j * size + i] {
                return Err((i, j));
            }
            values[i * size + j] = 0.0;
        }
    }
    Ok(())
}
