//! `push` and `pull`, and data sets by their repository, against a stand-in for the hub.

use std::fs;
use std::process::Output;

use super::logits::reference_cartridge;
use super::stages::{Place, SYNTHESIZE};
use super::*;

#[path = "hub/stand_in.rs"]
mod stand_in;

use stand_in::{Hub, TOKEN};

/// Runs the program against the hub; gives its end.
fn ask(hub: &Hub, place: &Place, token: &str, args: &[&str]) -> Output {
    let mut command = program(&place.home);
    command
        .args(args)
        .env_remove("HF_HUB_OFFLINE")
        .env("HF_ENDPOINT", &hub.endpoint);
    match token {
        "" => command.env_remove("HF_TOKEN"),
        token => command.env("HF_TOKEN", token),
    };
    command.output().unwrap()
}

fn succeeds(output: &Output) -> String {
    assert!(output.status.success(), "{}", utf8(&output.stderr));
    utf8(&output.stdout)
}

/// The program's last word; the exit code must be 1.
fn error(output: &Output) -> String {
    let stderr = utf8(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    let last = stderr.lines().last().unwrap_or_default();
    assert!(last.starts_with("error: "), "{stderr}");
    last.to_owned()
}

fn read(path: impl AsRef<Path>) -> Vec<u8> {
    let path = path.as_ref();
    fs::read(path).unwrap_or_else(|e| panic!("{}: {e}", path.display()))
}

#[test]
fn a_data_set_comes_back_as_it_went() {
    let (hub, place) = (Hub::start(), Place::new());
    let data = fixture("reference_conversations.parquet");
    let push = [
        "push",
        text(&data),
        "owner/talks",
        "--private",
        "--license",
        "cc0-1.0",
    ];
    let said = succeeds(&ask(&hub, &place, TOKEN, &push));
    assert!(
        said.contains("datasets/owner/talks") && said.contains("commit "),
        "{said}"
    );

    // As the reference lays it out.
    let part = "data/train-00000-of-00001.parquet";
    let kept = hub.files("datasets/owner/talks");
    let names: Vec<&str> = kept.keys().map(String::as_str).collect();
    assert_eq!(names, ["README.md", "config.yaml", part]);
    assert_eq!(kept[part], read(&data));
    assert!(hub.is_private("datasets/owner/talks"));
    let card = utf8(&kept["README.md"]);
    for part in [
        "license: \"cc0-1.0\"",
        "# owner/talks",
        "hf:owner/talks",
        "## Licence",
    ] {
        assert!(card.contains(part), "no `{part}` in\n{card}");
    }

    let out = place.path("pulled");
    let pull = ["pull", "owner/talks", "--out", &out];
    let said = succeeds(&ask(&hub, &place, TOKEN, &pull));
    assert!(said.contains("conversations"), "{said}");
    for (name, bytes) in &kept {
        assert_eq!(&read(Path::new(&out).join(name)), bytes, "{name}");
    }
    assert!(works(&["inspect", &out]).contains("tokens per"));

    // What is there and different is not written over unless it is asked for.
    let card = Path::new(&out).join("README.md");
    fs::write(&card, "mine").unwrap();
    let said = error(&ask(&hub, &place, TOKEN, &pull));
    assert!(
        said.contains("README.md") && said.contains("--force"),
        "{said}"
    );
    assert_eq!(read(&card), b"mine");
    let mut forced = pull.to_vec();
    forced.push("--force");
    succeeds(&ask(&hub, &place, TOKEN, &forced));
    assert_eq!(read(&card), kept["README.md"]);
}

#[test]
fn a_cartridge_comes_back_as_it_went_with_the_references_form_beside_it() {
    let (hub, place) = (Hub::start(), Place::new());
    let folder = place.home.path().join("mine");
    reference_cartridge(&folder, 0, 8);
    let push = ["push", text(&folder), "owner/mine", "--kind", "cartridge"];
    succeeds(&ask(&hub, &place, TOKEN, &push));
    let kept = hub.files("models/owner/mine");
    let names: Vec<&str> = kept.keys().map(String::as_str).collect();
    let wanted = [
        "README.md",
        "cartridge.json",
        "cartridge.pt",
        "cartridge.safetensors",
        "config.yaml",
    ];
    assert_eq!(names, wanted);
    let manifest: Value = serde_json::from_slice(&kept["cartridge.json"]).unwrap();
    let config = utf8(&kept["config.yaml"]);
    assert!(
        config.contains(&format!("  max_tokens: {}\n", manifest["slots"])),
        "{config}"
    );
    assert!(
        config.contains("pretrained_model_name_or_path:"),
        "{config}"
    );

    let out = place.home.path().join("again");
    let said = succeeds(&ask(
        &hub,
        &place,
        "",
        &["pull", "owner/mine", "--out", text(&out)],
    ));
    assert!(said.contains("cartridge of"), "{said}");
    for name in ["cartridge.json", "cartridge.safetensors"] {
        assert_eq!(read(out.join(name)), read(folder.join(name)), "{name}");
    }
    let pt = out.join("cartridge.pt");
    let json: Value = serde_json::from_str(&works(&["inspect", text(&pt), "--json"])).unwrap();
    assert_eq!(json["shape"]["slots"], manifest["slots"]);

    // A cartridge is no data set.
    let other = ["push", text(&folder), "owner/mine", "--kind", "dataset"];
    assert!(error(&ask(&hub, &place, TOKEN, &other)).contains("not a data set"));
    // What is damaged does not go out.
    fs::write(folder.join("cartridge.safetensors"), b"x").unwrap();
    let said = error(&ask(&hub, &place, TOKEN, &push));
    assert!(said.contains("cartridge.safetensors"), "{said}");
    assert_eq!(hub.files("models/owner/mine"), kept);
}

#[test]
fn those_who_may_not_are_told_what_to_do() {
    let (hub, place) = (Hub::start(), Place::new());
    let data = fixture("reference_conversations.parquet");
    let push =
        |repo: &str, token: &str| error(&ask(&hub, &place, token, &["push", text(&data), repo]));
    for (repo, token, status) in [
        ("owner/talks", "", "401"),
        ("owner/talks", "hf_wrong", "401"),
        ("somebody/talks", TOKEN, "403"),
    ] {
        let said = push(repo, token);
        for part in [repo, "HF_TOKEN", "write access", status] {
            assert!(said.contains(part), "no `{part}` in {said}");
        }
        assert!(
            !said.contains("hf_wrong") && !said.contains(TOKEN),
            "{said}"
        );
    }
    assert!(push("talks", TOKEN).contains("owner/name"));
    assert!(hub.names().is_empty());

    let out = place.path("out");
    let pull =
        |repo: &str, token: &str| error(&ask(&hub, &place, token, &["pull", repo, "--out", &out]));
    assert!(pull("owner/none", TOKEN).contains("owner/none"));
    succeeds(&ask(
        &hub,
        &place,
        TOKEN,
        &["push", text(&data), "owner/talks", "--private"],
    ));
    let said = pull("datasets/owner/talks", "hf_wrong");
    assert!(
        said.contains("HF_TOKEN") && said.contains("owner/talks"),
        "{said}"
    );
    // A repository that everybody sees does not get what is to be private.
    hub.publish("datasets/owner/talks");
    let before = hub.commits("datasets/owner/talks");
    let again = ["push", text(&data), "owner/talks", "--private"];
    assert!(error(&ask(&hub, &place, TOKEN, &again)).contains("not private"));
    assert_eq!(hub.commits("datasets/owner/talks"), before);
    assert_eq!(fs::read_dir(&out).unwrap().count(), 0);
}

#[test]
fn an_upload_that_breaks_off_leaves_nothing_and_can_be_done_again() {
    let (hub, place) = (Hub::start(), Place::new());
    let data = fixture("reference_conversations.parquet");
    let push = ["push", text(&data), "owner/talks"];
    hub.hang_up(true);
    let said = error(&ask(&hub, &place, TOKEN, &push));
    assert!(
        said.contains("broke off") && said.contains("owner/talks"),
        "{said}"
    );
    assert!(hub.files("datasets/owner/talks").is_empty());
    hub.hang_up(false);
    succeeds(&ask(&hub, &place, TOKEN, &push));
    assert_eq!(hub.files("datasets/owner/talks").len(), 3);
}

#[test]
fn names_that_lead_out_of_the_folder_are_refused() {
    let (hub, place) = (Hub::start(), Place::new());
    for evil in [
        "../evil.txt",
        "data/../../evil.txt",
        "/evil.txt",
        "a\\..\\evil.txt",
        "c:evil.txt",
    ] {
        hub.put(
            "datasets/owner/trap",
            &[("data/train.parquet", b"x"), (evil, b"evil")],
        );
        let out = place.path("out");
        let pull = ["pull", "datasets/owner/trap", "--out", &out];
        let said = error(&ask(&hub, &place, TOKEN, &pull));
        assert!(
            said.contains("evil.txt") && said.contains("outside"),
            "{said}"
        );
        assert_eq!(fs::read_dir(&out).unwrap().count(), 0, "{evil}");
    }
    // What is neither data nor text, or is hidden, is left where it is; what is no data set is refused.
    let files: [(&str, &[u8]); 4] = [
        (".gitattributes", b"x"),
        ("run.py", b"x"),
        (".hidden/a.json", b"{}"),
        ("notes.txt", b"x"),
    ];
    hub.put("datasets/owner/other", &files);
    let out = place.path("out");
    let pull = ["pull", "datasets/owner/other", "--out", &out];
    let output = ask(&hub, &place, TOKEN, &pull);
    assert!(
        utf8(&output.stderr).contains("run.py"),
        "{}",
        utf8(&output.stderr)
    );
    assert!(error(&output).contains("notes.txt"));
    assert_eq!(fs::read_dir(&out).unwrap().count(), 0);
}

#[test]
fn training_reads_data_sets_by_their_repository() {
    let (hub, place) = (Hub::start(), Place::new());
    place.works(SYNTHESIZE);
    let (study, layout) = (place.path("study"), place.path("layout"));
    succeeds(&ask(&hub, &place, TOKEN, &["push", &study, "owner/talks"]));
    let config = utf8(&hub.files("datasets/owner/talks")["config.yaml"]);
    for part in [
        "synthesizer:\n",
        "  client:\n    model_name: ",
        "num_samples: ",
    ] {
        assert!(config.contains(part), "no `{part}` in\n{config}");
    }
    // The same without a hub.
    works(&["push", &study, "owner/talks", "--out", &layout]);
    let local = Path::new(&layout).join("data/train-00000-of-00001.parquet");
    assert_eq!(read(local), read(Path::new(&study).join("dataset.parquet")));

    let run = |data: &str, out: &str| {
        let args = place.args(&format!(
            "train --data {data} --init random --tokens 8 --packed-seq-length 256 --steps 2 \
             --out path:{out}"
        ));
        let args: Vec<&str> = args.iter().map(String::as_str).collect();
        ask(&hub, &place, TOKEN, &args)
    };
    succeeds(&run("hf:owner/talks", "a"));
    succeeds(&run("path:layout", "b"));
    succeeds(&run("path:study/dataset.parquet", "c"));
    let made = |name: &str| read(place.path(&format!("{name}/cartridge.safetensors")));
    assert!(made("a") == made("c") && made("b") == made("c"));
    let said = error(&run("hf:owner/none", "d"));
    assert!(said.contains("hf:owner/none"), "{said}");
    hub.put("datasets/owner/empty", &[("README.md", b"x")]);
    let said = error(&run("hf:owner/empty", "d"));
    assert!(
        said.contains("data/*.parquet") && said.contains("README.md"),
        "{said}"
    );

    // What was fetched once is there without a network.
    let words = "train --data hf:owner/talks --init random --tokens 8 --packed-seq-length 256 --steps 2 \
        --out path:e";
    succeeds(&place.start(words).wait_with_output().unwrap());
    assert_eq!(made("e"), made("c"));
}
