//! GGUF descriptions that the decoder would compute wrongly are refused by name.

use super::{Array, Value, config_error, open, ramp, small_llama};

#[test]
fn metadata_that_changes_the_numbers() {
    let number = |n: u64| Some(Value::Unsigned(n));
    let single = |n: f32| Some(Value::Single(n));
    let text = |s: &str| Some(Value::Text(s.to_owned()));
    let cases = [
        ("general.architecture", text("gemma3")),
        ("general.architecture", None),
        ("general.architecture", number(1)),
        ("llama.block_count", None),
        ("llama.block_count", text("two")),
        ("llama.embedding_length", None),
        ("llama.feed_forward_length", None),
        ("llama.context_length", None),
        ("llama.attention.layer_norm_rms_epsilon", None),
        ("llama.attention.head_count_kv", number(0)),
        (
            "llama.attention.head_count",
            Some(Value::Array(Array::Unsigned(vec![4, 2]))),
        ),
        ("llama.attention.value_length", number(16)),
        ("llama.rope.dimension_count", number(4)),
        ("llama.attention.sliding_window", number(64)),
        ("llama.rope.scaling.type", text("yarn")),
        ("llama.rope.scaling.factor", single(4.0)),
        ("llama.rope.scale_linear", single(2.0)),
        ("llama.expert_count", number(8)),
        ("llama.attention.clamp_kqv", single(8.0)),
        ("llama.attn_logit_softcapping", single(50.0)),
        ("llama.logit_scale", single(0.5)),
        ("llama.attention.scale", single(0.5)),
        ("llama.attention.causal", Some(Value::Bool(false))),
    ];
    for (key, value) in cases {
        let error = config_error(&small_llama().set(key, value.clone()));
        // A wrong head count is noticed at the first tensor that it does not fit.
        let named = error.contains(key) || (key.contains("head_count") && error.contains("heads"));
        assert!(named, "{key} = {value:?}: {error}");
    }
}

#[test]
fn neutral_settings_are_accepted() {
    let gguf = small_llama()
        .number("llama.attention.sliding_window", 128)
        .number("llama.expert_count", 0)
        .number("llama.rope.dimension_count", 8)
        .text("llama.rope.scaling.type", "linear")
        .entry("llama.rope.scaling.factor", Value::Single(1.0))
        .set(
            "llama.attention.head_count_kv",
            Some(Value::Array(Array::Signed(vec![2, 2]))),
        );
    let (_folder, weights) = open(&gguf);
    weights.unwrap().config().unwrap().unwrap();
    // "none" switches scaling off whatever the factor.
    let gguf = small_llama()
        .text("llama.rope.scaling.type", "none")
        .entry("llama.rope.scaling.factor", Value::Single(8.0));
    let (_folder, weights) = open(&gguf);
    weights.unwrap().config().unwrap().unwrap();
}

#[test]
fn tensors_without_a_place() {
    for name in [
        "blk.0.attn_output.bias",
        "blk.0.ffn_up.bias",
        "blk.0.attn_q_norm.weight",
        "blk.0.ffn_gate_inp.weight",
        "blk.00.ffn_up.weight",
        "rope_factors_long.weight",
    ] {
        let error = config_error(&small_llama().f32_tensor(name, &[32], &ramp(32)));
        assert!(error.contains("has no place"), "{name}: {error}");
    }
    let divisors = small_llama().f32_tensor("rope_freqs.weight", &[4], &[1.0, 1.0, 0.0, 1.0]);
    let error = config_error(&divisors);
    assert!(error.contains("rope_freqs"), "{error}");
}

#[test]
fn q_rows_must_be_heads() {
    for (key, heads) in [
        ("llama.attention.head_count", 0),
        ("llama.attention.head_count", 5),
        ("llama.attention.head_count", 32),
        ("llama.attention.head_count_kv", 3),
    ] {
        let (_folder, weights) = open(&small_llama().set(key, Some(Value::Unsigned(heads))));
        let error = weights.unwrap_err().to_string();
        assert!(error.contains("heads of an even width"), "{error}");
    }
    let two_names = small_llama().f32_tensor("model.norm.weight", &[32], &ramp(32));
    let error = open(&two_names).1.unwrap_err().to_string();
    assert!(error.contains("model.norm.weight"), "{error}");
}
