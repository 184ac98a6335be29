use proptest::prelude::*;
use serde_json::Map;
use tokenizers::Tokenizer;

use super::tokenizer_files::{MODELS, tokenizer};
use crate::text::{ChatMessage, ChatTemplate, RenderOptions, StreamDecoder};

/// Pieces of which templates are made, to get past the parser now and then.
fn template_source() -> impl Strategy<Value = String> {
    let pieces = prop::sample::select(vec![
        "{% for m in messages %}",
        "{% endfor %}",
        "{{ m.content }}",
        "{{ messages",
        "[0]",
        "[::-1]",
        ".content",
        " }}",
        "{%- if ",
        "true",
        " %}",
        "{% endif %}",
        "{% generation %}",
        "{% endgeneration %}",
        "{% generation",
        "| tojson",
        "| trim",
        "('x')",
        ".split",
        "{#",
        "#}",
        "\n",
        "  ",
        "é",
        "raise_exception",
        "strftime_now",
        "'%",
        "+ 1",
        "* 999",
        "{% set x = [1] %}",
        "{% raw %}",
        "{% endraw %}",
        "-%}",
        "namespace()",
        "%}",
        "{%",
    ]);
    prop_oneof![
        prop::collection::vec(pieces, 0..12).prop_map(|pieces| pieces.concat()),
        any::<String>(),
    ]
}

proptest! {
    #![proptest_config(ProptestConfig { failure_persistence: None, ..ProptestConfig::with_cases(96) })]

    #[test]
    fn templates_never_panic(source in template_source(), content in any::<String>(), flags in 0u8..4) {
        if let Ok(template) = ChatTemplate::new(&source) {
            let options = RenderOptions {
                add_generation_prompt: flags & 1 != 0,
                continue_final_message: flags & 2 != 0,
                ..RenderOptions::default()
            };
            let messages = [ChatMessage::user(content)];
            let _outcome = template.render(&messages, &options, &Map::new());
        }
    }

    #[test]
    fn text_comes_back_from_its_ids(text in any::<String>()) {
        // SmolLM2 has no normalizer, so every text comes back as it was.
        let smollm2 = tokenizer("smollm2");
        let ids = smollm2.encode(&text, false).unwrap();
        prop_assert_eq!(smollm2.decode(&ids, false).unwrap(), text.as_str());
        // Qwen composes characters first; what comes back is a fixed point of that.
        for model in MODELS {
            let once = tokenizer(model).encode(&text, false).unwrap();
            let back = tokenizer(model).decode(&once, false).unwrap();
            let again = tokenizer(model).encode(&back, false).unwrap();
            prop_assert_eq!(tokenizer(model).decode(&again, false).unwrap(), back);
        }
    }

    #[test]
    fn a_stream_of_any_ids_equals_decoding_at_once(
        ids in prop::collection::vec(0u32..49_400, 0..40),
        low in prop::collection::vec(0u32..400, 0..40),
        skip in any::<bool>(),
    ) {
        // Low ids are mostly single bytes, which gives broken and split characters.
        for ids in [&ids, &low] {
            let smollm2 = tokenizer("smollm2");
            let mut stream = smollm2.stream_decoder(skip);
            let mut text = String::new();
            for id in ids {
                text.push_str(&stream.push(*id).unwrap());
            }
            text.push_str(&stream.finish().unwrap());
            prop_assert_eq!(text, smollm2.decode(ids, skip).unwrap());
        }
    }
}

/// A SentencePiece-like tokenizer: blanks as U+2581, unknown characters as byte tokens.
fn byte_fallback_tokenizer() -> Tokenizer {
    let bytes = (0..256).map(|byte| format!("<0x{byte:02X}>"));
    let words = ["▁", "▁Hello", "▁world", "lo", "é", "!"].map(str::to_string);
    let vocab: serde_json::Map<_, _> = bytes
        .chain(words)
        .enumerate()
        .map(|(id, token)| (token, serde_json::json!(id)))
        .collect();
    let json = serde_json::json!({
        "version": "1.0", "truncation": null, "padding": null, "added_tokens": [],
        "normalizer": null, "pre_tokenizer": null, "post_processor": null,
        "decoder": { "type": "Sequence", "decoders": [
            { "type": "Replace", "pattern": { "String": "▁" }, "content": " " },
            { "type": "ByteFallback" }, { "type": "Fuse" },
            { "type": "Strip", "content": " ", "start": 1, "stop": 0 },
        ] },
        "model": { "type": "BPE", "vocab": vocab, "merges": [], "byte_fallback": true },
    });
    Tokenizer::from_bytes(json.to_string()).unwrap()
}

#[test]
fn a_stream_of_another_kind_keeps_blanks_and_characters() {
    let tokenizer = std::sync::Arc::new(byte_fallback_tokenizer());
    let otter = "🦦".bytes().map(u32::from);
    let ids: Vec<u32> = [257, 258, 256]
        .into_iter()
        .chain(otter)
        .chain([261, 0xff, 257])
        .collect();
    let mut stream = StreamDecoder::new(tokenizer.clone(), false, false);
    let mut pieces: Vec<String> = ids.iter().map(|id| stream.push(*id).unwrap()).collect();
    pieces.push(stream.finish().unwrap());
    assert_eq!(
        pieces,
        [
            "Hello",
            " world",
            " ",
            "",
            "",
            "",
            "🦦",
            "!",
            "",
            "\u{fffd} Hello",
            ""
        ]
    );
    assert_eq!(pieces.concat(), tokenizer.decode(&ids, false).unwrap());
    // Bytes that never become a character do not pile up.
    let mut stream = StreamDecoder::new(tokenizer, false, false);
    let text: String = (0..100).map(|_| stream.push(0xff).unwrap()).collect();
    assert!(text.chars().count() >= 90, "{}", text.chars().count());
}
