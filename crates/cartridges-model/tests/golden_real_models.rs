//! Real weights: token ids, logits, likelihoods and greedy text of SmolLM2-135M (fetched when it can
//! be had) and Qwen2.5-Coder-0.5B (when its file is on this machine).
#![recursion_limit = "256"]

use std::path::Path;

use burn::tensor::Tensor;
use cartridges_model::LanguageModel;
use cartridges_model::adapter::BatchAdapters;
use cartridges_model::decoder::{NoPast, Packed};
use cartridges_model::hub::{HubError, ModelRef, Origin, ResolveOptions, resolve};
use cartridges_ops::{AttentionLayout, DeviceChoice};
use serde_json::Value;

fn golden(name: &str) -> Value {
    let path = concat!(
        env!("CARGO_MANIFEST_DIR"),
        "/../../tests/fixtures/golden_logits.json"
    );
    let all: Value = serde_json::from_str(&std::fs::read_to_string(path).unwrap()).unwrap();
    all[name].clone()
}

fn ids(value: &Value) -> Vec<u32> {
    let list = value.as_array().unwrap();
    list.iter().map(|v| v.as_u64().unwrap() as u32).collect()
}

/// Logits `[n, vocab]` of all positions.
fn logits(model: &LanguageModel, ids: &[u32]) -> Vec<f32> {
    let positions: Vec<u32> = (0..ids.len() as u32).collect();
    let layout = AttentionLayout::packed(0, &[ids.len()]);
    let batch = Packed {
        ids,
        positions: &positions,
        layout: &layout,
        adapters: BatchAdapters::NONE,
    };
    let decoder = &model.decoder;
    let none = BatchAdapters::NONE;
    let hidden = decoder.hidden(batch, &mut NoPast);
    let all: Tensor<2> = decoder.logits(decoder.final_norm(hidden, none), none);
    all.into_data().try_to_vec::<f32>().unwrap()
}

fn check(path: &Path, name: &str) {
    let (device, _) = DeviceChoice::Cpu.open().unwrap();
    let model = LanguageModel::load(path, name, &device, &mut |_, _| ()).unwrap();
    let golden = golden(name);
    let prompt = ids(&golden["ids"]);
    let text = golden["text"].as_str().unwrap();
    assert_eq!(
        model.text.encode(text, false).unwrap(),
        prompt,
        "{name} ids"
    );

    let vocab = model.decoder.config().vocab_size;
    let all = logits(&model, &prompt);
    let last = &all[(prompt.len() - 1) * vocab..];
    let mut best: Vec<usize> = (0..vocab).collect();
    best.sort_by(|a, b| last[*b].total_cmp(&last[*a]));
    for (place, pair) in golden["top10"].as_array().unwrap().iter().enumerate() {
        let (id, wanted) = (
            pair[0].as_u64().unwrap() as usize,
            pair[1].as_f64().unwrap(),
        );
        assert_eq!(best[place], id, "{name} place {place}");
        // The golden numbers have four decimals and come from float32 activations themselves.
        let off = (f64::from(last[id]) - wanted).abs();
        assert!(
            off < 2e-3,
            "{name} logit of {id}: {} for {wanted}",
            last[id]
        );
    }
    let mut sum = 0.0;
    let nll = golden["nll"].as_array().unwrap();
    for (i, wanted) in nll.iter().enumerate() {
        let row = &all[i * vocab..(i + 1) * vocab];
        let max = row.iter().copied().fold(f32::NEG_INFINITY, f32::max);
        let total: f64 = row.iter().map(|x| f64::from(x - max).exp()).sum();
        let found = f64::from(max) + total.ln() - f64::from(row[prompt[i + 1] as usize]);
        let wanted = wanted.as_f64().unwrap();
        assert!(
            (found - wanted).abs() < 2e-3,
            "{name} NLL {i}: {found} for {wanted}"
        );
        sum += found;
    }
    let mean = golden["mean_nll"].as_f64().unwrap();
    assert!(
        (sum / nll.len() as f64 - mean).abs() < 2e-4,
        "{name} mean NLL"
    );

    let mut longer = prompt.clone();
    for wanted in ids(&golden["greedy_ids"]) {
        let all = logits(&model, &longer);
        let last = &all[(longer.len() - 1) * vocab..];
        let best = (0..vocab)
            .max_by(|a, b| last[*a].total_cmp(&last[*b]))
            .unwrap();
        assert_eq!(best as u32, wanted, "{name} greedy");
        longer.push(wanted);
    }
    let made = model.text.decode(&longer[prompt.len()..], true).unwrap();
    assert_eq!(
        made,
        golden["greedy_text"].as_str().unwrap(),
        "{name} greedy text"
    );
}

fn files(card: &str, offline: bool) -> Result<cartridges_model::hub::ModelFiles, HubError> {
    let options = ResolveOptions {
        offline: offline || ResolveOptions::from_env().offline,
        ..ResolveOptions::from_env()
    };
    resolve(&ModelRef::parse(card)?, &options)
}

#[test]
fn smollm2_is_exact() {
    match files("smollm2-135m", false) {
        // The hub has this model in another format, for which there are no golden numbers.
        Ok(files) if files.origin == Origin::Wheels => {
            check(files.path.as_path(), "SmolLM2-135M-Instruct.Q4_1");
        }
        Ok(_) => {
            println!("NOTICE: SmolLM2 came from the hub, not as the file of the golden numbers")
        }
        Err(error) => println!("NOTICE: SmolLM2 is not to be had, its check is skipped: {error}"),
    }
}

#[test]
fn qwen2_5_coder_is_exact() {
    match files("qwen2.5-coder-0.5b", true) {
        Ok(files) => check(files.path.as_path(), "Qwen2.5-Coder-0.5B-Instruct-Q4_K_M"),
        Err(error) => println!("NOTICE: Qwen2.5-Coder is not on this machine, skipped: {error}"),
    }
}
