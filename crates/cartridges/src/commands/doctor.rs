//! `cartridges doctor`: what this machine and this build can do.

use std::hint::black_box;
use std::io::{self, Write};
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use burn::tensor::{Device, Tensor, TensorData};
use cartridges_model::hub::{ModelCard, ModelRef, ResolveOptions, cards, resolve};
use cartridges_ops::{DeviceChoice, linear};
use clap::Args;
use rayon::prelude::*;
use serde::Serialize;

use super::inspect::table::{bytes, fields, table};
use crate::opening::RuntimeArgs;

/// Check this machine: devices, memory, known models, and how fast it computes.
#[derive(Debug, Clone, Args)]
#[command(
    after_help = "Takes about two seconds and fetches nothing. Give its output with a report \
of a fault; it holds no secrets.\n\nExamples:\n  cartridges doctor\n  cartridges doctor --device \
cpu --threads 4 --json"
)]
pub struct DoctorArgs {
    /// One JSON object instead of tables.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Serialize)]
struct DeviceState {
    name: String,
    opens: bool,
    problem: Option<String>,
}

#[derive(Debug, Serialize)]
struct ModelState {
    name: String,
    title: String,
    hub: String,
    licence: String,
    /// Only after its terms were accepted on the hub.
    gated: bool,
    /// Path of its files on this machine.
    path: Option<String>,
    /// Bytes of a single file.
    bytes: Option<u64>,
}

#[derive(Debug, Serialize)]
struct Memory {
    total_bytes: Option<u64>,
    available_bytes: Option<u64>,
}

#[derive(Debug, Serialize)]
struct Speed {
    device: String,
    threads: usize,
    /// 512 × 896 times 896 × 4864 in f32, in 10⁹ operations per second.
    matmul_gflops: f64,
    /// Bytes copied from one buffer to another by all threads, in 10⁹ per second.
    copy_gb_per_s: f64,
}

#[derive(Debug, Serialize)]
struct Checkup {
    version: &'static str,
    os: &'static str,
    arch: &'static str,
    cpu: Option<String>,
    hardware_threads: Option<usize>,
    memory: Memory,
    devices: Vec<DeviceState>,
    models_folder: Option<String>,
    hub_cache: String,
    offline: bool,
    hf_token_set: bool,
    models: Vec<ModelState>,
    speed: Speed,
}

/// Runs the command.
///
/// # Errors
/// If the device asked for cannot be opened or fails at a multiplication.
pub fn run(args: DoctorArgs, runtime: &RuntimeArgs) -> Result<()> {
    let runtime = runtime.open()?;
    let options = ResolveOptions::from_env();
    let checkup = Checkup {
        version: env!("CARGO_PKG_VERSION"),
        os: std::env::consts::OS,
        arch: std::env::consts::ARCH,
        cpu: cpu_name(),
        hardware_threads: std::thread::available_parallelism().ok().map(usize::from),
        memory: memory(),
        devices: DeviceChoice::compiled()
            .into_iter()
            .map(device_state)
            .collect(),
        models_folder: options
            .models_folder()
            .ok()
            .map(|p| p.display().to_string()),
        hub_cache: options.hub_folder().display().to_string(),
        offline: options.offline,
        hf_token_set: std::env::var_os("HF_TOKEN").is_some_and(|token| !token.is_empty()),
        models: cards()?.iter().map(model_state).collect(),
        speed: Speed {
            device: runtime.choice.to_string(),
            threads: runtime.threads,
            matmul_gflops: matmul_gflops(&runtime.device)?,
            copy_gb_per_s: copy_gb_per_s(),
        },
    };
    let mut out = io::stdout().lock();
    match args.json {
        true => writeln!(out, "{}", serde_json::to_string_pretty(&checkup)?)?,
        false => out.write_all(show(&checkup).as_bytes())?,
    }
    out.flush()?;
    Ok(())
}

fn show(c: &Checkup) -> String {
    let unknown = || "unknown".to_owned();
    let size = |bytes_of: Option<u64>| bytes_of.map_or_else(unknown, bytes);
    let threads = c.hardware_threads.map_or_else(unknown, |n| n.to_string());
    let mut text = fields(&[
        ("cartridges", c.version.to_owned()),
        ("system", format!("{} {}", c.os, c.arch)),
        ("processor", c.cpu.clone().unwrap_or_else(unknown)),
        ("threads", format!("{threads}, {} in use", c.speed.threads)),
        (
            "memory",
            format!(
                "{}, {} available",
                size(c.memory.total_bytes),
                size(c.memory.available_bytes)
            ),
        ),
        ("models", c.models_folder.clone().unwrap_or_else(unknown)),
        ("hub cache", c.hub_cache.clone()),
        (
            "hub",
            if c.offline {
                "not asked (HF_HUB_OFFLINE)"
            } else {
                "asked when needed"
            }
            .into(),
        ),
        (
            "HF_TOKEN",
            if c.hf_token_set { "set" } else { "not set" }.to_owned(),
        ),
        (
            "speed",
            format!(
                "{:.1} GFLOP/s at 512x896 by 896x4864 (f32) on {}",
                c.speed.matmul_gflops, c.speed.device
            ),
        ),
        (
            "copy",
            format!("{:.1} GB/s in host memory", c.speed.copy_gb_per_s),
        ),
    ]);
    let devices: Vec<Vec<String>> = c
        .devices
        .iter()
        .map(|d| {
            let state = d.problem.clone().unwrap_or_else(|| "opens".to_owned());
            vec![format!("{:<7}  {state}", d.name)]
        })
        .collect();
    text += &format!("\n{}", table(&["device"], &devices));
    let models: Vec<Vec<String>> = c
        .models
        .iter()
        .map(|m| {
            let here = match (&m.path, m.bytes) {
                (None, _) if m.gated => "not here (gated)".to_owned(),
                (None, _) => "not here".to_owned(),
                (Some(_), Some(size)) => format!("here, {}", bytes(size)),
                (Some(_), None) => "here".to_owned(),
            };
            vec![m.name.clone(), here, m.licence.clone()]
        })
        .collect();
    text += &format!("\n{}", table(&["known model", "files", "licence"], &models));
    text
}

fn device_state(choice: DeviceChoice) -> DeviceState {
    let problem = choice.open().err().map(|error| error.to_string());
    DeviceState {
        name: choice.to_string(),
        opens: problem.is_none(),
        problem,
    }
}

/// Looks in the caches only; any reason not to have the model counts as not having it.
fn model_state(card: &ModelCard) -> ModelState {
    let options = ResolveOptions {
        offline: true,
        notice: Some(Arc::new(|line| tracing::info!("{line}"))),
        ..ResolveOptions::from_env()
    };
    let path = resolve(&ModelRef::Card(card.name.clone()), &options)
        .inspect_err(|error| tracing::debug!(model = card.name, %error, "not on this machine"))
        .ok()
        .map(|files| files.path.as_path().to_owned());
    let file = path.as_ref().and_then(|path| std::fs::metadata(path).ok());
    ModelState {
        name: card.name.clone(),
        title: card.title.clone(),
        hub: card.hub.id.clone(),
        licence: card.licence.clone(),
        gated: card.gated,
        path: path.map(|path| path.display().to_string()),
        bytes: file
            .filter(std::fs::Metadata::is_file)
            .map(|about| about.len()),
    }
}

/// The processor's name, where the system has a file that says it.
fn cpu_name() -> Option<String> {
    let text = std::fs::read_to_string("/proc/cpuinfo").ok()?;
    let line = text.lines().find(|line| line.starts_with("model name"))?;
    Some(line.split_once(':')?.1.trim().to_owned())
}

fn memory() -> Memory {
    let text = std::fs::read_to_string("/proc/meminfo").unwrap_or_default();
    Memory {
        total_bytes: meminfo(&text, "MemTotal:"),
        available_bytes: meminfo(&text, "MemAvailable:"),
    }
}

/// Bytes of memory that programs can still have, where the system tells.
pub(super) fn available_memory() -> Option<u64> {
    memory().available_bytes
}

/// A line such as `MemTotal:  16303428 kB`, in bytes.
fn meminfo(text: &str, key: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(key))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

/// The feed-forward multiplication of a small model, through the operation that models use.
fn matmul_gflops(device: &Device) -> Result<f64> {
    const SHAPE: [usize; 3] = [512, 896, 4864];
    const ENOUGH: Duration = Duration::from_millis(600);
    let [n, k, m] = SHAPE;
    let matrix = |rows: usize, columns: usize| {
        let values: Vec<f32> = (0..rows * columns)
            .map(|i| (i % 251) as f32 / 251.0 - 0.5)
            .collect();
        Tensor::<2>::from_data(TensorData::new(values, [rows, columns]), device)
    };
    let (x, weight) = (matrix(n, k), matrix(m, k));
    let multiply = || -> Result<()> {
        let product = linear(x.clone(), &weight);
        device
            .sync()
            .ok()
            .context("the device failed at a multiplication")?;
        drop(black_box(product));
        Ok(())
    };
    multiply()?;
    let begin = Instant::now();
    let mut rounds = 0u32;
    while rounds < 3 || begin.elapsed() < ENOUGH {
        multiply()?;
        rounds += 1;
    }
    let operations = 2.0 * (n * k * m) as f64 * f64::from(rounds);
    Ok(operations / begin.elapsed().as_secs_f64() / 1e9)
}

/// Copies 128 MiB a few times with all threads and takes the best.
fn copy_gb_per_s() -> f64 {
    const FLOATS: usize = 32 << 20;
    const PIECE: usize = 1 << 18;
    let source = vec![1.0f32; FLOATS];
    let mut target = vec![0.0f32; FLOATS];
    let mut best = f64::INFINITY;
    for _ in 0..4 {
        let begin = Instant::now();
        target
            .par_chunks_mut(PIECE)
            .zip(source.par_chunks(PIECE))
            .for_each(|(to, from)| to.copy_from_slice(from));
        black_box(&target);
        best = best.min(begin.elapsed().as_secs_f64());
    }
    (FLOATS * 4) as f64 / best / 1e9
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_lines_are_kibibytes() {
        let text = "MemTotal:       2048 kB\nMemAvailable:   nonsense kB\n";
        assert_eq!(meminfo(text, "MemTotal:"), Some(2 << 20));
        assert_eq!(meminfo(text, "MemAvailable:"), None);
        assert_eq!(meminfo(text, "SwapTotal:"), None);
    }
}
