//! Where cartridges start: `train --init` and `compact`, with a model that is made up here.

use super::stages::{Place, SYNTHESIZE};
use super::*;

/// A cartridge of `train` that was hardly trained (rate 1e-9), so that it is where it started.
fn started(place: &Place, more: &str) -> (HostCartridge, Value) {
    place.works(&format!(
        "train --data path:study/dataset.parquet --corpus path:text.txt --packed-seq-length 256 \
         --steps 1 --lr 1e-9 --out path:started {more}"
    ));
    let folder = place.path("started");
    let (cartridge, manifest) = cartridges_model::cartridge::load(Path::new(&folder)).unwrap();
    std::fs::remove_dir_all(folder).unwrap();
    (cartridge, manifest.made_by["start"].clone())
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
    for init in [
        "first",
        "sampled-chunks",
        "random-tokens",
        "summary",
        "matching",
    ] {
        let (cartridge, how) = started(&place, &format!("--init {init} --tokens 24"));
        assert!(cartridge.slots <= 24 && cartridge.slots > 2, "{init}");
        assert_eq!(how["init"], init);
        if init == "summary" {
            assert!(how["chunks"].as_u64().unwrap() > 3);
        }
        if init == "matching" {
            assert_eq!(cartridge.slots, 24);
            assert!(how["chunks"].as_u64().unwrap() > 3);
        }
    }
    place.fails(
        "train --data path:study/dataset.parquet --corpus path:text.txt --init first --tokens 2100 --out \
         path:started",
        &["2100", "2048"],
    );
}

fn compact(place: &Place, more: &str) -> (HostCartridge, Value) {
    let said = place.works(&format!(
        "compact --corpus path:text.txt --out path:compact --json {more}"
    ));
    let (cartridge, _) =
        cartridges_model::cartridge::load(Path::new(&place.path("compact"))).unwrap();
    (cartridge, serde_json::from_str(&said).unwrap())
}

#[test]
fn compact_makes_a_cartridge_without_training() {
    let place = Place::new();
    place.works(SYNTHESIZE);
    let (quarter, said) = compact(&place, "--ratio 0.25");
    let tokens = said["tokens"].as_u64().unwrap() as usize;
    assert_eq!(quarter.slots, tokens / 4);
    assert_eq!(said["slots"], quarter.slots);
    // One layer, one head of eight numbers, keys and values in f32.
    assert_eq!(said["bytes"], quarter.slots * 8 * 2 * 4);
    assert!((said["share"].as_f64().unwrap() - (tokens / 4) as f64 / tokens as f64).abs() < 1e-9);
    assert_eq!(said["chunks"], 1);
    place.works("chat --cartridge path:compact --max-new-tokens 3 --prompt Hello");
    // The start of training is the same.
    let (started, how) = started(&place, "--ratio 0.25 --match-queries repetition");
    assert_eq!(how["matching"]["keys"], "omp");
    let (again, _) = compact(&place, "--ratio 0.25 --match-queries repetition");
    assert!(distance(&started, &again) < 1e-6);

    // A cartridge as long as the text is the text, and more slots cannot be.
    let (all, said) = compact(&place, "--tokens 5000");
    assert_eq!(
        (all.slots, said["output_error"].as_f64()),
        (tokens, Some(0.0))
    );

    let table = place.works(
        "compact --corpus path:text.txt --out path:compact --tokens 20 --questions path:questions.json \
         --data path:study/dataset.parquet",
    );
    for part in ["20 slots", "output error", "2: NLL/token", "s without"] {
        assert!(table.contains(part), "no `{part}` in\n{table}");
    }
    place.fails(
        "compact --corpus path:text.txt --out path:c --match-queries self-study",
        &["--data"],
    );
    place.fails(
        "compact --corpus path:text.txt --out path:c --ratio 0",
        &["--ratio"],
    );
    place.fails("compact --corpus path:no.txt --out path:c", &["no.txt"]);
    assert!(!Path::new(&place.path("c/cartridge.json")).exists());
}

#[test]
fn the_parts_of_matching_can_be_chosen() {
    let place = Place::new();
    place.works(SYNTHESIZE);
    let error = |more: &str| {
        let more = format!("--tokens 20 --data path:study/dataset.parquet {more}");
        compact(&place, &more).1["output_error"].as_f64().unwrap()
    };
    let repeated = "--match-queries repetition";
    let kept = error(&format!("{repeated} --match-values keep"));
    let closed = error(&format!("{repeated} --match-refine 0"));
    let refined = error(repeated);
    let mass = error(&format!("{repeated} --match-keys mass --match-refine 0"));
    // Fitting lowers the error over the queries it was fitted to, and so does the better choice of keys.
    // Refinement lowers the error of output and mass together, not of each.
    assert!(closed < kept && refined < kept, "{kept} {closed} {refined}");
    assert!(closed < mass, "{closed} against {mass}");
    assert_ne!(refined, closed);
    assert!(error("--match-queries self-study") > 0.0);
}

#[test]
fn a_text_in_chunks_is_compacted_too() {
    let place = Place::new();
    let long: String = (0..50)
        .map(|i| {
            format!(
                "Boat {i} of Nordvik carries {} barrels of tar.\n",
                7 * i % 50
            )
        })
        .collect();
    place.write("text.txt", &long);
    let (one, said) = compact(&place, "--tokens 60 --match-chunk 2000");
    assert_eq!((one.slots, &said["chunks"]), (60, &json!(1)));
    let (many, said) = compact(&place, "--tokens 60 --match-chunk 300");
    assert_eq!((many.slots, &said["chunks"]), (60, &json!(4)));
    let (other, said) = compact(
        &place,
        "--tokens 60 --match-chunk 300 --match-slots attention",
    );
    assert_eq!((other.slots, &said["chunks"]), (60, &json!(4)));
    // The sink is in all of them.
    let dim = one.head_dim;
    assert!(one.layers[0].value.len() == 60 * dim && many.layers[0].value != other.layers[0].value);
    place.fails(
        "compact --corpus path:text.txt --out path:c --tokens 3 --match-chunk 300",
        &["3", "4 chunk"],
    );
    place.fails(
        "compact --corpus path:text.txt --out path:c --match-chunk 3",
        &["--match-chunk"],
    );
}
