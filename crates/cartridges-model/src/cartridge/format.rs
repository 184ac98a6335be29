//! The cartridge folder: `cartridge.safetensors` (`layers.{i}.key`, `layers.{i}.value`, each
//! `[kv_heads, slots, head_dim]`, frozen slots first) and `cartridge.json` ([`CartridgeManifest`]).
//!
//! Saving over an older cartridge never leaves a pair that does not belong together, even when the
//! program is killed between two steps: the new tensors and the new manifest are first written whole
//! beside the old ones; then the tensors are renamed into place, then the manifest. Between the two
//! renames the waiting manifest is the one whose hash fits, and loading finds it there.
//! One program at a time may save into a folder; any number may load from it meanwhile.

use std::collections::HashMap;
use std::fs::{self, File};
use std::io::{self, BufReader, Read, Write};
use std::path::{Path, PathBuf};

use safetensors::tensor::{Dtype, Metadata, TensorInfo};
use serde_json::Value;
use sha2::{Digest, Sha256};

use super::dtype::CartridgeDtype;
use super::error::{CartridgeError, Part};
use super::host::{HostCartridge, HostLayer};
use super::manifest::{CartridgeManifest, FORMAT_VERSION, ModelIdentity};
use crate::atomic_file::{WriteError, write_atomic, write_bytes};

/// Name of the tensor file in a cartridge folder.
pub const TENSOR_FILE: &str = "cartridge.safetensors";
/// Name of the manifest in a cartridge folder.
pub const MANIFEST_FILE: &str = "cartridge.json";

const WAITING_TENSOR_FILE: &str = ".cartridge.safetensors.new";
const WAITING_MANIFEST_FILE: &str = ".cartridge.json.new";

/// A header for a thousand layers is about 200 kB.
const MAX_HEADER: u64 = 4 << 20;
/// The manifest holds settings, not data.
const MAX_MANIFEST: u64 = 4 << 20;

/// Saves a cartridge into the folder `dir`, which is made if it is missing. `made_by` says how it was
/// made: program version, stage, config, data set hash, steps, unix time, and whatever else helps.
///
/// # Errors
/// If the cartridge does not have the shape of `model`, an element is not finite in `dtype`, or
/// writing fails; an older cartridge in `dir` then stays as it was.
pub fn save(
    dir: &Path,
    cartridge: &HostCartridge,
    model: &ModelIdentity,
    made_by: &Value,
    dtype: CartridgeDtype,
) -> Result<CartridgeManifest, CartridgeError> {
    cartridge.validate_as(dtype)?;
    model.check_shape(cartridge)?;

    let waiting_tensors = dir.join(WAITING_TENSOR_FILE);
    let mut sha256 = String::new();
    write_atomic(&waiting_tensors, |w| {
        sha256 = write_tensors(w, cartridge, dtype)?;
        Ok(())
    })?;
    let manifest = CartridgeManifest {
        format_version: FORMAT_VERSION,
        base_model: model.clone(),
        slots: cartridge.slots,
        frozen: cartridge.frozen,
        dtype,
        made_by: made_by.clone(),
        sha256,
    };
    let waiting_manifest = dir.join(WAITING_MANIFEST_FILE);
    let mut json = serde_json::to_vec_pretty(&manifest)
        .map_err(|e| CartridgeError::file(&waiting_manifest, e.to_string()))?;
    json.push(b'\n');
    write_bytes(&waiting_manifest, &json)?;
    rename(&waiting_tensors, &dir.join(TENSOR_FILE))?;
    sync_folder(dir);
    rename(&waiting_manifest, &dir.join(MANIFEST_FILE))?;
    sync_folder(dir);
    Ok(manifest)
}

/// Loads a cartridge from its folder, or from the path of either file in it.
///
/// # Errors
/// If a file is missing, is damaged, or does not agree with the other; see [`CartridgeError`].
pub fn load(path: &Path) -> Result<(HostCartridge, CartridgeManifest), CartridgeError> {
    let dir = folder_of(path)?;
    match load_pair(&dir) {
        // A save by another program may have passed between our two reads.
        Err(CartridgeError::HashMismatch { .. }) => load_pair(&dir),
        result => result,
    }
}

/// Reads only the manifest: from the folder, or from the path of either file in it. The tensors are
/// not looked at, so their hash is not checked.
///
/// # Errors
/// If the manifest is missing or not valid.
pub fn load_manifest(path: &Path) -> Result<CartridgeManifest, CartridgeError> {
    read_manifest(&folder_of(path)?.join(MANIFEST_FILE))
}

fn folder_of(path: &Path) -> Result<PathBuf, CartridgeError> {
    let about = fs::metadata(path).map_err(|e| CartridgeError::read(path, e))?;
    if about.is_dir() {
        return Ok(path.to_owned());
    }
    let name = path.file_name().unwrap_or_default();
    if name != TENSOR_FILE && name != MANIFEST_FILE {
        let problem = format!("expected a folder, {TENSOR_FILE} or {MANIFEST_FILE}");
        return Err(CartridgeError::file(path, problem));
    }
    Ok(match path.parent() {
        Some(parent) if !parent.as_os_str().is_empty() => parent.to_owned(),
        _ => PathBuf::from("."),
    })
}

fn load_pair(dir: &Path) -> Result<(HostCartridge, CartridgeManifest), CartridgeError> {
    let tensor_path = dir.join(TENSOR_FILE);
    let manifest_path = dir.join(MANIFEST_FILE);
    let stored = read_tensors(&tensor_path)?;
    let manifest = match read_manifest(&manifest_path) {
        Ok(manifest) if manifest.sha256 == stored.sha256 => manifest,
        other => match read_manifest(&dir.join(WAITING_MANIFEST_FILE)) {
            Ok(waiting) if waiting.sha256 == stored.sha256 => {
                tracing::warn!(
                    folder = %dir.display(),
                    "the last save was interrupted after its tensors were in place; using its manifest"
                );
                waiting
            }
            _ => {
                return Err(CartridgeError::HashMismatch {
                    path: tensor_path,
                    manifest: manifest_path,
                    expected: other?.sha256,
                    found: stored.sha256,
                });
            }
        },
    };
    let cartridge = assemble(stored, &manifest, &tensor_path)?;
    Ok((cartridge, manifest))
}

fn read_manifest(path: &Path) -> Result<CartridgeManifest, CartridgeError> {
    let file = File::open(path).map_err(|e| CartridgeError::read(path, e))?;
    let mut bytes = Vec::new();
    (file.take(MAX_MANIFEST + 1).read_to_end(&mut bytes))
        .map_err(|e| CartridgeError::read(path, e))?;
    if bytes.len() as u64 > MAX_MANIFEST {
        let problem = format!("is larger than {MAX_MANIFEST} bytes");
        return Err(CartridgeError::file(path, problem));
    }
    let manifest: CartridgeManifest =
        serde_json::from_slice(&bytes).map_err(|e| CartridgeError::file(path, e.to_string()))?;
    manifest.validate(path)?;
    Ok(manifest)
}

/// A tensor file as it was found: nothing in it has been compared with a manifest yet.
struct StoredTensors {
    sha256: String,
    dtype: CartridgeDtype,
    tensors: HashMap<String, (Vec<usize>, Vec<f32>)>,
}

/// Reads the file once from front to back, hashing and decoding as it goes. Everything allocated is
/// covered by the file's length, which the header must explain exactly.
fn read_tensors(path: &Path) -> Result<StoredTensors, CartridgeError> {
    let read = |e| CartridgeError::read(path, e);
    let wrong = |problem: String| CartridgeError::file(path, problem);

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
                return Err(CartridgeError::tensor(path, &name, problem));
            }
        };
        if *common.get_or_insert(dtype) != dtype {
            let problem = format!("has element type {dtype}, others have another");
            return Err(CartridgeError::tensor(path, &name, problem));
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

/// Puts the layers together and checks that the file holds exactly what the manifest says.
fn assemble(
    mut stored: StoredTensors,
    manifest: &CartridgeManifest,
    path: &Path,
) -> Result<HostCartridge, CartridgeError> {
    let model = &manifest.base_model;
    if stored.dtype != manifest.dtype {
        let problem = format!(
            "holds {}, the manifest says {}",
            stored.dtype, manifest.dtype
        );
        return Err(CartridgeError::file(path, problem));
    }
    let shape = [model.num_kv_heads, manifest.slots, model.head_dim];
    let mut take = |name: String| {
        let (found, values) = (stored.tensors.remove(&name))
            .ok_or_else(|| CartridgeError::tensor(path, &name, "is missing"))?;
        if found != shape {
            let problem = format!("has shape {found:?}, the manifest says {shape:?}");
            return Err(CartridgeError::tensor(path, &name, problem));
        }
        Ok(values)
    };
    let mut layers = Vec::new();
    for layer in 0..model.num_layers {
        layers.push(HostLayer {
            key: take(tensor_name(layer, Part::Key))?,
            value: take(tensor_name(layer, Part::Value))?,
        });
    }
    if let Some(name) = stored.tensors.keys().min() {
        let problem = format!("is not part of a cartridge of {} layers", model.num_layers);
        return Err(CartridgeError::tensor(path, name, problem));
    }
    let [kv_heads, slots, head_dim] = shape;
    HostCartridge::new(kv_heads, head_dim, slots, manifest.frozen, layers)
        .map_err(|e| e.in_file(path))
}

fn tensor_name(layer: usize, part: Part) -> String {
    format!("layers.{layer}.{part}")
}

/// Writes header and tensors, one tensor in memory at a time; gives back the hash of all of it.
fn write_tensors(
    writer: &mut dyn Write,
    cartridge: &HostCartridge,
    dtype: CartridgeDtype,
) -> io::Result<String> {
    let element = match dtype {
        CartridgeDtype::F32 => Dtype::F32,
        CartridgeDtype::F16 => Dtype::F16,
        CartridgeDtype::Bf16 => Dtype::BF16,
    };
    let size = cartridge.tensor_len() * dtype.size();
    let names = (0..cartridge.layers.len()).flat_map(|layer| {
        [
            tensor_name(layer, Part::Key),
            tensor_name(layer, Part::Value),
        ]
    });
    let infos = names.enumerate().map(|(i, name)| {
        let info = TensorInfo {
            dtype: element,
            shape: vec![cartridge.kv_heads, cartridge.slots, cartridge.head_dim],
            data_offsets: (i * size, (i + 1) * size),
        };
        (name, info)
    });
    let header = Metadata::new(None, infos.collect()).map_err(io::Error::other)?;
    let mut bytes = serde_json::to_vec(&header)?;
    // Padding keeps the tensors aligned for readers that map the file.
    bytes.resize(bytes.len().next_multiple_of(8), b' ');

    let mut writer = HashingWriter {
        inner: writer,
        hash: Sha256::new(),
    };
    writer.write_all(&(bytes.len() as u64).to_le_bytes())?;
    writer.write_all(&bytes)?;
    for layer in &cartridge.layers {
        for data in [&layer.key, &layer.value] {
            bytes.clear();
            dtype.encode(data, &mut bytes);
            writer.write_all(&bytes)?;
        }
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

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|b| format!("{b:02x}")).collect()
}

fn rename(from: &Path, to: &Path) -> Result<(), WriteError> {
    fs::rename(from, to).map_err(|source| WriteError {
        path: to.to_owned(),
        source,
    })
}

/// Makes renames durable. Not every platform lets a folder be opened, hence no error.
fn sync_folder(dir: &Path) {
    if let Ok(folder) = File::open(dir) {
        let _ = folder.sync_all();
    }
}

#[cfg(test)]
#[path = "format_tests.rs"]
mod tests;
