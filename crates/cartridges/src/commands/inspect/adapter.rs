//! What an adapter holds.

use std::fs;
use std::path::Path;

use anyhow::Result;
use cartridges_model::adapter::{Delta, HostPatch, Mode, load_adapter};
use serde_json::{Value, json};

use super::Findings;
use super::table::{bytes, fields, table, visible};

/// An adapter in our own format.
pub(super) fn folder(path: &Path) -> Result<Findings> {
    let (host, manifest) = load_adapter(path)?;
    let stored = host.byte_len() / 4 * manifest.dtype.size();
    // What is kept beside the deltas, so that corpora can be merged and taken out.
    let beside = ["statistics", "parts"].map(|name| size_of_folder(&path.join(name)));
    let kept: u64 = beside.iter().sum();
    let mut shown = vec![
        ("adapter", path.display().to_string()),
        ("format", format!("version {}", manifest.format_version)),
        ("base model", manifest.base_model.id.clone()),
        ("weights", manifest.base_model.weights_fingerprint.clone()),
        (
            "stored",
            format!("{} as {}", bytes(stored as u64), manifest.dtype),
        ),
        ("sha256", manifest.sha256.clone()),
    ];
    shown.push(match kept {
        0 => ("statistics", "none: it cannot be merged by them".to_owned()),
        kept => ("statistics", bytes(kept)),
    });
    shown.extend(origin(&manifest.made_by));
    let rows: Vec<Vec<String>> = host.patches().iter().map(row).collect();
    let head = ["map", "delta", "mode", "scale", "norm", "bias"];
    let text = format!("{}\n{}", fields(&shown), table(&head, &rows));
    let patches = host.patches().iter().map(|patch| {
        json!({
            "target": patch.target,
            "rank": rank(patch),
            "norm": norm(patch),
            "bias": patch.bias.is_some(),
        })
    });
    let json = json!({
        "kind": "adapter",
        "path": path,
        "stored_bytes": stored,
        "statistics_bytes": kept,
        "patches": patches.collect::<Vec<_>>(),
        "manifest": manifest,
    });
    Ok(Findings {
        json,
        text: visible(&text),
        html: None,
    })
}

/// Where it comes from, as far as its manifest says: corpora, how they were put together, how near the
/// teacher it is.
fn origin(made_by: &Value) -> Vec<(&'static str, String)> {
    let said = |name: &str| made_by.get(name).filter(|value| !value.is_null());
    let plain = |value: &Value| match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    };
    let mut rows = Vec::new();
    for corpus in said("data").and_then(Value::as_array).into_iter().flatten() {
        rows.push(("corpus", plain(corpus)));
    }
    if let Some(by) = said("merged").and_then(|merged| merged.get("by")) {
        let parts = said("parts").and_then(Value::as_array).map_or(0, Vec::len);
        rows.push(("merged", format!("by {} from {parts} adapters", plain(by))));
    }
    for removed in said("removed")
        .and_then(Value::as_array)
        .into_iter()
        .flatten()
    {
        rows.push((
            "removed",
            removed.get("corpus").map(plain).unwrap_or_default(),
        ));
    }
    for (label, name) in [
        ("approximate", "approximate"),
        ("behind", "student_context"),
        ("divergence", "divergence"),
        ("program", "program"),
    ] {
        rows.extend(said(name).map(|value| (label, plain(value))));
    }
    rows
}

fn row(patch: &HostPatch) -> Vec<String> {
    let delta = match (&patch.delta, rank(patch)) {
        (Delta::None, _) => "none".to_owned(),
        (_, Some(rank)) => format!("rank {rank}"),
        (_, None) => "dense".to_owned(),
    };
    let mode = match patch.mode {
        Mode::Linear => "linear",
        Mode::Post => "post",
    };
    let bias = if patch.bias.is_some() { "yes" } else { "" };
    vec![
        patch.target.to_string(),
        delta,
        mode.to_owned(),
        format!("{:.3}", patch.scale),
        format!("{:.4}", norm(patch)),
        bias.to_owned(),
    ]
}

fn rank(patch: &HostPatch) -> Option<usize> {
    match patch.delta {
        Delta::LowRank { rank, .. } => Some(rank),
        Delta::None | Delta::Dense(_) => None,
    }
}

/// Frobenius norm of the delta with its scale. That of `B A` is the root of `Σ (BᵀB) ∘ (A Aᵀ)`.
fn norm(patch: &HostPatch) -> f64 {
    let square: f64 = match &patch.delta {
        Delta::None => 0.0,
        Delta::Dense(delta) => delta.iter().map(|x| f64::from(*x).powi(2)).sum(),
        Delta::LowRank { rank, a, b } => {
            let mut inner = vec![0.0; rank * rank];
            for row in b.chunks_exact(*rank) {
                for (i, x) in row.iter().enumerate() {
                    let line = inner[i * rank..].iter_mut();
                    line.zip(row)
                        .for_each(|(s, y)| *s += f64::from(*x) * f64::from(*y));
                }
            }
            let rows: Vec<&[f32]> = a.chunks_exact(patch.inputs).collect();
            let dot = |x: &[f32], y: &[f32]| -> f64 {
                x.iter()
                    .zip(y)
                    .map(|(x, y)| f64::from(*x) * f64::from(*y))
                    .sum()
            };
            let pairs = (0..*rank).flat_map(|i| (0..*rank).map(move |j| (i, j)));
            pairs
                .map(|(i, j)| inner[i * rank + j] * dot(rows[i], rows[j]))
                .sum()
        }
    };
    f64::from(patch.scale.abs()) * square.max(0.0).sqrt()
}

/// Bytes of all files in a folder; 0 if there is none.
fn size_of_folder(path: &Path) -> u64 {
    let entries = fs::read_dir(path).into_iter().flatten().flatten();
    let size = |entry: fs::DirEntry| match entry.metadata() {
        Ok(about) if about.is_dir() => size_of_folder(&entry.path()),
        Ok(about) => about.len(),
        Err(_) => 0,
    };
    entries.map(size).sum()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_norm_is_that_of_the_product() {
        let (a, b) = (
            vec![1.0, 2.0, 0.5, -1.0, 3.0, 2.0],
            vec![1.0, -2.0, 0.5, 4.0],
        );
        let (inputs, outputs) = (3, 2);
        let mut dense = vec![0.0; inputs * outputs];
        for i in 0..outputs {
            for j in 0..inputs {
                dense[i * inputs + j] = b[i * 2] * a[j] + b[i * 2 + 1] * a[inputs + j];
            }
        }
        let patch = |delta| HostPatch {
            target: cartridges_model::adapter::Target::LmHead,
            mode: Mode::Linear,
            scale: -0.5,
            inputs,
            outputs,
            delta,
            bias: None,
        };
        let low = norm(&patch(Delta::LowRank { rank: 2, a, b }));
        assert!(
            (low - norm(&patch(Delta::Dense(dense)))).abs() < 1e-12,
            "{low}"
        );
    }
}
