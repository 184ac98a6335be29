//! The examples of transmutation. `cargo test` builds them, `cargo test --test cli` does not.

use cartridges_model::adapter::{HostAdapter, Mode, load_adapter};

use super::adapter::studied;
use super::stages::Place;
use super::*;

/// Runs an example with `path:NAME` standing for a file of the place.
fn example(place: &Place, name: &str, words: &str) -> Output {
    let program = Path::new(env!("CARGO_BIN_EXE_cartridges"));
    let file = program.with_file_name("examples").join(name);
    assert!(
        file.exists(),
        "{name} is not built: cargo build --release --workspace --examples"
    );
    program_at(&file, &place.home)
        .args(place.words(words))
        .output()
        .unwrap()
}

fn made(place: &Place, name: &str, words: &str) -> (HostAdapter, Value) {
    let more = "--background path:background.txt --output-path path:adapter";
    let output = example(place, name, &format!("{words} {more}"));
    assert!(output.status.success(), "{}", utf8(&output.stderr));
    let (adapter, manifest) = load_adapter(Path::new(&place.path("adapter"))).unwrap();
    place.works("logits --ids path:ids.json --out path:logits --adapter path:adapter");
    (adapter, manifest.made_by)
}

#[test]
fn the_examples_make_adapters() {
    let place = studied();
    place.write("ids.json", "[3, 17, 250]");
    let one = "--data-path path:a/dataset.parquet --model-name path:model --rank 4";
    let (adapter, made_by) = made(
        &place,
        "transmute_corpus",
        &format!("{one} --refine-steps 2 --seed 1"),
    );
    assert!(
        adapter
            .patches()
            .iter()
            .all(|patch| patch.mode == Mode::Linear)
    );
    assert_eq!(made_by["data"].as_array().unwrap().len(), 1);
    assert_eq!(made_by["how"]["refinement"]["steps"], 2);

    let reference = format!("{one} --estimator reference --lambda-scale 0.01");
    let (adapter, made_by) = made(&place, "transmute_corpus", &reference);
    let [patch] = adapter.patches() else {
        panic!("one patch was expected");
    };
    assert_eq!(
        (patch.target.to_string().as_str(), patch.mode),
        ("model.norm", Mode::Post)
    );
    assert_eq!(made_by["how"]["lambda_scale"], 0.01);

    // A file and a folder.
    let several = "--data-paths path:a/dataset.parquet path:b --model path:model --refine-steps 0";
    let (_, made_by) = made(&place, "transmute_cartridges", several);
    assert_eq!(made_by["data"].as_array().unwrap().len(), 2);
}

#[test]
fn the_examples_say_what_is_wrong() {
    let place = studied();
    let corpus = "--data-path path:a/dataset.parquet --model path:model";
    let both = "--data-paths path:a/dataset.parquet path:a --model path:model";
    for (name, words, said) in [
        (
            "transmute_corpus",
            format!("{corpus} --lambda-scale 1"),
            "--estimator reference",
        ),
        (
            "transmute_corpus",
            format!("{corpus} --data-limit 1"),
            "too few",
        ),
        ("transmute_cartridges", both.to_owned(), "given twice"),
        (
            "transmute_cartridges",
            "--data-paths path:none".to_owned(),
            "none",
        ),
    ] {
        let output = example(&place, name, &format!("{words} --output-path path:x"));
        let stderr = utf8(&output.stderr);
        assert!(
            !output.status.success() && stderr.contains(said),
            "{said}: {stderr}"
        );
    }
    for name in ["transmute_corpus", "transmute_cartridges"] {
        let help = utf8(&example(&place, name, "--help").stdout);
        assert!(
            help.contains("--output-path") && help.contains("--model-name"),
            "{help}"
        );
    }
}
