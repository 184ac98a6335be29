//! The header of a safetensors file.
//!
//! The `safetensors` crate validates the table; the lengths around it are checked here first, because
//! its own reader adds offsets without an overflow check.

use std::collections::BTreeSet;
use std::fmt;
use std::ops::Range;

use safetensors::tensor::{Metadata, TensorInfo};
use serde::Deserialize;
use serde::de::{Error as _, IgnoredAny, MapAccess, Visitor};

use super::WeightsError;

/// One line of the table, with its bytes as a range of the whole file.
pub(super) struct HeaderEntry {
    pub(super) name: String,
    pub(super) info: TensorInfo,
    pub(super) range: Range<usize>,
}

/// Reads and checks the header of `bytes`, the content of `file`.
pub(super) fn read(bytes: &[u8], file: &str) -> Result<Vec<HeaderEntry>, WeightsError> {
    let broken = |at: usize, reason: String| WeightsError::Header {
        file: file.to_owned(),
        at,
        reason: format!("not a safetensors file: {reason}"),
    };
    let (length, rest) = bytes
        .split_first_chunk::<8>()
        .ok_or_else(|| broken(0, "shorter than 8 bytes".to_owned()))?;
    let length = u64::from_le_bytes(*length);
    let json = usize::try_from(length)
        .ok()
        .and_then(|n| rest.get(..n))
        .ok_or_else(|| {
            let most = rest.len();
            broken(0, format!("header of {length} bytes, {most} are there"))
        })?;
    let data = 8 + json.len();
    let Table(mut tensors) =
        serde_json::from_slice(json).map_err(|e| broken(8, format!("header: {e}")))?;
    tensors.sort_by_key(|(_, info)| info.data_offsets);
    let ranges: Vec<_> = tensors.iter().map(|(_, info)| info.data_offsets).collect();
    let checked = Metadata::new(None, tensors.clone()).map_err(|e| broken(8, e.to_string()))?;
    if checked.data_len() != bytes.len() - data {
        return Err(broken(
            data,
            format!(
                "tensors take {} bytes, {} are there",
                checked.data_len(),
                bytes.len() - data
            ),
        ));
    }
    // The offsets are contiguous from 0 to the length just compared, so the sums stay in the file.
    Ok(tensors
        .into_iter()
        .zip(ranges)
        .map(|((name, info), (start, end))| HeaderEntry {
            name,
            info,
            range: data + start..data + end,
        })
        .collect())
}

/// The JSON object; a name that stands twice is refused, where a map would keep the last.
struct Table(Vec<(String, TensorInfo)>);

impl<'de> Deserialize<'de> for Table {
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        deserializer.deserialize_map(TableVisitor)
    }
}

struct TableVisitor;

impl<'de> Visitor<'de> for TableVisitor {
    type Value = Table;

    fn expecting(&self, f: &mut fmt::Formatter) -> fmt::Result {
        f.write_str("an object of tensor descriptions")
    }

    fn visit_map<A: MapAccess<'de>>(self, mut map: A) -> Result<Table, A::Error> {
        let mut seen = BTreeSet::new();
        let mut tensors = Vec::new();
        while let Some(name) = map.next_key::<String>()? {
            if name == "__metadata__" {
                map.next_value::<IgnoredAny>()?;
                continue;
            }
            if !seen.insert(name.clone()) {
                return Err(A::Error::custom(format!("tensor {name} stands twice")));
            }
            tensors.push((name, map.next_value()?));
        }
        Ok(Table(tensors))
    }
}
