use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;
use serde::de::IgnoredAny;

use super::*;

mod refusals;

/// All bytes, then some longer tokens, a special token, and the stop token.
fn vocabulary(longer: &[&str]) -> Vec<TokenBytes> {
    let bytes = (0..=255u8).map(|byte| Some(vec![byte]));
    let longer = longer.iter().map(|text| Some(text.as_bytes().to_vec()));
    bytes.chain(longer).chain([None, None]).collect()
}

fn stop_id(vocabulary: &[TokenBytes]) -> u32 {
    vocabulary.len() as u32 - 1
}

fn bytes_only() -> ConstraintFactory {
    let vocabulary = vocabulary(&[]);
    ConstraintFactory::new(&vocabulary, &[stop_id(&vocabulary)]).unwrap()
}

const LONGER: [&str; 14] = [
    "{\"", "\": ", "\",", ", \"", "\"}", "}}", "]}", "na", "name", "tr", "ue}", "12", "é", "日本",
];

/// Random tokens until the document ends; its text.
fn decode(vocabulary: &[TokenBytes], mut constraint: Constraint, seed: u64) -> String {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut text = Vec::new();
    for _ in 0..20_000 {
        // As many logits as a model with padded embeddings has.
        let mut logits: Vec<f32> = (0..vocabulary.len() + 5)
            .map(|_| rng.random::<f32>() * 4.0)
            .collect();
        // Strings of bytes at random hardly end.
        for closing in b"\"]}" {
            logits[usize::from(*closing)] += 2.0;
        }
        constraint.apply(&mut logits).unwrap();
        let best = (0..logits.len()).max_by(|a, b| logits[*a].total_cmp(&logits[*b]));
        let id = best.unwrap() as u32;
        assert!(constraint.mask().unwrap().allows(id));
        constraint.accept(id).unwrap();
        if id == stop_id(vocabulary) {
            assert!(constraint.is_finished());
            break;
        }
        text.extend_from_slice(vocabulary[id as usize].as_deref().unwrap());
        if constraint.is_finished() {
            break;
        }
    }
    assert!(
        constraint.is_finished(),
        "{:?}",
        String::from_utf8_lossy(&text)
    );
    String::from_utf8(text).unwrap()
}

/// An integer; `-0` is one too.
fn whole(value: &Value) -> i64 {
    let number = value.as_f64().unwrap();
    assert_eq!(number.fract(), 0.0);
    number as i64
}

#[test]
fn any_object_is_json() {
    for vocabulary in [vocabulary(&[]), vocabulary(&LONGER)] {
        let factory = ConstraintFactory::new(&vocabulary, &[stop_id(&vocabulary)]).unwrap();
        for seed in 0..40 {
            let text = decode(&vocabulary, factory.json_object().unwrap(), seed);
            assert!(text.trim_start().starts_with('{'), "{text}");
            // Not a `Value`: numbers such as 1e999 are JSON but not an f64.
            if let Err(error) = serde_json::from_str::<IgnoredAny>(&text) {
                panic!("{error}: {text}");
            }
        }
    }
}

#[test]
fn a_schema_decides_keys_types_and_bounds() {
    let schema = r##"{
        "type": "object",
        "properties": {
            "name": {"type": "string", "minLength": 1, "maxLength": 20},
            "age": {"type": "integer", "minimum": 0, "maximum": 150},
            "colour": {"enum": ["red", "green", null]},
            "points": {"type": "array", "items": {"$ref": "#/$defs/point"}, "maxItems": 3},
            "note": {"type": ["string", "boolean"]}
        },
        "required": ["name", "age", "colour", "points"],
        "additionalProperties": false,
        "$defs": {"point": {
            "type": "object",
            "properties": {"x": {"type": "integer", "minimum": -5, "maximum": 5}},
            "required": ["x"],
            "additionalProperties": false
        }}
    }"##;
    for vocabulary in [vocabulary(&[]), vocabulary(&LONGER)] {
        let factory = ConstraintFactory::new(&vocabulary, &[stop_id(&vocabulary)]).unwrap();
        let constraint = factory.json_schema(schema).unwrap();
        assert!(constraint.warnings().is_empty());
        for seed in 0..40 {
            let text = decode(&vocabulary, constraint.clone(), seed);
            let value: Value = serde_json::from_str(&text).unwrap();
            let name = value["name"].as_str().unwrap().chars().count();
            assert!((1..=20).contains(&name), "{text}");
            assert!((0..=150).contains(&whole(&value["age"])), "{text}");
            assert!([json!("red"), json!("green"), json!(null)].contains(&value["colour"]));
            let points = value["points"].as_array().unwrap();
            assert!(points.len() <= 3, "{text}");
            for point in points {
                assert!((-5..=5).contains(&whole(&point["x"])), "{text}");
                assert_eq!(point.as_object().unwrap().len(), 1);
            }
            let note = value.get("note");
            assert!(
                note.is_none_or(|note| note.is_string() || note.is_boolean()),
                "{text}"
            );
            let known = ["name", "age", "colour", "points", "note"];
            assert!(
                value
                    .as_object()
                    .unwrap()
                    .keys()
                    .all(|key| known.contains(&key.as_str()))
            );
        }
    }
}

#[test]
fn tokens_are_taken_one_by_one_and_others_refused() {
    let vocabulary = vocabulary(&["{\"a\"", "true}", "true, "]);
    let stop = stop_id(&vocabulary);
    let factory = ConstraintFactory::new(&vocabulary, &[stop, stop - 1]).unwrap();
    let schema = r#"{"type": "object", "properties": {"a": {"const": true}},
        "required": ["a"], "additionalProperties": false}"#;
    let mut constraint = factory.json_schema(schema).unwrap();
    assert!(!constraint.mask().unwrap().allows(stop));
    assert!(!constraint.mask().unwrap().allows(u32::MAX));
    assert!(matches!(
        constraint.accept(b'a'.into()),
        Err(ConstraintError::Refused(97))
    ));
    constraint.accept(256).unwrap();
    constraint.accept(b':'.into()).unwrap();
    assert!(!constraint.mask().unwrap().allows(258));
    assert!(!constraint.may_stop() && !constraint.is_finished());
    constraint.accept(257).unwrap();
    assert!(constraint.may_stop() && constraint.is_finished());
    let mut logits = vec![0.0; vocabulary.len()];
    constraint.apply(&mut logits).unwrap();
    let open: Vec<u32> = (0..)
        .zip(&logits)
        .filter(|(_, x)| **x == 0.0)
        .map(|(id, _)| id)
        .collect();
    assert_eq!(open, [stop - 1, stop]);
    constraint.accept(stop).unwrap();
    assert_eq!(constraint.mask().unwrap().count(), 2);
}

#[test]
fn excluded_and_missing_logits_are_errors() {
    let mut constraint = bytes_only().json_object().unwrap();
    let few = constraint.apply(&mut [0.0; 257]);
    assert!(matches!(
        few,
        Err(ConstraintError::Logits {
            found: 257,
            size: 258
        })
    ));
    let mut logits = [0.0; 258];
    for id in b"{ \n\r\t" {
        logits[usize::from(*id)] = f32::NEG_INFINITY;
    }
    assert!(matches!(
        constraint.apply(&mut logits),
        Err(ConstraintError::Excluded)
    ));
}

#[test]
fn constraints_move_between_threads() {
    fn send<T: Send>() {}
    fn sync<T: Sync>() {}
    send::<Constraint>();
    send::<ConstraintFactory>();
    sync::<ConstraintFactory>();
}
