//! What every command does first: threads, device, model, cartridges.

use std::path::Path;
use std::sync::Arc;
use std::time::Instant;

use anyhow::{Context, Result, bail};
use burn::tensor::Device;
use cartridges_model::LanguageModel;
use cartridges_model::adapter::{self, AdapterManifest, HostAdapter};
use cartridges_model::cartridge::{CartridgeManifest, HostCartridge, ModelIdentity, load};
use cartridges_model::decoder::Precision;
use cartridges_model::hub::{ModelFiles, ModelRef, ResolveOptions, resolve};
use cartridges_model::text::ChatTokenizer;
use cartridges_model::weights::Weights;
use cartridges_ops::DeviceChoice;
use clap::{Args, ValueEnum};
use serde::de::{DeserializeOwned, IntoDeserializer};
use serde_json::Value;

use crate::progress::progress;

/// Where and with how many threads to compute.
#[derive(Debug, Clone, Args)]
pub struct RuntimeArgs {
    /// Device: auto, cpu, ndarray, wgpu or cuda[:N] (those that were compiled in).
    #[arg(long, default_value = "auto", global = true)]
    pub device: DeviceChoice,
    /// CPU threads; 0 takes all.
    #[arg(long, default_value_t = 0, global = true, value_name = "N")]
    pub threads: usize,
}

/// Which model.
#[derive(Debug, Clone, Args)]
pub struct ModelArgs {
    /// A hub id (owner/name), a folder in Hugging Face layout, a .gguf file, or the name of a known
    /// model such as qwen2.5-coder-0.5b.
    #[arg(long, short, value_name = "MODEL", default_value = cartridges_model::hub::DEFAULT_MODEL)]
    pub model: String,
    /// Branch, tag or commit of a hub model.
    #[arg(long, value_name = "REV")]
    pub revision: Option<String>,
    /// In which precision matrices are kept: f32, bf16, q8 or q4 (8 or 4 bits per value, unpacked block
    /// by block where they are multiplied), or auto, which takes bf16 where the processor multiplies it
    /// faster and the files are no more exact.
    #[arg(long, value_name = "TYPE", default_value = "auto")]
    pub precision: PrecisionChoice,
    /// Use files that are on this machine only.
    #[arg(long)]
    pub offline: bool,
}

/// `--precision`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum PrecisionChoice {
    /// bf16 where it is faster and loses nothing worth keeping.
    Auto,
    /// As exact as the files are.
    F32,
    /// Half the memory.
    Bf16,
    /// A quarter of the memory: blocks of 32 signed bytes with one scale.
    Q8,
    /// An eighth of the memory: blocks of 32 integers of 4 bits with one scale.
    Q4,
}

impl PrecisionChoice {
    /// For weights that nothing is lost of.
    pub fn plain(self, device: DeviceChoice) -> Precision {
        match self {
            Self::F32 => Precision::F32,
            Self::Bf16 => Precision::Bf16,
            Self::Q8 => Precision::Q8,
            Self::Q4 => Precision::Q4,
            Self::Auto if device.multiplies_bf16() => Precision::Bf16,
            Self::Auto => Precision::F32,
        }
    }

    fn of(self, weights: &Weights, device: DeviceChoice) -> Precision {
        let exact = |name| weights.dtype_name(name) == Some("F32");
        match self {
            Self::Auto if exact("model.layers.0.self_attn.q_proj.weight") => Precision::F32,
            choice => choice.plain(device),
        }
    }
}

/// An opened device.
#[derive(Debug, Clone)]
pub struct Runtime {
    /// The device.
    pub device: Device,
    /// Which one it is.
    pub choice: DeviceChoice,
    /// CPU threads in use.
    pub threads: usize,
}

impl RuntimeArgs {
    /// Sets up the threads and opens the device.
    ///
    /// # Errors
    /// If the device is not there or was not compiled in.
    pub fn open(&self) -> Result<Runtime> {
        if self.threads > 0 {
            // Fails only when the pool is there already, as in tests; then that one is used.
            let _ = rayon::ThreadPoolBuilder::new()
                .num_threads(self.threads)
                .build_global();
        }
        let (device, choice) = self.device.open()?;
        Ok(Runtime {
            device,
            choice,
            threads: rayon::current_num_threads(),
        })
    }
}

impl ModelArgs {
    /// Finds the model's files, fetching them if need be, and loads it.
    ///
    /// # Errors
    /// If the model cannot be found, fetched or read; the message says what to do.
    pub fn open(&self, runtime: &Runtime) -> Result<Arc<LanguageModel>> {
        let files = self.files()?;
        let begin = Instant::now();
        let progress = progress(1, "loading model", "MiB");
        let model = LanguageModel::load_as(
            files.path.as_path(),
            &files.id,
            |weights| self.precision.of(weights, runtime.choice),
            &runtime.device,
            &mut |done, total| {
                progress.set_total((total >> 20) as u64);
                progress.set((done >> 20) as u64, String::new());
            },
        )
        .with_context(|| format!("loading {}", files.id))?;
        drop(progress);
        eprintln!(
            "model    {} · {} layers · {:.0} MiB of {} in memory · {:.1} s · {} with {} threads",
            files.id,
            model.decoder.config().num_layers,
            model.decoder.resident_bytes() as f64 / f64::from(1 << 20),
            model.decoder.precision(),
            begin.elapsed().as_secs_f64(),
            runtime.choice,
            runtime.threads,
        );
        Ok(Arc::new(model))
    }
}

impl ModelArgs {
    /// Finds the model's files, fetching them if need be.
    ///
    /// # Errors
    /// If it cannot be found or fetched.
    pub(crate) fn files(&self) -> Result<ModelFiles> {
        let reference = ModelRef::parse(&self.model)?;
        let mut options = ResolveOptions::from_env();
        options.offline |= self.offline;
        options.revision.clone_from(&self.revision);
        options.progress = true;
        options.notice = Some(Arc::new(|line| eprintln!("{line}")));
        Ok(resolve(&reference, &options)?)
    }

    /// The model's tokenizer and identity, without its weights in memory.
    ///
    /// # Errors
    /// As [`ModelArgs::open`].
    pub fn open_text(&self) -> Result<(ChatTokenizer, ModelIdentity)> {
        let files = self.files()?;
        let (_, text, identity) = LanguageModel::identify(files.path.as_path(), &files.id)
            .with_context(|| format!("loading {}", files.id))?;
        Ok((text, identity))
    }
}

/// Loads a cartridge folder, or a reference `.pt` file, and checks that it fits the model.
///
/// # Errors
/// If it is damaged or was made for another model (`allow_other_weights` accepts other weights of
/// the same shape, such as another quantisation).
pub fn load_cartridge(
    path: &Path,
    model: &LanguageModel,
    allow_other_weights: bool,
) -> Result<(HostCartridge, Option<CartridgeManifest>)> {
    if !path.exists() {
        bail!("cartridge {} does not exist", path.display());
    }
    if path.extension().is_some_and(|e| e == "pt") {
        let host = cartridges_model::cartridge::torch::read_pt(path)?;
        model.identity.check_shape(&host)?;
        return Ok((host, None));
    }
    let (host, manifest) = load(path)?;
    manifest
        .check(&model.identity, allow_other_weights)
        .with_context(|| format!("cartridge {}", path.display()))?;
    Ok((host, Some(manifest)))
}

/// Loads an adapter folder and checks that it fits the model.
///
/// # Errors
/// If it is damaged or was made for another model (`allow_other_weights` accepts other weights of
/// the same shape, such as another quantisation).
pub fn load_adapter(
    path: &Path,
    model: &LanguageModel,
    allow_other_weights: bool,
) -> Result<(HostAdapter, AdapterManifest)> {
    if !path.exists() {
        bail!("adapter {} does not exist", path.display());
    }
    let (host, manifest) = adapter::load_adapter(path)?;
    manifest
        .check(&model.identity, allow_other_weights)
        .with_context(|| format!("adapter {}", path.display()))?;
    Ok((host, manifest))
}

/// Makes a folder for results and checks that files can be written in it, before hours of work.
pub(crate) fn writable_folder(path: &Path) -> Result<()> {
    let failed = || format!("cannot write in folder {}", path.display());
    std::fs::create_dir_all(path).with_context(failed)?;
    tempfile::tempfile_in(path).with_context(failed)?;
    Ok(())
}

/// The text that a cartridge is to be made of.
pub(crate) fn read_corpus(path: &Path) -> Result<String> {
    let text = read_text(path)?;
    if text.trim().is_empty() {
        bail!("{} is empty: there is nothing to study", path.display());
    }
    Ok(text)
}

/// A file that is to be read, with a message that names it if it cannot be.
pub(crate) fn read_text(path: &Path) -> Result<String> {
    cartridges_study::resource::read_text(path).with_context(|| format!("{}", path.display()))
}

/// Settings from a TOML file, with a message that names it if they cannot be read.
pub(crate) fn settings<T: DeserializeOwned>(path: &Path) -> Result<T> {
    toml::from_str(&read_text(path)?).with_context(|| format!("settings in {}", path.display()))
}

/// A JSON file of at most `limit` bytes.
pub(crate) fn read_json(path: &Path, limit: u64) -> Result<Value> {
    let named = || format!("{}", path.display());
    let about = std::fs::metadata(path).with_context(named)?;
    if !about.is_file() || about.len() > limit {
        bail!("{}: expected a file of at most {limit} bytes", named());
    }
    let text = std::fs::read(path).with_context(named)?;
    serde_json::from_slice(&text).with_context(named)
}

/// A setting by the word that stands for it in files.
pub(crate) fn from_word<T: DeserializeOwned>(word: &str) -> Result<T, String> {
    T::deserialize(word.into_deserializer())
        .map_err(|error: serde::de::value::Error| error.to_string())
}
