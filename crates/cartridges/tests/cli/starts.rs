//! Where cartridges start: `train --init`, with a model that is made up here.

use super::stages::{Place, SYNTHESIZE};
use super::*;

/// A cartridge of `train` that was hardly trained (rate 1e-9), so that it is where it started.
fn started(place: &Place, more: &str) -> (HostCartridge, Value) {
    place.works(&format!(
        "train --data path:study/dataset.parquet --corpus path:text.txt --packed-seq-length 256 \
         --steps 1 --lr 1e-9 --out path:started {more}"
    ));
    let folder = place.path("started");
    let (cartridge, _) = cartridges_model::cartridge::load(Path::new(&folder)).unwrap();
    let json = std::fs::read_to_string(format!("{folder}/cartridge.json")).unwrap();
    let json: Value = serde_json::from_str(&json).unwrap();
    std::fs::remove_dir_all(folder).unwrap();
    (cartridge, json["made_by"]["start"].clone())
}

fn distance(a: &HostCartridge, b: &HostCartridge) -> f32 {
    let pairs = a.layers[0].key.iter().zip(&b.layers[0].key);
    pairs.map(|(a, b)| (a - b).abs()).fold(0.0, f32::max)
}

#[test]
fn every_start_is_what_it_says() {
    let place = Place::new();
    place.works(SYNTHESIZE);
    let (first, how) = started(&place, "--init first --tokens 40 --frozen 2");
    assert_eq!((first.slots, first.frozen), (40, 2));
    assert_eq!(how["init"], "first");

    let run = |more: &str| started(&place, &format!("{more} --tokens 40 --frozen 2"));
    let (chunks, how) = run("--init sampled-chunks --seed 3");
    assert_eq!((chunks.slots, chunks.frozen), (40, 2));
    assert_eq!(
        (&how["init"], &how["seed"]),
        (&json!("sampled-chunks"), &json!(3))
    );
    // The first piece is the beginning, and keys depend on what stands before them only.
    let dim = chunks.head_dim;
    assert!(chunks.layers[0].key[..32 * dim] == first.layers[0].key[..32 * dim]);
    assert!(distance(&chunks, &run("--init sampled-chunks --seed 3").0) < 1e-6);

    let (tokens, how) = run("--init random-tokens --seed 3");
    assert_eq!((tokens.slots, tokens.frozen), (40, 2));
    assert_eq!(
        (&how["init"], &how["seed"]),
        (&json!("random-tokens"), &json!(3))
    );
    assert!(distance(&tokens, &run("--init random-tokens --seed 3").0) < 1e-6);
    assert!(distance(&tokens, &run("--init random-tokens --seed 4").0) > 1e-2);
    assert!(distance(&tokens, &first) > 1e-2);

    let (summary, how) = run("--init summary");
    assert_eq!(summary.frozen, 2);
    assert_eq!(how["slots"], summary.slots);
    let written = how["summary"].as_str().unwrap();
    assert!(!written.is_empty() && how["chunks"] == 1);
    // What the summary says stands in the cartridge: as --init text of the whole message has it.
    let message = format!(
        "\nThis conversation is about the following information.\n\n<info>\n{written}\n</info>"
    );
    place.write("summary.txt", &message);
    let init = format!(
        "--init text --init-text path:summary.txt --frozen 2 --tokens {}",
        summary.slots
    );
    let (as_text, _) = started(&place, &init);
    let kept = (summary.slots - 2) * dim;
    assert!(summary.layers[0].key[..kept] == as_text.layers[0].key[..kept]);
}

/// A text far longer than the model's window of 2048 tokens.
#[test]
fn starts_work_for_texts_longer_than_the_window() {
    let place = Place::new();
    place.works(SYNTHESIZE);
    let long =
        "The lamp burns whale oil. Its keeper is Edda Falk; the tower has 91 steps.\n".repeat(200);
    place.write("text.txt", &long);
    for init in ["first", "sampled-chunks", "random-tokens", "summary"] {
        let (cartridge, how) = started(&place, &format!("--init {init} --tokens 24"));
        assert!(cartridge.slots <= 24 && cartridge.slots > 2, "{init}");
        assert_eq!(how["init"], init);
        if init == "summary" {
            assert!(how["chunks"].as_u64().unwrap() > 3);
        }
    }
    place.fails(
        "train --data path:study/dataset.parquet --corpus path:text.txt --init first --tokens 2100 --out \
         path:started",
        &["2100", "2048"],
    );
}
