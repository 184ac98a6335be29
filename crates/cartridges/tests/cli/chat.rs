//! `chat`, with a model that is made up here.

use super::logits::reference_cartridge;
use super::*;

/// A model of one layer with arbitrary weights and a real tokenizer.
pub(super) fn talking_model(folder: &Path) {
    talking_model_of(1, folder);
}

pub(super) fn talking_model_of(layers: usize, folder: &Path) {
    let (vocab, hidden, heads, kv_heads, head_dim, wide) = (49_152, 16, 2, 1, 8, 32);
    let mut shapes = vec![("model.embed_tokens.weight".to_owned(), vec![vocab, hidden])];
    for layer in 0..layers {
        let parts = [
            ("input_layernorm", vec![hidden]),
            ("self_attn.q_proj", vec![heads * head_dim, hidden]),
            ("self_attn.k_proj", vec![kv_heads * head_dim, hidden]),
            ("self_attn.v_proj", vec![kv_heads * head_dim, hidden]),
            ("self_attn.o_proj", vec![hidden, heads * head_dim]),
            ("post_attention_layernorm", vec![hidden]),
            ("mlp.gate_proj", vec![wide, hidden]),
            ("mlp.up_proj", vec![wide, hidden]),
            ("mlp.down_proj", vec![hidden, wide]),
        ];
        let name = |part: &str| format!("model.layers.{layer}.{part}.weight");
        shapes.extend(parts.map(|(part, shape)| (name(part), shape)));
    }
    shapes.push(("model.norm.weight".to_owned(), vec![hidden]));
    let mut state = 1u64;
    let tensors: Vec<(String, Vec<usize>, Vec<u8>)> = shapes
        .into_iter()
        .map(|(name, shape)| {
            let bytes = (0..shape.iter().product())
                .flat_map(|_| {
                    state = state
                        .wrapping_mul(6_364_136_223_846_793_005)
                        .wrapping_add(1);
                    ((state >> 40) as f32 / (1u64 << 24) as f32 - 0.5).to_le_bytes()
                })
                .collect();
            (name, shape, bytes)
        })
        .collect();
    let views: Vec<(&str, TensorView)> = tensors
        .iter()
        .map(|(name, shape, bytes)| {
            (
                name.as_str(),
                TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap(),
            )
        })
        .collect();
    let bytes = safetensors::serialize(views, None).unwrap();
    std::fs::write(folder.join("model.safetensors"), bytes).unwrap();
    let config = json!({
        "architectures": ["LlamaForCausalLM"], "model_type": "llama", "hidden_act": "silu",
        "vocab_size": vocab, "hidden_size": hidden, "intermediate_size": wide,
        "num_hidden_layers": layers, "num_attention_heads": heads, "num_key_value_heads": kv_heads,
        "head_dim": head_dim, "rms_norm_eps": 1e-5, "rope_theta": 10000.0,
        "max_position_embeddings": 2048, "tie_word_embeddings": true,
    });
    std::fs::write(folder.join("config.json"), config.to_string()).unwrap();
    for name in [
        "tokenizer.json",
        "tokenizer_config.json",
        "chat_template.jinja",
    ] {
        std::fs::copy(fixture("tokenizers/smollm2").join(name), folder.join(name)).unwrap();
    }
}

fn converse(model: &Path, more: &[&str], lines: &str) -> Output {
    let home = TempDir::new().unwrap();
    let mut child = program(&home)
        .args(["chat", "--model", text(model), "--max-new-tokens", "5"])
        .args(more)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    child
        .stdin
        .take()
        .unwrap()
        .write_all(lines.as_bytes())
        .unwrap();
    child.wait_with_output().unwrap()
}

#[test]
fn chat_answers_once_and_in_turns() {
    let home = TempDir::new().unwrap();
    let model = home.path();
    talking_model(model);
    let ask = [
        "chat",
        "--model",
        text(model),
        "--max-new-tokens",
        "5",
        "--prompt",
        "Hello",
    ];
    let once = works(&ask);
    let json = works(&[&ask[..], &["--json"]].concat());
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(
        json["text"].as_str().unwrap(),
        once.strip_suffix('\n').unwrap()
    );
    assert!(json["seconds"].as_f64().unwrap() > 0.0);
    assert!((1..=5).contains(&json["tokens"].as_u64().unwrap()));
    assert!(["stop", "length"].contains(&json["finish"].as_str().unwrap()));

    // The first answer again, then anew after /undo and after /clear: the same each time.
    let lines = "Hello\n/undo\nHello\n\n/nonsense\nMore?\n/clear\nHello\n/undo\n/undo\n/quit\nno\n";
    let output = converse(model, &[], lines);
    let (said, remarks) = (utf8(&output.stdout), utf8(&output.stderr));
    assert!(output.status.success(), "{remarks}");
    assert!(
        said.starts_with(&once) && said[once.len()..].starts_with(&once),
        "{said}"
    );
    assert!(
        said.ends_with(&once) && said.len() > 3 * once.len(),
        "{said}"
    );
    assert!(remarks.contains("unknown command /nonsense"), "{remarks}");
    assert!(remarks.contains("nothing to drop"), "{remarks}");

    // A question that does not fit ends a conversation that no one watches.
    let long = "word ".repeat(2200);
    let output = converse(model, &[], &long);
    assert_eq!(output.status.code(), Some(1));
    assert!(
        utf8(&output.stderr).contains("2048"),
        "{}",
        utf8(&output.stderr)
    );
    let sampling = [&ask[..], &["--temperature=-1"]].concat();
    fails(&sampling, &["temperature"]);
}

#[test]
fn chat_behind_a_cartridge_checks_that_it_fits() {
    let home = TempDir::new().unwrap();
    let model = home.path().join("model");
    std::fs::create_dir(&model).unwrap();
    talking_model(&model);
    let cartridge = home.path().join("cartridge");
    reference_cartridge(&cartridge, 0, 4);
    let ask = ["chat", "--model", text(&model), "--prompt", "Hello"];
    fails(
        &[&ask[..], &["--cartridge", text(&cartridge)]].concat(),
        &["cartridge"],
    );

    // One layer, one key/value head of 8, two slots, in the reference's own format.
    let layer = HostLayer {
        key: vec![0.25; 16],
        value: vec![-0.25; 16],
    };
    let host = HostCartridge::new(1, 8, 2, 1, vec![layer]).unwrap();
    let file = home.path().join("cartridge.pt");
    cartridges_model::cartridge::torch::write_pt(&file, &host, CartridgeDtype::F32).unwrap();
    let file = [
        "--cartridge",
        text(&file),
        "--max-new-tokens",
        "3",
        "--json",
    ];
    let json: Value = serde_json::from_str(&works(&[&ask[..], &file].concat())).unwrap();
    assert!(json["tokens"].as_u64().unwrap() > 0);
}
