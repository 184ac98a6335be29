//! What goes wrong around a self-study: servers, texts that change, a full disk, a folder that is
//! closed. The message names it, what is finished stays, and the same command goes on.

use super::stages::{Place, files};
#[cfg(unix)]
use super::stages::{signal_when, wait_until};
use super::text_server::{Act, TextServer, talk};
use super::*;

const BY_SERVERS: &str = "synthesize --corpus path:text.txt --out path:study \
    --config path:words.toml --client path:servers.toml";

/// A place whose self-study needs no distribution.
fn text_only(server: &TextServer) -> Place {
    let place = Place::new();
    place.write(
        "words.toml",
        "num_top_logprobs = 0\nverbatim = false\nnum_conversations = 24\nbatch_size = 2\n",
    );
    serve(&place, server);
    place
}

fn serve(place: &Place, server: &TextServer) {
    let settings = format!(
        "type = \"openai\"\nurls = [{:?}]\n[fleet]\ntimeout_seconds = 0.3\nmax_attempts = 2\n\
         backoff_seconds = 0.01\nrest_seconds = 0.01\npatience_seconds = 0.2\n",
        server.url
    );
    place.write("servers.toml", &settings);
}

#[test]
fn a_server_that_goes_away_is_told_and_another_one_finishes_the_work() {
    let server = TextServer::start(|body, before| match before {
        0..12 => talk(body, "Edda Falk.", "stop"),
        12..14 => Act::Hang,
        14..16 => Act::Half("x".repeat(1000)),
        16..18 => Act::Reply(429, "Retry-After: 0\r\n", String::new()),
        _ => Act::Close,
    });
    let place = text_only(&server);
    place.fails(
        BY_SERVERS,
        &[
            "6 of 24 conversations are done and kept",
            "5 times in a row",
        ],
    );
    let kept = files(&place.path("study/parts"));
    assert_eq!(kept.len(), 3);
    let report = std::fs::read_to_string(place.path("study/report.json")).unwrap();
    let report: Value = serde_json::from_str(&report).unwrap();
    let failed = report["failed"].as_object().unwrap();
    let counts: u64 = failed.values().map(|n| n.as_u64().unwrap()).sum();
    assert_eq!(counts, 10, "{report}");

    let other = TextServer::start(|body, _| talk(body, "Edda Falk.", "stop"));
    serve(&place, &other);
    let said = place.works(BY_SERVERS);
    assert!(said.contains("24 conversations of 24"), "{said}");
    assert!(files(&place.path("study/parts")).starts_with(&kept));
    // Two for each conversation that was not there yet.
    assert_eq!(other.asked().len(), 36);
}

#[test]
fn what_a_run_could_not_make_is_counted_by_cause() {
    let server = TextServer::start(|body, before| match before {
        2 => Act::Reply(400, "", "{\"error\": \"too long\"}".to_owned()),
        _ => talk(body, "Edda Falk.", "stop"),
    });
    let place = text_only(&server);
    let said = place.works(BY_SERVERS);
    assert!(said.contains("23 conversations of 24"), "{said}");
    assert!(said.contains("failed: 1 (refused)"), "{said}");
}

#[test]
fn a_text_that_changes_underneath_is_named() {
    let server = TextServer::start(|body, before| match before {
        0..12 => talk(body, "Edda Falk.", "stop"),
        _ => Act::Close,
    });
    let place = text_only(&server);
    std::fs::create_dir(place.path("notes")).unwrap();
    place.write("notes/a.txt", "The bell is cast in Nordvik.");
    place.write("data.json", r#"{"steps": 91, "keeper": "Edda Falk"}"#);
    place.write(
        "list.toml",
        &format!(
            "[[resources]]\ntype = \"json\"\npath = {:?}\n[[resources]]\ntype = \"directory\"\n\
             path = {:?}\n",
            place.path("data.json"),
            place.path("notes")
        ),
    );
    let run = format!("{BY_SERVERS} --resources path:list.toml");
    place.fails(&run, &["done and kept"]);
    let kept = files(&place.path("study/parts"));
    assert!(!kept.is_empty());
    let changes: [(&str, &str, &str); 3] = [
        ("text.txt", "Another text. ", "`text"),
        ("data.json", r#"{"steps": 92}"#, "`data"),
        ("notes/b.txt", "A second note.", "`notes"),
    ];
    for (file, content, named) in changes {
        let before = std::fs::read(place.path(file)).ok();
        place.write(file, content);
        place.fails(&run, &[named, "has changed", "choose another folder"]);
        match before {
            Some(bytes) => std::fs::write(place.path(file), bytes).unwrap(),
            None => std::fs::remove_file(place.path(file)).unwrap(),
        }
    }
    std::fs::rename(place.path("data.json"), place.path("away.json")).unwrap();
    place.fails(&run, &["data.json"]);
    std::fs::rename(place.path("away.json"), place.path("data.json")).unwrap();
    assert_eq!(files(&place.path("study/parts")), kept);
    let other = TextServer::start(|body, _| talk(body, "Edda Falk.", "stop"));
    serve(&place, &other);
    let said = place.works(&run);
    assert!(said.contains("24 conversations of 24"), "{said}");
}

#[cfg(unix)]
const MANY: &str =
    "synthesize --corpus path:text.txt --out path:study --config path:many.toml --batch 4";

#[cfg(unix)]
#[test]
fn a_full_disk_ends_a_self_study_that_goes_on_when_there_is_room() {
    let place = Place::new();
    let parts = place.path("study/parts");
    signal_when(place.start(MANY), "-KILL", || files(&parts).len() >= 2);
    let kept = files(&parts);
    let output = place.with_small_disk(2, MANY);
    let stderr = utf8(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    let last = stderr.lines().last().unwrap();
    for part in ["error: ", "done and kept", "parts/part-", "too large"] {
        assert!(last.contains(part), "no `{part}`: {stderr}");
    }
    assert_eq!(files(&parts), kept);
    place.works(MANY);
    assert!(files(&parts).starts_with(&kept));
}

#[cfg(unix)]
#[test]
fn a_folder_that_is_closed_underneath_ends_a_self_study_that_goes_on_when_it_is_open() {
    use std::os::unix::fs::PermissionsExt;

    let place = Place::new();
    let mode = |path: &Path, mode| {
        std::fs::set_permissions(path, PermissionsExt::from_mode(mode)).unwrap();
    };
    let parts = place.home.path().join("study/parts");
    let mut child = place.start_bound(MANY);
    wait_until(&mut child, || files(text(&parts)).len() >= 2);
    mode(&parts, 0o555);
    let output = child.wait_with_output().unwrap();
    let stderr = utf8(&output.stderr);
    assert_eq!(output.status.code(), Some(1), "{stderr}");
    let last = stderr.lines().last().unwrap();
    for part in ["error: ", "done and kept", "parts", "ermission denied"] {
        assert!(last.contains(part), "no `{part}`: {stderr}");
    }
    let kept = files(text(&parts));
    mode(&parts, 0o755);
    let output = place.start_bound(MANY).wait_with_output().unwrap();
    assert!(output.status.success(), "{}", utf8(&output.stderr));
    assert!(files(text(&parts)).starts_with(&kept));
}
