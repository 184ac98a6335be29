//! The tensors of a GGUF file as Hugging Face has them.

use std::collections::BTreeMap;

use super::file::TensorInfo;
use super::{Gguf, names};
use crate::weights::WeightsError;
use crate::weights::store::{Entry, Stored};

/// The table of tensors by Hugging Face name.
pub(in crate::weights) fn entries(gguf: &Gguf) -> Result<BTreeMap<String, Entry>, WeightsError> {
    let interleaved = gguf.text("general.architecture")? == Some("llama");
    let mut entries = BTreeMap::new();
    for info in &gguf.tensors {
        let name = names::hugging_face(&info.name).unwrap_or_else(|| info.name.clone());
        let interleaved_head = match head_count_key(&name) {
            Some(key) if interleaved => Some(head_rows(gguf, info, key)?),
            _ => None,
        };
        let entry = Entry {
            shape: info.shape.clone(),
            stored: Stored::Known(info.dtype),
            file: 0,
            range: info.range.clone(),
            interleaved_head,
        };
        if entries.insert(name.clone(), entry).is_some() {
            return Err(tensor_error(gguf, info, format!("{name} is there as well")));
        }
    }
    Ok(entries)
}

/// Which metadata entry counts the heads of a tensor whose rows llama's converter reorders.
fn head_count_key(name: &str) -> Option<&'static str> {
    let part = name.strip_prefix("model.layers.")?.split_once('.')?.1;
    match part {
        "self_attn.q_proj.weight" | "self_attn.q_proj.bias" => Some("llama.attention.head_count"),
        "self_attn.k_proj.weight" | "self_attn.k_proj.bias" => {
            Some("llama.attention.head_count_kv")
        }
        _ => None,
    }
}

/// Rows of one head of `info`, an even number.
fn head_rows(gguf: &Gguf, info: &TensorInfo, key: &str) -> Result<usize, WeightsError> {
    // Models without grouped heads may leave the second count out.
    let heads = match gguf.uniform(key)? {
        Some(heads) => heads,
        None => gguf
            .uniform("llama.attention.head_count")?
            .ok_or_else(|| gguf.missing("llama.attention.head_count", "the number of heads"))?,
    };
    let rows = info.shape[0];
    let head_rows = usize::try_from(heads)
        .ok()
        .filter(|heads| *heads > 0 && rows.is_multiple_of(*heads))
        .map(|heads| rows / heads)
        .filter(|head_rows| head_rows.is_multiple_of(2))
        .ok_or_else(|| {
            let reason = format!("{rows} rows are not {heads} heads of an even width");
            tensor_error(gguf, info, reason)
        })?;
    // A bias is read one value per row, which no block format allows.
    let columns: usize = info.shape[1..].iter().product();
    if !columns.is_multiple_of(info.dtype.block_values()) {
        let reason = format!("a bias cannot be stored as {}", info.dtype.name());
        return Err(tensor_error(gguf, info, reason));
    }
    Ok(head_rows)
}

fn tensor_error(gguf: &Gguf, info: &TensorInfo, reason: String) -> WeightsError {
    WeightsError::Tensor {
        file: gguf.file.clone(),
        tensor: info.name.clone(),
        reason,
    }
}
