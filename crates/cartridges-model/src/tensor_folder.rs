//! Two files in one folder that belong together: tensors in safetensors, and a JSON manifest that holds
//! their SHA-256.
//!
//! Saving over an older pair never leaves two files that do not belong together, even when the
//! program is killed between two steps: the new tensors and the new manifest are first written whole
//! beside the old ones; then the tensors are renamed into place, then the manifest. Between the two
//! renames the waiting manifest is the one whose hash fits, and loading finds it there.
//! One program at a time may save into a folder; any number may load from it meanwhile.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, BufReader, Read, Write};
use std::path::{Path, PathBuf};

use safetensors::tensor::{Dtype, Metadata, TensorInfo};
use serde::Serialize;
use serde::de::DeserializeOwned;
use sha2::{Digest, Sha256};

use crate::atomic_file::{WriteError, write_atomic, write_bytes};
use crate::cartridge::CartridgeDtype;
use crate::digest::hex;

/// A header for a thousand layers is about 200 kB.
const MAX_HEADER: u64 = 4 << 20;
/// The manifest holds settings, not data.
const MAX_MANIFEST: u64 = 4 << 20;

/// Two files that cannot be read or written.
#[derive(Debug, thiserror::Error)]
pub enum FolderError {
    /// A file could not be read.
    #[error("cannot read {path}: {source}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system said.
        #[source]
        source: io::Error,
    },
    /// A file could not be written; what was there before is unchanged.
    #[error(transparent)]
    Write(#[from] WriteError),
    /// A file as a whole is not what it should be.
    #[error("{path}: {problem}")]
    File {
        /// The file.
        path: PathBuf,
        /// What is wrong and what was expected.
        problem: String,
    },
    /// One tensor is missing or not what it should be.
    #[error("{path}: tensor '{tensor}' {problem}")]
    Tensor {
        /// The file.
        path: PathBuf,
        /// The tensor's name in the file.
        tensor: String,
        /// What is wrong and what was expected.
        problem: String,
    },
    /// The tensor file is not the one its manifest describes.
    #[error(
        "{path}: the content has sha256 {found}, but {manifest} describes {expected}; \
         the file was damaged, replaced or copied without its manifest"
    )]
    HashMismatch {
        /// The tensor file.
        path: PathBuf,
        /// The manifest file.
        manifest: PathBuf,
        /// The hash in the manifest.
        expected: String,
        /// The hash of the tensor file.
        found: String,
    },
}

impl FolderError {
    pub(crate) fn read(path: &Path, source: io::Error) -> Self {
        Self::Read {
            path: path.to_owned(),
            source,
        }
    }

    pub(crate) fn file(path: &Path, problem: impl Into<String>) -> Self {
        Self::File {
            path: path.to_owned(),
            problem: problem.into(),
        }
    }

    pub(crate) fn tensor(path: &Path, tensor: &str, problem: impl Into<String>) -> Self {
        Self::Tensor {
            path: path.to_owned(),
            tensor: tensor.to_owned(),
            problem: problem.into(),
        }
    }
}

/// The JSON half.
pub trait Manifest: Serialize + DeserializeOwned {
    /// What the reader of this kind of folder gives.
    type Error: From<FolderError>;

    /// Names of the tensor file and of the manifest.
    const FILES: [&'static str; 2];

    /// SHA-256 of the whole tensor file, 64 lower-case hexadecimal digits.
    fn sha256(&self) -> &str;

    /// Checks the fields against each other; `path` is named in errors.
    fn validate(&self, path: &Path) -> Result<(), Self::Error>;
}

/// A tensor that is to be written.
pub struct NamedTensor<'a> {
    /// Its name in the file.
    pub name: String,
    /// Its shape.
    pub shape: Vec<usize>,
    /// Its elements, row-major.
    pub values: &'a [f32],
}

/// A tensor file as it was found: nothing in it has been compared with a manifest yet.
pub struct StoredTensors {
    /// Hash of the whole file.
    pub sha256: String,
    /// The element type of all tensors.
    pub dtype: CartridgeDtype,
    /// Shape and elements by name.
    pub tensors: HashMap<String, (Vec<usize>, Vec<f32>)>,
}

/// Saves both files in the folder `dir`, which is made if it is missing. `describe` makes the manifest
/// for the hash of the tensors.
pub fn save<M: Manifest>(
    dir: &Path,
    tensors: &[NamedTensor<'_>],
    dtype: CartridgeDtype,
    describe: impl FnOnce(String) -> M,
) -> Result<M, M::Error> {
    let [tensor_file, manifest_file] = M::FILES;
    let waiting_tensors = dir.join(waiting(tensor_file));
    let mut sha256 = String::new();
    write_atomic(&waiting_tensors, |w| {
        sha256 = write_tensors(w, tensors, dtype, None)?;
        Ok(())
    })
    .map_err(FolderError::from)?;
    let manifest = describe(sha256);
    let waiting_manifest = dir.join(waiting(manifest_file));
    let mut json = serde_json::to_vec_pretty(&manifest)
        .map_err(|e| FolderError::file(&waiting_manifest, e.to_string()))?;
    json.push(b'\n');
    write_bytes(&waiting_manifest, &json).map_err(FolderError::from)?;
    rename(&waiting_tensors, &dir.join(tensor_file))?;
    sync_folder(dir);
    rename(&waiting_manifest, &dir.join(manifest_file))?;
    sync_folder(dir);
    Ok(manifest)
}

/// Loads both files from the folder, or from the path of either file in it.
pub fn load<M: Manifest>(path: &Path) -> Result<(StoredTensors, M), M::Error> {
    let dir = folder_of::<M>(path)?;
    match load_pair::<M>(&dir)? {
        Ok(pair) => Ok(pair),
        // A save by another program may have passed between our two reads.
        Err(_) => Ok(load_pair::<M>(&dir)??),
    }
}

/// Reads only the manifest: from the folder, or from the path of either file in it. The tensors are
/// not looked at, so their hash is not checked.
pub fn load_manifest<M: Manifest>(path: &Path) -> Result<M, M::Error> {
    read_manifest(&folder_of::<M>(path)?.join(M::FILES[1]))
}

/// The file with the tensors, for messages.
pub fn tensor_path<M: Manifest>(path: &Path) -> Result<PathBuf, FolderError> {
    Ok(folder_of::<M>(path)?.join(M::FILES[0]))
}

fn waiting(file: &str) -> String {
    format!(".{file}.new")
}

fn folder_of<M: Manifest>(path: &Path) -> Result<PathBuf, FolderError> {
    let about = fs::metadata(path).map_err(|e| FolderError::read(path, e))?;
    if about.is_dir() {
        return Ok(path.to_owned());
    }
    let name = path.file_name().unwrap_or_default();
    let [tensors, manifest] = M::FILES;
    if name != tensors && name != manifest {
        let problem = format!("expected a folder, {tensors} or {manifest}");
        return Err(FolderError::file(path, problem));
    }
    Ok(match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    })
}

/// The two files, or that they are not of one pair.
type Pair<M> = Result<(StoredTensors, M), FolderError>;

fn load_pair<M: Manifest>(dir: &Path) -> Result<Pair<M>, M::Error> {
    let tensor_path = dir.join(M::FILES[0]);
    let manifest_path = dir.join(M::FILES[1]);
    let stored = read_tensors(&tensor_path)?;
    let other = match read_manifest::<M>(&manifest_path) {
        Ok(manifest) if manifest.sha256() == stored.sha256 => return Ok(Ok((stored, manifest))),
        other => other,
    };
    match read_manifest::<M>(&dir.join(waiting(M::FILES[1]))) {
        Ok(manifest) if manifest.sha256() == stored.sha256 => {
            tracing::warn!(
                folder = %dir.display(),
                "the last save was interrupted after its tensors were in place; using its manifest"
            );
            Ok(Ok((stored, manifest)))
        }
        _ => Ok(Err(FolderError::HashMismatch {
            path: tensor_path,
            manifest: manifest_path,
            expected: other?.sha256().to_owned(),
            found: stored.sha256,
        })),
    }
}

fn read_manifest<M: Manifest>(path: &Path) -> Result<M, M::Error> {
    let manifest: M = read_json(path)?;
    manifest.validate(path)?;
    Ok(manifest)
}

/// Reads a JSON file that holds settings, not data.
pub(crate) fn read_json<T: DeserializeOwned>(path: &Path) -> Result<T, FolderError> {
    let file = File::open(path).map_err(|e| FolderError::read(path, e))?;
    let mut bytes = Vec::new();
    (file.take(MAX_MANIFEST + 1).read_to_end(&mut bytes))
        .map_err(|e| FolderError::read(path, e))?;
    if bytes.len() as u64 > MAX_MANIFEST {
        let problem = format!("is larger than {MAX_MANIFEST} bytes");
        return Err(FolderError::file(path, problem));
    }
    serde_json::from_slice(&bytes).map_err(|e| FolderError::file(path, e.to_string()))
}

/// Reads the file once from front to back, hashing and decoding as it goes. Everything allocated is
/// covered by the file's length, which the header must explain exactly.
pub(crate) fn read_tensors(path: &Path) -> Result<StoredTensors, FolderError> {
    let read = |e| FolderError::read(path, e);
    let wrong = |problem: String| FolderError::file(path, problem);

    let file = File::open(path).map_err(read)?;
    let file_len = file.metadata().map_err(read)?.len();
    let mut reader = HashingReader {
        inner: BufReader::with_capacity(1 << 18, file),
        hash: Sha256::new(),
    };
    let mut prefix = [0; 8];
    if file_len < 8 {
        return Err(wrong(format!(
            "has {file_len} bytes, too short for safetensors"
        )));
    }
    reader.read_exact(&mut prefix).map_err(read)?;
    let header_len = u64::from_le_bytes(prefix);
    if header_len > MAX_HEADER || header_len > file_len - 8 {
        return Err(wrong(format!(
            "claims a header of {header_len} bytes; the file has {file_len}, at most {MAX_HEADER} are read"
        )));
    }
    let mut bytes = vec![0; header_len as usize];
    reader.read_exact(&mut bytes).map_err(read)?;
    let header: Metadata = serde_json::from_slice(&bytes)
        .map_err(|e| wrong(format!("bad safetensors header: {e}")))?;
    let data_len = file_len - 8 - header_len;
    if header.data_len() as u64 != data_len {
        let claimed = header.data_len();
        return Err(wrong(format!(
            "holds {data_len} bytes of tensors, the header says {claimed}"
        )));
    }

    let mut tensors = HashMap::new();
    let mut common = None;
    for name in header.offset_keys() {
        let Some(info) = header.info(&name) else {
            continue;
        };
        let dtype = match info.dtype {
            Dtype::F32 => CartridgeDtype::F32,
            Dtype::F16 => CartridgeDtype::F16,
            Dtype::BF16 => CartridgeDtype::Bf16,
            other => {
                let problem = format!("has element type {other:?}, expected F32, F16 or BF16");
                return Err(FolderError::tensor(path, &name, problem));
            }
        };
        if *common.get_or_insert(dtype) != dtype {
            let problem = format!("has element type {dtype}, others have another");
            return Err(FolderError::tensor(path, &name, problem));
        }
        // Offsets are contiguous and agree with shape and type: `Metadata` checks that.
        bytes.clear();
        bytes.resize(info.data_offsets.1 - info.data_offsets.0, 0);
        reader.read_exact(&mut bytes).map_err(read)?;
        let mut values = Vec::new();
        dtype.decode(&bytes, &mut values);
        tensors.insert(name, (info.shape.clone(), values));
    }
    let dtype = common.ok_or_else(|| wrong("holds no tensors".to_owned()))?;
    Ok(StoredTensors {
        sha256: hex(&reader.hash.finalize()),
        dtype,
        tensors,
    })
}

/// Writes header and tensors; gives back the hash of all of it.
pub(crate) fn write_tensors(
    writer: &mut dyn Write,
    tensors: &[NamedTensor<'_>],
    dtype: CartridgeDtype,
    metadata: Option<HashMap<String, String>>,
) -> io::Result<String> {
    let element = match dtype {
        CartridgeDtype::F32 => Dtype::F32,
        CartridgeDtype::F16 => Dtype::F16,
        CartridgeDtype::Bf16 => Dtype::BF16,
    };
    let mut offset = 0;
    let infos = tensors.iter().map(|tensor| {
        let from = offset;
        offset += tensor.values.len() * dtype.size();
        let info = TensorInfo {
            dtype: element,
            shape: tensor.shape.clone(),
            data_offsets: (from, offset),
        };
        (tensor.name.clone(), info)
    });
    let header = Metadata::new(metadata, infos.collect()).map_err(io::Error::other)?;
    let mut bytes = serde_json::to_vec(&header)?;
    // Padding keeps the tensors aligned for readers that map the file.
    bytes.resize(bytes.len().next_multiple_of(8), b' ');

    let mut writer = HashingWriter {
        inner: writer,
        hash: Sha256::new(),
    };
    writer.write_all(&(bytes.len() as u64).to_le_bytes())?;
    writer.write_all(&bytes)?;
    for tensor in tensors {
        bytes.clear();
        dtype.encode(tensor.values, &mut bytes);
        writer.write_all(&bytes)?;
    }
    Ok(hex(&writer.hash.finalize()))
}

struct HashingReader<R> {
    inner: R,
    hash: Sha256,
}

impl<R: Read> Read for HashingReader<R> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let n = self.inner.read(buffer)?;
        self.hash.update(&buffer[..n]);
        Ok(n)
    }
}

struct HashingWriter<'a> {
    inner: &'a mut dyn Write,
    hash: Sha256,
}

impl Write for HashingWriter<'_> {
    fn write(&mut self, buffer: &[u8]) -> io::Result<usize> {
        let n = self.inner.write(buffer)?;
        self.hash.update(&buffer[..n]);
        Ok(n)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.inner.flush()
    }
}

fn rename(from: &Path, to: &Path) -> Result<(), FolderError> {
    fs::rename(from, to).map_err(|source| {
        FolderError::Write(WriteError {
            path: to.to_owned(),
            source,
        })
    })
}

/// Makes renames durable. Not every platform lets a folder be opened, hence no error.
fn sync_folder(dir: &Path) {
    if let Ok(folder) = File::open(dir) {
        let _ = folder.sync_all();
    }
}
