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
