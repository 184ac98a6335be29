use serde_json::{Map, json};

use super::tokenizer_files::{gguf_parts, tokenizer};
use crate::text::{CHATML_TEMPLATE, ChatTokenizer, MessageIds, TextError};

/// A tokenizer with Llama 3's and Gemma's markers in place of padding rows.
fn with_markers(template: &str) -> ChatTokenizer {
    let mut parts = gguf_parts("smollm2");
    let markers = [
        "<|begin_of_text|>",
        "<|start_header_id|>",
        "<|end_header_id|>",
        "<|eot_id|>",
        "<start_of_turn>",
        "<end_of_turn>",
    ];
    parts.tokens.truncate(49_152);
    parts.token_types.truncate(49_152);
    for marker in markers {
        parts.tokens.push(marker.to_string());
        parts.token_types.push(3);
    }
    parts.bos_id = Some(49_152);
    parts.chat_template = Some(template.to_string());
    ChatTokenizer::from_gguf(&parts).unwrap()
}

/// Ids of a piece of text, by the golden-tested encoder.
fn piece(tokenizer: &ChatTokenizer, text: &str) -> Vec<u32> {
    tokenizer.encode(text, false).unwrap()
}

#[test]
fn chatml_markers_are_found_in_three_real_templates() {
    let qwen = MessageIds {
        system: Some(vec![151_644, 8948, 198]),
        user: vec![151_644, 872, 198],
        assistant: vec![151_644, 77_091, 198],
        end: vec![151_645],
        extra_end: vec![198],
    };
    assert_eq!(tokenizer("qwen3").message_ids().unwrap(), &qwen);
    assert_eq!(tokenizer("qwen2_5").message_ids().unwrap(), &qwen);
    let smollm2 = tokenizer("smollm2");
    let found = smollm2.message_ids().unwrap();
    assert_eq!(found.system, Some(piece(smollm2, "<|im_start|>system\n")));
    assert_eq!(found.user, piece(smollm2, "<|im_start|>user\n"));
    assert_eq!(found.assistant, piece(smollm2, "<|im_start|>assistant\n"));
    assert_eq!(
        (found.end.as_slice(), found.extra_end.as_slice()),
        (&[2][..], &piece(smollm2, "\n")[..])
    );
    assert_eq!(found.start("user").unwrap(), found.user);
    assert!(found.start("tool").is_err());
    assert_eq!(tokenizer("qwen3").stop_ids(), [151_645]);
    assert_eq!(smollm2.stop_ids(), [2]);
}

#[test]
fn the_generation_header_follows_the_keywords() {
    let qwen3 = tokenizer("qwen3");
    let header = qwen3.generation_header(&Map::new()).unwrap();
    assert_eq!(header, [151_644, 77_091, 198]);
    let keywords = json!({ "enable_thinking": false });
    let header = qwen3
        .generation_header(keywords.as_object().unwrap())
        .unwrap();
    assert_eq!(header, [151_644, 77_091, 198, 151_667, 271, 151_668, 271]);
}

/// Llama 3's form: bos at the very start, trimmed contents, a dated system turn in front.
const HEADERS: &str = "{{ bos_token }}\
{%- if messages[0].role == 'system' %}{% set lead = messages[0].content | trim %}\
{% set rest = messages[1:] %}{% else %}{% set lead = '' %}{% set rest = messages %}{% endif %}\
{{- '<|start_header_id|>system<|end_header_id|>\n\nToday: ' + strftime_now('%d %b %Y') + '\n\n' \
+ lead + '<|eot_id|>' }}\
{%- for m in rest %}{{- '<|start_header_id|>' + m.role + '<|end_header_id|>\n\n' \
+ m.content | trim + '<|eot_id|>' }}{% endfor %}\
{%- if add_generation_prompt %}{{- '<|start_header_id|>assistant<|end_header_id|>\n\n' }}{% endif %}";

#[test]
fn header_markers_are_found_without_bos_and_date() {
    for strict in [false, true] {
        // The strict form refuses system messages later on, so only the first turn can tell.
        let refusal = "{% if m.role == 'system' %}{{ raise_exception('late system') }}{% endif %}";
        let template = if strict {
            HEADERS.replace(
                "{%- for m in rest %}",
                &format!("{{%- for m in rest %}}{refusal}"),
            )
        } else {
            HEADERS.to_string()
        };
        let tokenizer = with_markers(&template);
        let start = |role: &str| {
            piece(
                &tokenizer,
                &format!("<|start_header_id|>{role}<|end_header_id|>\n\n"),
            )
        };
        let found = tokenizer.message_ids().unwrap();
        assert_eq!(found.system, Some(start("system")));
        assert_eq!(found.user, start("user"));
        assert_eq!(found.assistant, start("assistant"));
        assert_eq!(found.end, piece(&tokenizer, "<|eot_id|>"));
        assert!(found.extra_end.is_empty());
        assert_eq!(
            tokenizer.generation_header(&Map::new()).unwrap(),
            start("assistant")
        );
        // eos of the file (2) and the end of a turn.
        assert_eq!(tokenizer.stop_ids(), [2, found.end[0]]);
    }
}

/// Gemma's form: the assistant is called model, the system text goes into the first user turn.
const FOLDED: &str = "{{ bos_token }}{% if messages[0].role == 'system' %}\
{% set lead = messages[0].content + '\n\n' %}{% set rest = messages[1:] %}\
{% else %}{% set lead = '' %}{% set rest = messages %}{% endif %}\
{% for m in rest %}\
{% if (m.role == 'user') != (loop.index0 % 2 == 0) %}{{ raise_exception('roles must alternate') }}{% endif %}\
{{ '<start_of_turn>' + ('model' if m.role == 'assistant' else m.role) + '\n' \
+ (lead if loop.first else '') + m.content | trim + '<end_of_turn>\n' }}{% endfor %}\
{% if add_generation_prompt %}{{ '<start_of_turn>model\n' }}{% endif %}";

#[test]
fn a_template_without_system_turns_says_so() {
    let tokenizer = with_markers(FOLDED);
    let found = tokenizer.message_ids().unwrap();
    assert_eq!(found.system, None);
    assert_eq!(found.user, piece(&tokenizer, "<start_of_turn>user\n"));
    assert_eq!(found.assistant, piece(&tokenizer, "<start_of_turn>model\n"));
    assert_eq!(found.end, piece(&tokenizer, "<end_of_turn>"));
    assert_eq!(found.extra_end, piece(&tokenizer, "\n"));
    let error = found.start("system").unwrap_err().to_string();
    assert!(error.contains("no system turns"), "{error}");
}

#[test]
fn chatml_can_be_chosen_for_a_model_without_template() {
    let mut parts = gguf_parts("smollm2");
    parts.chat_template = None;
    let bare = ChatTokenizer::from_gguf(&parts).unwrap();
    let error = bare.message_ids().unwrap_err();
    assert!(matches!(error, TextError::NoTemplate { .. }));
    assert!(error.to_string().contains("no chat template"), "{error}");
    let chosen = bare.with_template(CHATML_TEMPLATE).unwrap();
    assert_eq!(
        chosen.message_ids().unwrap(),
        tokenizer("smollm2").message_ids().unwrap()
    );
}

#[test]
fn forms_that_do_not_fit_are_refused() {
    let refused = |template: &str| {
        let tokenizer = tokenizer("smollm2")
            .clone()
            .with_template(template)
            .unwrap();
        match tokenizer.message_ids() {
            Err(TextError::MessageLayout { message }) => message,
            other => panic!("{other:?}"),
        }
    };
    let no_end = "{% for m in messages %}{{ '<|im_start|>' + m.role + m.content }}{% endfor %}";
    assert!(refused(no_end).contains("no special token ends"));
    let two_ends = "{% for m in messages %}{% if m.role == 'user' %}{{ '[' + m.content + ']' }}\
        {% else %}{{ m.content + '<|im_end|>' }}{% endif %}{% endfor %}";
    assert!(refused(two_ends).contains("one end for both"));
    assert!(refused("{{ messages[0].content }}").contains("leaves out"));
    assert!(refused("{{ messages }}{{ messages }}").contains("repeats"));
    assert!(refused("{{ raise_exception('no') }}").contains("no"));
}
