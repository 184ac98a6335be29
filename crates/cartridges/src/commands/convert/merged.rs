//! `--to merged`: a whole model with an adapter in its weights.

use std::io::{self, Write};

use anyhow::{Result, bail};
use cartridges_transmute::{MergedModel, write_merged_model};

use super::input::Input;
use super::{ConvertArgs, Model};
use crate::fresh_folder::FreshFolder;
use crate::progress::progress;

/// A type that swallows more of a delta is worth a warning.
const MUCH: f64 = 0.05;

/// Writes the model.
pub(super) fn run(args: &ConvertArgs, input: &Input, model: Option<&Model>) -> Result<()> {
    let Input::Adapter(found) = input else {
        bail!(
            "{} is a cartridge, which is no part of the weights; --to can be cartridge, pt, peft or mlx",
            args.input.display()
        )
    };
    let Some(model) = model else {
        bail!(
            "--to merged writes a whole model: name the one that the adapter is for with --model"
        );
    };
    if !model.path.is_dir() {
        bail!(
            "{} is a GGUF file; a delta can be added to the safetensors of a model only: name the original (a \
             folder or a hub id) with --model and --allow-other-weights, or keep the adapter beside the \
             model (--to lora, or --adapter)",
            model.path.display()
        );
    }
    let fresh = FreshFolder::new(&args.out)?;
    let bar = progress(1, "writing model", "MiB");
    let merged = write_merged_model(
        &model.path,
        &model.config,
        &found.host,
        args.dtype.map(Into::into),
        fresh.path(),
        &mut |done, total| {
            bar.set_total(total >> 20);
            bar.set(done >> 20, String::new());
        },
    )?;
    drop(bar);
    let out = fresh.finish()?;
    let MergedModel {
        tensors,
        changed,
        bytes,
        swallowed,
        untied,
    } = merged;
    let head = match untied {
        true => " · the output head is no longer the embedding table",
        false => "",
    };
    let mut stdout = io::stdout().lock();
    writeln!(
        stdout,
        "model with the adapter in {changed} of {tensors} tensors in {} · {:.0} MiB · rounding takes \
         {:.2} % of the adapter{head}",
        out.display(),
        bytes as f64 / f64::from(1 << 20),
        100.0 * swallowed,
    )?;
    stdout.flush()?;
    if swallowed > MUCH {
        eprintln!(
            "warning: the element type swallows {:.0} % of the adapter; write the model with --dtype f32 \
             or f16, or keep the adapter beside it (--to lora, or --adapter)",
            100.0 * swallowed
        );
    }
    Ok(())
}
