//! One data set among those that are trained on.

use std::fmt;
use std::path::PathBuf;

use serde::de::value::MapAccessDeserializer;
use serde::de::{MapAccess, Visitor};
use serde::{Deserialize, Deserializer, Serialize};

/// A data set of conversations and how much of it is used. In a file of settings its path alone
/// may stand for it.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct DataSource {
    /// A parquet file, or a folder of them as the reference lays it out (`data/*.parquet`). The command
    /// line also reads `hf:owner/name[@revision]`, a dataset repository of the hub in that layout.
    pub path: PathBuf,
    /// How often each conversation is seen: 2 is twice, 0.5 half of them, drawn by the seed
    /// (default 1).
    pub weight: f64,
    /// Only the first so many rows are used; 0 means all (default 0).
    pub limit: usize,
    /// Of these, rows are left out whose messages say the same as an earlier row's, in this file or in
    /// one before it (default false).
    pub drop_duplicates: bool,
    /// Rows without an answer, or with one that says nothing, are left out (default false).
    pub drop_empty: bool,
    /// Rows with an answer that ended at the limit of its length are left out. Files that do not say how
    /// answers ended, such as the reference's, lose none (default false).
    pub drop_cut_off: bool,
}

impl DataSource {
    /// The whole file, once.
    pub fn new(path: impl Into<PathBuf>) -> Self {
        Self {
            path: path.into(),
            weight: 1.0,
            limit: 0,
            drop_duplicates: false,
            drop_empty: false,
            drop_cut_off: false,
        }
    }
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Table {
    path: PathBuf,
    #[serde(default = "whole")]
    weight: f64,
    #[serde(default)]
    limit: usize,
    #[serde(default)]
    drop_duplicates: bool,
    #[serde(default)]
    drop_empty: bool,
    #[serde(default)]
    drop_cut_off: bool,
}

fn whole() -> f64 {
    1.0
}

impl<'de> Deserialize<'de> for DataSource {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct PathOrTable;

        impl<'de> Visitor<'de> for PathOrTable {
            type Value = DataSource;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a path, or a table with path, weight, limit and what is dropped")
            }

            fn visit_str<E>(self, path: &str) -> Result<DataSource, E> {
                Ok(DataSource::new(path))
            }

            fn visit_map<A: MapAccess<'de>>(self, map: A) -> Result<DataSource, A::Error> {
                let table = Table::deserialize(MapAccessDeserializer::new(map))?;
                Ok(DataSource {
                    path: table.path,
                    weight: table.weight,
                    limit: table.limit,
                    drop_duplicates: table.drop_duplicates,
                    drop_empty: table.drop_empty,
                    drop_cut_off: table.drop_cut_off,
                })
            }
        }

        deserializer.deserialize_any(PathOrTable)
    }
}
