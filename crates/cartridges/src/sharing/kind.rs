//! What a folder or a repository is.

use std::path::Path;

use anyhow::{Result, bail};
use cartridges_study::parquet::dataset_files;
use clap::ValueEnum;

/// What is shared.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Kind {
    /// Conversations, in a dataset repository.
    Dataset,
    /// A cartridge, in a model repository.
    Cartridge,
    /// A thought adapter, in a model repository.
    Adapter,
}

impl Kind {
    /// What `path` is.
    ///
    /// # Errors
    /// If it is nothing that can be shared.
    pub fn of(path: &Path) -> Result<Self> {
        let has = |name: &str| path.join(name).is_file();
        let is_parquet = || path.extension().is_some_and(|e| e == "parquet");
        match () {
            () if !path.exists() => bail!("{} does not exist", path.display()),
            () if has("cartridge.json") => Ok(Self::Cartridge),
            () if has("adapter.json") => Ok(Self::Adapter),
            () if path.is_file() && is_parquet() => Ok(Self::Dataset),
            () if path.is_dir() && dataset_files(path).is_ok() => Ok(Self::Dataset),
            () => bail!(
                "{}: expected a cartridge's folder (cartridge.json), an adapter's folder \
                 (adapter.json), conversations (.parquet), or a folder of them (dataset.parquet or \
                 data/*.parquet)",
                path.display()
            ),
        }
    }

    /// The name of the repository as the hub's client wants it.
    pub fn repository(self, name: &str) -> String {
        match self {
            Self::Dataset if !name.starts_with("datasets/") => format!("datasets/{name}"),
            _ => name.to_owned(),
        }
    }

    /// For people.
    pub fn noun(self) -> &'static str {
        match self {
            Self::Dataset => "data set",
            Self::Cartridge => "cartridge",
            Self::Adapter => "adapter",
        }
    }
}
