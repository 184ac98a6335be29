//! What the trackers write, read back by small readers that share nothing with the writers.

use std::path::{Path, PathBuf};

use cartridges_train::*;
use serde_json::{Value, json};

/// A checksum bit by bit, by its definition.
fn crc32(polynomial: u32, bytes: &[u8]) -> u32 {
    let mut crc = u32::MAX;
    for byte in bytes {
        crc ^= u32::from(*byte);
        for _ in 0..8 {
            crc = (crc >> 1) ^ (polynomial * (crc & 1));
        }
    }
    !crc
}

const CASTAGNOLI: u32 = 0x82f6_3b78;
const IEEE: u32 = 0xedb8_8320;

#[test]
fn the_readers_checksums_are_right() {
    assert_eq!(crc32(CASTAGNOLI, b"123456789"), 0xe306_9283);
    assert_eq!(crc32(IEEE, b"123456789"), 0xcbf4_3926);
}

fn u32_at(bytes: &[u8], at: usize) -> u32 {
    u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap())
}

/// TensorFlow's records.
fn tf_records(bytes: &[u8]) -> Vec<Vec<u8>> {
    let masked = |bytes: &[u8]| {
        let crc = crc32(CASTAGNOLI, bytes);
        crc.rotate_right(15).wrapping_add(0xa282_ead8)
    };
    let (mut at, mut records) = (0, Vec::new());
    while at < bytes.len() {
        let length = u64::from_le_bytes(bytes[at..at + 8].try_into().unwrap()) as usize;
        assert_eq!(u32_at(bytes, at + 8), masked(&bytes[at..at + 8]));
        let record = &bytes[at + 12..at + 12 + length];
        assert_eq!(u32_at(bytes, at + 12 + length), masked(record));
        records.push(record.to_vec());
        at += length + 16;
    }
    records
}

/// The records of a run of Weights & Biases that fits one block.
fn wandb_records(bytes: &[u8]) -> Vec<Vec<u8>> {
    assert_eq!(&bytes[..7], b":W&B\xe1\xbe\x00");
    assert!(bytes.len() < 32768);
    let (mut at, mut records) = (7, Vec::new());
    while at < bytes.len() {
        let length = usize::from(u16::from_le_bytes(
            bytes[at + 4..at + 6].try_into().unwrap(),
        ));
        let part = &bytes[at + 6..at + 7 + length];
        assert_eq!((u32_at(bytes, at), part[0]), (crc32(IEEE, part), 1));
        records.push(part[1..].to_vec());
        at += 7 + length;
    }
    records
}

#[derive(Debug, Clone, PartialEq)]
enum Field {
    Number(u64),
    Bytes(Vec<u8>),
}

/// The fields of a protobuf message.
fn fields(message: &[u8]) -> Vec<(u64, Field)> {
    let mut at = 0;
    let varint = |at: &mut usize| {
        let (mut value, mut shift) = (0, 0);
        loop {
            let byte = message[*at];
            *at += 1;
            value |= u64::from(byte & 0x7f) << shift;
            shift += 7;
            if byte < 0x80 {
                return value;
            }
        }
    };
    let mut all = Vec::new();
    while at < message.len() {
        let tag = varint(&mut at);
        let value = match tag & 7 {
            0 => Field::Number(varint(&mut at)),
            1 => {
                at += 8;
                let bits = message[at - 8..at].try_into().unwrap();
                Field::Number(u64::from_le_bytes(bits))
            }
            2 => {
                let length = varint(&mut at) as usize;
                at += length;
                Field::Bytes(message[at - length..at].to_vec())
            }
            5 => {
                at += 4;
                Field::Number(u64::from(u32_at(message, at - 4)))
            }
            other => panic!("wire type {other}"),
        };
        all.push((tag >> 3, value));
    }
    all
}

fn number(message: &[u8], field: u64) -> u64 {
    let found = fields(message).into_iter().find(|f| f.0 == field);
    match found {
        Some((_, Field::Number(x))) => x,
        // Zeros may be left out.
        None => 0,
        other => panic!("{other:?}"),
    }
}

fn messages(message: &[u8], field: u64) -> Vec<Vec<u8>> {
    let found = fields(message).into_iter().filter(|f| f.0 == field);
    let bytes = |f: (u64, Field)| match f.1 {
        Field::Bytes(bytes) => bytes,
        other => panic!("{other:?}"),
    };
    found.map(bytes).collect()
}

fn text(message: &[u8], field: u64) -> String {
    let all = messages(message, field).into_iter();
    let all: Vec<String> = all.map(|b| String::from_utf8(b).unwrap()).collect();
    all.join("|")
}

fn report(step: usize) -> StepReport {
    StepReport {
        step,
        total: 5,
        loss: 1.5 / step as f64,
        lr: 1e-3,
        grad_norm: 0.25,
        tokens: 40,
        targets: 10,
        epoch: 0,
        rows: step,
        total_tokens: 40 * step,
        total_targets: 10 * step,
        on_policy_kl: None,
        seconds: 0.125,
    }
}

fn answers() -> Table {
    Table {
        name: "generate_x/table".to_owned(),
        columns: vec!["pred".to_owned(), "score".to_owned()],
        rows: vec![
            vec![json!("Edda|Falk"), json!(true)],
            vec![json!("a\nb"), json!(false)],
        ],
    }
}

/// A run of two steps, an evaluation, an answer and a table.
fn track(tracker: &mut dyn Tracker, from: usize) {
    let settings = json!({ "lr": 1e-3, "data": ["a", "b"] });
    let sizes = Sizes {
        trainable_slots: 5,
        trainable_parameters: 960,
    };
    let start = RunStart {
        step: from,
        total: 5,
        sizes,
        settings: &settings,
    };
    tracker.begin(&start).unwrap();
    tracker.step(&report(from + 1)).unwrap();
    tracker.step(&report(from + 2)).unwrap();
    let scores = [("eval/score", -1.25), ("eval_x/perplexity", f64::INFINITY)];
    tracker.scalars(from + 2, &scores).unwrap();
    tracker.text(from + 2, "answer", "Edda Falk").unwrap();
    tracker.table(from + 2, &answers()).unwrap();
    tracker.end().unwrap();
}

fn entries(folder: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(folder).unwrap();
    let mut all: Vec<PathBuf> = entries.map(|e| e.unwrap().path()).collect();
    all.sort();
    all
}

#[test]
fn event_files_hold_what_was_told() {
    let folder = tempfile::tempdir().unwrap();
    let mut tracker = TensorBoard::new(folder.path());
    assert!(entries(folder.path()).is_empty());
    track(&mut tracker, 0);
    track(&mut tracker, 1);
    let files = entries(folder.path());
    assert_eq!(files.len(), 2);
    for (from, file) in files.iter().enumerate() {
        let name = file.file_name().unwrap().to_str().unwrap();
        assert!(name.starts_with("events.out.tfevents."), "{name}");
        let mut events = tf_records(&std::fs::read(file).unwrap());
        assert_eq!(text(&events.remove(0), 3), "brain.Event:2");
        if from > 0 {
            // The steps from 2 on will be done again.
            let started = events.remove(0);
            assert_eq!(number(&started, 2), 2);
            assert_eq!(number(&messages(&started, 7)[0], 1), 1);
        }
        let steps: Vec<u64> = events.iter().map(|e| number(e, 2)).collect();
        let wanted = [0, 0, 1, 2, 2, 2, 2].map(|n| n + from as u64);
        assert_eq!(steps, wanted);
        assert!(events.iter().all(|e| f64::from_bits(number(e, 1)) > 1e9));
        let scalars = |event: &[u8]| -> Vec<(String, f32)> {
            let values = messages(&messages(event, 5)[0], 1);
            let scalar = |v: &Vec<u8>| (text(v, 1), f32::from_bits(number(v, 2) as u32));
            values.iter().map(scalar).collect()
        };
        assert_eq!(
            scalars(&events[0])[0],
            ("num_trainable_params".to_owned(), 960.0)
        );
        let step = scalars(&events[2]);
        assert_eq!(
            step[0],
            ("train/loss".to_owned(), 1.5 / (from as f32 + 1.0))
        );
        assert_eq!(step.len(), 12);
        let scores = scalars(&events[4]);
        assert_eq!(scores[0], ("eval/score".to_owned(), -1.25));
        let answer = &messages(&messages(&events[5], 5)[0], 1)[0];
        assert_eq!(text(answer, 1), "answer");
        let tensor = &messages(answer, 8)[0];
        assert_eq!(
            (number(tensor, 1), text(tensor, 8)),
            (7, "Edda Falk".to_owned())
        );
        let plugin = &messages(&messages(answer, 9)[0], 1)[0];
        assert_eq!(text(plugin, 1), "text");
        let table = &messages(&messages(&events[6], 5)[0], 1)[0];
        assert_eq!(text(table, 1), "generate_x/table");
        assert_eq!(
            text(&messages(table, 8)[0], 8),
            "| pred | score |\n| --- | --- |\n| Edda\\|Falk | true |\n| a b | false |\n"
        );
    }
}

#[test]
fn offline_runs_hold_what_was_told() {
    let folder = tempfile::tempdir().unwrap();
    let config = WandbConfig {
        name: "lamp".to_owned(),
        tags: vec!["a".to_owned(), "b".to_owned()],
        ..WandbConfig::default()
    };
    let mut tracker = WandbOffline::new(folder.path(), config);
    assert!(tracker.step(&report(1)).is_err(), "nothing has begun");
    track(&mut tracker, 0);
    track(&mut tracker, 1);
    let parts = entries(folder.path());
    let id = |part: &Path| {
        let name = part.file_name().unwrap().to_str().unwrap();
        assert!(name.starts_with("offline-run-20"), "{name}");
        name.rsplit('-').next().unwrap().to_owned()
    };
    assert_eq!((parts.len(), id(&parts[0])), (2, id(&parts[1])));
    for (from, part) in parts.iter().enumerate() {
        let log = part.join(format!("run-{}.wandb", id(part)));
        let records = wandb_records(&std::fs::read(log).unwrap());
        let numbers: Vec<u64> = records.iter().map(|r| number(r, 1)).collect();
        assert_eq!(numbers, (1..=8).collect::<Vec<u64>>());
        let kinds: Vec<u64> = records.iter().map(|r| fields(r)[1].0).collect();
        // Header, run, history and summary of a step, a file, those of the next step, exit.
        assert_eq!(kinds, [21, 17, 2, 3, 6, 2, 3, 18]);
        let run = &messages(&records[1], 17)[0];
        let texts = [1, 3, 8, 10].map(|field| text(run, field));
        assert_eq!(texts, [&id(part), "cartridges", "lamp", "a|b"]);
        assert_eq!(number(run, 14), from as u64);
        let settings = messages(&messages(run, 4)[0], 1);
        let setting = |name: &str| {
            let item = settings.iter().find(|item| text(item, 1) == name).unwrap();
            serde_json::from_str::<Value>(&text(item, 16)).unwrap()
        };
        assert_eq!(setting("data"), json!(["a", "b"]));
        assert_eq!(setting("num_trainable_params"), 960);

        let history = &messages(&records[5], 2)[0];
        assert_eq!(number(&messages(history, 2)[0], 1), from as u64 + 2);
        let items = messages(history, 1);
        let value = |name: &str| {
            let item = items.iter().find(|item| text(item, 2) == name).unwrap();
            serde_json::from_str::<Value>(&text(item, 16)).unwrap()
        };
        assert_eq!(value("train/loss"), 1.5 / (from as f64 + 2.0));
        assert_eq!(value("_step"), from + 2);
        assert_eq!(value("eval/score"), -1.25);
        assert_eq!(value("eval_x/perplexity"), "Infinity");
        assert_eq!(value("answer"), "Edda Falk");
        let table = value("generate_x/table");
        let path = text(&messages(&messages(&records[4], 6)[0], 1)[0], 1);
        assert_eq!(
            (&table["_type"], &table["path"]),
            (&json!("table-file"), &json!(path))
        );
        assert_eq!((&table["nrows"], &table["ncols"]), (&json!(2), &json!(2)));

        let read = |name: &str| std::fs::read_to_string(part.join("files").join(name)).unwrap();
        // The content and the digest that the package wandb 0.31 makes of this table.
        let content = r#"{"columns":["pred","score"],"data":[["Edda|Falk",true],["a\nb",false]]}"#;
        assert_eq!(read(&path), content);
        assert_eq!(table["size"], content.len());
        assert_eq!(
            table["sha256"],
            "c6db3835b1be19c70836618fa35ab86c4ca3f95cfb6bd9a42f9de5e49ec370d4"
        );
        assert_eq!(read("wandb-history.jsonl").lines().count(), 2);
        let summary: Value = serde_json::from_str(&read("wandb-summary.json")).unwrap();
        assert_eq!(summary["answer"], "Edda Falk");
        let yaml = read("config.yaml");
        assert!(yaml.contains("data:\n  value: [\"a\",\"b\"]\n"), "{yaml}");
    }
}

#[test]
fn lines_of_json_hold_what_was_told() {
    let folder = tempfile::tempdir().unwrap();
    let config = TrainConfig {
        trackers: vec![TrackerKind::Jsonl],
        ..TrainConfig::default()
    };
    let mut trackers = open_trackers(&config, folder.path());
    assert_eq!(trackers.len(), 1);
    track(trackers[0].as_mut(), 0);
    let lines = |name: &str| -> Vec<Value> {
        let text = std::fs::read_to_string(folder.path().join(name)).unwrap();
        text.lines()
            .map(|line| serde_json::from_str(line).unwrap())
            .collect()
    };
    let steps = lines("train.jsonl");
    assert_eq!(steps.len(), 2);
    let read: StepReport = serde_json::from_value(steps[1].clone()).unwrap();
    assert_eq!(read, report(2));
    let old = json!({"step": 1, "total": 2, "loss": 1.0, "lr": 0.1, "grad_norm": 1.0, "tokens": 3, "seconds": 1.0});
    assert_eq!(serde_json::from_value::<StepReport>(old).unwrap().tokens, 3);
    let scores = lines("scores.jsonl");
    assert_eq!(
        scores[0],
        json!({"step": 2, "eval/score": -1.25, "eval_x/perplexity": null})
    );
    assert_eq!(scores[1], json!({"step": 2, "answer": "Edda Falk"}));
    let row = json!({"step": 2, "table": "generate_x/table", "pred": "a\nb", "score": false});
    assert_eq!(lines("tables.jsonl")[1], row);
}
