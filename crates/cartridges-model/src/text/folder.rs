//! Loading a tokenizer from a folder in Hugging Face layout.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use serde_json::Value;
use tokenizers::Tokenizer;

use super::chat_tokenizer::{ChatTokenizer, NamedToken, Parts, SpecialTokens};
use super::error::TextError;

const TOKENIZER: &str = "tokenizer.json";
const CONFIG: &str = "tokenizer_config.json";
const TEMPLATE: &str = "chat_template.jinja";
const GENERATION: &str = "generation_config.json";

/// The largest known `tokenizer.json` has about 35 MB.
const LARGEST_TOKENIZER: u64 = 256 << 20;
const LARGEST_CONFIG: u64 = 16 << 20;

impl ChatTokenizer {
    /// Loads `tokenizer.json`, and where present `tokenizer_config.json` (special tokens, chat
    /// template), `chat_template.jinja` (wins over the config) and `generation_config.json`
    /// (stop ids).
    ///
    /// # Errors
    /// A [`TextError`] that names the file and field.
    pub fn from_folder(folder: &Path) -> Result<Self, TextError> {
        let path = folder.join(TOKENIZER);
        let Some(bytes) = read_bounded(&path, LARGEST_TOKENIZER)? else {
            return Err(TextError::File {
                path,
                message: "the file is missing; it holds the vocabulary".to_string(),
            });
        };
        let mut tokenizer = Tokenizer::from_bytes(&bytes).map_err(|error| TextError::File {
            path: path.clone(),
            message: error.to_string(),
        })?;
        drop(bytes);
        // Limits that were in force when the file was saved are not part of the vocabulary.
        tokenizer
            .with_truncation(None)
            .map_err(|error| TextError::File {
                path,
                message: error.to_string(),
            })?
            .with_padding(None);

        let mut specials = SpecialTokens::default();
        let mut template = None;
        let mut named_templates = Vec::new();
        let path = folder.join(CONFIG);
        if let Some(config) = read_json(&path)? {
            specials = SpecialTokens {
                bos: named_token(&config, "bos_token", &tokenizer, &path)?,
                eos: named_token(&config, "eos_token", &tokenizer, &path)?,
                pad: named_token(&config, "pad_token", &tokenizer, &path)?,
                unknown: named_token(&config, "unk_token", &tokenizer, &path)?,
            };
            (template, named_templates) = templates(&config, &path)?;
        }
        let path = folder.join(TEMPLATE);
        if let Some(bytes) = read_bounded(&path, LARGEST_CONFIG)? {
            let source = String::from_utf8(bytes).map_err(|error| TextError::File {
                path,
                message: error.to_string(),
            })?;
            template = Some(source);
        }
        let path = folder.join(GENERATION);
        let more_stop_ids = match read_json(&path)? {
            Some(config) => stop_ids(&config, &path)?,
            None => Vec::new(),
        };
        Self::from_parts(Parts {
            tokenizer,
            specials,
            template,
            named_templates,
            more_stop_ids,
            prefix_id: None,
        })
    }
}

/// The file's bytes, or none if there is no such file.
fn read_bounded(path: &Path, limit: u64) -> Result<Option<Vec<u8>>, TextError> {
    let failed = |source| TextError::Read {
        path: path.to_path_buf(),
        source,
    };
    let file = match File::open(path) {
        Ok(file) => file,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(failed(error)),
    };
    let mut bytes = Vec::new();
    file.take(limit + 1)
        .read_to_end(&mut bytes)
        .map_err(failed)?;
    if bytes.len() as u64 > limit {
        return Err(TextError::FileTooLarge {
            path: path.to_path_buf(),
            limit,
        });
    }
    Ok(Some(bytes))
}

fn read_json(path: &Path) -> Result<Option<Value>, TextError> {
    let Some(bytes) = read_bounded(path, LARGEST_CONFIG)? else {
        return Ok(None);
    };
    serde_json::from_slice(&bytes)
        .map(Some)
        .map_err(|error| TextError::File {
            path: path.to_path_buf(),
            message: error.to_string(),
        })
}

fn field_error(path: &Path, field: &'static str, message: impl Into<String>) -> TextError {
    TextError::Field {
        path: path.to_path_buf(),
        field,
        message: message.into(),
    }
}

/// A token given as text or as an object with `content`. Only bos and eos must be in the
/// vocabulary: the others are known to name tokens that Python would add on the fly.
fn named_token(
    config: &Value,
    field: &'static str,
    tokenizer: &Tokenizer,
    path: &Path,
) -> Result<Option<NamedToken>, TextError> {
    let text = match config.get(field) {
        None | Some(Value::Null) => return Ok(None),
        Some(Value::String(text)) => text,
        Some(Value::Object(object)) => match object.get("content") {
            Some(Value::String(text)) => text,
            _ => return Err(field_error(path, field, "expected a string in `content`")),
        },
        Some(_) => return Err(field_error(path, field, "expected a string or an object")),
    };
    let id = tokenizer.token_to_id(text);
    if id.is_none() && matches!(field, "bos_token" | "eos_token") {
        return Err(field_error(
            path,
            field,
            format!("`{text}` is not in the vocabulary"),
        ));
    }
    Ok(Some(NamedToken {
        id,
        text: text.clone(),
    }))
}

type Templates = (Option<String>, Vec<(String, String)>);

/// `chat_template`: one text, or a list of named ones of which `default` is the default.
fn templates(config: &Value, path: &Path) -> Result<Templates, TextError> {
    const FIELD: &str = "chat_template";
    let list = match config.get(FIELD) {
        None | Some(Value::Null) => return Ok((None, Vec::new())),
        Some(Value::String(source)) => return Ok((Some(source.clone()), Vec::new())),
        Some(Value::Array(list)) => list,
        Some(_) => return Err(field_error(path, FIELD, "expected a string or a list")),
    };
    let mut named = Vec::with_capacity(list.len());
    for entry in list {
        match (entry.get("name"), entry.get("template")) {
            (Some(Value::String(name)), Some(Value::String(source))) => {
                named.push((name.clone(), source.clone()));
            }
            _ => {
                let message = "expected entries with the strings `name` and `template`";
                return Err(field_error(path, FIELD, message));
            }
        }
    }
    let default = named.iter().find(|(name, _)| name == "default");
    Ok((default.map(|(_, source)| source.clone()), named))
}

/// `eos_token_id`: one id or a list.
fn stop_ids(config: &Value, path: &Path) -> Result<Vec<u32>, TextError> {
    const FIELD: &str = "eos_token_id";
    let one = |value: &Value| {
        value
            .as_u64()
            .and_then(|id| u32::try_from(id).ok())
            .ok_or_else(|| field_error(path, FIELD, format!("expected a token id, found {value}")))
    };
    match config.get(FIELD) {
        None | Some(Value::Null) => Ok(Vec::new()),
        Some(Value::Array(list)) => list.iter().map(one).collect(),
        Some(value) => Ok(vec![one(value)?]),
    }
}
