use serde_json::json;

use crate::client::{
    ApiKey, CartridgeSource, ClientConfig, ClientConfigError, FleetConfig, OpenAiConfig,
};

fn read(value: serde_json::Value) -> Result<ClientConfig, String> {
    serde_json::from_value(value).map_err(|error| error.to_string())
}

#[test]
fn the_type_decides_and_the_rest_has_defaults() {
    let config = read(json!({"type": "openai", "urls": ["http://a"], "model": "m"})).unwrap();
    let expected = OpenAiConfig {
        urls: vec!["http://a".to_owned()],
        model: "m".to_owned(),
        ..OpenAiConfig::default()
    };
    assert_eq!(config, ClientConfig::Openai(expected));
    config.check().unwrap();

    let config = read(json!({
        "type": "tokasaurus",
        "urls": ["http://a", "http://b"],
        "cartridges": [{"id": "c"}, {"id": "d", "source": "local"}],
        "fleet": {"concurrency": 3},
    }));
    let ClientConfig::Tokasaurus(config) = config.unwrap() else {
        panic!("another type");
    };
    assert_eq!(config.model, "default");
    assert_eq!(config.cartridges[0].source, CartridgeSource::Wandb);
    assert_eq!(config.cartridges[1].source, CartridgeSource::Local);
    let expected = FleetConfig {
        concurrency: 3,
        ..FleetConfig::default()
    };
    assert_eq!(config.fleet, expected);
    assert!(matches!(
        read(json!({"type": "sglang", "urls": ["http://a"]})),
        Ok(ClientConfig::Sglang(_))
    ));
}

#[test]
fn unknown_fields_are_refused_at_every_depth() {
    for (value, name) in [
        (json!({"type": "openai", "url": "http://a"}), "url"),
        (
            json!({"type": "tokasaurus", "thinking": "none"}),
            "thinking",
        ),
        (
            json!({"type": "sglang", "fleet": {"retries": 1}}),
            "retries",
        ),
        (
            json!({"type": "tokasaurus", "cartridges": [{"id": "a", "s": 1}]}),
            "`s`",
        ),
        (json!({"type": "telegraph"}), "telegraph"),
    ] {
        let message = read(value).unwrap_err();
        assert!(message.contains(name), "{message}");
    }
}

#[test]
fn what_makes_no_sense_is_named() {
    let wrong = |value: serde_json::Value| read(value).unwrap().check().unwrap_err();
    assert_eq!(
        wrong(json!({"type": "openai", "urls": []})),
        ClientConfigError::NoServer
    );
    assert_eq!(
        wrong(json!({"type": "openai", "urls": ["http://a"], "extra_body": {"stream": true}})),
        ClientConfigError::Reserved("stream".to_owned())
    );
    for (value, field) in [
        (
            json!({"type": "sglang", "urls": ["http://a"], "model": " "}),
            "model",
        ),
        (
            json!({"type": "tokasaurus", "urls": ["http://a"], "cartridge_path": "v1"}),
            "cartridge_path",
        ),
        (
            json!({"type": "openai", "urls": ["http://a"], "fleet": {"max_attempts": 0}}),
            "fleet.max_attempts",
        ),
    ] {
        let message = wrong(value).to_string();
        assert!(message.contains(field), "{message}");
    }
}

#[test]
fn keys_come_from_the_field_or_the_environment_and_are_never_shown() {
    let environment = |name: &str| match name {
        "SET" => Some(" from-environment\n".to_owned()),
        "EMPTY" => Some(String::new()),
        _ => None,
    };
    let key = |field: Option<&str>, variable: Option<&str>| {
        let config = ClientConfig::Openai(OpenAiConfig {
            api_key: field.map(ApiKey::new),
            api_key_env: variable.map(str::to_owned),
            ..OpenAiConfig::default()
        });
        config.key(environment)
    };
    assert_eq!(key(None, None), Ok(None));
    assert_eq!(
        key(None, Some("SET")),
        Ok(Some(ApiKey::new("from-environment")))
    );
    assert_eq!(key(Some("own"), Some("SET")), Ok(Some(ApiKey::new("own"))));
    for missing in ["EMPTY", "UNSET"] {
        let expected = ClientConfigError::NoKey(missing.to_owned());
        assert_eq!(key(None, Some(missing)), Err(expected));
    }

    let config = ClientConfig::Openai(OpenAiConfig {
        urls: vec!["http://a".to_owned()],
        api_key: Some(ApiKey::new("hush")),
        ..OpenAiConfig::default()
    });
    let written = serde_json::to_string(&config).unwrap();
    assert!(!written.contains("hush") && !format!("{config:?}").contains("hush"));
    let again: ClientConfig = serde_json::from_str(&written).unwrap();
    assert_eq!(again.urls(), config.urls());
}
