//! The built program, from outside.

use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};

use cartridges_model::cartridge::{CartridgeDtype, HostCartridge, HostLayer, ModelIdentity, save};
use cartridges_ops::DeviceChoice;
use safetensors::SafeTensors;
use safetensors::tensor::{Dtype, TensorView};
use serde_json::{Value, json};
use tempfile::TempDir;

const COMMANDS: [&str; 17] = [
    "push",
    "pull",
    "quickstart",
    "synthesize",
    "train",
    "compact",
    "transmute",
    "adapter",
    "chat",
    "serve",
    "eval",
    "report",
    "bench",
    "convert",
    "inspect",
    "logits",
    "doctor",
];

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../tests/fixtures")
        .join(name)
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

/// The program with caches of its own that are empty, and without the hub.
fn program(home: &TempDir) -> Command {
    program_at(Path::new(env!("CARGO_BIN_EXE_cartridges")), home)
}

/// The same, of a copy of the program.
fn program_at(file: &Path, home: &TempDir) -> Command {
    let mut command = Command::new(file);
    command
        .env("CARTRIDGES_CACHE", home.path().join("models"))
        .env("HF_HOME", home.path().join("hub"))
        .env("HF_HUB_OFFLINE", "1")
        .env_remove("HF_HUB_CACHE")
        .env_remove("RUST_LOG")
        .env_remove("CARTRIDGES_OUTPUT_DIR")
        .stdin(Stdio::null());
    command
}

fn run(args: &[&str]) -> Output {
    let home = TempDir::new().unwrap();
    program(&home).args(args).output().unwrap()
}

fn utf8(bytes: &[u8]) -> String {
    String::from_utf8(bytes.to_vec()).unwrap()
}

/// Runs what must work; gives stdout.
fn works(args: &[&str]) -> String {
    let output = run(args);
    assert!(
        output.status.success(),
        "{args:?}: {}",
        utf8(&output.stderr)
    );
    utf8(&output.stdout)
}

/// Runs what must fail with exit code 1 and one line that has all of `names` in it.
fn fails(args: &[&str], names: &[&str]) {
    let output = run(args);
    let stderr = utf8(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{args:?}: {stderr}");
    let errors: Vec<&str> = stderr.lines().filter(|l| l.starts_with("error:")).collect();
    assert_eq!(errors.len(), 1, "{args:?}: {stderr}");
    assert_eq!(stderr.lines().last(), Some(errors[0]), "{args:?}: {stderr}");
    for name in names {
        assert!(
            errors[0].contains(name),
            "{args:?}: no `{name}` in `{}`",
            errors[0]
        );
    }
    assert!(
        output.stdout.is_empty(),
        "{args:?}: {}",
        utf8(&output.stdout)
    );
}

fn write_ids(folder: &Path, ids: &[u32]) -> PathBuf {
    let path = folder.join("ids.json");
    std::fs::write(&path, json!(ids).to_string()).unwrap();
    path
}

#[path = "cli/adapter.rs"]
mod adapter;
#[path = "cli/bench.rs"]
mod bench;
#[path = "cli/chat.rs"]
mod chat;
#[path = "cli/convert.rs"]
mod convert;
#[path = "cli/data.rs"]
mod data;
#[path = "cli/eval.rs"]
mod eval;
#[path = "cli/examples.rs"]
mod examples;
#[path = "cli/group.rs"]
mod group;
#[path = "cli/hub.rs"]
mod hub;
#[path = "cli/kills.rs"]
mod kills;
#[path = "cli/logits.rs"]
mod logits;
#[path = "cli/merged.rs"]
mod merged;
#[path = "cli/on_policy.rs"]
mod on_policy;
#[path = "cli/serve.rs"]
mod serve;
#[path = "cli/stages.rs"]
mod stages;
#[path = "cli/starts.rs"]
mod starts;
#[path = "cli/synthesis_failures.rs"]
mod synthesis_failures;
#[path = "cli/synthesis_kills.rs"]
mod synthesis_kills;
#[path = "cli/teacher.rs"]
mod teacher;
#[path = "cli/text_server.rs"]
mod text_server;
#[path = "cli/wandb.rs"]
mod wandb;
#[path = "cli/watch.rs"]
mod watch;

#[test]
fn help_is_there_for_every_command() {
    let all = works(&["--help"]);
    for command in COMMANDS {
        assert!(all.contains(command), "{command} is not in --help");
        let help = works(&[command, "--help"]);
        assert!(help.contains("Example"), "{command} --help has no example");
        assert!(
            help.contains("--device"),
            "{command} --help has no --device"
        );
    }
    assert!(works(&["--version"]).contains(env!("CARGO_PKG_VERSION")));
}

#[test]
fn wrong_usage_exits_with_2() {
    for args in [
        &["nonsense"][..],
        &["chat", "--nonsense"],
        &["inspect"],
        &["doctor", "--device", "nonsense"],
        &["doctor", "--threads", "many"],
        &["chat", "--json"],
        &["chat", "--system", "x", "--cartridge", "y"],
        &["chat", "--max-new-tokens", "0"],
    ] {
        let output = run(args);
        assert_eq!(output.status.code(), Some(2), "{args:?}");
        let word = args.iter().find(|a| **a == "nonsense" || **a == "many");
        if let Some(word) = word {
            assert!(utf8(&output.stderr).contains(word), "{args:?}");
        }
    }
}

#[test]
fn a_device_that_was_not_built_in_is_named() {
    let compiled: Vec<String> = DeviceChoice::compiled()
        .iter()
        .map(ToString::to_string)
        .collect();
    for (device, feature) in [("cuda:0", "cuda"), ("wgpu", "wgpu"), ("ndarray", "ndarray")] {
        if !compiled.iter().any(|name| name == device) {
            fails(&["doctor", "--device", device], &[feature, "--features"]);
        }
    }
}

#[test]
fn paths_that_are_not_there_are_named() {
    let home = TempDir::new().unwrap();
    let nowhere = home.path().join("no-such-thing");
    let nowhere = text(&nowhere);
    let out = home.path().join("out.safetensors");
    let ids = write_ids(home.path(), &[1, 2, 3]);
    let model = fixture("tiny-qwen2");
    let (model, ids, out) = (text(&model), text(&ids), text(&out));
    fails(&["inspect", nowhere], &["no-such-thing"]);
    fails(
        &["chat", "--prompt", "x", "--model", nowhere],
        &["no-such-thing"],
    );
    fails(
        &["chat", "--prompt", "x", "--cartridge", nowhere],
        &["no-such-thing"],
    );
    fails(
        &["logits", "--model", nowhere, "--ids", ids, "--out", out],
        &["no-such-thing"],
    );
    fails(
        &["logits", "--model", model, "--ids", nowhere, "--out", out],
        &["no-such-thing"],
    );
    fails(
        &[
            "logits",
            "--model",
            model,
            "--ids",
            ids,
            "--out",
            out,
            "--cartridge",
            nowhere,
        ],
        &["no-such-thing"],
    );
    // A model without a tokenizer cannot chat.
    fails(&["chat", "--prompt", "x", "--model", model], &["tokenizer"]);
    assert!(!Path::new(out).exists());
}

#[test]
fn inspect_knows_what_things_are() {
    let data = fixture("reference_conversations.parquet");
    let shown = works(&["inspect", text(&data)]);
    for part in ["rows", "targets", "tokens per", "sample: row 0"] {
        assert!(shown.contains(part), "no `{part}` in\n{shown}");
    }
    let json: Value = serde_json::from_str(&works(&["inspect", text(&data), "--json"])).unwrap();
    assert_eq!(json["kind"], "conversations");
    assert!(json["rows"].as_u64().unwrap() > 0);

    let model = fixture("tiny-qwen2");
    let json: Value = serde_json::from_str(&works(&["inspect", text(&model), "--json"])).unwrap();
    assert_eq!(json["kind"], "model");
    assert_eq!(json["config"]["vocab_size"], 512);
    assert_eq!(json["tokenizer"], Value::Null);
    let bytes = std::fs::read(model.join("model.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let parameters: usize = file
        .tensors()
        .iter()
        .map(|(_, t)| t.shape().iter().product::<usize>())
        .sum();
    assert_eq!(json["parameters"].as_u64().unwrap(), parameters as u64);

    let cartridge = fixture("tiny-qwen2/cartridge_public.pt");
    assert!(works(&["inspect", text(&cartridge)]).contains("3 layers"));
    fails(
        &["inspect", text(&model.join("config.json"))],
        &["config.json", "unknown kind"],
    );
    fails(
        &["inspect", text(&fixture("tokenizers"))],
        &["tokenizers", "cartridge.json"],
    );
}

#[test]
fn inspect_shows_a_run_that_is_not_finished() {
    let home = TempDir::new().unwrap();
    let plan = json!({
        "format_version": 1, "model": "tiny", "num_tasks": 12,
        "resources": [{ "name": "handbook", "sha256": "0" }], "config": { "seed": 3 },
    });
    std::fs::write(home.path().join("plan.json"), plan.to_string()).unwrap();
    let report = json!({ "finished": 4, "dropped": { "empty": 2 }, "failed": {} });
    std::fs::write(home.path().join("report.json"), report.to_string()).unwrap();
    let shown = works(&["inspect", text(home.path())]);
    for part in ["handbook", "12", "2 (2 empty)", "not written yet", "seed"] {
        assert!(shown.contains(part), "no `{part}` in\n{shown}");
    }
    std::fs::write(home.path().join("plan.json"), "{").unwrap();
    fails(&["inspect", text(home.path())], &["plan.json"]);
}

#[test]
fn doctor_reports_without_secrets() {
    let home = TempDir::new().unwrap();
    let output = program(&home)
        .args(["doctor", "--json", "--device", "cpu"])
        .env("HF_TOKEN", "hf_secret")
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", utf8(&output.stderr));
    let said = utf8(&output.stdout);
    assert!(!said.contains("hf_secret") && !utf8(&output.stderr).contains("hf_secret"));
    let json: Value = serde_json::from_str(&said).unwrap();
    assert_eq!(json["hf_token_set"], true);
    assert!(json["speed"]["matmul_gflops"].as_f64().unwrap() > 0.0);
    assert!(
        json["models"]
            .as_array()
            .unwrap()
            .iter()
            .all(|m| m["path"].is_null())
    );
    assert!(works(&["doctor"]).contains("GFLOP/s"));
}

#[test]
fn a_reader_that_goes_away_is_no_error() {
    let home = TempDir::new().unwrap();
    let mut child = program(&home)
        .args(["inspect", text(&fixture("reference_conversations.parquet"))])
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .unwrap();
    drop(child.stdout.take());
    let output = child.wait_with_output().unwrap();
    assert_eq!(output.status.code(), Some(0), "{}", utf8(&output.stderr));
    assert!(output.stderr.is_empty(), "{}", utf8(&output.stderr));
}
