//! `cartridges convert`: cartridges and adapters in the formats of other programs, both ways.

mod input;
mod merged;

use std::io::{self, Write};
use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result, bail};
use cartridges_model::LanguageModel;
use cartridges_model::adapter::{HostAdapter, save_adapter, write_lora};
use cartridges_model::cartridge::{
    CartridgeDtype, HostCartridge, ModelIdentity, save, torch::write_pt, write_mlx, write_peft,
};
use cartridges_model::decoder::ModelConfig;
use cartridges_model::hub::{ModelRef, ResolveOptions, resolve};
use clap::{Args, ValueEnum};
use serde_json::{Value, json};

use crate::opening::RuntimeArgs;
use crate::provenance::program;
use input::Input;

/// Convert a cartridge or an adapter into another format.
#[derive(Debug, Clone, Args)]
#[command(
    after_help = "Cartridges are read from our folders, .pt files of the reference system and PEFT's \
CARTRIDGE folders; adapters from our folders, PEFT's LORA folders and .pt files of the reference's \
transmutation. Our own folders say for which model they are; for the others, formats that name the \
model need --model. Weights are read for --to merged only: a whole model, with an adapter in its weights, \
for programs that know no adapters.

Examples:
  cartridges convert cartridges/handbook --to pt --out handbook.pt
  cartridges convert cartridges/handbook --to peft --out handbook-peft --dtype bf16
  cartridges convert cartridges/handbook --to mlx --out handbook.safetensors
  cartridges convert cache-step500.pt --to cartridge --model qwen2.5-coder-0.5b --out cartridges/mine
  cartridges convert adapters/handbook --to lora --out handbook-lora
  cartridges convert adapters/handbook --to merged --model qwen3-0.6b --out models/handbook"
)]
pub struct ConvertArgs {
    /// A cartridge or an adapter: our folder, a .pt file, or a folder of PEFT.
    #[arg(value_name = "IN")]
    input: PathBuf,
    /// The format to write.
    #[arg(long, value_name = "FORMAT")]
    to: Format,
    /// The folder (cartridge, peft, adapter, lora, merged) or file (pt, mlx) to write.
    #[arg(long, value_name = "PATH")]
    out: PathBuf,
    /// The model it is for: a hub id, a folder in Hugging Face layout, a .gguf file, or the name of a
    /// known model. Where the input says for which model it is, they must agree.
    #[arg(long, short, value_name = "MODEL")]
    model: Option<String>,
    /// Branch, tag or commit of a hub model.
    #[arg(long, value_name = "REV", requires = "model")]
    revision: Option<String>,
    /// Use files of the model that are on this machine only.
    #[arg(long)]
    offline: bool,
    /// Element type of the output: f32, f16 or bf16. Without it, that of the input; of a merged model, that
    /// of each of the model's tensors.
    #[arg(long, value_name = "TYPE")]
    dtype: Option<DtypeChoice>,
    /// Accept another file of the model that the input was made for, such as the one that a quantised
    /// model was made from.
    #[arg(long)]
    allow_other_weights: bool,
}

/// `--to`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum Format {
    /// Our cartridge folder.
    Cartridge,
    /// The reference system's .pt file.
    Pt,
    /// PEFT's CARTRIDGE folder.
    Peft,
    /// A prompt cache of mlx_lm 0.32 or newer (.safetensors).
    Mlx,
    /// Our adapter folder.
    Adapter,
    /// PEFT's LORA folder.
    Lora,
    /// A model's folder with the adapter in its weights.
    Merged,
}

/// `--dtype`.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum DtypeChoice {
    /// 32 bits.
    F32,
    /// 16 bits, up to 65504.
    F16,
    /// 16 bits, as large as f32.
    Bf16,
}

impl From<DtypeChoice> for CartridgeDtype {
    fn from(choice: DtypeChoice) -> Self {
        match choice {
            DtypeChoice::F32 => Self::F32,
            DtypeChoice::F16 => Self::F16,
            DtypeChoice::Bf16 => Self::Bf16,
        }
    }
}

/// Runs the command.
///
/// # Errors
/// If the input is nothing that is known or is damaged, does not fit the format or the model, or the
/// output cannot be written.
pub fn run(args: ConvertArgs, _runtime: &RuntimeArgs) -> Result<()> {
    check_name(&args)?;
    let model = args.model.as_deref().map(|m| find(m, &args)).transpose()?;
    let input = Input::read(&args.input, model.as_ref())?;
    if let Some(model) = &model {
        let named = || format!("{} and {}", args.input.display(), model.identity.id);
        input
            .check(model, args.allow_other_weights)
            .with_context(named)?;
    }
    if args.to == Format::Merged {
        return merged::run(&args, &input, model.as_ref());
    }
    let model = model.as_ref().map(|model| &model.identity);
    let identity = input.identity().or(model);
    let dtype = args.dtype.map_or_else(|| input.dtype(), Into::into);
    let how = json!({
        "program": program(),
        "converted_from": input.format(),
        "named_model": input.named_model(),
        "source": input.made_by(),
    });
    let said = match &input {
        Input::Cartridge(found) => write_cartridge(
            &args,
            &found.host,
            identity,
            found.named.as_deref(),
            &how,
            dtype,
        )?,
        Input::Adapter(found) => write_adapter(&args, &found.host, identity, &how, dtype)?,
    };
    let mut out = io::stdout().lock();
    writeln!(out, "{said} as {dtype} in {}", args.out.display())?;
    out.flush()?;
    Ok(())
}

/// Files are recognised by their ends, by us and by those who read them.
fn check_name(args: &ConvertArgs) -> Result<()> {
    let extension = match args.to {
        Format::Pt => "pt",
        Format::Mlx => "safetensors",
        _ => return Ok(()),
    };
    if args.out.extension().is_none_or(|e| e != extension) {
        bail!("--out {} must end with .{extension}", args.out.display());
    }
    Ok(())
}

fn write_cartridge(
    args: &ConvertArgs,
    host: &HostCartridge,
    identity: Option<&ModelIdentity>,
    named: Option<&str>,
    how: &Value,
    dtype: CartridgeDtype,
) -> Result<String> {
    let out = args.out.as_path();
    let name = identity.map(|identity| identity.id.as_str()).or(named);
    match args.to {
        Format::Cartridge => {
            let identity = needed(identity, args)?;
            save(out, host, identity, how, dtype)?;
        }
        Format::Pt => write_pt(out, host, dtype)?,
        Format::Peft => write_peft(out, host, name, dtype)?,
        Format::Mlx => write_mlx(out, host, name, dtype)?,
        Format::Adapter | Format::Lora | Format::Merged => {
            bail!(
                "{} is a cartridge; --to can be cartridge, pt, peft or mlx",
                args.input.display()
            )
        }
    }
    Ok(format!("cartridge of {} slots", host.slots))
}

fn write_adapter(
    args: &ConvertArgs,
    host: &HostAdapter,
    identity: Option<&ModelIdentity>,
    how: &Value,
    dtype: CartridgeDtype,
) -> Result<String> {
    match args.to {
        Format::Adapter => {
            save_adapter(&args.out, host, needed(identity, args)?, how, dtype)?;
        }
        Format::Lora => write_lora(&args.out, host, needed(identity, args)?, dtype)?,
        Format::Cartridge | Format::Pt | Format::Peft | Format::Mlx | Format::Merged => {
            bail!(
                "{} is an adapter; --to can be adapter, lora or merged",
                args.input.display()
            )
        }
    }
    Ok(format!("adapter of {} patches", host.patches().len()))
}

fn needed<'a>(
    identity: Option<&'a ModelIdentity>,
    args: &ConvertArgs,
) -> Result<&'a ModelIdentity> {
    identity.with_context(|| {
        let input = args.input.display();
        format!("{input} does not say exactly for which model it is: name it with --model")
    })
}

/// A model, without its weights.
struct Model {
    config: ModelConfig,
    identity: ModelIdentity,
    /// Where its files are.
    path: PathBuf,
}

/// Finds the model; its files are fetched if need be.
fn find(model: &str, args: &ConvertArgs) -> Result<Model> {
    let mut options = ResolveOptions::from_env();
    options.offline |= args.offline;
    options.revision.clone_from(&args.revision);
    options.progress = true;
    options.notice = Some(Arc::new(|line| eprintln!("{line}")));
    let files = resolve(&ModelRef::parse(model)?, &options)?;
    let (config, _, identity) = LanguageModel::identify(files.path.as_path(), &files.id)
        .with_context(|| format!("model {}", files.id))?;
    Ok(Model {
        config,
        identity,
        path: files.path.as_path().to_owned(),
    })
}
