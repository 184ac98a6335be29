use std::fs;

use serde_json::{Map, Value, json};

use super::tokenizer_files::{fixtures, read_json, tokenizer};
use crate::text::{ChatMessage, ChatTemplate, ChatTokenizer, RenderOptions, TextError};

fn render_with(template: &str, keywords: Value) -> Result<String, TextError> {
    let options = RenderOptions {
        keywords: keywords.as_object().cloned().unwrap_or_default(),
        ..RenderOptions::default()
    };
    let messages = [
        ChatMessage::user("Hello"),
        ChatMessage::assistant("  Hi there  "),
    ];
    ChatTemplate::new(template)?.render(&messages, &options, &Map::new())
}

fn render(template: &str) -> String {
    render_with(template, json!({})).unwrap()
}

#[test]
fn python_and_jinja_forms_work() {
    // Right: what Jinja2 3.1 with trim_blocks and lstrip_blocks prints.
    let cases = [
        ("  {% if true %}\nyes\n  {% endif %}\nend", "yes\nend"),
        ("{{ messages[-1].content.strip() }}", "Hi there"),
        ("{{ messages[0]['content'].split('l')[-1] }}", "o"),
        (
            "{{ messages[0].content.startswith('He') }}{{ none }}",
            "TrueNone",
        ),
        (
            "{% for m in messages[::-1] %}{{ loop.index0 }}{{ m.role }}{% endfor %}",
            "0assistant1user",
        ),
        (
            "{% for m in messages %}{% if loop.first %}{% continue %}{% endif %}{{ m.role }}{% endfor %}",
            "assistant",
        ),
        ("{% for m in messages %}{% break %}{% endfor %}x", "x"),
        (
            "{% set ns = namespace(n=0) %}{% for m in messages %}{% set ns.n = ns.n + 1 %}{% endfor %}{{ ns.n }}",
            "2",
        ),
        (
            "{{ tools is none }}{{ documents is defined }}{{ nothing is defined }}{{ nothing }}",
            "TrueTrueFalse",
        ),
        ("{{ '<b>&' }}", "<b>&"),
        (
            "{% for m in messages %}{% generation %}{{ m.role }}{%- endgeneration -%}\n {% endfor %}",
            "userassistant",
        ),
        ("{{ strftime_now('%%') }}", "%"),
        ("a{# comment #}b\n", "ab"),
    ];
    for (template, expected) in cases {
        assert_eq!(render(template), expected, "{template}");
    }
}

#[test]
fn tojson_is_pythons() {
    let keywords = json!({ "x": { "b": [1, 2.5, true, null], "a": "é<'\"\n\u{1}" }, "e": [] });
    let cases = [
        // Right: json.dumps(x, ensure_ascii=False, …) of Python 3.
        (
            "{{ x | tojson }}",
            "{\"b\": [1, 2.5, true, null], \"a\": \"é<'\\\"\\n\\u0001\"}",
        ),
        (
            "{{ x.a | tojson(ensure_ascii=true) }}",
            "\"\\u00e9<'\\\"\\n\\u0001\"",
        ),
        (
            "{{ x | tojson(indent=1, sort_keys=true) }}",
            "{\n \"a\": \"é<'\\\"\\n\\u0001\",\n \"b\": [\n  1,\n  2.5,\n  true,\n  null\n ]\n}",
        ),
        (
            "{{ [1, {}] | tojson(separators=(',', ':')) }}{{ e | tojson(indent=2) }}",
            "[1,{}][]",
        ),
        (
            "{{ {1: '🦦'} | tojson }}{{ '🦦' | tojson(true) }}",
            "{\"1\": \"🦦\"}\"\\ud83e\\udda6\"",
        ),
    ];
    for (template, expected) in cases {
        assert_eq!(
            render_with(template, keywords.clone()).unwrap(),
            expected,
            "{template}"
        );
    }
    assert!(render_with("{{ nothing | tojson }}", json!({})).is_err());
}

#[test]
fn errors_name_the_line_and_refusals_their_reason() {
    let line = |result: Result<String, TextError>| match result {
        Err(TextError::Template { line, .. }) => line,
        other => panic!("{other:?}"),
    };
    assert_eq!(line(render_with("\n\n{% for %}", json!({}))), 3);
    assert_eq!(line(render_with("a\n{{ nothing.more }}", json!({}))), 2);
    assert_eq!(
        line(render_with("a\n{{ strftime_now('%Q!') }}", json!({}))),
        2
    );
    match render_with("{{ raise_exception('only users') }}", json!({})) {
        Err(TextError::TemplateRaised { message }) => assert_eq!(message, "only users"),
        other => panic!("{other:?}"),
    }
    match render_with("x", json!({ "messages": [] })) {
        Err(TextError::ReservedKeyword { name }) => assert_eq!(name, "messages"),
        other => panic!("{other:?}"),
    }
}

#[test]
fn work_depth_and_length_are_bounded() {
    let endless = "{% for a in range(9999) %}{% for b in range(9999) %}{% endfor %}{% endfor %}";
    let doubling = "{% set n = namespace(s='xxxxxxxx') %}{% for a in range(99) %}\
        {% set n.s = n.s + n.s %}{% endfor %}";
    let deep = "{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}";
    for template in [endless, doubling, deep] {
        let found = render_with(template, json!({}));
        assert!(
            matches!(found, Err(TextError::Template { .. })),
            "{template}: {found:?}"
        );
    }
    let long = "{% for a in range(9999) %}{{ 'x' * 9999 }}{% endfor %}";
    let found = render_with(long, json!({}));
    assert!(
        matches!(found, Err(TextError::OutputTooLarge { .. })),
        "{found:?}"
    );
    let source = "x".repeat((1 << 20) + 1);
    assert!(matches!(
        ChatTemplate::new(&source),
        Err(TextError::TemplateTooLarge { .. })
    ));
}

#[test]
fn nested_values_neither_overflow_the_stack_nor_hang() {
    let nest = "{% set n = namespace(x=[]) %}{% for a in range(300) %}{% for b in range(300) %}\
        {% set n.x = [n.x] %}{% endfor %}{% endfor %}";
    for tail in [
        "",
        "{{ n.x | tojson }}",
        "{{ n.x }}",
        "{{ n.x == [n.x] }}",
        "{{ n.x | string | length }}",
    ] {
        // Whatever the outcome, it has to be an outcome.
        let _outcome = render_with(&format!("{nest}{tail}"), json!({}));
    }
}

#[test]
fn methods_are_pythons_and_pay_for_their_work() {
    let cases = [
        ("{{ ','.join(['a', 'b']) }}", "a,b"),
        (
            "{{ 'aXbX'.replace('X', '--') }}{{ 'aXbX'.replace('X', '', 1) }}",
            "a--b--abX",
        ),
        ("{{ '{}-{x:>3}'.format('a', x=1) }}", "a-  1"),
        (
            "{% for k, v in {'a': 1}.items() %}{{ k }}{{ v }}{% endfor %}",
            "a1",
        ),
        ("{{ ' x\n'.rstrip('\n') }}|{{ 'a b'.title() }}", " x|A B"),
    ];
    for (template, expected) in cases {
        assert_eq!(render(template), expected, "{template}");
    }
    let refused = [
        "{% set x = 'x' * 1000000 %}{{ x.replace('x', x) }}",
        "{% set x = 'x' * 1000000 %}{{ x.join([x] * 9999) }}",
        "{% set x = 'x' * 1000000 %}{{ ('{0}' * 9999).format(x) }}",
        "{{ '{:99999999999}'.format('a') }}",
        "{{ ','.join([1]) }}",
        "{{ 'a'.no_such_method() }}",
    ];
    for template in refused {
        let found = render_with(template, json!({}));
        assert!(
            matches!(found, Err(TextError::Template { line: 1, .. })),
            "{template}: {found:?}"
        );
    }
}

fn continued(template: &str, messages: &[ChatMessage]) -> Result<String, TextError> {
    let options = RenderOptions {
        continue_final_message: true,
        ..RenderOptions::default()
    };
    ChatTemplate::new(template)?.render(messages, &options, &Map::new())
}

#[test]
fn the_final_message_can_be_continued() {
    let plain = "{% for m in messages %}[{{ m.role }}]{{ m.content }}<end>{% endfor %}";
    let trimming = "{% for m in messages %}[{{ m.role }}]{{ m.content | trim }}<end>{% endfor %}";
    let messages = [
        ChatMessage::user("go on"),
        ChatMessage::assistant(" go on "),
    ];
    assert_eq!(
        continued(plain, &messages).unwrap(),
        "[user]go on<end>[assistant] go on "
    );
    assert_eq!(
        continued(trimming, &messages).unwrap(),
        "[user]go on<end>[assistant]go on"
    );
    let empty = [ChatMessage::user("go on"), ChatMessage::assistant("")];
    assert_eq!(
        continued(plain, &empty).unwrap(),
        "[user]go on<end>[assistant]"
    );
    assert!(matches!(
        continued(plain, &[]),
        Err(TextError::FinalMessage { .. })
    ));
    assert!(matches!(
        continued("x", &messages),
        Err(TextError::FinalMessage { .. })
    ));
    let both = RenderOptions {
        add_generation_prompt: true,
        continue_final_message: true,
        ..RenderOptions::default()
    };
    let found = tokenizer("qwen3").render(&messages, &both);
    assert!(matches!(found, Err(TextError::ConflictingOptions)));
}

#[test]
fn folders_are_read_in_all_their_forms() {
    let folder = tempfile::tempdir().unwrap();
    let source = fixtures().join("tokenizers/smollm2");
    let path = |name: &str| folder.path().join(name);
    let missing = ChatTokenizer::from_folder(folder.path())
        .unwrap_err()
        .to_string();
    assert!(
        missing.contains("tokenizer.json") && missing.contains("missing"),
        "{missing}"
    );

    fs::copy(source.join("tokenizer.json"), path("tokenizer.json")).unwrap();
    let bare = ChatTokenizer::from_folder(folder.path()).unwrap();
    assert_eq!((bare.eos_id(), bare.stop_ids()), (None, Vec::new()));
    assert!(matches!(
        bare.render(&[], &RenderOptions::default()),
        Err(TextError::NoTemplate { .. })
    ));

    let mut config = read_json(&source.join("tokenizer_config.json"));
    config["eos_token"] = json!({ "content": "<|im_end|>", "special": true });
    config["bos_token"] = json!(null);
    config["chat_template"] = json!([
        { "name": "default", "template": "{{ eos_token }}" },
        { "name": "tool_use", "template": "tools" },
    ]);
    fs::write(path("tokenizer_config.json"), config.to_string()).unwrap();
    fs::write(
        path("generation_config.json"),
        json!({ "eos_token_id": [2, 0] }).to_string(),
    )
    .unwrap();
    let named = ChatTokenizer::from_folder(folder.path()).unwrap();
    assert_eq!(
        (named.bos_id(), named.eos_id(), named.stop_ids()),
        (None, Some(2), vec![0, 2])
    );
    assert_eq!(
        named.render(&[], &RenderOptions::default()).unwrap(),
        "<|im_end|>"
    );
    assert_eq!(named.template_names(), ["default", "tool_use"]);
    let chosen = named.clone().with_named_template("tool_use").unwrap();
    assert_eq!(
        chosen.render(&[], &RenderOptions::default()).unwrap(),
        "tools"
    );
    let unknown = named.with_named_template("rag").unwrap_err().to_string();
    assert!(
        unknown.contains("rag") && unknown.contains("tool_use"),
        "{unknown}"
    );

    fs::write(path("chat_template.jinja"), "from the file").unwrap();
    fs::write(
        path("generation_config.json"),
        json!({ "eos_token_id": 1 }).to_string(),
    )
    .unwrap();
    let file = ChatTokenizer::from_folder(folder.path()).unwrap();
    assert_eq!(
        file.render(&[], &RenderOptions::default()).unwrap(),
        "from the file"
    );
    assert_eq!(file.stop_ids(), [1, 2]);

    let error = || {
        ChatTokenizer::from_folder(folder.path())
            .unwrap_err()
            .to_string()
    };
    fs::write(
        path("generation_config.json"),
        json!({ "eos_token_id": -1 }).to_string(),
    )
    .unwrap();
    assert!(error().contains("generation_config.json") && error().contains("eos_token_id"));
    config["eos_token"] = json!("<nowhere>");
    fs::write(path("tokenizer_config.json"), config.to_string()).unwrap();
    assert!(error().contains("eos_token") && error().contains("<nowhere>"));
    config["eos_token"] = json!(7);
    fs::write(path("tokenizer_config.json"), config.to_string()).unwrap();
    assert!(error().contains("eos_token"));
    fs::write(path("tokenizer_config.json"), "{").unwrap();
    assert!(error().contains("tokenizer_config.json"));
    fs::write(path("tokenizer.json"), "{}").unwrap();
    assert!(error().contains("tokenizer.json"));
}
