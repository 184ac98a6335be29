//! The folder in which Hugging Face's PEFT keeps an adapter: `adapter_config.json`, which says of which
//! kind it is, and its tensors in `adapter_model.safetensors`.

use std::collections::HashMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde_json::{Map, Value};

use crate::atomic_file::{write_atomic, write_bytes};
use crate::cartridge::CartridgeDtype;
use crate::tensor_folder::{
    FolderError, NamedTensor, StoredTensors, read_json, read_tensors, write_tensors,
};

/// Name of the settings in a folder of PEFT.
pub const PEFT_CONFIG_FILE: &str = "adapter_config.json";
/// Name of the tensor file in a folder of PEFT.
pub const PEFT_TENSOR_FILE: &str = "adapter_model.safetensors";

/// The older form of the tensor file, a pickle.
const PICKLE_FILE: &str = "adapter_model.bin";

/// Kinds of PEFT adapters that can be read.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PeftKind {
    /// `CARTRIDGE`: keys and values.
    Cartridge,
    /// `LORA`: low-rank weight deltas.
    Lora,
}

/// Says which kind of adapter a folder of PEFT holds, from its settings alone.
///
/// # Errors
/// If the settings cannot be read or name another kind.
pub fn peft_kind(folder: &Path) -> Result<PeftKind, FolderError> {
    let path = folder.join(PEFT_CONFIG_FILE);
    let settings = Settings::read(path)?;
    match settings.text("peft_type")? {
        Some("CARTRIDGE") => Ok(PeftKind::Cartridge),
        Some("LORA") => Ok(PeftKind::Lora),
        other => {
            let found = other.unwrap_or("nothing");
            Err(settings.wrong(
                "peft_type",
                format!("{found:?}, expected CARTRIDGE or LORA"),
            ))
        }
    }
}

/// The settings of an adapter. Those that are not asked for are ignored: every version adds some.
pub(crate) struct Settings {
    fields: Map<String, Value>,
    path: PathBuf,
}

impl Settings {
    fn read(path: PathBuf) -> Result<Self, FolderError> {
        let fields = read_json(&path)?;
        Ok(Self { fields, path })
    }

    /// The field, if it is there and not null.
    pub(crate) fn get(&self, field: &str) -> Option<&Value> {
        self.fields.get(field).filter(|value| !value.is_null())
    }

    /// A size of at least 1.
    pub(crate) fn size(&self, field: &str) -> Result<usize, FolderError> {
        let size = self.count(field)?;
        size.filter(|n| *n > 0)
            .ok_or_else(|| self.wrong(field, "missing or 0, expected a size"))
    }

    /// A number of things, where there is one.
    pub(crate) fn count(&self, field: &str) -> Result<Option<usize>, FolderError> {
        let Some(value) = self.get(field) else {
            return Ok(None);
        };
        let count = value.as_u64().and_then(|n| usize::try_from(n).ok());
        let wrong = || self.wrong(field, format!("{}, expected a whole number", short(value)));
        count.map(Some).ok_or_else(wrong)
    }

    /// A text, where there is one.
    pub(crate) fn text(&self, field: &str) -> Result<Option<&str>, FolderError> {
        let Some(value) = self.get(field) else {
            return Ok(None);
        };
        let wrong = || self.wrong(field, format!("{}, expected a text", short(value)));
        value.as_str().map(Some).ok_or_else(wrong)
    }

    /// An error about a field. `problem` says what it is and what was expected.
    pub(crate) fn wrong(&self, field: &str, problem: impl AsRef<str>) -> FolderError {
        let problem = format!("field '{field}' is {}", problem.as_ref());
        FolderError::file(&self.path, problem)
    }
}

/// A value for a message, cut where it is long.
pub(crate) fn short(value: &Value) -> String {
    value.to_string().chars().take(60).collect()
}

/// What a folder of PEFT holds.
pub(crate) struct PeftFolder {
    /// The settings.
    pub(crate) settings: Settings,
    /// The tensors; nothing has been compared with the settings yet.
    pub(crate) stored: StoredTensors,
    /// The file with the tensors, for messages.
    pub(crate) tensor_path: PathBuf,
}

impl PeftFolder {
    /// Reads a folder that must be of this type. A pickle is never opened.
    pub(crate) fn read(folder: &Path, peft_type: &str) -> Result<Self, FolderError> {
        let settings = Settings::read(folder.join(PEFT_CONFIG_FILE))?;
        if settings.text("peft_type")? != Some(peft_type) {
            let found = settings.get("peft_type").map_or("missing".into(), short);
            return Err(settings.wrong("peft_type", format!("{found}, expected {peft_type}")));
        }
        let tensor_path = folder.join(PEFT_TENSOR_FILE);
        if !tensor_path.exists() && folder.join(PICKLE_FILE).exists() {
            let problem = "is a pickle, which is not opened; save the adapter as safetensors";
            return Err(FolderError::file(&folder.join(PICKLE_FILE), problem));
        }
        Ok(Self {
            settings,
            stored: read_tensors(&tensor_path)?,
            tensor_path,
        })
    }

    /// The model that the settings name.
    pub(crate) fn base_model(&self) -> Result<Option<String>, FolderError> {
        let name = self.settings.text("base_model_name_or_path")?;
        Ok(name.filter(|name| !name.is_empty()).map(str::to_owned))
    }

    /// Checks that no tensor was left over.
    pub(crate) fn nothing_left(&self, what: &str) -> Result<(), FolderError> {
        match self.stored.tensors.keys().min() {
            Some(name) => {
                let problem = format!("is not part of {what}");
                Err(FolderError::tensor(&self.tensor_path, name, problem))
            }
            None => Ok(()),
        }
    }
}

/// Writes a folder, which is made if it is missing. Older settings go first and new ones come last, so
/// that an interrupted write leaves a folder that cannot be read, not one whose files differ.
pub(crate) fn write(
    folder: &Path,
    settings: &Value,
    tensors: &[NamedTensor<'_>],
    dtype: CartridgeDtype,
) -> Result<(), FolderError> {
    let config = folder.join(PEFT_CONFIG_FILE);
    match fs::remove_file(&config) {
        Err(e) if e.kind() != io::ErrorKind::NotFound && folder.is_dir() => {
            return Err(FolderError::read(&config, e));
        }
        _ => {}
    }
    let metadata = HashMap::from([("format".to_owned(), "pt".to_owned())]);
    write_atomic(&folder.join(PEFT_TENSOR_FILE), |w| {
        write_tensors(w, tensors, dtype, Some(metadata)).map(drop)
    })?;
    let mut json = serde_json::to_vec_pretty(settings)
        .map_err(|e| FolderError::file(&config, e.to_string()))?;
    json.push(b'\n');
    Ok(write_bytes(&config, &json)?)
}
