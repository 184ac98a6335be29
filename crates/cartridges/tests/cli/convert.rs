//! `convert`, from one format to the next and back.

use cartridges_model::adapter::{Delta, HostAdapter, HostPatch, load_adapter, save_adapter};
use cartridges_model::cartridge::{load, load_manifest, read_peft, torch::read_pt};

use super::*;

/// The fixture of three layers with a tokenizer of two words, so that it can be named as a model.
fn model(home: &TempDir) -> PathBuf {
    model_of("tiny-qwen2", home)
}

/// The same of any fixture.
pub(super) fn model_of(name: &str, home: &TempDir) -> PathBuf {
    let folder = home.path().join("model");
    std::fs::create_dir_all(&folder).unwrap();
    for file in ["config.json", "model.safetensors"] {
        std::fs::copy(fixture(name).join(file), folder.join(file)).unwrap();
    }
    let words = json!({"type": "WordLevel", "vocab": {"a": 0, "b": 1}, "unk_token": "a"});
    let tokenizer = json!({"version": "1.0", "added_tokens": [], "model": words});
    std::fs::write(folder.join("tokenizer.json"), tokenizer.to_string()).unwrap();
    let settings = json!({"eos_token": "b", "chat_template": "{{ messages[0]['content'] }}"});
    std::fs::write(folder.join("tokenizer_config.json"), settings.to_string()).unwrap();
    folder
}

fn convert(from: &Path, to: &str, out: &Path, more: &[&str]) -> String {
    let mut args = vec!["convert", text(from), "--to", to, "--out", text(out)];
    args.extend(more);
    works(&args)
}

fn refused(from: &Path, to: &str, out: &Path, more: &[&str], names: &[&str]) {
    let mut args = vec!["convert", text(from), "--to", to, "--out", text(out)];
    args.extend(more);
    fails(&args, names);
}

#[test]
fn a_cartridge_goes_through_every_format() {
    let home = TempDir::new().unwrap();
    let at = |name: &str| home.path().join(name);
    let model = model(&home);
    let public = fixture("tiny-qwen2/cartridge_public.pt");
    let wanted = read_pt(&public).unwrap();

    let said = convert(
        &public,
        "cartridge",
        &at("ours"),
        &["--model", text(&model)],
    );
    assert!(said.contains("20 slots as bf16"), "{said}");
    let (found, manifest) = load(&at("ours")).unwrap();
    assert_eq!(found, wanted);
    assert_eq!(manifest.made_by["converted_from"], "pt");

    convert(&at("ours"), "peft", &at("peft"), &["--dtype", "f32"]);
    let peft = read_peft(&at("peft")).unwrap();
    assert_eq!(peft.cartridge, wanted);
    assert_eq!(peft.base_model, Some(manifest.base_model.id.clone()));

    convert(&at("peft"), "pt", &at("again.pt"), &[]);
    assert_eq!(read_pt(&at("again.pt")).unwrap(), wanted);
    convert(
        &at("peft"),
        "mlx",
        &at("cache.safetensors"),
        &["--dtype", "f16"],
    );
    let bytes = std::fs::read(at("cache.safetensors")).unwrap();
    let cache = SafeTensors::deserialize(&bytes).unwrap();
    assert_eq!(cache.tensor("2.1").unwrap().dtype(), Dtype::F16);

    // Our own folder says for which model it is, and how it was made before.
    convert(&at("ours"), "cartridge", &at("f32"), &["--dtype", "f32"]);
    let again = load_manifest(&at("f32")).unwrap();
    assert_eq!(again.base_model, manifest.base_model);
    assert_eq!(again.made_by["source"], manifest.made_by);
}

#[test]
fn an_adapter_goes_to_peft_and_back() {
    let home = TempDir::new().unwrap();
    let at = |name: &str| home.path().join(name);
    let model = model(&home);
    convert(
        &fixture("tiny-qwen2/cartridge_public.pt"),
        "cartridge",
        &at("ours"),
        &["--model", text(&model)],
    );
    let identity = load_manifest(&at("ours")).unwrap().base_model;
    let target = "model.layers.1.mlp.down_proj".parse().unwrap();
    let patch = HostPatch {
        scale: 2.0,
        ..HostPatch::low_rank(target, 1, vec![0.5; 144], vec![0.25; 64])
    };
    let host = HostAdapter::new(vec![patch.clone()]).unwrap();
    let how = json!({ "program": "test" });
    save_adapter(&at("adapter"), &host, &identity, &how, CartridgeDtype::F32).unwrap();
    convert(&at("adapter"), "lora", &at("lora"), &[]);
    convert(
        &at("lora"),
        "adapter",
        &at("back"),
        &["--model", text(&model)],
    );
    let (back, manifest) = load_adapter(&at("back")).unwrap();
    assert_eq!(manifest.base_model, identity);
    // The scale is folded into b.
    let mut folded = patch.clone();
    folded.scale = 1.0;
    folded.delta = Delta::LowRank {
        rank: 1,
        a: vec![0.5; 144],
        b: vec![0.5; 64],
    };
    assert_eq!(back.patches(), [folded]);

    refused(&at("lora"), "adapter", &at("x"), &[], &["--model"]);
    refused(
        &at("adapter"),
        "pt",
        &at("x.pt"),
        &[],
        &["is an adapter", "adapter, lora or merged"],
    );
    let mut wide = patch;
    wide.outputs = 65;
    wide.delta = Delta::Dense(vec![0.1; 65 * 144]);
    let host = HostAdapter::new(vec![wide]).unwrap();
    save_adapter(&at("wide"), &host, &identity, &how, CartridgeDtype::F32).unwrap();
    let model = ["--model", text(&model)];
    refused(
        &at("wide"),
        "lora",
        &at("x"),
        &model,
        &["down_proj", "the model has 144 and 64"],
    );
}

/// Property 17: what `peft` saved, with ranks and scales of its own for some modules. `make.py` beside it
/// says how; `logits.safetensors` is what `peft` computed.
#[test]
fn an_adapter_that_peft_made_does_what_it_does_there() {
    let home = TempDir::new().unwrap();
    let model = model(&home);
    let out = home.path().join("adapter");
    let lora = fixture("peft-lora");
    convert(&lora, "adapter", &out, &["--model", text(&model)]);
    let (host, _) = load_adapter(&out).unwrap();
    let found: Vec<(String, f32, [usize; 3])> = (host.patches().iter())
        .map(|patch| {
            let Delta::LowRank { rank, .. } = patch.delta else {
                panic!("{} is not of low rank", patch.target);
            };
            let shape = [patch.inputs, patch.outputs, rank];
            (patch.target.to_string(), patch.scale, shape)
        })
        .collect();
    // lora_alpha / r: 6 / 4, but rank 2 at q_proj and alpha 10 at the last down_proj.
    let wanted = [
        ("model.layers.0.self_attn.q_proj", 3.0, [64, 64, 2]),
        ("model.layers.0.mlp.down_proj", 1.5, [144, 64, 4]),
        ("model.layers.2.self_attn.q_proj", 3.0, [64, 64, 2]),
        ("model.layers.2.mlp.down_proj", 2.5, [144, 64, 4]),
    ];
    assert_eq!(
        found,
        wanted.map(|(name, scale, shape)| (name.to_owned(), scale, shape))
    );

    let ids = write_ids(home.path(), &[3, 17, 250, 9, 88, 41, 7, 300, 12]);
    let logits = home.path().join("logits.safetensors");
    let read = |path: &Path| {
        let bytes = std::fs::read(path).unwrap();
        super::logits::floats(&SafeTensors::deserialize(&bytes).unwrap(), "logits")
    };
    let ours = |more: &[&str]| {
        let args = [
            "logits",
            "--model",
            text(&model),
            "--ids",
            text(&ids),
            "--out",
        ];
        works(&[&args[..], &[text(&logits)], more].concat());
        read(&logits)
    };
    let wanted = read(&lora.join("logits.safetensors"));
    let apart = |a: &[f32]| -> f32 {
        assert_eq!(a.len(), wanted.len());
        let pairs = a.iter().zip(&wanted);
        pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
    };
    let off = apart(&ours(&["--adapter", text(&out)]));
    assert!(off <= 1e-4, "{off}");
    assert!(apart(&ours(&[])) > 0.1);
}

#[test]
fn what_cannot_be_converted_is_said_in_one_line() {
    let home = TempDir::new().unwrap();
    let at = |name: &str| home.path().join(name);
    let public = fixture("tiny-qwen2/cartridge_public.pt");
    refused(
        &at("missing"),
        "pt",
        &at("x.pt"),
        &[],
        &["missing", "does not exist"],
    );
    refused(
        &public,
        "cartridge",
        &at("x"),
        &[],
        &["cartridge_public.pt", "--model"],
    );
    refused(&public, "lora", &at("x"), &[], &["is a cartridge"]);
    refused(
        &public,
        "pt",
        &at("x.bin"),
        &[],
        &["x.bin", "must end with .pt"],
    );
    refused(
        &public,
        "mlx",
        &at("x"),
        &[],
        &["must end with .safetensors"],
    );
    refused(
        &fixture("tiny-qwen2"),
        "pt",
        &at("x.pt"),
        &[],
        &["not a cartridge"],
    );
    let config = fixture("tiny-qwen2/config.json");
    refused(&config, "pt", &at("x.pt"), &[], &["unknown kind of file"]);
    // Another model, with other head widths.
    let model = model(&home);
    let other = fixture("tiny-qwen3/cartridge_public.pt");
    refused(
        &other,
        "peft",
        &at("x"),
        &["--model", text(&model)],
        &["head_dim: is 24"],
    );
    std::fs::create_dir(at("odd")).unwrap();
    std::fs::write(at("odd/adapter_config.json"), r#"{"peft_type": "IA3"}"#).unwrap();
    refused(
        &at("odd"),
        "pt",
        &at("x.pt"),
        &[],
        &["adapter_config.json", "IA3"],
    );
    std::fs::write(
        at("odd/adapter_config.json"),
        r#"{"peft_type": "CARTRIDGE"}"#,
    )
    .unwrap();
    refused(
        &at("odd"),
        "pt",
        &at("x.pt"),
        &[],
        &["adapter_model.safetensors"],
    );
    std::fs::write(at("bad.pt"), b"PK\x03\x04").unwrap();
    refused(&at("bad.pt"), "peft", &at("x"), &[], &["bad.pt", "ZIP"]);
    assert!(!at("x").exists() && !at("x.pt").exists());
}
