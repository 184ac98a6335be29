//! Conversations: how they are shown, what is left out of them, and what happens when their file changes
//! underneath a run.

use cartridges_study::conversation::{Conversation, Message, Metadata, Role};
use cartridges_study::parquet::{read_conversations, write_conversations};
use cartridges_study::top_logprobs::FlatTopLogprobs;

use super::stages::{Place, SYNTHESIZE, TRAIN};
use super::*;

const EVIL: &str = "<script>alert('x')</script>\u{1b}[2J & \"quotes\"";

/// One conversation whose answer is three tokens of SmolLM2's vocabulary, the first two with targets.
fn hostile(path: &Path) {
    let tokenizer =
        cartridges_model::text::ChatTokenizer::from_folder(&fixture("tokenizers/smollm2"));
    let ids = tokenizer.unwrap().encode("one two three", false).unwrap();
    let message = |role, content: &str| Message {
        content: content.to_owned(),
        role,
        token_ids: None,
        top_logprobs: None,
    };
    let conversation = Conversation {
        messages: vec![
            message(Role::User, EVIL),
            Message {
                top_logprobs: Some(FlatTopLogprobs {
                    token_idx: vec![0, 1],
                    token_id: vec![ids[0], ids[1]],
                    logprobs: vec![0.95f32.ln(), 0.05f32.ln()],
                    shape: (ids.len(), 1),
                }),
                token_ids: Some(ids),
                ..message(Role::Assistant, "one two three")
            },
        ],
        system_prompt: EVIL.to_owned(),
        metadata: Metadata {
            resource: Some(EVIL.to_owned()),
            ..Metadata::default()
        },
        conversation_type: None,
    };
    write_conversations(path, &[conversation]).unwrap();
}

#[test]
fn conversations_are_shown_in_colours_only_where_they_are_wanted() {
    let place = Place::new();
    let data = place.path("data.parquet");
    hostile(Path::new(&data));
    let model = place.path("model");
    let shown = |more: &[&str], no_color: &str| {
        let output = program(&place.home)
            .args(["inspect", &data, "--model", &model])
            .args(more)
            .env("NO_COLOR", no_color)
            .output()
            .unwrap();
        assert!(output.status.success(), "{}", utf8(&output.stderr));
        utf8(&output.stdout)
    };
    for plain in [shown(&[], ""), shown(&["--color", "never"], "")] {
        // The data's own codes are shown, not sent.
        assert!(!plain.contains('\u{1b}'), "{plain}");
        assert!(plain.contains("\\u{1b}[2J") && plain.contains("one two three"));
    }
    // What is asked for by name wins over the environment.
    let coloured = shown(&["--color", "always"], "1");
    for part in [
        "\u{1b}[38;5;34mone\u{1b}[0m",
        "\u{1b}[38;5;203m two\u{1b}[0m three",
    ] {
        assert!(coloured.contains(part), "no {part:?} in {coloured:?}");
    }
    assert!(!coloured.contains("\u{1b}[2J"));
    let json: Value = serde_json::from_str(&shown(&["--json"], "")).unwrap();
    let pieces = &json["samples"][0]["messages"][1]["pieces"];
    assert_eq!(pieces[1]["text"], " two");
    let found = pieces[1]["likelihood"]["probability"].as_f64().unwrap();
    assert!((found - 0.05).abs() < 1e-6);
    assert_eq!(pieces[2]["likelihood"], "not_stored");
}

#[test]
fn the_page_stands_alone_and_what_is_said_stays_text() {
    let place = Place::new();
    let data = place.path("data.parquet");
    hostile(Path::new(&data));
    let page = place.path("page.html");
    place.works("inspect path:data.parquet --html path:page.html");
    let page = std::fs::read_to_string(page).unwrap();
    assert!(page.starts_with("<!DOCTYPE html>"));
    for part in [
        "&lt;script&gt;alert(&#39;x&#39;)&lt;/script&gt;",
        "&amp; &quot;quotes&quot;",
        "default-src 'none'",
        "title=\"95.0 %",
    ] {
        assert!(page.contains(part), "no {part} in {page}");
    }
    for part in [
        "<script", "src=", "href=", "url(", "http:", "https:", "\u{1b}",
    ] {
        assert!(!page.contains(part), "{part} in {page}");
    }
    place.fails(
        "inspect path:model --html path:no.html",
        &["--html", "conversations"],
    );
    place.fails(
        "inspect path:data.parquet --html path:data.parquet/x.html",
        &["x.html"],
    );
    fails(
        &["inspect", &data, "--model", "/no/such/model"],
        &["/no/such/model"],
    );
}

#[test]
fn rows_that_are_not_wanted_are_left_out_and_counted() {
    let place = Place::new();
    place.works(SYNTHESIZE);
    let path = place.path("study/dataset.parquet");
    let path = Path::new(&path);
    let mut all = read_conversations(path, None).unwrap();
    let rows = all.len();
    all.push(all[0].clone());
    let mut empty = all[1].clone();
    empty.messages[1].content.clear();
    all.push(empty);
    write_conversations(path, &all).unwrap();
    let args = place.args(&format!("{TRAIN} --steps 1 --drop-duplicates --drop-empty"));
    let output = run(&args.iter().map(String::as_str).collect::<Vec<_>>());
    let stderr = utf8(&output.stderr);
    assert!(output.status.success(), "{stderr}");
    let said = stderr.lines().find(|l| l.contains("left out:")).unwrap();
    let taken = said.split(' ').next().unwrap().parse::<usize>().unwrap();
    assert!(
        said.contains(&format!("from the {} of", rows + 2)),
        "{said}"
    );
    let numbers: Vec<usize> = (said.rsplit_once("left out: ").unwrap().1.split(' '))
        .filter_map(|word| word.parse().ok())
        .collect();
    // Arbitrary weights may have repeated themselves or said nothing, too.
    assert!(numbers[0] >= 1 && numbers[1] >= 1, "{said}");
    assert_eq!(taken + numbers.iter().sum::<usize>(), rows + 2);
    let made_by = place.made_by("cartridge");
    let data = &made_by["data"][0];
    assert_eq!(data["dropped"]["duplicates"], numbers[0]);
    assert_eq!(data["conversations"], taken);
}

#[cfg(unix)]
#[test]
fn data_that_changes_underneath_is_named_and_the_checkpoint_stays() {
    use super::stages::{lines, signal_when};

    let place = Place::new();
    place.works(SYNTHESIZE);
    let words = format!("{TRAIN} --steps 400");
    let data = place.path("study/dataset.parquet");
    let log = place.path("cartridge/train.jsonl");
    let checkpoint = place.path("cartridge/checkpoint.safetensors");
    let original = std::fs::read(&data).unwrap();

    // A run has read all its data when it begins: what happens to the file later is not its matter.
    let deletes = || {
        let begun = lines(&log) > 3;
        if begun {
            std::fs::remove_file(&data).unwrap();
        }
        begun
    };
    let (status, stderr) = signal_when(place.start(&words), "-INT", deletes);
    assert_eq!(status, Some(1), "{stderr}");
    assert!(stderr.contains("error: training was stopped"), "{stderr}");
    let kept = std::fs::read(&checkpoint).unwrap();
    let still_fails = |names: &[&str]| {
        place.fails(&words, names);
        assert_eq!(std::fs::read(&checkpoint).unwrap(), kept);
        assert!(!Path::new(&place.path("cartridge/cartridge.json")).exists());
    };
    still_fails(&["dataset.parquet"]);

    // Other conversations.
    std::fs::write(&data, &original).unwrap();
    let mut rows = read_conversations(Path::new(&data), None).unwrap();
    rows.swap(0, 1);
    write_conversations(Path::new(&data), &rows).unwrap();
    still_fails(&["checkpoint.safetensors", "other data", "delete it"]);

    // Cut off at any place, and overwritten in the middle.
    for length in [0, 3, original.len() / 2, original.len() - 1] {
        std::fs::write(&data, &original[..length]).unwrap();
        still_fails(&["dataset.parquet"]);
    }
    let mut broken = original.clone();
    let middle = original.len() / 2;
    broken[middle..middle + 256].fill(0xff);
    std::fs::write(&data, &broken).unwrap();
    still_fails(&["dataset.parquet"]);

    // With its data back the run goes on to its end.
    std::fs::write(&data, &original).unwrap();
    place.works(&words);
    assert_eq!(lines(&log), 400);
}
