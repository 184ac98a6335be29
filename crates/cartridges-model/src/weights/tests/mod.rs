//! Whole-file tests: folders and GGUF files built from the tiny models.

mod folder;
mod from_gguf;
mod packed;
mod random_bytes;
mod refusals;

use std::path::PathBuf;

use super::gguf::test_writer::TestGguf;
use super::gguf::{Array, Value};
use super::{HostTensor, Weights, WeightsError};

/// The folder of a tiny model.
fn tiny(name: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures")).join(name)
}

/// Writes a GGUF file and opens it; the folder must outlive the weights.
fn open(gguf: &TestGguf) -> (tempfile::TempDir, Result<Weights, WeightsError>) {
    let folder = tempfile::tempdir().unwrap();
    let path = folder.path().join("model.gguf");
    std::fs::write(&path, gguf.bytes()).unwrap();
    let weights = Weights::open_gguf(&path);
    (folder, weights)
}

fn texts(items: &[&str]) -> Value {
    Value::Array(Array::Text(items.iter().map(|s| (*s).to_owned()).collect()))
}

/// A complete small llama file: 2 layers, 4 heads of 8, 2 key/value heads, 12 tokens.
fn small_llama() -> TestGguf {
    let mut gguf = TestGguf::new()
        .text("general.architecture", "llama")
        .number("llama.block_count", 2)
        .number("llama.context_length", 128)
        .number("llama.embedding_length", 32)
        .number("llama.feed_forward_length", 64)
        .number("llama.attention.head_count", 4)
        .number("llama.attention.head_count_kv", 2)
        .entry(
            "llama.attention.layer_norm_rms_epsilon",
            Value::Single(1e-5),
        )
        .entry("llama.rope.freq_base", Value::Single(500_000.0))
        .text("tokenizer.ggml.model", "gpt2")
        .text("tokenizer.ggml.pre", "llama-bpe")
        .entry(
            "tokenizer.ggml.tokens",
            texts(&[
                "a", "b", "c", "d", "e", "f", "g", "h", "ab", "é", "<s>", "</s>",
            ]),
        )
        .entry(
            "tokenizer.ggml.token_type",
            Value::Array(Array::Signed(vec![1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 3, 3])),
        )
        .entry("tokenizer.ggml.merges", texts(&["a b"]))
        .number("tokenizer.ggml.bos_token_id", 10)
        .number("tokenizer.ggml.eos_token_id", 11)
        .entry("tokenizer.ggml.add_bos_token", Value::Bool(true))
        .text("tokenizer.chat_template", "{{ messages }}")
        .f32_tensor("token_embd.weight", &[12, 32], &ramp(12 * 32))
        .f32_tensor("output_norm.weight", &[32], &ramp(32));
    for layer in 0..2 {
        for (part, rows, columns) in [
            ("attn_q", 32, 32),
            ("attn_k", 16, 32),
            ("attn_v", 16, 32),
            ("attn_output", 32, 32),
            ("ffn_gate", 64, 32),
            ("ffn_up", 64, 32),
            ("ffn_down", 32, 64),
        ] {
            let name = format!("blk.{layer}.{part}.weight");
            let values = ramp((rows * columns) as usize);
            gguf = gguf.f32_tensor(&name, &[rows, columns], &values);
        }
        for part in ["attn_norm", "ffn_norm"] {
            let name = format!("blk.{layer}.{part}.weight");
            gguf = gguf.f32_tensor(&name, &[32], &ramp(32));
        }
    }
    gguf
}

/// 0, 0.5, 1, ...
fn ramp(count: usize) -> Vec<f32> {
    (0..count).map(|i| i as f32 * 0.5).collect()
}

fn config_error(gguf: &TestGguf) -> String {
    let (_folder, weights) = open(gguf);
    match weights {
        Ok(weights) => weights.config().unwrap().unwrap_err().to_string(),
        Err(error) => error.to_string(),
    }
}
