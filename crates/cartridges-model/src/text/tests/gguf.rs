use super::golden::{golden, ids};
use super::tokenizer_files::{MODELS, gguf_parts, tokenizer};
use crate::text::{ChatTokenizer, TextError};
use crate::weights::gguf::TokenizerParts;

const AWKWARD: [&str; 12] = [
    "",
    " ",
    "a  b   c\n\n\n  d\t\te \r\n f",
    "1234567890 ١٢٣ ² Ⅷ 12.5% 3e10",
    "e\u{301}a\u{300} 한글 각 ﬁ Å", // NFC matters
    "don'T you'LL WE'VE i'm 'sup 's",
    "<think>\n\n</think>\n\n<tool_call>x</tool_call><|im_start|><|im_end|><|endoftext|>",
    "<|im_start|><|im_start >< |im_end|>",
    "snake_case CamelCase kebab-case __init__(self, *args) -> None: ...!!!???\n\n#",
    "🦦👩‍👩‍👧‍👦🏳️‍🌈 \u{200b}\u{feff}\u{0}\u{7f}\u{ad}",
    "العربية हिन्दी ไทย עברית Ελληνικά русский",
    "    def f():\n        return {'a': [1, 22, 333, 4444]}\n\n\n",
];

#[test]
fn ids_equal_those_of_the_hugging_face_files() {
    let golden = golden();
    for model in MODELS {
        let rebuilt = ChatTokenizer::from_gguf(&gguf_parts(model)).unwrap();
        for sample in golden[model]["samples"].as_array().unwrap() {
            let text = sample["text"].as_str().unwrap();
            assert_eq!(
                rebuilt.encode(text, false).unwrap(),
                ids(&sample["ids"]),
                "{model}: {text}"
            );
        }
        for text in AWKWARD {
            for add_special in [false, true] {
                let expected = tokenizer(model).encode(text, add_special).unwrap();
                let found = rebuilt.encode(text, add_special).unwrap();
                assert_eq!(found, expected, "{model}: {text:?}");
                assert_eq!(
                    rebuilt.decode(&found, false).unwrap(),
                    tokenizer(model).decode(&found, false).unwrap()
                );
            }
        }
        assert_eq!(rebuilt.vocab_size(), tokenizer(model).vocab_size());
        assert_eq!(
            rebuilt.fingerprint().unwrap(),
            tokenizer(model).fingerprint().unwrap()
        );
        assert_eq!(
            rebuilt.message_ids().unwrap(),
            tokenizer(model).message_ids().unwrap()
        );
        assert_eq!(rebuilt.stop_ids(), tokenizer(model).stop_ids());
    }
    let fingerprints: std::collections::BTreeSet<String> = MODELS
        .iter()
        .map(|model| tokenizer(model).vocabulary_fingerprint().unwrap())
        .collect();
    assert_eq!(fingerprints.len(), MODELS.len());
}

/// The alphabet and a few merges, enough for the rules that need no real vocabulary.
fn small(pre: &str) -> TokenizerParts {
    let alphabet = (0x21u32..=0x7e).map(|code| char::from_u32(code).unwrap().to_string());
    let mut tokens: Vec<String> = alphabet.collect();
    for token in ["Ġ", "12", "123", "ab", "abc", "<s>", "</s>"] {
        tokens.push(token.to_string());
    }
    let count = tokens.len();
    let mut token_types = vec![1; count];
    token_types[count - 2..].fill(3);
    TokenizerParts {
        model: "gpt2".to_string(),
        pre: Some(pre.to_string()),
        merges: vec!["1 2".to_string(), "12 3".to_string(), "a b".to_string()],
        token_types,
        bos_id: Some(count as u32 - 2),
        eos_id: Some(count as u32 - 1),
        tokens,
        ..TokenizerParts::default()
    }
}

fn pieces(parts: &TokenizerParts, text: &str, add_special: bool) -> Vec<String> {
    let tokenizer = ChatTokenizer::from_gguf(parts).unwrap();
    let ids = tokenizer.encode(text, add_special).unwrap();
    ids.iter()
        .map(|id| tokenizer.token_text(*id).unwrap())
        .collect()
}

#[test]
fn splitting_rules_differ_as_their_models_do() {
    // GPT-2 keeps all digits together, Llama 3 three of them, the others one.
    assert_eq!(pieces(&small("gpt-2"), "1231", false), ["123", "1"]);
    assert_eq!(pieces(&small("llama-bpe"), "1123", false), ["1", "12", "3"]);
    assert_eq!(pieces(&small("qwen2"), "123", false), ["1", "2", "3"]);
    assert_eq!(pieces(&small("smollm"), "123", false), ["1", "2", "3"]);
    // Llama 3 takes a word that is in the vocabulary as it is, even if no merge leads to it.
    assert_eq!(pieces(&small("llama-bpe"), "abc", false), ["abc"]);
    assert_eq!(pieces(&small("qwen2"), "abc", false), ["ab", "c"]);
}

#[test]
fn bos_is_added_where_the_model_wants_it() {
    assert_eq!(
        pieces(&small("llama-bpe"), "ab</s>", true),
        ["<s>", "ab", "</s>"]
    );
    assert_eq!(pieces(&small("llama-bpe"), "ab", false), ["ab"]);
    assert_eq!(pieces(&small("qwen2"), "ab", true), ["ab"]);
    let asked = TokenizerParts {
        add_bos: Some(true),
        ..small("qwen2")
    };
    assert_eq!(pieces(&asked, "ab", true), ["<s>", "ab"]);
    let refused = TokenizerParts {
        add_bos: Some(false),
        ..small("llama-bpe")
    };
    assert_eq!(pieces(&refused, "ab", true), ["ab"]);
    let without_types = TokenizerParts {
        token_types: Vec::new(),
        ..small("qwen2")
    };
    assert_eq!(pieces(&without_types, "ab</s>", false), ["ab", "</s>"]);
}

#[test]
fn contradictions_are_named() {
    let error = |parts: TokenizerParts| ChatTokenizer::from_gguf(&parts).unwrap_err().to_string();
    let unknown = error(small("viking"));
    assert!(
        unknown.contains("viking") && unknown.contains("smollm"),
        "{unknown}"
    );
    let llama = error(TokenizerParts {
        model: "llama".to_string(),
        ..small("default")
    });
    assert!(
        llama.contains("`llama`") && llama.contains("gpt2"),
        "{llama}"
    );
    let eos = error(TokenizerParts {
        eos_id: Some(9999),
        ..small("qwen2")
    });
    assert!(
        eos.contains("eos_token_id") && eos.contains("9999"),
        "{eos}"
    );
    let types = error(TokenizerParts {
        token_types: vec![1],
        ..small("qwen2")
    });
    assert!(types.contains("token_type"), "{types}");
    let merge = error(TokenizerParts {
        merges: vec!["xyz".to_string()],
        ..small("qwen2")
    });
    assert!(merge.contains("merges") && merge.contains("xyz"), "{merge}");
    let outside = error(TokenizerParts {
        merges: vec!["x y".to_string()],
        ..small("qwen2")
    });
    assert!(
        outside.contains("merges") && outside.contains("xy"),
        "{outside}"
    );
    let no_bos = TokenizerParts {
        add_bos: Some(true),
        bos_id: None,
        ..small("qwen2")
    };
    assert!(error(no_bos).contains("add_bos_token"));
    let mut twice = small("qwen2");
    twice.tokens[0] = "a".to_string();
    assert!(error(twice).contains("`a`"));
    let empty = TokenizerParts {
        tokens: Vec::new(),
        token_types: Vec::new(),
        ..small("qwen2")
    };
    assert!(error(empty).contains("tokenizer.ggml.tokens"));
    let plain = ChatTokenizer::from_gguf(&small("qwen2")).unwrap();
    assert!(matches!(
        plain.message_ids(),
        Err(TextError::NoTemplate { .. })
    ));
    assert_eq!(plain.stop_ids(), [plain.eos_id().unwrap()]);
}
