use serde_json::{Map, Value, json};

use super::tokenizer_files::{MODELS, fixtures, read_json, tokenizer};
use crate::text::{ChatMessage, RenderOptions};

pub(super) fn golden() -> Value {
    read_json(&fixtures().join("golden_tokenizer_cases.json"))
}

pub(super) fn ids(value: &Value) -> Vec<u32> {
    value
        .as_array()
        .unwrap()
        .iter()
        .map(|id| id.as_u64().unwrap() as u32)
        .collect()
}

fn conversation() -> Vec<ChatMessage> {
    vec![
        ChatMessage::system("You are a careful assistant."),
        ChatMessage::user("What does code Willow mean?"),
        ChatMessage::assistant("Fire."),
        ChatMessage::user("And code Anvil — 3,200 m²?"),
    ]
}

fn prompt(keywords: Value) -> RenderOptions {
    RenderOptions {
        add_generation_prompt: true,
        keywords: keywords.as_object().cloned().unwrap_or_else(Map::new),
        ..RenderOptions::default()
    }
}

#[test]
fn samples_have_hugging_faces_ids_and_come_back() {
    let golden = golden();
    for model in MODELS {
        let samples = golden[model]["samples"].as_array().unwrap();
        assert_eq!(samples.len(), 8);
        for sample in samples {
            let text = sample["text"].as_str().unwrap();
            let expected = ids(&sample["ids"]);
            assert_eq!(
                tokenizer(model).encode(text, false).unwrap(),
                expected,
                "{model}: {text}"
            );
            assert_eq!(
                tokenizer(model).decode(&expected, false).unwrap(),
                text,
                "{model}"
            );
        }
    }
}

#[test]
fn chats_are_rendered_and_encoded_as_by_hugging_face() {
    let golden = golden();
    for model in MODELS {
        let rendered = tokenizer(model)
            .render(&conversation(), &prompt(json!({})))
            .unwrap();
        assert_eq!(
            rendered,
            golden[model]["chat_rendered"].as_str().unwrap(),
            "{model}"
        );
        let encoded = tokenizer(model)
            .encode_chat(&conversation(), &prompt(json!({})))
            .unwrap();
        assert_eq!(encoded, ids(&golden[model]["chat_ids"]), "{model}");
    }
}

#[test]
fn qwen3_can_be_told_not_to_think() {
    let options = prompt(json!({ "enable_thinking": false }));
    let rendered = tokenizer("qwen3")
        .render(&conversation(), &options)
        .unwrap();
    assert_eq!(
        rendered,
        golden()["qwen3"]["chat_nothink_rendered"].as_str().unwrap()
    );
}

#[test]
fn special_tokens_can_be_left_out() {
    let golden = golden();
    let qwen3 = tokenizer("qwen3");
    let text = qwen3
        .decode(&ids(&golden["qwen3"]["chat_ids"]), true)
        .unwrap();
    assert!(
        text.starts_with("system\nYou are a careful assistant.\nuser\n"),
        "{text}"
    );
    assert!(qwen3.is_special(151_645));
    // `<think>` is an added token but not a special one.
    assert!(!qwen3.is_special(151_667) && qwen3.is_added(151_667));
    assert_eq!(qwen3.decode(&[151_667], true).unwrap(), "<think>");
    assert_eq!(qwen3.token_text(151_645).as_deref(), Some("<|im_end|>"));
    assert_eq!(qwen3.token_id("<|im_end|>"), Some(151_645));
}

#[test]
fn sizes_and_named_tokens_are_those_of_the_files() {
    assert_eq!(tokenizer("qwen3").vocab_size(), 151_669);
    assert_eq!(tokenizer("qwen2_5").vocab_size(), 151_665);
    assert_eq!(tokenizer("smollm2").vocab_size(), 49_152);
    assert_eq!(tokenizer("smollm2").bos_id(), Some(1));
    assert_eq!(tokenizer("qwen3").bos_id(), None);
    assert_eq!(tokenizer("qwen3").eos_id(), Some(151_645));
    assert_eq!(tokenizer("qwen3").pad_id(), Some(151_643));
    // No post-processor: nothing is added to a text.
    let plain = tokenizer("qwen3").encode("Hello world", true).unwrap();
    assert_eq!(
        plain,
        tokenizer("qwen3").encode("Hello world", false).unwrap()
    );
}

#[test]
fn padding_ids_give_no_text() {
    assert_eq!(
        tokenizer("qwen3")
            .decode(&[9707, 151_900, 1879], false)
            .unwrap(),
        "Hello world"
    );
    let mut stream = tokenizer("qwen3").stream_decoder(false);
    assert_eq!(stream.push(151_900).unwrap(), "");
    assert_eq!(stream.push(9707).unwrap(), "Hello");
}

#[test]
fn a_stream_never_cuts_a_character() {
    let golden = golden();
    for model in MODELS {
        for sample in golden[model]["samples"].as_array().unwrap() {
            let mut stream = tokenizer(model).stream_decoder(false);
            let mut text = String::new();
            for id in ids(&sample["ids"]) {
                let piece = stream.push(id).unwrap();
                assert!(!piece.contains(char::REPLACEMENT_CHARACTER));
                text.push_str(&piece);
            }
            text.push_str(&stream.finish().unwrap());
            assert_eq!(text, sample["text"].as_str().unwrap());
        }
    }
}

#[test]
fn text_that_the_splitting_rule_cannot_bear_is_an_error() {
    let blanks = " ".repeat((1 << 20) + 1);
    let error = tokenizer("qwen3")
        .encode(&blanks, false)
        .unwrap_err()
        .to_string();
    assert!(error.contains("1048577 blanks"), "{error}");
    assert!(tokenizer("qwen3").encode(&blanks[..1 << 18], false).is_ok());
    // A rule from a file that needs exponential time: the regex engine gives up and panics.
    let folder = tempfile::tempdir().unwrap();
    let json = json!({
        "version": "1.0", "added_tokens": [],
        "pre_tokenizer": {
            "type": "Split", "pattern": { "Regex": "(a|aa)+$" },
            "behavior": "Isolated", "invert": false,
        },
        "model": { "type": "BPE", "vocab": { "a": 0, "b": 1 }, "merges": [] },
    });
    std::fs::write(folder.path().join("tokenizer.json"), json.to_string()).unwrap();
    let hostile = crate::text::ChatTokenizer::from_folder(folder.path()).unwrap();
    assert_eq!(hostile.encode("aa", false).unwrap(), [0, 0]);
    let error = hostile
        .encode(&("a".repeat(80) + "b"), false)
        .unwrap_err()
        .to_string();
    assert!(error.contains("gives up"), "{error}");
}
