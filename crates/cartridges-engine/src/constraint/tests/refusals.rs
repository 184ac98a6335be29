//! What is refused, and what it may cost to find out.

use super::super::schema::{MAX_COUNT, MAX_DEPTH, MAX_SCHEMA_BYTES};
use super::*;

#[test]
fn vocabularies_that_cannot_work_are_refused() {
    let refused = |vocabulary: &[TokenBytes], stop: &[u32]| {
        ConstraintFactory::new(vocabulary, stop)
            .err()
            .unwrap()
            .to_string()
    };
    assert!(refused(&[], &[0]).contains("0 tokens"));
    assert!(refused(&[None], &[0]).contains("0 bytes"));
    assert!(refused(&vocabulary(&[]), &[]).contains("stop token"));
    assert!(refused(&vocabulary(&[]), &[258]).contains("258"));
    // A vocabulary without `{`.
    let letters = [Some(b"a".to_vec()), None];
    let factory = ConstraintFactory::new(&letters, &[1]).unwrap();
    assert!(matches!(
        factory.json_object(),
        Err(ConstraintError::NoToken)
    ));
    let odd = [
        Some(vec![b'a'; 1025]),
        Some(Vec::new()),
        Some(vec![b' '; 1024]),
        None,
    ];
    assert_eq!(ConstraintFactory::new(&odd, &[3]).unwrap().left_out(), 2);
}

#[test]
fn schemas_that_cannot_work_are_refused_by_name() {
    let factory = bytes_only();
    let refused = |schema: &str| match factory.json_schema(schema) {
        Ok(_) => panic!("accepted {schema}"),
        Err(error) => error.to_string(),
    };
    let deep = |n| format!("{}{{}}{}", r#"{"items":"#.repeat(n), "}".repeat(n));
    let long = format!(r#"{{"title": "{}"}}"#, "x".repeat(MAX_SCHEMA_BYTES));
    let huge = |key: &str| format!(r#"{{"properties": {{"a": {{"{key}": 4000000000}}}}}}"#);
    let many = format!(
        r#"{{"anyOf": [{}{{}}]}}"#,
        r#"{"multipleOf": 9973},"#.repeat(20)
    );
    let one_of = r#"{"oneOf": [{"minimum": 1}, {"maximum": 5}]}"#;
    for (schema, words) in [
        ("{", "not JSON"),
        ("[]", "not an object"),
        ("true", "not an object"),
        (&deep(MAX_DEPTH), "nested"),
        (&long, "bytes"),
        (&huge("minItems"), "minItems"),
        (&huge("maxLength"), "maxLength"),
        (r#"{"type": "integer", "minimum": -1e300}"#, "minimum"),
        (r#"{"x-guidance": {}}"#, "x-guidance"),
        (r#"{"type": "thing"}"#, "thing"),
        (r#"{"uniqueItems": true}"#, "uniqueItems"),
        (r##"{"$ref": "#/$defs/none"}"##, "none"),
        (r#"{"$ref": "https://example.org/schema"}"#, "example.org"),
        (r#"{"type": "string", "pattern": "("}"#, "regex"),
        (one_of, "oneOf"),
        (&many, "too many"),
        (r#"{"type": "integer", "multipleOf": 99999}"#, "multipleOf"),
        (
            r#"{"anyOf": [{"multipleOf": 1e-9}, {"multipleOf": 7}]}"#,
            "common multiple",
        ),
        (
            r#"{"type": "integer", "minimum": 3, "maximum": 2}"#,
            "nsatisfiable",
        ),
        (
            r#"{"allOf": [{"type": "string"}, {"type": "null"}]}"#,
            "nsatisfiable",
        ),
        (
            r#"{"type": "object", "properties": {"a": false}, "required": ["a"]}"#,
            "nsatisfiable",
        ),
        (r#"{"type": "string", "format": "nonsense"}"#, "nonsense"),
    ] {
        let message = refused(schema);
        assert!(message.contains(words), "{schema:.80}: {message}");
        assert!(message.len() < 400 && !message.contains('\n'), "{message}");
    }
}

#[test]
fn costly_schemas_end_in_time() {
    let factory = bytes_only();
    let wide: Vec<String> = (0..1500)
        .map(|i| format!(r#""p{i}": {{"type": "string"}}"#))
        .collect();
    let words: Vec<String> = (0..4000).map(|i| format!("\"word {i}\"")).collect();
    let doubling: Vec<String> = (0..30)
        .map(|i| {
            let next = format!("{{\"$ref\": \"#/$defs/d{}\"}}", i + 1);
            format!(r#""d{i}": {{"allOf": [{next}, {next}], "anyOf": [{next}, {next}]}}"#)
        })
        .collect();
    for schema in [
        format!(
            r#"{{"type": "object", "properties": {{{}}}}}"#,
            wide.join(",")
        ),
        format!(
            r##"{{"$ref": "#/$defs/d0", "$defs": {{{}, "d30": {{"type": "null"}}}}}}"##,
            doubling.join(",")
        ),
        r#"{"type": "string", "pattern": "((a{1,999}){1,999}){1,999}"}"#.to_string(),
        r#"{"type": "string", "pattern": "(.*[ab].{40}c)*(.*[bc].{50}d)*x"}"#.to_string(),
        format!(r#"{{"type": "string", "minLength": {MAX_COUNT}}}"#),
        format!(
            r#"{{"items": {{"type": "array", "minItems": {MAX_COUNT}}}, "minItems": {MAX_COUNT}}}"#
        ),
        r#"{"allOf": [{"type": "string", "pattern": "^(a|b)*a(a|b){40}$"},
            {"type": "string", "pattern": "^(a|b)*b(a|b){39}c+$"}]}"#
            .to_string(),
        format!(r#"{{"enum": [{},1]}}"#, words.join(",")),
        r##"{"anyOf": [{"$ref": "#"}, {"type": "array", "items": {"$ref": "#"}}]}"##.to_string(),
        r##"{"allOf": [{"$ref": "#"}, {"$ref": "#"}]}"##.to_string(),
        r#"{"type": "number", "multipleOf": 0.001, "minimum": -9e18, "maximum": 9e18}"#.to_string(),
        r#"{"type": "integer", "multipleOf": 9973, "minimum": -9e18}"#.to_string(),
    ] {
        let start = std::time::Instant::now();
        let mut outcome = String::from("ok");
        match factory.json_schema(&schema) {
            Ok(mut constraint) => {
                let mut rng = ChaCha8Rng::seed_from_u64(1);
                for _ in 0..60 {
                    let Ok(mask) = constraint.mask() else { break };
                    let open: Vec<u32> = (0..258).filter(|id| mask.allows(*id)).collect();
                    let id = open[rng.random_range(0..open.len())];
                    if let Err(error) = constraint.accept(id) {
                        outcome = error.to_string();
                    }
                }
            }
            Err(error) => outcome = error.to_string(),
        }
        let spent = start.elapsed();
        assert!(
            spent.as_secs() < 20,
            "{spent:?} for {schema:.80}: {outcome}"
        );
    }
}
