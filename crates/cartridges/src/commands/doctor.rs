//! `cartridges doctor`: what this machine and this build can do.

use std::io::{self, Write};
use std::sync::Arc;

use anyhow::Result;
use cartridges_model::decoder::Precision;
use cartridges_model::hub::{ModelCard, ModelRef, ResolveOptions, cards, resolve};
use cartridges_ops::DeviceChoice;
use clap::Args;
use serde::Serialize;

use super::bench::{host_copy_gb_per_s, matmul_gflops};
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
            matmul_gflops: matmul_gflops(&runtime.device, Precision::F32)?,
            copy_gb_per_s: host_copy_gb_per_s(),
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
        total_bytes: kib_line(&text, "MemTotal:"),
        available_bytes: kib_line(&text, "MemAvailable:"),
    }
}

/// Bytes of memory that programs can still have, where the system tells.
pub(super) fn available_memory() -> Option<u64> {
    memory().available_bytes
}

/// A line such as `MemTotal:  16303428 kB`, in bytes.
pub(super) fn kib_line(text: &str, key: &str) -> Option<u64> {
    let line = text.lines().find_map(|line| line.strip_prefix(key))?;
    let kib: u64 = line.trim().strip_suffix("kB")?.trim().parse().ok()?;
    kib.checked_mul(1024)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn memory_lines_are_kibibytes() {
        let text = "MemTotal:       2048 kB\nMemAvailable:   nonsense kB\n";
        assert_eq!(kib_line(text, "MemTotal:"), Some(2 << 20));
        assert_eq!(kib_line(text, "MemAvailable:"), None);
        assert_eq!(kib_line(text, "SwapTotal:"), None);
        let status = "Name:\tx\nVmHWM:\t    2048 kB\nVmRSS: many kB\n";
        assert_eq!(kib_line(status, "VmHWM:"), Some(2 << 20));
        assert_eq!(kib_line(status, "VmRSS:"), None);
        assert_eq!(kib_line(status, "VmSwap:"), None);
    }
}
