//! `eval`, with a model that is made up here, against what `logits` says.

use cartridges_eval::prompt_ids;
use cartridges_model::LanguageModel;
use cartridges_model::text::ChatMessage;

use super::chat::talking_model;
use super::*;

/// One layer, one key/value head of 8, in the reference's own format.
fn cartridge(path: &Path, slots: usize, value: f32) {
    let layer = HostLayer {
        key: (0..8 * slots).map(|i| value + i as f32 / 64.0).collect(),
        value: (0..8 * slots).map(|i| value - i as f32 / 32.0).collect(),
    };
    let host = HostCartridge::new(1, 8, slots, 1, vec![layer]).unwrap();
    cartridges_model::cartridge::torch::write_pt(path, &host, CartridgeDtype::F32).unwrap();
}

/// Natural-log NLL of the last `answer` ids behind the cartridges, by `cartridges logits`.
fn nll(model: &Path, ids: &[u32], answer: usize, cartridges: &[&Path]) -> f64 {
    let home = TempDir::new().unwrap();
    let (file, out) = (
        write_ids(home.path(), ids),
        home.path().join("l.safetensors"),
    );
    let mut args = vec!["logits", "--model", text(model), "--ids", text(&file)];
    args.extend(["--out", text(&out)]);
    for cartridge in cartridges {
        args.extend(["--cartridge", text(cartridge)]);
    }
    works(&args);
    let bytes = std::fs::read(&out).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let logits = file.tensor("logits").unwrap();
    let vocab = logits.shape()[1];
    let values: Vec<f64> = logits
        .data()
        .as_chunks::<4>()
        .0
        .iter()
        .map(|b| f64::from(f32::from_le_bytes(*b)))
        .collect();
    (ids.len() - answer..ids.len())
        .map(|at| {
            let row = &values[(at - 1) * vocab..at * vocab];
            let sum: f64 = row.iter().map(|x| x.exp()).sum();
            sum.ln() - row[ids[at] as usize]
        })
        .sum()
}

#[test]
fn eval_measures_each_and_all_together_as_logits_does() {
    let home = TempDir::new().unwrap();
    let model = home.path().join("model");
    std::fs::create_dir(&model).unwrap();
    talking_model(&model);
    let (a, b) = (home.path().join("a.pt"), home.path().join("b.pt"));
    cartridge(&a, 3, 0.5);
    cartridge(&b, 2, -0.75);
    let questions = home.path().join("questions.json");
    let list = json!({ "questions": [
        { "id": "q1", "question": "Who keeps the light?", "answers": ["Old Maren"] },
        { "id": "q2", "question": "How deep is the bay?", "answers": ["twelve fathoms"] },
    ]});
    std::fs::write(&questions, list.to_string()).unwrap();
    let corpus = home.path().join("corpus.txt");
    std::fs::write(&corpus, "Old Maren keeps the light. The bay is deep.").unwrap();
    let other = "Rain falls mainly on the plain.";
    let unrelated = home.path().join("other.txt");
    std::fs::write(&unrelated, other).unwrap();
    let out = home.path().join("report");
    let common = [
        "eval",
        "--model",
        text(&model),
        "--questions",
        text(&questions),
    ];
    let asked = [
        "--corpus",
        text(&corpus),
        "--cartridge",
        text(&a),
        "--cartridge",
        text(&b),
        "--together",
        "--unrelated",
        text(&unrelated),
        "--json",
        "--out",
        text(&out),
    ];
    let json = works(&[&common[..], &asked].concat());
    let report: Value = serde_json::from_str(&json).unwrap();
    let rows = report["rows"].as_array().unwrap();
    let names: Vec<&str> = rows
        .iter()
        .map(|row| row["condition"].as_str().unwrap())
        .collect();
    let expected = [
        "no document",
        "document in context",
        "a.pt",
        "b.pt",
        "together",
    ];
    assert_eq!(names, expected);
    let saved = std::fs::read_to_string(out.join("report.json")).unwrap();
    assert_eq!(serde_json::from_str::<Value>(&saved).unwrap(), report);

    let page = home.path().join("page");
    let title = ["--out", text(&page), "--title", "Light & bay"];
    let told = works(&[&["report", text(&out)][..], &title].concat());
    assert!(told.trim_end().ends_with("report.html"), "{told}");
    let html = std::fs::read_to_string(page.join("report.html")).unwrap();
    assert!(html.contains("<h1>Light &amp; bay</h1>") && names.iter().all(|n| html.contains(n)));
    assert!(page.join("figures/scores.svg").is_file() && page.join("figures/scores.png").is_file());
    fails(
        &[&["report", text(&corpus)][..], &title].concat(),
        &["corpus.txt", "not a report"],
    );

    let (_, tokenizer, _) = LanguageModel::identify(&model, "model").unwrap();
    let instruction = report["recipe"]["instruction"].as_str().unwrap();
    let question = ChatMessage::user(format!("Who keeps the light? {instruction}"));
    let prompt = prompt_ids(&tokenizer, None, true, &[question]).unwrap();
    let answer = tokenizer.encode("Old Maren", false).unwrap();
    let ids = [&prompt[..], &answer].concat();
    for (row, cartridges) in [(2, vec![&*a]), (3, vec![&*b]), (4, vec![&*a, &*b])] {
        let found = rows[row]["questions"][0]["nll"].as_f64().unwrap();
        let expected = nll(&model, &ids, answer.len(), &cartridges);
        assert!(
            (found - expected).abs() < 1e-4 * expected,
            "{}: {found}, not {expected}",
            names[row]
        );
    }
    assert_eq!(rows[4]["document_rows"], 5);

    let ids = tokenizer.encode(other, false).unwrap();
    let rest = ids.len() - 1;
    for (row, cartridges) in [(0, vec![]), (4, vec![&*a, &*b])] {
        let found = rows[row]["unrelated"].as_f64().unwrap();
        let expected = (nll(&model, &ids, rest, &cartridges) / rest as f64).exp();
        assert!(
            (found - expected).abs() < 1e-4 * expected,
            "{}: {found}, not {expected}",
            names[row]
        );
    }
    assert_eq!(rows[1].get("unrelated"), None);
}

#[test]
fn eval_says_what_is_missing() {
    let home = TempDir::new().unwrap();
    let none = home.path().join("questions.json");
    let asked = ["eval", "--questions", text(&none)];
    fails(&asked, &["questions.json"]);
    fails(
        &[&asked[..], &["--together", "--cartridge", "a"]].concat(),
        &["--together", "two"],
    );
}

/// A place with a model that talks and a text.
fn asked(corpus: &str) -> (TempDir, String) {
    let home = TempDir::new().unwrap();
    let model = home.path().join("model");
    std::fs::create_dir(&model).unwrap();
    talking_model(&model);
    std::fs::write(home.path().join("corpus.txt"), corpus).unwrap();
    let model = model.display().to_string();
    (home, model)
}

#[test]
fn what_one_would_do_instead_is_measured_beside() {
    let text =
        "Old Maren keeps the light. The bay is deep. Boats come at noon. Nobody likes the fog. "
            .repeat(8);
    let (home, model) = asked(&text);
    let at = |name: &str| home.path().join(name).display().to_string();
    let list = json!({ "questions": [
        { "id": "q1", "question": "Who keeps the light?", "answers": ["Old Maren"],
          "options": ["Old Maren", "Nobody"] },
        { "id": "q2", "question": "When do boats come?", "answers": ["at noon"] },
    ]});
    std::fs::write(at("q.json"), list.to_string()).unwrap();
    cartridge(&home.path().join("a.pt"), 12, 0.5);
    let (questions, corpus, cartridge, out) =
        (at("q.json"), at("corpus.txt"), at("a.pt"), at("out"));
    let line = [
        "eval",
        "--model",
        &model,
        "--questions",
        &questions,
        "--corpus",
        &corpus,
        "--cartridge",
        &cartridge,
        "--baseline",
        "closed,icl,first-k,summary,retrieval",
        "--json",
        "--out",
        &out,
    ];
    let report: Value = serde_json::from_str(&works(&line)).unwrap();
    let rows = report["rows"].as_array().unwrap();
    let kinds: Vec<&str> = rows
        .iter()
        .map(|row| row["kind"].as_str().unwrap())
        .collect();
    let expected = [
        "none",
        "document",
        "beginning",
        "summary",
        "retrieval",
        "cartridge",
    ];
    assert_eq!(kinds, expected);
    assert_eq!(rows[2]["condition"], "first 12 tokens");
    assert!(rows[2]["document_rows"].as_u64() < rows[1]["document_rows"].as_u64());
    for row in rows {
        assert_eq!(
            row["questions"][0]["candidates"].as_array().unwrap().len(),
            2
        );
        let scores: Vec<&str> = row["scores"]
            .as_array()
            .unwrap()
            .iter()
            .map(|score| score["name"].as_str().unwrap())
            .collect();
        assert_eq!(scores, ["exact match", "F1"]);
    }
    assert!(
        report["command"]
            .as_str()
            .unwrap()
            .starts_with("cartridges eval --model")
    );
    assert!(!home.path().join("out/unfinished.json").exists());

    // What was measured before a stop is not measured again, unless something of it changed.
    let mut kept = serde_json::Map::new();
    kept.insert("x".to_owned(), rows[0].clone());
    std::fs::write(at("out/unfinished.json"), Value::Object(kept).to_string()).unwrap();
    let again: Value = serde_json::from_str(&works(&line)).unwrap();
    assert_eq!(again["rows"][0]["nll"], rows[0]["nll"]);
    fails(
        &[
            "eval",
            "--model",
            &model,
            "--questions",
            &questions,
            "--baseline",
            "summary",
        ],
        &["--corpus"],
    );
}

#[test]
fn suites_are_asked_from_their_files() {
    let text = "The keeper walks along the wall and counts the boats. ".repeat(40);
    let (home, model) = asked(&text);
    let at = |name: &str| home.path().join(name).display().to_string();
    let patient = json!({ "p1": { "name": "Ann", "texts": { "note": "Ann has a cold." }, "questions": [
        { "No": 0, "question": "What has Ann?", "answer_a": "A cold", "answer_b": "The flu",
          "correct": "A cold" }]}});
    std::fs::write(at("health.json"), patient.to_string()).unwrap();
    let pairs = json!([{ "original": "Ma bo.", "ground_truth": "She goes." }]);
    std::fs::write(at("pairs.json"), pairs.to_string()).unwrap();
    let (health, pairs, corpus) = (at("health.json"), at("pairs.json"), at("corpus.txt"));
    let run = |words: &[&str]| -> Value {
        let line = [
            &["eval"],
            words,
            &["--model", &model, "--json", "--max-new-tokens", "4"],
        ]
        .concat();
        serde_json::from_str(&works(&line)).unwrap()
    };
    let scores = |report: &Value| -> Vec<String> {
        let scores = report["rows"][0]["scores"].as_array().unwrap();
        let names = scores.iter().map(|score| score["name"].as_str().unwrap());
        names.map(str::to_owned).collect()
    };
    let report = run(&["longhealth", "--data", &health]);
    assert_eq!(report["suite"], "longhealth");
    assert_eq!(scores(&report), ["accuracy"]);
    assert_eq!(report["rows"].as_array().unwrap().len(), 2);
    assert!(report["corpus"]["tokens"].as_u64().unwrap() > 20);
    let graded = &report["rows"][1]["questions"][0]["graded"];
    // Four tokens are too few for the form that is asked for.
    assert_eq!(
        (&graded["unanswered"], &graded["samples"]),
        (&json!(1), &json!(1))
    );

    let report = run(&[
        "mtob",
        "--data",
        &pairs,
        "--corpus",
        &corpus,
        "--samples",
        "2",
        "--temperature",
        "1",
    ]);
    assert_eq!(scores(&report), ["chrF2", "chrF2++", "BLEU"]);
    assert_eq!(report["rows"][0]["questions"][0]["graded"]["samples"], 2);

    let report = run(&[
        "niah", "--corpus", &corpus, "--length", "300", "--hidden", "2",
    ]);
    assert_eq!(report["rows"][0]["questions"].as_array().unwrap().len(), 2);
    let report = run(&[
        "variable-tracking",
        "--corpus",
        &corpus,
        "--length",
        "300",
        "--hidden",
        "1",
    ]);
    assert_eq!(scores(&report), ["F1", "precision", "recall"]);

    fails(
        &["eval", "longhealth", "--model", &model],
        &["--data", "benchmark_v5.json"],
    );
    fails(
        &[
            "eval",
            "longhealth",
            "--data",
            &health,
            "--only",
            "p7",
            "--model",
            &model,
        ],
        &["p7"],
    );
    fails(
        &[
            "eval",
            "mtob",
            "--data",
            &pairs,
            "--samples",
            "2",
            "--model",
            &model,
        ],
        &["--temperature"],
    );
}
