//! Measurements as a table and as JSON.

use std::fs;
use std::io::{self, Write};
use std::path::Path;

use anyhow::{Context, Result};
use cartridges_eval::Machine;
use serde::Serialize;

use super::super::inspect::table::table;
use super::ceilings::Ceilings;

/// One piece of work.
#[derive(Debug, Clone, Serialize)]
pub(super) struct Measured {
    /// Layers of the model.
    pub(super) layers: usize,
    /// Slots of the cartridge before it.
    pub(super) prefix: usize,
    /// Tokens that went through the model together.
    pub(super) tokens: usize,
    /// Conversations or requests that they belong to.
    pub(super) together: usize,
    /// Median seconds.
    pub(super) seconds: f64,
    /// Tokens per second.
    pub(super) tokens_per_s: f64,
    /// Operations that are needed, in 10⁹ per second.
    pub(super) gflops: f64,
    /// Bytes that are read at least, in 10⁹ per second, where few rows are computed.
    pub(super) gb_per_s: Option<f64>,
    /// The most memory of this process meanwhile.
    pub(super) peak_bytes: Option<u64>,
    /// Matrices of the model in it.
    pub(super) weight_bytes: u64,
}

/// All measurements of a run.
#[derive(Debug, Serialize)]
pub(super) struct Results {
    /// `train`, `prefill` or `decode`.
    pub(super) work: &'static str,
    /// The model.
    pub(super) model: String,
    /// How its matrices are kept.
    pub(super) precision: String,
    pub(super) device: String,
    pub(super) machine: Machine,
    pub(super) program: String,
    pub(super) command: String,
    pub(super) date: String,
    /// What the same run found this machine to do at most.
    pub(super) ceilings: Ceilings,
    pub(super) rows: Vec<Measured>,
}

impl Results {
    /// Prints the table, or JSON, and writes JSON to `out`.
    ///
    /// # Errors
    /// If the file cannot be written.
    pub(super) fn show(&self, json: bool, out: Option<&Path>) -> Result<()> {
        let text = serde_json::to_string_pretty(self)?;
        if let Some(path) = out {
            fs::write(path, &text).with_context(|| format!("writing {}", path.display()))?;
        }
        let mut stdout = io::stdout().lock();
        match json {
            true => writeln!(stdout, "{text}")?,
            false => stdout.write_all(self.table().as_bytes())?,
        }
        Ok(())
    }

    fn table(&self) -> String {
        const MIB: f64 = (1 << 20) as f64;
        let Ceilings {
            matmul_gflops,
            copy_gb_per_s,
        } = self.ceilings;
        let head = [
            "layers",
            "slots",
            "tokens",
            "together",
            "ms",
            "tokens/s",
            "GFLOP/s",
            "of products",
            "GB/s",
            "of copying",
            "peak MiB",
            "weights MiB",
        ];
        let of = |value: f64, most: f64| format!("{:.0} %", 100.0 * value / most);
        let none = || "-".to_owned();
        let rows: Vec<Vec<String>> = self
            .rows
            .iter()
            .map(|row| {
                let bandwidth = row.gb_per_s;
                vec![
                    row.layers.to_string(),
                    row.prefix.to_string(),
                    row.tokens.to_string(),
                    row.together.to_string(),
                    format!("{:.1}", 1e3 * row.seconds),
                    format!("{:.1}", row.tokens_per_s),
                    format!("{:.1}", row.gflops),
                    of(row.gflops, matmul_gflops),
                    bandwidth.map_or_else(none, |found| format!("{found:.1}")),
                    bandwidth.map_or_else(none, |found| of(found, copy_gb_per_s)),
                    row.peak_bytes
                        .map_or_else(none, |bytes| format!("{:.0}", bytes as f64 / MIB)),
                    format!("{:.0}", row.weight_bytes as f64 / MIB),
                ]
            })
            .collect();
        format!(
            "{} · {} · {} on {} with {} threads ({})\nthis machine: products {matmul_gflops:.0} GFLOP/s, copying \
             {copy_gb_per_s:.1} GB/s\n\n{}",
            self.work,
            self.model,
            self.precision,
            self.device,
            self.machine.threads,
            self.machine.cpu,
            table(&head, &rows)
        )
    }
}
