//! `synthesize`, `train` and `quickstart` from end to end, with a model that is made up here: what they
//! write, what they refuse, and what is left when they are stopped.

use std::process::Child;
use std::time::{Duration, Instant};

use cartridges_model::cartridge::load_manifest;

use super::chat::talking_model;
use super::*;

pub(super) const TEXT: &str = "The lamp of Harrow Point burns whale oil. Its keeper is Edda Falk. The tower has \
    ninety-one steps, and the store below holds barley, rope and six barrels of tar. Boats from \
    Nordvik come on Tuesdays. In fog the bell rings twice a minute.";
const QUESTIONS: &str = r#"{"id": "lamp", "questions": [
    {"id": "q1", "question": "Who keeps the lamp?", "answers": ["Edda Falk"]},
    {"id": "q2", "question": "How many steps has the tower?", "answers": ["ninety-one", "91"]}]}"#;

/// A model, a text about nothing else, and room for results.
pub(super) struct Place {
    pub(super) home: TempDir,
}

impl Place {
    pub(super) fn new() -> Self {
        let home = TempDir::new().unwrap();
        std::fs::create_dir(home.path().join("model")).unwrap();
        talking_model(&home.path().join("model"));
        let place = Self { home };
        place.write("text.txt", TEXT);
        place.write("questions.json", QUESTIONS);
        let short = "max_completion_tokens_a = 6\nmax_completion_tokens_b = 6\n";
        place.write("study.toml", &format!("{short}verbatim_repeats = 1\n"));
        place.write("many.toml", &format!("{short}num_conversations = 240\n"));
        place
    }

    pub(super) fn path(&self, name: &str) -> String {
        text(&self.home.path().join(name)).to_owned()
    }

    pub(super) fn write(&self, name: &str, content: &str) {
        std::fs::write(self.home.path().join(name), content).unwrap();
    }

    /// `words` with `path:NAME` standing for a file of this place.
    pub(super) fn words(&self, words: &str) -> Vec<String> {
        words
            .split_whitespace()
            .map(|word| match word.strip_prefix("path:") {
                Some(name) => self.path(name),
                None => word.to_owned(),
            })
            .collect()
    }

    /// The same behind a command that needs the model.
    pub(super) fn args(&self, words: &str) -> Vec<String> {
        let mut args = self.words(words);
        args.extend(["--model".to_owned(), self.path("model")]);
        args
    }

    pub(super) fn works(&self, words: &str) -> String {
        let args = self.args(words);
        works(&args.iter().map(String::as_str).collect::<Vec<_>>())
    }

    pub(super) fn fails(&self, words: &str, names: &[&str]) {
        let args = self.args(words);
        fails(&args.iter().map(String::as_str).collect::<Vec<_>>(), names);
    }

    /// The end of the program where no file may outgrow `blocks` of 512 bytes, which stands for a full disk:
    /// both make a write fail in the middle.
    #[cfg(unix)]
    pub(super) fn with_small_disk(&self, blocks: u32, words: &str) -> Output {
        let script = format!("trap '' XFSZ; ulimit -f {blocks}; exec \"$0\" \"$@\"");
        Command::new("sh")
            .args(["-c", &script, env!("CARGO_BIN_EXE_cartridges")])
            .args(self.args(words))
            .stdin(Stdio::null())
            .output()
            .unwrap()
    }

    /// Starts the program so that permissions bind it: they do not bind the superuser, for whom somebody
    /// else runs it.
    #[cfg(unix)]
    pub(super) fn start_bound(&self, words: &str) -> Child {
        use std::os::unix::fs::{MetadataExt, PermissionsExt};
        use std::os::unix::process::CommandExt;
        const NOBODY: u32 = 65_534;
        let home = self.home.path();
        let mode = |path: &Path, mode| {
            std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
        };
        let copy = home.join("program");
        if !copy.exists() {
            mode(home, 0o777);
            std::fs::copy(env!("CARGO_BIN_EXE_cartridges"), &copy).unwrap();
            mode(&copy, 0o755);
        }
        let mut command = program_at(&copy, &self.home);
        command
            .args(self.args(words))
            .current_dir(home)
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        if std::fs::metadata(home).unwrap().uid() == 0 {
            command.uid(NOBODY).gid(NOBODY);
        }
        command.spawn().unwrap()
    }

    /// What a cartridge's folder says of how it was made.
    pub(super) fn made_by(&self, folder: &str) -> Value {
        let manifest = load_manifest(Path::new(&self.path(folder))).unwrap();
        manifest.made_by
    }

    pub(super) fn start(&self, words: &str) -> Child {
        program(&self.home)
            .args(self.args(words))
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .spawn()
            .unwrap()
    }
}

pub(super) const SYNTHESIZE: &str =
    "synthesize --corpus path:text.txt --out path:study --config path:study.toml --conversations 4";
pub(super) const TRAIN: &str = "train --data path:study/dataset.parquet --corpus path:text.txt --tokens 8 \
    --packed-seq-length 256 --out path:cartridge";

#[test]
fn stage_by_stage_a_text_becomes_a_cartridge() {
    let place = Place::new();
    let said = place.works(SYNTHESIZE);
    assert!(said.contains("dataset.parquet"), "{said}");
    let said = place.works(&format!("{TRAIN} --steps 3"));
    assert!(said.contains("cartridge of 8 slots"), "{said}");
    let json = works(&["inspect", &place.path("cartridge"), "--json"]);
    let json: Value = serde_json::from_str(&json).unwrap();
    assert_eq!(json["kind"], "cartridge");
    let log = std::fs::read_to_string(place.path("cartridge/train.jsonl")).unwrap();
    assert_eq!(log.lines().count(), 3);
    place.works("chat --cartridge path:cartridge --max-new-tokens 3 --prompt Hello");
    // Everything is there already: nothing is done again.
    let before = std::fs::read(place.path("study/dataset.parquet")).unwrap();
    place.works(SYNTHESIZE);
    let after = std::fs::read(place.path("study/dataset.parquet")).unwrap();
    assert_eq!(before, after);
}

#[test]
fn quickstart_makes_and_measures_a_cartridge_of_ones_own_text() {
    let place = Place::new();
    let words = "quickstart --smoke --corpus path:text.txt --questions path:questions.json \
        --out path:out --tokens 8";
    let said = place.works(words);
    for part in [
        "no document",
        "document in context",
        "8 before training",
        "chat --cartridge",
    ] {
        assert!(said.contains(part), "no `{part}` in\n{said}");
    }
    let report = std::fs::read_to_string(place.path("out/report.json")).unwrap();
    let report: Value = serde_json::from_str(&report).unwrap();
    assert_eq!(report["rows"].as_array().unwrap().len(), 4);
    assert!(Path::new(&place.path("out/report.txt")).exists());
    place.works("chat --cartridge path:out/cartridge --max-new-tokens 3 --prompt Hello");
}

#[test]
fn settings_and_texts_that_make_no_sense_are_named() {
    let place = Place::new();
    place.write("empty.txt", " \n");
    place.write("binary.txt", "");
    std::fs::write(place.path("binary.txt"), b"ab\xff\xfe").unwrap();
    place.write("odd.toml", "conversation_count = 3\n");
    for command in ["synthesize", "quickstart --smoke"] {
        let run = |name: &str| format!("{command} --corpus path:{name} --out path:out");
        place.fails(&run("empty.txt"), &["empty.txt", "empty"]);
        place.fails(&run("binary.txt"), &["binary.txt", "UTF-8"]);
        place.fails(&run("no.txt"), &["no.txt"]);
    }
    place.fails(
        "synthesize --corpus path:text.txt --out path:out --config path:odd.toml",
        &["odd.toml", "conversation_count"],
    );
    place.fails("quickstart --tokens 0 --out path:out", &["--tokens"]);
    place.fails("quickstart --ratio 0 --out path:out", &["--ratio"]);
    assert!(!Path::new(&place.path("out/study")).exists());

    place.works(SYNTHESIZE);
    let train = |more: &str| {
        format!(
            "train --data path:study/dataset.parquet --corpus path:text.txt --out path:c {more}"
        )
    };
    place.fails(&train("--tokens 0"), &["--tokens"]);
    place.fails(&train("--tokens 1"), &["--tokens"]);
    place.fails(&train("--ratio 1.5"), &["--ratio"]);
    place.fails(&train("--lr nan"), &["lr"]);
    place.fails(&train("--packed-seq-length 0"), &["packed_seq_length"]);
    place.fails(
        &train("--config path:odd.toml"),
        &["odd.toml", "conversation_count"],
    );
    place.fails(
        "train --data path:text.txt --corpus path:text.txt --out path:c",
        &["text.txt"],
    );
}

#[test]
fn a_text_of_five_tokens_is_studied_like_any_other() {
    let place = Place::new();
    place.write("text.txt", "Edda Falk.");
    place.works(SYNTHESIZE);
    place.works(&format!("{TRAIN} --steps 1"));
}

#[test]
fn weights_that_are_not_finite_are_named() {
    let place = Place::new();
    let path = place.path("model/model.safetensors");
    let mut bytes = std::fs::read(&path).unwrap();
    let at = bytes.len() - 40;
    bytes[at..at + 4].copy_from_slice(&f32::NAN.to_le_bytes());
    std::fs::write(&path, bytes).unwrap();
    place.fails("chat --prompt x", &["model.safetensors", "NaN"]);
    place.fails(SYNTHESIZE, &["model.safetensors", "NaN"]);
}

#[test]
fn a_folder_that_cannot_be_written_is_named_before_the_work_begins() {
    let place = Place::new();
    let mut bad = vec!["path:text.txt/inside"];
    if cfg!(target_os = "linux") {
        // Even the superuser cannot make a file there.
        bad.push("/proc/cartridges");
    }
    for out in bad {
        let name = out.strip_prefix("path:").unwrap_or(out);
        let begin = Instant::now();
        place.fails(
            &format!("synthesize --corpus path:text.txt --out {out}"),
            &[name],
        );
        place.fails(
            &format!("quickstart --corpus path:text.txt --out {out}"),
            &[name],
        );
        place.fails(
            &format!("train --data path:none.parquet --out {out}"),
            &[name],
        );
        assert!(begin.elapsed() < Duration::from_secs(20));
    }
}

#[cfg(unix)]
#[test]
fn a_full_disk_is_an_error_and_what_was_there_stays() {
    let place = Place::new();
    place.works(SYNTHESIZE);
    place.works(&format!("{TRAIN} --steps 1"));
    let file = place.path("cartridge/cartridge.safetensors");
    let before = std::fs::read(&file).unwrap();

    // What is left of the run that is finished is not in the way.
    std::fs::remove_file(place.path("cartridge/checkpoint.safetensors")).unwrap();
    let words = TRAIN.replace("--tokens 8", "--tokens 200 --init random --steps 2");
    let output = place.with_small_disk(8, &words);
    let stderr = utf8(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    let last = stderr.lines().last().unwrap();
    assert!(
        last.starts_with("error: ") && last.contains("checkpoint.safetensors"),
        "{stderr}"
    );
    assert!(last.contains("too large"), "{stderr}");
    assert_eq!(std::fs::read(&file).unwrap(), before);
}

/// Waits until `ready`, while the program works.
pub(super) fn wait_until(child: &mut Child, ready: impl Fn() -> bool) {
    let begin = Instant::now();
    while !ready() {
        assert!(
            begin.elapsed() < Duration::from_secs(120),
            "the work never began"
        );
        assert!(
            child.try_wait().unwrap().is_none(),
            "the work ended too early"
        );
        std::thread::sleep(Duration::from_millis(5));
    }
}

/// Waits until `ready`, then sends the signal; gives the end of stderr.
#[cfg(unix)]
pub(super) fn signal_when(
    mut child: Child,
    signal: &str,
    ready: impl Fn() -> bool,
) -> (Option<i32>, String) {
    wait_until(&mut child, ready);
    let id = child.id().to_string();
    assert!(
        Command::new("kill")
            .args([signal, &id])
            .status()
            .unwrap()
            .success()
    );
    let output = child.wait_with_output().unwrap();
    (output.status.code(), utf8(&output.stderr))
}

pub(super) fn lines(path: &str) -> usize {
    std::fs::read_to_string(path).map_or(0, |text| text.lines().count())
}

/// A file of a JSON value per line.
pub(super) fn json_lines(path: &str) -> Vec<Value> {
    let text = std::fs::read_to_string(path).unwrap();
    text.lines()
        .map(|line| serde_json::from_str(line).unwrap())
        .collect()
}

pub(super) fn files(folder: &str) -> Vec<(PathBuf, Vec<u8>)> {
    let Ok(entries) = std::fs::read_dir(folder) else {
        return Vec::new();
    };
    let mut files: Vec<_> = entries
        .map(|entry| entry.unwrap().path())
        .filter(|path| path.extension().is_some_and(|e| e == "parquet"))
        .map(|path| (path.clone(), std::fs::read(path).unwrap()))
        .collect();
    files.sort();
    files
}

#[cfg(unix)]
#[test]
fn a_study_that_is_stopped_or_killed_goes_on() {
    let place = Place::new();
    let words =
        "synthesize --corpus path:text.txt --out path:study --config path:many.toml --batch 4";
    let parts = place.path("study/parts");
    let mut kept = Vec::new();
    for (signal, code) in [("-INT", Some(1)), ("-KILL", None), ("-TERM", Some(1))] {
        let there = kept.len();
        let ready = || files(&parts).len() >= there + 2;
        let (status, stderr) = signal_when(place.start(words), signal, ready);
        assert_eq!(status, code, "{stderr}");
        if code.is_some() {
            let last = stderr.lines().last().unwrap();
            assert!(
                last.starts_with("error: self-study was stopped"),
                "{stderr}"
            );
        }
        let now = files(&parts);
        assert!(
            now.len() > there && now.starts_with(&kept),
            "a finished part changed"
        );
        kept = now;
    }
    let said = place.works(words);
    let planned = said.split("planned").next().unwrap();
    let numbers: Vec<usize> = planned.split(' ').filter_map(|w| w.parse().ok()).collect();
    assert_eq!(numbers[0], numbers[1], "{said}");
    assert!(files(&parts).starts_with(&kept));
}

#[cfg(unix)]
#[test]
fn training_that_is_stopped_or_killed_goes_on() {
    let place = Place::new();
    place.works(SYNTHESIZE);
    let words = format!("{TRAIN} --steps 400");
    let log = place.path("cartridge/train.jsonl");
    for (signal, code) in [("-INT", Some(1)), ("-KILL", None)] {
        let there = lines(&log);
        let (status, stderr) = signal_when(place.start(&words), signal, || lines(&log) > there + 3);
        assert_eq!(status, code, "{stderr}");
        if code.is_some() {
            let last = stderr.lines().last().unwrap();
            assert!(last.starts_with("error: training was stopped"), "{stderr}");
        }
        assert!(!Path::new(&place.path("cartridge/cartridge.json")).exists());
    }
    place.works(&words);
    let whole = place.path("cartridge/cartridge.safetensors");
    let resumed = std::fs::read(&whole).unwrap();
    std::fs::remove_dir_all(place.path("cartridge")).unwrap();
    place.works(&words);
    assert_eq!(
        resumed,
        std::fs::read(&whole).unwrap(),
        "resuming changed the result"
    );
}

#[cfg(unix)]
#[test]
fn quickstart_that_is_stopped_goes_on() {
    let place = Place::new();
    let words = "quickstart --smoke --corpus path:text.txt --questions path:questions.json \
        --out path:out --tokens 8 --steps 300 --conversations 40";
    let parts = place.path("out/study/parts");
    let log = place.path("out/cartridge/train.jsonl");
    let (status, stderr) = signal_when(place.start(words), "-INT", || !files(&parts).is_empty());
    assert_eq!(status, Some(1), "{stderr}");
    assert!(
        stderr
            .lines()
            .last()
            .unwrap()
            .starts_with("error: self-study was stopped"),
        "{stderr}"
    );
    let kept = files(&parts);
    let (status, stderr) = signal_when(place.start(words), "-INT", || lines(&log) > 3);
    assert_eq!(status, Some(1), "{stderr}");
    assert!(
        stderr
            .lines()
            .last()
            .unwrap()
            .starts_with("error: training was stopped"),
        "{stderr}"
    );
    place.works(words);
    assert!(files(&parts).starts_with(&kept));
    assert_eq!(lines(&log), 300);
}

#[test]
fn training_takes_its_data_and_its_logs_from_a_file_of_settings() {
    let place = Place::new();
    place.works(SYNTHESIZE);
    let dataset = place.path("study/dataset.parquet");
    let settings = format!(
        "steps = 4\nepochs = 3\nmax_steps = 3\noptimizer = \"adamw\"\nweight_decay = 0.01\n\
         ema_decay = 0.5\ntrain_on = \"both\"\ntail_bucket = true\nkeep_last_n = 1\nsave_every = 1\n\
         eval_every = 2\neval_data = [{dataset:?}]\ntrackers = [\"jsonl\", \"wandb\"]\n\
         [[data]]\npath = {dataset:?}\nweight = 1.5\n[[data]]\npath = {dataset:?}\nlimit = 1\n\
         [wandb]\nproject = \"lamps\"\n"
    );
    place.write("train.toml", &settings);
    let words = "train --corpus path:text.txt --tokens 8 --packed-seq-length 256 --out \
        path:cartridge --config path:train.toml";
    let said = place.works(&format!("{words} --tracker jsonl --tracker tensorboard"));
    assert!(said.contains("cartridge of 8 slots"), "{said}");
    assert_eq!(lines(&place.path("cartridge/train.jsonl")), 3);
    assert_eq!(lines(&place.path("cartridge/scores.jsonl")), 3);
    let events = std::fs::read_dir(place.path("cartridge/tensorboard")).unwrap();
    assert_eq!(events.count(), 1);
    assert!(!Path::new(&place.path("cartridge/wandb")).exists());
    assert!(Path::new(&place.path("cartridge/checkpoint-000003.safetensors")).exists());
    assert!(!Path::new(&place.path("cartridge/checkpoint-000002.safetensors")).exists());
    let made_by = place.made_by("cartridge");
    let training = &made_by["training"];
    assert_eq!(training["steps"], 3);
    assert_eq!(training["config"]["data"][0]["weight"], 1.5);
    assert!(training["best"]["held_out_loss"].as_f64().unwrap() > 0.0);

    place.write("train.toml", "steps = 2\neval_every = 1\n");
    place.fails(words, &["nothing to train on", "--data"]);
    place.fails(&format!("{words} --data {dataset}"), &["eval_data"]);
}
