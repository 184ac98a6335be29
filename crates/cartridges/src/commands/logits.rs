//! `cartridges logits`: raw scores, for comparison with other implementations.

use std::io::{self, Write};
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, anyhow, bail};
use burn::tensor::{Device, Tensor};
use cartridges_model::adapter::{AdapterRegistry, BatchAdapters, load_adapter};
use cartridges_model::atomic_file::write_atomic;
use cartridges_model::cartridge::{Behind, HostCartridge, compose, load, torch::read_pt};
use cartridges_model::decoder::{Decoder, ModelConfig, Packed, Precision};
use cartridges_model::weights::Weights;
use cartridges_ops::AttentionLayout;
use clap::Args;
use serde_json::Value;

use crate::opening::{ModelArgs, PrecisionChoice, Runtime, RuntimeArgs};

/// Rows of logits that are in memory at once.
const ROWS_AT_ONCE: usize = 128;
/// Far more than any prompt needs.
const LARGEST_IDS_FILE: u64 = 64 << 20;

/// Write the logits of every position of a token sequence, for comparison with other programs.
#[derive(Debug, Clone, Args)]
#[command(
    after_help = "The output is a safetensors file with one float32 tensor \"logits\" of \
[tokens, vocabulary]. No tokenizer is needed. Matrices are kept in f32 unless --precision names another form.\n\nExamples:\n  echo '[9707, 11, 1879]' > ids.json\n  \
cartridges logits --model qwen2.5-coder-0.5b --ids ids.json --out logits.safetensors\n  cartridges \
logits --ids ids.json --cartridge cartridges/handbook --out behind.safetensors"
)]
pub struct LogitsArgs {
    #[command(flatten)]
    model: ModelArgs,
    /// JSON file: an array of token ids, or {"ids": [...]}.
    #[arg(long, value_name = "IDS.json")]
    ids: PathBuf,
    /// A cartridge before the tokens: a folder or a .pt file; may repeat, in this order. Only its
    /// shape is checked against the model.
    #[arg(long = "cartridge", value_name = "DIR")]
    cartridges: Vec<PathBuf>,
    /// An adapter of the model: a folder; may repeat, they add up. Only its shape is checked against the
    /// model.
    #[arg(long = "adapter", value_name = "DIR")]
    adapters: Vec<PathBuf>,
    /// The file to write.
    #[arg(long, value_name = "F.safetensors")]
    out: PathBuf,
}

/// Runs the command.
///
/// # Errors
/// If ids, model or a cartridge cannot be used, or the output cannot be written.
pub fn run(args: LogitsArgs, runtime: &RuntimeArgs) -> Result<()> {
    let ids = read_ids(&args.ids)?;
    let hosts = args
        .cartridges
        .iter()
        .map(|path| read_cartridge(path))
        .collect::<Result<Vec<_>>>()?;
    let runtime = runtime.open()?;
    let decoder = load_decoder(&args.model, &runtime)?;
    let config = decoder.config();
    if let Some((index, id)) = ids
        .iter()
        .enumerate()
        .find(|(_, id)| **id as usize >= config.vocab_size)
    {
        bail!(
            "{}: id {id} at index {index} is outside the vocabulary of {}",
            args.ids.display(),
            config.vocab_size
        );
    }
    for (path, host) in args.cartridges.iter().zip(&hosts) {
        check_shape(host, config).with_context(|| format!("cartridge {}", path.display()))?;
    }
    let mut registry = AdapterRegistry::default();
    for path in &args.adapters {
        let named = || format!("adapter {}", path.display());
        let (adapter, _) = load_adapter(path).with_context(named)?;
        registry.register(&adapter, &decoder).with_context(named)?;
    }
    let adapters = registry.everywhere();
    let (mut prefix, slots) = prefix(&hosts, &runtime.device)?;
    let needed = slots.saturating_add(ids.len());
    if needed > config.max_position_embeddings {
        bail!(
            "{} slots and {} tokens make {needed} positions, the model has {}",
            slots,
            ids.len(),
            config.max_position_embeddings
        );
    }

    let first = u32::try_from(slots).context("too many slots")?;
    let positions: Vec<u32> = (first..).take(ids.len()).collect();
    let layout = AttentionLayout::packed(slots, &[ids.len()]);
    let batch = Packed {
        ids: &ids,
        positions: &positions,
        layout: &layout,
        adapters: &adapters,
    };
    let normed = decoder.final_norm(decoder.hidden(batch, &mut prefix), &adapters);
    let last = write_logits(&args.out, &decoder, normed, &adapters)?;

    let mut out = io::stdout().lock();
    writeln!(
        out,
        "logits [{}, {}] in {}",
        ids.len(),
        config.vocab_size,
        args.out.display()
    )?;
    writeln!(out, "top 5 after the last token:")?;
    for (id, logit, logprob) in top(&last, 5) {
        writeln!(
            out,
            "{id:>8}  logit {logit:>10.5}  log-prob {logprob:>10.5}"
        )?;
    }
    out.flush()?;
    Ok(())
}

/// Reads and checks the ids.
fn read_ids(path: &Path) -> Result<Vec<u32>> {
    let name = path.display();
    let about = std::fs::metadata(path).with_context(|| format!("ids file {name}"))?;
    if !about.is_file() || about.len() > LARGEST_IDS_FILE {
        bail!(
            "ids file {name}: expected a JSON file of at most {} MiB",
            LARGEST_IDS_FILE >> 20
        );
    }
    let bytes = std::fs::read(path).with_context(|| format!("ids file {name}"))?;
    let value: Value = serde_json::from_slice(&bytes)
        .with_context(|| format!("ids file {name} is not valid JSON"))?;
    let list = match &value {
        Value::Object(object) => object.get("ids"),
        other => Some(other),
    };
    let Some(Value::Array(list)) = list else {
        bail!("ids file {name}: expected an array of token ids, or an object with one in \"ids\"");
    };
    if list.is_empty() {
        bail!("ids file {name}: there are no ids");
    }
    list.iter()
        .enumerate()
        .map(|(index, item)| {
            item.as_u64()
                .and_then(|id| u32::try_from(id).ok())
                .ok_or_else(|| {
                    anyhow!("ids file {name}: element {index} is {item}, expected a token id")
                })
        })
        .collect()
}

fn read_cartridge(path: &Path) -> Result<HostCartridge> {
    if !path.exists() {
        bail!("cartridge {} does not exist", path.display());
    }
    if path.extension().is_some_and(|e| e == "pt") {
        return Ok(read_pt(path)?);
    }
    Ok(load(path)?.0)
}

fn check_shape(host: &HostCartridge, config: &ModelConfig) -> Result<()> {
    for (what, found, expected) in [
        ("layers", host.layers.len(), config.num_layers),
        ("key/value heads", host.kv_heads, config.num_kv_heads),
        ("values per head", host.head_dim, config.head_dim),
    ] {
        if found != expected {
            bail!("it has {found} {what}, the model has {expected}");
        }
    }
    Ok(())
}

/// Finds the model and loads its decoder. The tokenizer is not touched, so a model without one can
/// be compared too.
fn load_decoder(args: &ModelArgs, runtime: &Runtime) -> Result<Decoder> {
    let files = args.files()?;
    let precision = match args.precision {
        PrecisionChoice::Auto => Precision::F32,
        chosen => chosen.plain(runtime.choice),
    };
    let path = files.path.as_path();
    let weights = Weights::open(path)?;
    let config = match weights.config() {
        Some(config) => config?,
        None => ModelConfig::from_file(&path.join("config.json"))?,
    };
    let progress = crate::progress::progress(1, "loading model", "MiB");
    let tell = &mut |done, total| {
        progress.set_total((total >> 20) as u64);
        progress.set((done >> 20) as u64, String::new());
    };
    let decoder = Decoder::load_as(config, &weights, precision, &runtime.device, tell);
    let decoder = decoder.with_context(|| format!("loading {}", files.id))?;
    drop(progress);
    Ok(decoder)
}

/// Keys and values of the cartridges, before those of the tokens, and how many slots that is.
fn prefix(hosts: &[HostCartridge], device: &Device) -> Result<(Behind, usize)> {
    if hosts.is_empty() {
        return Ok((Behind::default(), 0));
    }
    let all = compose(&hosts.iter().collect::<Vec<_>>())?;
    Ok((Behind(all.tensors(device)), all.slots))
}

/// Writes the logits of `normed [n, hidden]` piece by piece; gives the last row.
fn write_logits(
    path: &Path,
    decoder: &Decoder,
    normed: Tensor<2>,
    adapters: &BatchAdapters,
) -> Result<Vec<f32>> {
    let (vocab, [n, _]) = (decoder.config().vocab_size, normed.dims());
    let mut last = Vec::new();
    write_atomic(path, |file| {
        file.write_all(&header(n, vocab))?;
        for start in (0..n).step_by(ROWS_AT_ONCE) {
            let len = ROWS_AT_ONCE.min(n - start);
            let rows: Vec<usize> = (start..start + len).collect();
            let adapters = adapters.select(&rows, decoder.device());
            let logits = decoder.logits(normed.clone().narrow(0, start, len), &adapters);
            let data = logits.into_data().convert::<f32>();
            let values = data
                .try_to_vec::<f32>()
                .map_err(|e| io::Error::other(format!("{e:?}")))?;
            if values.len() != len * vocab || values.iter().any(|v| !v.is_finite()) {
                return Err(io::Error::other(
                    "the model gave logits that are not finite",
                ));
            }
            let bytes: Vec<u8> = values.iter().flat_map(|v| v.to_le_bytes()).collect();
            file.write_all(&bytes)?;
            last = values[(len - 1) * vocab..].to_vec();
        }
        Ok(())
    })?;
    Ok(last)
}

/// The head of a safetensors file with the one tensor: length, then JSON padded to 8 bytes.
fn header(rows: usize, columns: usize) -> Vec<u8> {
    let bytes = rows as u64 * columns as u64 * 4;
    let mut json = serde_json::json!({
        "logits": { "dtype": "F32", "shape": [rows, columns], "data_offsets": [0, bytes] }
    })
    .to_string();
    while !json.len().is_multiple_of(8) {
        json.push(' ');
    }
    let mut head = (json.len() as u64).to_le_bytes().to_vec();
    head.extend_from_slice(json.as_bytes());
    head
}

/// The `count` largest: id, logit, natural log-prob.
fn top(logits: &[f32], count: usize) -> Vec<(usize, f32, f64)> {
    let max = logits.iter().copied().fold(f32::NEG_INFINITY, f32::max);
    let sum: f64 = logits.iter().map(|x| f64::from(x - max).exp()).sum();
    let log_sum = f64::from(max) + sum.ln();
    let mut order: Vec<usize> = (0..logits.len()).collect();
    order.sort_unstable_by(|a, b| logits[*b].total_cmp(&logits[*a]).then(a.cmp(b)));
    order.truncate(count);
    order
        .into_iter()
        .map(|id| (id, logits[id], f64::from(logits[id]) - log_sum))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_largest_come_first_with_their_log_probs() {
        let found = top(&[0.0, 2.0f32.ln(), 0.0], 2);
        assert_eq!(found.iter().map(|f| f.0).collect::<Vec<_>>(), [1, 0]);
        assert!((found[0].2 - 0.5f64.ln()).abs() < 1e-6);
        assert!((found[1].2 - 0.25f64.ln()).abs() < 1e-6);
    }

    #[test]
    fn the_header_is_read_by_the_format_s_own_reader() {
        let mut file = header(2, 3);
        file.extend((0..6).flat_map(|i| (i as f32).to_le_bytes()));
        let read = safetensors::SafeTensors::deserialize(&file).unwrap();
        assert_eq!(read.tensor("logits").unwrap().shape(), [2, 3]);
    }
}
