//! What a cartridge holds.

use std::path::Path;

use anyhow::Result;
use cartridges_model::cartridge::{CartridgeDtype, HostCartridge, load, torch::read_pt};
use serde_json::{Value, json};

use super::Findings;
use super::table::{bytes, fields, table};

/// A cartridge in our own format.
pub(super) fn folder(path: &Path) -> Result<Findings> {
    let (host, manifest) = load(path)?;
    let stored = host.byte_len(manifest.dtype) as u64;
    let mut shown = vec![
        ("cartridge", path.display().to_string()),
        ("format", format!("version {}", manifest.format_version)),
        ("base model", manifest.base_model.id.clone()),
        ("weights", manifest.base_model.weights_fingerprint.clone()),
    ];
    shown.extend(shape_fields(&host));
    shown.push(("stored", format!("{} as {}", bytes(stored), manifest.dtype)));
    shown.push(("sha256", manifest.sha256.clone()));
    let mut text = fields(&shown);
    text += &made_by(&manifest.made_by);
    text += &norm_table(&host);
    let json = json!({
        "kind": "cartridge",
        "path": path,
        "manifest": manifest,
        "stored_bytes": stored,
        "shape": shape_json(&host),
        "norms": norms_json(&host),
    });
    Ok(Findings {
        json,
        text,
        html: None,
    })
}

/// A cartridge of the reference system.
pub(super) fn torch_file(path: &Path) -> Result<Findings> {
    let host = read_pt(path)?;
    let mut shown = vec![
        ("cartridge", path.display().to_string()),
        (
            "format",
            "PyTorch file of the reference system (names no model)".to_owned(),
        ),
    ];
    shown.extend(shape_fields(&host));
    let mut text = fields(&shown);
    text += &norm_table(&host);
    let json = json!({
        "kind": "cartridge",
        "path": path,
        "manifest": null,
        "shape": shape_json(&host),
        "norms": norms_json(&host),
    });
    Ok(Findings {
        json,
        text,
        html: None,
    })
}

fn shape_fields(host: &HostCartridge) -> Vec<(&'static str, String)> {
    let resident = host.byte_len(CartridgeDtype::F32);
    let per_slot = resident / host.slots.max(1);
    vec![
        (
            "slots",
            format!("{}, {} of them frozen", host.slots, host.frozen),
        ),
        (
            "shape",
            format!(
                "{} layers, {} key/value heads of {}",
                host.layers.len(),
                host.kv_heads,
                host.head_dim
            ),
        ),
        (
            "in memory",
            format!(
                "{} ({} per slot)",
                bytes(resident as u64),
                bytes(per_slot as u64)
            ),
        ),
    ]
}

fn shape_json(host: &HostCartridge) -> Value {
    json!({
        "slots": host.slots,
        "frozen": host.frozen,
        "layers": host.layers.len(),
        "kv_heads": host.kv_heads,
        "head_dim": host.head_dim,
        "resident_bytes": host.byte_len(CartridgeDtype::F32),
    })
}

/// How it was made, one line per entry.
fn made_by(value: &Value) -> String {
    match value {
        Value::Object(entries) if !entries.is_empty() => {
            let mut rows = Vec::new();
            for (name, entry) in entries {
                match entry {
                    Value::Object(inner) => {
                        rows.extend(inner.iter().map(|(n, v)| (format!("{name}.{n}"), plain(v))));
                    }
                    other => rows.push((name.clone(), plain(other))),
                }
            }
            let rows: Vec<(&str, String)> =
                rows.iter().map(|(n, v)| (n.as_str(), v.clone())).collect();
            format!("\nmade by\n{}", indented(&fields(&rows)))
        }
        Value::Null => String::new(),
        other => format!("\nmade by  {}\n", plain(other)),
    }
}

fn plain(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}

fn indented(text: &str) -> String {
    text.lines().map(|line| format!("  {line}\n")).collect()
}

/// Mean and largest Euclidean norm of the vectors of one tensor, per head and slot.
fn norms(values: &[f32], head_dim: usize) -> (f64, f64) {
    let (mut sum, mut largest, mut count) = (0.0, 0.0f64, 0usize);
    for vector in values.chunks_exact(head_dim.max(1)) {
        let norm = vector
            .iter()
            .map(|v| f64::from(*v).powi(2))
            .sum::<f64>()
            .sqrt();
        sum += norm;
        largest = largest.max(norm);
        count += 1;
    }
    (sum / count.max(1) as f64, largest)
}

fn norm_table(host: &HostCartridge) -> String {
    let rows: Vec<Vec<String>> = host
        .layers
        .iter()
        .enumerate()
        .map(|(index, layer)| {
            let (key, value) = (
                norms(&layer.key, host.head_dim),
                norms(&layer.value, host.head_dim),
            );
            let mut row = vec![index.to_string()];
            row.extend([key.0, key.1, value.0, value.1].map(|x| format!("{x:.3}")));
            row
        })
        .collect();
    let head = ["layer", "|key| mean", "max", "|value| mean", "max"];
    format!("\n{}", table(&head, &rows))
}

fn norms_json(host: &HostCartridge) -> Value {
    host.layers
        .iter()
        .map(|layer| {
            let (key, value) = (
                norms(&layer.key, host.head_dim),
                norms(&layer.value, host.head_dim),
            );
            json!({
                "key_mean": key.0,
                "key_max": key.1,
                "value_mean": value.0,
                "value_max": value.1,
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn norms_are_per_vector() {
        assert_eq!(norms(&[3.0, 4.0, 0.0, 1.0], 2), (3.0, 5.0));
    }
}
