//! Tokenizers of three model families, put together from the fixtures.

use std::collections::BTreeMap;
use std::fs;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::LazyLock;

use serde_json::{Value, json};

use crate::text::ChatTokenizer;
use crate::weights::gguf::TokenizerParts;

pub(super) fn fixtures() -> PathBuf {
    Path::new(concat!(env!("CARGO_MANIFEST_DIR"), "/../../tests/fixtures")).to_path_buf()
}

pub(super) fn read_json(path: &Path) -> Value {
    serde_json::from_slice(&fs::read(path).unwrap()).unwrap()
}

/// The merges that Qwen2.5 and Qwen3 share. Token 256 + i of their vocabulary is merge i, and
/// the first 256 are the alphabet, so the merges are the whole vocabulary.
fn qwen_merges() -> Vec<String> {
    let file = fs::File::open(fixtures().join("tokenizers/qwen_merges.zip")).unwrap();
    let mut archive = zip::ZipArchive::new(file).unwrap();
    let mut text = String::new();
    archive
        .by_name("merges.txt")
        .unwrap()
        .read_to_string(&mut text)
        .unwrap();
    text.lines().map(str::to_string).collect()
}

fn byte_alphabet() -> Vec<String> {
    let printable = |byte: u32| matches!(byte, 0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff);
    let own = (0..256).filter(|byte| printable(*byte));
    let others = (0..(0..256).filter(|byte| !printable(*byte)).count()).map(|n| 0x100 + n as u32);
    own.chain(others)
        .map(|code| char::from_u32(code).unwrap().to_string())
        .collect()
}

/// `tokenizer.json` of a model as Hugging Face publishes it.
fn tokenizer_json(model: &str) -> Value {
    let folder = fixtures().join("tokenizers").join(model);
    if model == "smollm2" {
        return read_json(&folder.join("tokenizer.json"));
    }
    let mut shell = read_json(&folder.join("tokenizer_shell.json"));
    let merges = qwen_merges();
    let tokens = byte_alphabet()
        .into_iter()
        .chain(merges.iter().map(|pair| pair.replace(' ', "")));
    shell["model"]["vocab"] = tokens
        .enumerate()
        .map(|(id, token)| (token, json!(id)))
        .collect::<serde_json::Map<_, _>>()
        .into();
    shell["model"]["merges"] = json!(merges);
    shell
}

fn load(model: &str) -> ChatTokenizer {
    let folder = fixtures().join("tokenizers").join(model);
    if model == "smollm2" {
        return ChatTokenizer::from_folder(&folder).unwrap();
    }
    let built = tempfile::tempdir().unwrap();
    for name in ["tokenizer_config.json", "chat_template.jinja"] {
        fs::copy(folder.join(name), built.path().join(name)).unwrap();
    }
    fs::write(
        built.path().join("tokenizer.json"),
        tokenizer_json(model).to_string(),
    )
    .unwrap();
    ChatTokenizer::from_folder(built.path()).unwrap()
}

static SMOLLM2: LazyLock<ChatTokenizer> = LazyLock::new(|| load("smollm2"));
static QWEN2_5: LazyLock<ChatTokenizer> = LazyLock::new(|| load("qwen2_5"));
static QWEN3: LazyLock<ChatTokenizer> = LazyLock::new(|| load("qwen3"));

pub(super) const MODELS: [&str; 3] = ["smollm2", "qwen2_5", "qwen3"];

pub(super) fn tokenizer(model: &str) -> &'static ChatTokenizer {
    match model {
        "smollm2" => &SMOLLM2,
        "qwen2_5" => &QWEN2_5,
        "qwen3" => &QWEN3,
        other => panic!("no fixture for {other}"),
    }
}

/// What a GGUF file of the same model says, with two padding rows as converters add them.
pub(super) fn gguf_parts(model: &str) -> TokenizerParts {
    let json = tokenizer_json(model);
    let config = read_json(
        &fixtures()
            .join("tokenizers")
            .join(model)
            .join("tokenizer_config.json"),
    );
    let mut entries: BTreeMap<u32, (String, i32)> = json["model"]["vocab"]
        .as_object()
        .unwrap()
        .iter()
        .map(|(token, id)| (id.as_u64().unwrap() as u32, (token.clone(), 1)))
        .collect();
    for added in json["added_tokens"].as_array().unwrap() {
        let kind = if added["special"] == json!(true) {
            3
        } else {
            4
        };
        let token = added["content"].as_str().unwrap().to_string();
        entries.insert(added["id"].as_u64().unwrap() as u32, (token, kind));
    }
    assert!(entries.keys().copied().eq(0..entries.len() as u32));
    let (mut tokens, mut token_types): (Vec<String>, Vec<i32>) = entries.into_values().unzip();
    for _ in 0..2 {
        tokens.push(format!("[PAD{}]", tokens.len()));
        token_types.push(5);
    }
    let merges = json["model"]["merges"]
        .as_array()
        .unwrap()
        .iter()
        .map(|merge| merge.as_str().unwrap().to_string())
        .collect();
    let id_of = |field: &str| {
        let token = config[field].as_str()?;
        Some(tokens.iter().position(|known| known == token).unwrap() as u32)
    };
    TokenizerParts {
        model: "gpt2".to_string(),
        pre: Some(
            if model == "smollm2" {
                "smollm"
            } else {
                "qwen2"
            }
            .to_string(),
        ),
        merges,
        token_types,
        bos_id: id_of("bos_token"),
        eos_id: id_of("eos_token"),
        pad_id: id_of("pad_token"),
        add_bos: Some(false),
        chat_template: Some(tokenizer(model).template().unwrap().source().to_string()),
        tokens,
        ..TokenizerParts::default()
    }
}
