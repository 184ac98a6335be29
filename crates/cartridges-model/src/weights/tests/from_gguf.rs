//! GGUF files that a converter could have made from the tiny models.

use super::{TestGguf, Value, Weights, open, ramp, small_llama, texts, tiny};
use crate::decoder::ModelConfig;
use crate::weights::{Dtype, TokenizerParts};

/// Reorders rows as llama's converter does: `[heads, 2, half, columns]` to
/// `[heads, half, 2, columns]`.
fn interleave(values: &[f32], heads: usize, rows: usize) -> Vec<f32> {
    let columns = values.len() / rows;
    let half = rows / heads / 2;
    let mut out = Vec::new();
    for head in 0..heads {
        for lane in 0..half {
            for side in 0..2 {
                let row = head * 2 * half + side * half + lane;
                out.extend(&values[row * columns..][..columns]);
            }
        }
    }
    out
}

/// Writes a tiny model as GGUF.
fn convert(weights: &Weights, config: &ModelConfig, architecture: &str) -> TestGguf {
    let key = |field: &str| format!("{architecture}.{field}");
    let mut gguf = TestGguf::new()
        .text("general.architecture", architecture)
        .number(&key("block_count"), config.num_layers as u64)
        .number(
            &key("context_length"),
            config.max_position_embeddings as u64,
        )
        .number(&key("embedding_length"), config.hidden_size as u64)
        .number(&key("feed_forward_length"), config.intermediate_size as u64)
        .number(&key("attention.head_count"), config.num_heads as u64)
        .number(&key("attention.head_count_kv"), config.num_kv_heads as u64)
        .number(&key("attention.key_length"), config.head_dim as u64)
        .number(&key("attention.value_length"), config.head_dim as u64)
        .entry(
            &key("attention.layer_norm_rms_epsilon"),
            Value::Single(config.rms_norm_eps as f32),
        )
        .entry(
            &key("rope.freq_base"),
            Value::Single(config.rope.theta as f32),
        );
    for name in weights.names() {
        let tensor = weights.read(name).unwrap();
        let mut values = tensor.values;
        if architecture == "llama" {
            if name.contains("q_proj") {
                values = interleave(&values, config.num_heads, tensor.shape[0]);
            } else if name.contains("k_proj") {
                values = interleave(&values, config.num_kv_heads, tensor.shape[0]);
            }
        }
        let shape: Vec<u64> = tensor.shape.iter().map(|d| *d as u64).collect();
        gguf = gguf.f32_tensor(&gguf_name(name), &shape, &values);
    }
    gguf
}

fn gguf_name(name: &str) -> String {
    [
        ("model.layers.", "blk."),
        ("model.embed_tokens", "token_embd"),
        ("model.norm", "output_norm"),
        ("lm_head", "output"),
        ("self_attn.q_norm", "attn_q_norm"),
        ("self_attn.k_norm", "attn_k_norm"),
        ("self_attn.q_proj", "attn_q"),
        ("self_attn.k_proj", "attn_k"),
        ("self_attn.v_proj", "attn_v"),
        ("self_attn.o_proj", "attn_output"),
        ("input_layernorm", "attn_norm"),
        ("post_attention_layernorm", "ffn_norm"),
        ("mlp.gate_proj", "ffn_gate"),
        ("mlp.up_proj", "ffn_up"),
        ("mlp.down_proj", "ffn_down"),
    ]
    .iter()
    .fold(name.to_owned(), |name, (from, to)| name.replace(from, to))
}

#[test]
fn tiny_models_come_back_as_they_were() {
    for (folder, architecture) in [
        ("tiny-llama3", "llama"),
        ("tiny-qwen2", "qwen2"),
        ("tiny-qwen3", "qwen3"),
    ] {
        let original = Weights::open_folder(&tiny(folder)).unwrap();
        let config = ModelConfig::from_file(&tiny(folder).join("config.json")).unwrap();
        let mut gguf = convert(&original, &config, architecture);
        let plain = ModelConfig {
            rope: crate::decoder::RopeConfig {
                llama3: None,
                ..config.rope
            },
            ..config.clone()
        };
        if config.rope.llama3.is_some() {
            let divisors: Vec<f32> = plain
                .rope_frequencies()
                .iter()
                .zip(config.rope_frequencies())
                .map(|(plain, scaled)| (plain / scaled) as f32)
                .collect();
            gguf = gguf.f32_tensor("rope_freqs.weight", &[divisors.len() as u64], &divisors);
        }
        let (_folder, weights) = open(&gguf);
        let weights = weights.unwrap();
        for name in original.names() {
            assert_eq!(
                weights.read(name).unwrap(),
                original.read(name).unwrap(),
                "{folder} {name}"
            );
        }
        let found = weights.config().unwrap().unwrap();
        let mut expected = plain;
        expected.rope_divisors = found.rope_divisors.clone();
        assert_eq!(found, expected);
        assert_eq!(found.rope_divisors.is_some(), architecture == "llama");
        for (found, want) in found
            .rope_frequencies()
            .iter()
            .zip(config.rope_frequencies())
        {
            assert!((found / want - 1.0).abs() < 1e-6);
        }
        let known = weights
            .names()
            .filter(|n| *n != "rope_freqs.weight")
            .count();
        assert_eq!(known, original.names().count());
    }
}

#[test]
fn quantised_rows_and_biases_are_reordered_too() {
    // One Q8_0 block per row, scale 1, all quants equal to the row's number in the file.
    let rows = 32u64;
    let raw = (0..rows)
        .flat_map(|row| [vec![0x00, 0x3c], vec![row as u8; 32]].concat())
        .collect();
    let gguf = small_llama()
        .tensor("blk.2.attn_q.weight", &[rows, 32], Dtype::Q8_0, raw)
        .f32_tensor("blk.2.attn_q.bias", &[32], &ramp(32))
        .f32_tensor("blk.2.attn_v.bias", &[16], &ramp(16));
    let (_folder, weights) = open(&gguf);
    let weights = weights.unwrap();
    // Four heads of 8 rows: even rows of each head first, then odd ones.
    let order: Vec<usize> = (0..4)
        .flat_map(|head| [0, 2, 4, 6, 1, 3, 5, 7].map(|row| 8 * head + row))
        .collect();
    let q = weights
        .read("model.layers.2.self_attn.q_proj.weight")
        .unwrap();
    assert_eq!(q.shape, [32, 32]);
    for (row, stored) in order.iter().enumerate() {
        assert!(
            q.values[32 * row..][..32]
                .iter()
                .all(|v| *v == *stored as f32)
        );
    }
    let bias = weights
        .read("model.layers.2.self_attn.q_proj.bias")
        .unwrap();
    let want: Vec<f32> = order.iter().map(|i| *i as f32 * 0.5).collect();
    assert_eq!(bias.values, want);
    let v = weights
        .read("model.layers.2.self_attn.v_proj.bias")
        .unwrap();
    assert_eq!(v.values, ramp(16));
    assert_eq!(
        weights.dtype_name("model.layers.2.self_attn.q_proj.weight"),
        Some("Q8_0")
    );
}

#[test]
fn bad_values_are_found_behind_the_reordering() {
    let mut values = vec![0.0f32; 32 * 32];
    // Row 1 of a head in the file is row 4 of the result.
    values[32 + 5] = f32::NEG_INFINITY;
    let gguf = small_llama().f32_tensor("blk.2.attn_q.weight", &[32, 32], &values);
    let (_folder, weights) = open(&gguf);
    let error = weights
        .unwrap()
        .read("model.layers.2.self_attn.q_proj.weight")
        .unwrap_err()
        .to_string();
    assert!(error.contains("value 133 is -inf"), "{error}");
}

#[test]
fn head_and_vocabulary() {
    let (_folder, weights) = open(&small_llama());
    let weights = weights.unwrap();
    let config = weights.config().unwrap().unwrap();
    assert!(config.tie_word_embeddings);
    assert!(!weights.head_is_embedding());
    assert_eq!(config.vocab_size, 12);
    assert_eq!(config.rms_norm_eps, 1e-5);
    assert_eq!(config.rope.theta, 500_000.0);
    assert_eq!((config.num_kv_heads, config.head_dim), (2, 8));

    let same = small_llama().f32_tensor("output.weight", &[12, 32], &ramp(12 * 32));
    let (_folder, weights) = open(&same);
    let weights = weights.unwrap();
    assert!(weights.head_is_embedding());
    assert!(weights.config().unwrap().unwrap().tie_word_embeddings);

    let mut values = ramp(12 * 32);
    values[383] += 1.0;
    let other = small_llama().f32_tensor("output.weight", &[12, 32], &values);
    let (_folder, weights) = open(&other);
    let weights = weights.unwrap();
    assert!(!weights.head_is_embedding());
    assert!(!weights.config().unwrap().unwrap().tie_word_embeddings);
}

#[test]
fn tokenizer_is_copied_out() {
    let (_folder, weights) = open(
        &small_llama()
            .number("tokenizer.ggml.unknown_token_id", 3)
            .number("tokenizer.ggml.padding_token_id", u64::from(u32::MAX))
            .entry("tokenizer.ggml.add_space_prefix", Value::Bool(false)),
    );
    let parts = weights.unwrap().tokenizer_parts().unwrap().unwrap();
    let want = TokenizerParts {
        model: "gpt2".into(),
        pre: Some("llama-bpe".into()),
        tokens: [
            "a", "b", "c", "d", "e", "f", "g", "h", "ab", "é", "<s>", "</s>",
        ]
        .map(String::from)
        .to_vec(),
        merges: vec!["a b".into()],
        token_types: vec![1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 3, 3],
        bos_id: Some(10),
        eos_id: Some(11),
        unknown_id: Some(3),
        pad_id: None,
        add_bos: Some(true),
        add_space_prefix: Some(false),
        chat_template: Some("{{ messages }}".into()),
    };
    assert_eq!(parts, want);

    for (key, value) in [
        ("tokenizer.ggml.model", None),
        ("tokenizer.ggml.tokens", None),
        ("tokenizer.ggml.token_type", Some(texts(&["a"]))),
        ("tokenizer.ggml.bos_token_id", Some(Value::Unsigned(12))),
        ("tokenizer.ggml.merges", Some(Value::Bool(true))),
    ] {
        let (_folder, weights) = open(&small_llama().set(key, value));
        let error = weights.unwrap().tokenizer_parts().unwrap().unwrap_err();
        assert!(error.to_string().contains(key), "{error}");
    }
}
