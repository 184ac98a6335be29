//! Cases with the scores of the published implementations, from `tests/fixtures/scores`.

use std::fs;
use std::path::Path;

use serde_json::Value;

use super::metric::{CorpusMetric, corpus_value, sum_statistics};

pub(super) fn cases(name: &str) -> Vec<Value> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../tests/fixtures/scores")
        .join(name)
        .with_extension("json");
    let file: Value = serde_json::from_slice(&fs::read(path).unwrap()).unwrap();
    let cases = file["cases"].as_array().unwrap().clone();
    assert!(cases.len() >= 40, "{name}: {}", cases.len());
    cases
}

pub(super) fn text(case: &Value, key: &str) -> String {
    case[key].as_str().unwrap().to_owned()
}

pub(super) fn number(case: &Value, key: &str) -> f64 {
    case[key].as_f64().unwrap()
}

pub(super) fn flag(case: &Value, key: &str) -> bool {
    case[key].as_bool().unwrap()
}

pub(super) fn strings(case: &Value, key: &str) -> Vec<String> {
    serde_json::from_value(case[key].clone()).unwrap()
}

pub(super) fn close(ours: f64, published: f64, case: &Value) {
    assert!(
        (ours - published).abs() <= 1e-9,
        "{ours} is not {published}: {case}"
    );
}

/// Compares the statistics and the score of each corpus with sacreBLEU's.
pub(super) fn check_corpus(metric: &dyn CorpusMetric, key: &str) {
    for case in cases("corpus") {
        let segments: Vec<(String, Vec<String>)> =
            serde_json::from_value(case["segments"].clone()).unwrap();
        let segments: Vec<(&str, Vec<&str>)> = segments
            .iter()
            .map(|(text, references)| {
                let references = references.iter().map(String::as_str).collect();
                (text.as_str(), references)
            })
            .collect();
        let numbers: Vec<Vec<f64>> = segments
            .iter()
            .map(|(text, references)| metric.statistics(text, references))
            .collect();
        let sums = sum_statistics(numbers.iter().map(Vec::as_slice));
        let published: Vec<f64> = serde_json::from_value(case[key]["sums"].clone()).unwrap();
        assert_eq!(sums, published, "{key}: {case}");
        close(metric.value(&sums), number(&case[key], "score"), &case);
        let segments = segments.iter().map(|(text, refs)| (*text, refs.as_slice()));
        assert_eq!(corpus_value(metric, segments), metric.value(&sums));
    }
}
