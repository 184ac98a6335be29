//! Several processes that train one cartridge.

use std::net::TcpListener;

#[cfg(unix)]
use super::stages::signal_when;
use super::stages::{Place, SYNTHESIZE, TRAIN, json_lines, lines};
use super::*;

/// A place with conversations.
fn studied() -> Place {
    let place = Place::new();
    place.works(SYNTHESIZE);
    place
}

fn losses(log: &str) -> Vec<f64> {
    let lines = json_lines(log);
    lines
        .iter()
        .map(|line| line["loss"].as_f64().unwrap())
        .collect()
}

fn values(folder: &str) -> Vec<f32> {
    let bytes = std::fs::read(format!("{folder}/cartridge.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let mut names = file.names();
    names.sort();
    names
        .into_iter()
        .flat_map(|name| file.tensor(name).unwrap().data().to_vec())
        .collect::<Vec<u8>>()
        .chunks_exact(4)
        .map(|b| f32::from_le_bytes(b.try_into().unwrap()))
        .collect()
}

/// `--leader` with a port that nobody has.
fn free_leader() -> String {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    format!("--world-size 2 --leader {}", listener.local_addr().unwrap())
}

#[test]
fn two_processes_train_as_one_does() {
    let place = studied();
    let settings = format!(
        "eval_every = 3\neval_data = [{:?}]\n",
        place.path("study/dataset.parquet")
    );
    place.write("train.toml", &settings);
    let words = "--steps 8 --rows-per-step 3 --config path:train.toml";
    place.works(&format!("{TRAIN} {words}"));
    let other = TRAIN.replace("path:cartridge", "path:both");
    let said = place.works(&format!("{other} {words} --workers 2"));
    assert!(said.contains("cartridge of 8 slots"), "{said}");
    let (alone, both) = (place.path("cartridge"), place.path("both"));
    for log in ["train.jsonl", "scores.jsonl"] {
        assert_eq!(
            lines(&format!("{alone}/{log}")),
            lines(&format!("{both}/{log}"))
        );
    }
    let curves = [&alone, &both].map(|folder| losses(&format!("{folder}/train.jsonl")));
    assert_eq!(curves[0].len(), 8);
    for (one, two) in curves[0].iter().zip(&curves[1]) {
        assert!((one - two).abs() < 1e-4, "{curves:?}");
    }
    let (one, two) = (values(&alone), values(&both));
    assert_eq!(one.len(), two.len());
    let off = one.iter().zip(&two).map(|(a, b)| (a - b).abs());
    assert!(off.fold(0.0, f32::max) < 1e-4);
    place.fails(
        &format!("{other} --workers 3 --rows-per-step 2"),
        &["rows_per_step is 2 for 3 processes"],
    );
}

#[cfg(unix)]
#[test]
fn a_killed_process_ends_the_run_which_goes_on_from_its_checkpoint() {
    let place = studied();
    let words = format!("{TRAIN} --steps 60 --rows-per-step 2");
    let leader = free_leader();
    // As many threads as each of two workers has, because the last digits depend on it.
    let (ranks, workers) = ("--threads 1", "--workers 2 --threads 2");
    let first = place.start(&format!("{words} {ranks} --rank 0 {leader}"));
    let second = place.start(&format!("{words} {ranks} --rank 1 {leader}"));
    let log = place.path("cartridge/train.jsonl");
    let (killed, _) = signal_when(second, "-KILL", || lines(&log) > 3);
    assert_eq!(killed, None);
    let output = first.wait_with_output().unwrap();
    let stderr = utf8(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    let last = stderr.lines().last().unwrap();
    assert!(last.starts_with("error: rank 1 is gone"), "{stderr}");
    let done = lines(&log);
    assert!((3..60).contains(&done));
    assert!(!Path::new(&place.path("cartridge/cartridge.json")).exists());
    place.works(&format!("{words} {workers}"));
    assert_eq!(lines(&log), 60);
    let other = words.replace("path:cartridge", "path:undisturbed");
    place.works(&format!("{other} {workers}"));
    assert_eq!(
        values(&place.path("cartridge")),
        values(&place.path("undisturbed"))
    );
}

#[test]
fn processes_with_other_settings_refuse_each_other() {
    let place = studied();
    let leader = free_leader();
    let words = format!("{TRAIN} --rows-per-step 2 --steps 2 {leader}");
    let first = place.start(&format!("{words} --rank 0 --lr 0.01"));
    place.fails(
        &format!("{words} --rank 1 --lr 0.02"),
        &["refuses", "lr is 0.02 there and 0.01 at the leader"],
    );
    let output = first.wait_with_output().unwrap();
    let stderr = utf8(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    assert!(
        stderr
            .lines()
            .last()
            .unwrap()
            .contains("rank 1 at 127.0.0.1"),
        "{stderr}"
    );
}

#[test]
fn several_cartridges_are_trained_together_and_answer_together() {
    let place = studied();
    let data = place.path("study/dataset.parquet");
    let corpus = place.path("text.txt");
    let member = |name: &str| {
        format!(
            "[[cartridge]]\nname = {name:?}\ndata = [{data:?}]\neval_data = [{data:?}]\n\
             corpus = {corpus:?}\n"
        )
    };
    let settings = "[joint]\nalone_share = 0.25\nmax_distractors = 1\n";
    let spec = format!("{settings}{}{}", member("lamp"), member("bell"));
    place.write("joint.toml", &spec);
    place.write("train.toml", "eval_every = 2\n");
    let words = "train --joint path:joint.toml --tokens 8 --packed-seq-length 256 --steps 4 \
        --config path:train.toml --out path:set";
    let said = place.works(words);
    assert_eq!(said.matches("cartridge of 8 slots").count(), 2, "{said}");
    for name in ["lamp", "bell"] {
        let log = place.path(&format!("set/{name}/train.jsonl"));
        assert_eq!(losses(&log).len(), 4);
        let scores = place.path(&format!("set/{name}/scores.jsonl"));
        assert_eq!(lines(&scores), 3);
        let scores = std::fs::read_to_string(&scores).unwrap();
        assert!(scores.contains("eval_alone/loss") && scores.contains("eval_composed/loss"));
        let made_by = place.made_by(&format!("set/{name}"));
        assert_eq!(made_by["joint"]["with"], json!(["lamp", "bell"]));
    }
    place.works(
        "chat --cartridge path:set/lamp --cartridge path:set/bell --max-new-tokens 3 --prompt Hello",
    );
    for (wrong, said) in [
        (member("lamp"), "at least 2"),
        (
            format!("{}{}", member("lamp"), member("lamp")),
            "two cartridges `lamp`",
        ),
        (
            format!("{}{}", member("lamp"), member("../x")),
            "name `../x`",
        ),
        (format!("[joint]\nalone = 1\n{}", member("lamp")), "alone"),
    ] {
        place.write("joint.toml", &wrong);
        place.fails(words, &["joint.toml", said]);
    }
}
