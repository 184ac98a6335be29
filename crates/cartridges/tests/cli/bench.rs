//! `cartridges bench` of single steps, prompts and tokens, on random weights.

use serde_json::Value;
use tempfile::TempDir;

use crate::{fails, text, works};

/// The report about a small shape.
fn bench(work: &str, more: &[&str]) -> Value {
    let args = ["bench", work, "--shape", "smollm2-135m", "--json"];
    serde_json::from_str(&works(&[&args[..], more].concat())).unwrap()
}

#[test]
fn a_training_step_is_measured_at_every_size() {
    let home = TempDir::new().unwrap();
    let (out, drawn) = (home.path().join("t.json"), home.path().join("t.svg"));
    let sizes = ["--layers", "1,2", "--seq", "16,32", "--segment", "16"];
    let few = ["--prefix", "8", "--steps", "1"];
    let files = ["--out", text(&out), "--figure", text(&drawn)];
    let report = bench("train", &[&sizes[..], &few, &files].concat());
    let written: Value = serde_json::from_slice(&std::fs::read(out).unwrap()).unwrap();
    assert_eq!(written, report);
    let svg = std::fs::read_to_string(drawn).unwrap();
    assert_eq!(svg.matches("<rect").count(), 4, "{svg}");
    let rows = report["rows"].as_array().unwrap();
    let what =
        |row: &Value| ["layers", "tokens", "together"].map(|name| row[name].as_u64().unwrap());
    let wanted = [[1, 16, 1], [1, 32, 2], [2, 16, 1], [2, 32, 2]];
    assert_eq!(rows.iter().map(what).collect::<Vec<_>>(), wanted);
    for row in rows {
        let number = |name: &str| row[name].as_f64().unwrap();
        let rate = number("tokens_per_s") * number("seconds");
        assert!((rate - number("tokens")).abs() < 1e-6, "{row}");
        assert!(number("gflops") > 0.0 && row["gb_per_s"].is_null());
        assert!(number("peak_bytes") > number("weight_bytes"), "{row}");
    }
    // A layer more, in f32 or bf16.
    let more =
        rows[2]["weight_bytes"].as_u64().unwrap() - rows[0]["weight_bytes"].as_u64().unwrap();
    let values = 2 * 576 * 576 + 2 * 192 * 576 + 3 * 1536 * 576;
    assert!(more == 2 * values || more == 4 * values, "{more}");
    assert!(report["ceilings"]["matmul_gflops"].as_f64().unwrap() > 0.0);
}

#[test]
fn prompts_and_tokens_are_measured() {
    let one = ["--layers", "1", "--prefix", "8"];
    let prompt = bench(
        "prefill",
        &[&one[..], &["--seq", "20", "--steps", "2"]].concat(),
    );
    assert_eq!(prompt["rows"][0]["tokens"], 20);
    for precision in ["f32", "q8"] {
        let more = ["--batch", "1,3", "--tokens", "5", "--precision", precision];
        let report = bench("decode", &[&one[..], &more].concat());
        assert_eq!(report["precision"], precision);
        let rows = report["rows"].as_array().unwrap();
        assert_eq!(rows[1]["together"], 3);
        assert!(rows[0]["gb_per_s"].as_f64().unwrap() > 0.0);
    }
}

#[test]
fn what_cannot_be_measured_is_named() {
    let wrong: [(&[&str], &str); 4] = [
        (&["train", "--shape", "smollm9"], "smollm2-135m"),
        (
            &["train", "--shape", "smollm2-135m", "--seq", "300"],
            "--segment",
        ),
        (
            &["prefill", "--shape", "smollm2-135m", "--prefix", "1"],
            "--prefix",
        ),
        (
            &["decode", "--shape", "smollm2-135m", "--batch", "0"],
            "--batch",
        ),
    ];
    for (args, name) in wrong {
        fails(&[&["bench"], args].concat(), &[name]);
    }
}
