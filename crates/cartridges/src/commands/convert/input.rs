//! What a path holds, as far as it can be converted.

use std::path::Path;

use anyhow::{Context, Result, bail};
use cartridges_model::adapter::{
    AdapterManifest, HostAdapter, is_torch_adapter, load_adapter, read_adapter_pt, read_lora,
};
use cartridges_model::cartridge::{
    CartridgeDtype, CartridgeManifest, HostCartridge, ModelIdentity, load, read_peft,
    torch::read_pt,
};
use cartridges_model::{PEFT_CONFIG_FILE, PeftKind, peft_kind};
use serde_json::Value;

use super::Model;

/// A cartridge or an adapter, with what is known of it.
pub(super) enum Input {
    /// A cartridge.
    Cartridge(Found<HostCartridge, CartridgeManifest>),
    /// An adapter.
    Adapter(Found<HostAdapter, AdapterManifest>),
}

/// Something that was read.
pub(super) struct Found<T, M> {
    /// Its content.
    pub(super) host: T,
    /// What our own format says of it.
    manifest: Option<M>,
    /// The model that another format names.
    pub(super) named: Option<String>,
    /// Element type it was stored in.
    dtype: CartridgeDtype,
    format: &'static str,
}

impl Input {
    /// Recognises and reads `path`. An adapter in a `.pt` file is read for `model`.
    pub(super) fn read(path: &Path, model: Option<&Model>) -> Result<Self> {
        if !path.exists() {
            bail!("{} does not exist", path.display());
        }
        if !path.is_dir() {
            return Self::read_file(path, model);
        }
        let has = |name: &str| path.join(name).is_file();
        match () {
            () if has("cartridge.json") => Self::cartridge_folder(path),
            () if has("adapter.json") => Self::adapter_folder(path),
            () if has(PEFT_CONFIG_FILE) => Self::peft_folder(path),
            () => bail!(
                "{}: not a cartridge (cartridge.json), an adapter (adapter.json) or a folder of PEFT \
                 ({PEFT_CONFIG_FILE})",
                path.display()
            ),
        }
    }

    fn read_file(path: &Path, model: Option<&Model>) -> Result<Self> {
        let text =
            |part: Option<&std::ffi::OsStr>| part.and_then(|p| p.to_str()).map(str::to_owned);
        match (
            text(path.file_name()).as_deref(),
            text(path.extension()).as_deref(),
        ) {
            (Some("cartridge.json" | "cartridge.safetensors"), _) => Self::cartridge_folder(path),
            (Some("adapter.json" | "adapter.safetensors"), _) => Self::adapter_folder(path),
            (Some(PEFT_CONFIG_FILE | "adapter_model.safetensors"), _) => {
                let folder = path.parent().filter(|p| !p.as_os_str().is_empty());
                Self::peft_folder(folder.unwrap_or(Path::new(".")))
            }
            (_, Some("pt")) => Self::torch_file(path, model),
            _ => bail!(
                "{}: unknown kind of file; expected .pt or a folder",
                path.display()
            ),
        }
    }

    fn cartridge_folder(path: &Path) -> Result<Self> {
        let (host, manifest) = load(path)?;
        Ok(Self::Cartridge(Found {
            host,
            named: None,
            dtype: manifest.dtype,
            manifest: Some(manifest),
            format: "cartridge",
        }))
    }

    fn adapter_folder(path: &Path) -> Result<Self> {
        let (host, manifest) = load_adapter(path)?;
        Ok(Self::Adapter(Found {
            host,
            named: None,
            dtype: manifest.dtype,
            manifest: Some(manifest),
            format: "adapter",
        }))
    }

    fn peft_folder(path: &Path) -> Result<Self> {
        Ok(match peft_kind(path)? {
            PeftKind::Cartridge => {
                let found = read_peft(path)?;
                Self::Cartridge(Found {
                    host: found.cartridge,
                    manifest: None,
                    named: found.base_model,
                    dtype: found.dtype,
                    format: "peft",
                })
            }
            PeftKind::Lora => {
                let found = read_lora(path)?;
                Self::Adapter(Found {
                    host: found.adapter,
                    manifest: None,
                    named: found.base_model,
                    dtype: found.dtype,
                    format: "lora",
                })
            }
        })
    }

    fn torch_file(path: &Path, model: Option<&Model>) -> Result<Self> {
        if !is_torch_adapter(path)? {
            let host = read_pt(path)?;
            let dtype = narrowest(&host);
            return Ok(Self::Cartridge(Found {
                host,
                manifest: None,
                named: None,
                dtype,
                format: "pt",
            }));
        }
        let model = model.with_context(|| {
            format!(
                "{} is an adapter that names no layers: name its model with --model",
                path.display()
            )
        })?;
        let found = read_adapter_pt(path, model.config.num_layers)?;
        if !found.skipped.is_empty() {
            eprintln!(
                "left out {:?}: these hidden states are not changed",
                found.skipped
            );
        }
        Ok(Self::Adapter(Found {
            host: found.adapter,
            manifest: None,
            named: found.base_model,
            dtype: CartridgeDtype::F32,
            format: "pt",
        }))
    }

    /// The model that it was made for, where it says so exactly.
    pub(super) fn identity(&self) -> Option<&ModelIdentity> {
        match self {
            Self::Cartridge(found) => found.manifest.as_ref().map(|m| &m.base_model),
            Self::Adapter(found) => found.manifest.as_ref().map(|m| &m.base_model),
        }
    }

    /// Checks that it fits `model`, and was made for it where it says for which;
    /// `allow_other_weights` accepts another file of that model.
    pub(super) fn check(&self, model: &Model, allow_other_weights: bool) -> Result<()> {
        match self {
            Self::Cartridge(found) => {
                if let Some(manifest) = &found.manifest {
                    manifest.check(&model.identity, allow_other_weights)?;
                }
                model.identity.check_shape(&found.host)?;
            }
            Self::Adapter(found) => {
                if let Some(manifest) = &found.manifest {
                    manifest.check(&model.identity, allow_other_weights)?;
                }
                found.host.check(&model.config)?;
            }
        }
        Ok(())
    }

    /// Element type it was stored in.
    pub(super) fn dtype(&self) -> CartridgeDtype {
        match self {
            Self::Cartridge(found) => found.dtype,
            Self::Adapter(found) => found.dtype,
        }
    }

    /// Name of its format, as `--to` has it.
    pub(super) fn format(&self) -> &'static str {
        match self {
            Self::Cartridge(found) => found.format,
            Self::Adapter(found) => found.format,
        }
    }

    /// The model that another format names.
    pub(super) fn named_model(&self) -> Option<&str> {
        match self {
            Self::Cartridge(found) => found.named.as_deref(),
            Self::Adapter(found) => found.named.as_deref(),
        }
    }

    /// How it was made.
    pub(super) fn made_by(&self) -> Option<&Value> {
        match self {
            Self::Cartridge(found) => found.manifest.as_ref().map(|m| &m.made_by),
            Self::Adapter(found) => found.manifest.as_ref().map(|m| &m.made_by),
        }
    }
}

/// bf16, which the reference itself uses, if nothing is lost by it, else f32.
fn narrowest(host: &HostCartridge) -> CartridgeDtype {
    let mut values = host
        .layers
        .iter()
        .flat_map(|l| l.key.iter().chain(&l.value));
    match values.all(|x| CartridgeDtype::Bf16.round(*x) == *x) {
        true => CartridgeDtype::Bf16,
        false => CartridgeDtype::F32,
    }
}
