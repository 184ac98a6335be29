//! Data that is kept in Weights & Biases.

use anyhow::{Result, bail};
use cartridges_model::hub::ResolveOptions;
use cartridges_model::wandb::{WandbClient, WandbSource, download, list_files};
use cartridges_train::DataSource;

/// All parquet files of the artifact, as the reference reads it, fetched into the cache.
pub(super) fn fetch(name: &WandbSource, source: &DataSource) -> Result<Vec<DataSource>> {
    let client = WandbClient::from_env()?;
    let files = list_files(&client, name)?;
    let wanted: Vec<_> = files
        .iter()
        .filter(|file| file.name.ends_with(".parquet"))
        .collect();
    if wanted.is_empty() {
        let names: Vec<&str> = files.iter().map(|file| file.name.as_str()).collect();
        bail!(
            "wandb:{name} has no parquet file, only: {}",
            names.join(", ")
        );
    }
    if source.limit > 0 && wanted.len() > 1 {
        bail!(
            "wandb:{name} has {} parquet files; a limit is for one file only",
            wanted.len()
        );
    }
    let mut folder = ResolveOptions::from_env().models_folder()?.join("wandb");
    for part in [&name.entity, &name.project, &name.name] {
        folder.push(part);
    }
    folder.push(name.version.as_deref().unwrap_or("latest"));
    let mut fetched = Vec::new();
    for file in wanted {
        eprintln!(
            "fetching {} of wandb:{name} ({} bytes)",
            file.name, file.bytes
        );
        fetched.push(DataSource {
            path: download(&client, file, &folder)?,
            ..source.clone()
        });
    }
    Ok(fetched)
}
