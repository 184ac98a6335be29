//! Models from a stand-in of the hub.

use std::fs;
use std::path::Path;

use super::resolve::resolve_card;
use super::stand_in::{Bench, COMMIT, ID, Item, Manner, StandIn, nobody, sha256, test_card};
use super::verify::sha256_file;
use super::{HubError, ModelPath, ModelRef, Origin, ResolveOptions, fetch_files, resolve};

const GGUF: &[u8] = b"GGUF and some weights";

fn hub_ref(revision: Option<&str>, file: Option<&str>) -> ModelRef {
    ModelRef::Hub {
        id: ID.into(),
        revision: revision.map(Into::into),
        file: file.map(Into::into),
    }
}

fn with(items: Vec<Item>) -> Manner {
    Manner {
        items,
        ..Manner::default()
    }
}

fn folder_items() -> Vec<Item> {
    let index = r#"{"metadata":{},"weight_map":{"a":"model-1.safetensors","b":"sub/model-2.safetensors","c":"model-1.safetensors"}}"#;
    vec![
        Item::small("config.json", "{}"),
        Item::small("tokenizer.json", "{ }"),
        Item::small("chat_template.jinja", "{{ x }}"),
        Item::small("README.md", "no"),
        Item::small("model.safetensors.index.json", index),
        Item::large("model-1.safetensors", b"one"),
        Item::large("sub/model-2.safetensors", b"two"),
        Item::large("consolidated.safetensors", b"same again"),
        Item::large("pytorch_model.bin", b"pickle"),
    ]
}

fn gguf_card(sha256: &str) -> String {
    format!(
        "name = 't'\ntitle = 'T'\nlicence = 'X'\n[hub]\nid = '{ID}'\nrevision = 'main'\n\
         file = 'm.gguf'\nbytes = {}\n{sha256}[chat]\nfamily = 'chatml'\nend_of_turn = 'e'\n\
         thinking = 'none'\n",
        GGUF.len()
    )
}

#[test]
fn a_file_at_a_revision_comes_with_the_token_and_is_kept() {
    let hub = StandIn::start(Manner {
        revision: "v1",
        ..with(vec![Item::large("m.gguf", GGUF)])
    });
    let bench = Bench::new();
    let options = bench.options(&hub.endpoint);
    let model = hub_ref(Some("v1"), Some("m.gguf"));
    let files = resolve(&model, &options).unwrap();
    assert_eq!(fs::read(files.path.as_path()).unwrap(), GGUF);
    assert!(matches!(files.path, ModelPath::Gguf(_)));
    assert_eq!(files.id, "owner/name@v1:m.gguf");
    assert_eq!(files.origin, Origin::Hub);
    assert_eq!(files.revision.as_deref(), Some(COMMIT));
    assert_eq!(files.sha256, Some(sha256(GGUF)));
    assert!(bench.said().contains("fetching m.gguf"), "{}", bench.said());

    let seen = hub.seen();
    assert!(seen[0].path.ends_with("/revision/v1"));
    for request in &seen {
        let token = request.authorization.as_deref();
        assert_eq!(token, Some("Bearer hf_test"), "{request:?}");
    }

    // The second time nothing is sent again; offline nobody is asked at all.
    resolve(&model, &options).unwrap();
    assert_eq!(hub.sent("m.gguf"), 1);
    let before = hub.seen().len();
    let offline = ResolveOptions {
        offline: true,
        ..options.clone()
    };
    let again = resolve(&model, &offline).unwrap();
    assert_eq!((again.path, again.sha256), (files.path, files.sha256));
    assert_eq!(hub.seen().len(), before);
    let error = resolve(&hub_ref(Some("v2"), Some("m.gguf")), &offline).unwrap_err();
    assert!(matches!(error, HubError::Offline { .. }), "{error}");

    // The revision of the options wins.
    let other = ResolveOptions {
        revision: Some("v3".into()),
        ..options
    };
    let error = resolve(&model, &other).unwrap_err().to_string();
    assert!(
        error.contains("v3") && error.contains("check the spelling"),
        "{error}"
    );
}

#[test]
fn a_folder_comes_without_pickles_and_is_found_offline() {
    let hub = StandIn::start(with(folder_items()));
    let bench = Bench::new();
    let options = bench.options(&hub.endpoint);
    let files = resolve(&hub_ref(None, None), &options).unwrap();
    let ModelPath::Folder(folder) = &files.path else {
        panic!("{files:?}");
    };
    assert_eq!(
        fs::read(folder.join("sub/model-2.safetensors")).unwrap(),
        b"two"
    );
    assert_eq!(
        fs::read(folder.join("chat_template.jinja")).unwrap(),
        b"{{ x }}"
    );
    for absent in ["README.md", "pytorch_model.bin", "consolidated.safetensors"] {
        assert!(!folder.join(absent).exists(), "{absent}");
        assert_eq!(hub.sent(absent), 0);
    }
    let gone = bench.options(&nobody());
    assert_eq!(
        resolve(&hub_ref(None, None), &gone).unwrap().path,
        files.path
    );
    assert!(bench.said().contains("from the cache"), "{}", bench.said());

    fs::remove_file(folder.join("sub/model-2.safetensors")).unwrap();
    let offline = ResolveOptions {
        offline: true,
        ..gone
    };
    let error = resolve(&hub_ref(None, None), &offline).unwrap_err();
    assert!(matches!(error, HubError::Offline { .. }), "{error}");
}

#[test]
fn altered_and_truncated_files_are_refused_and_not_kept() {
    let mut altered = GGUF.to_vec();
    altered[3] ^= 1;
    let short = GGUF[..7].to_vec();
    for (sent, part) in [(altered, "the hub states"), (short, "broke off")] {
        let mut item = Item::large("m.gguf", GGUF);
        item.sent = Some(sent);
        let hub = StandIn::start(with(vec![item]));
        let bench = Bench::new();
        let options = bench.options(&hub.endpoint);
        let error = resolve(&hub_ref(None, Some("m.gguf")), &options).unwrap_err();
        assert!(error.to_string().contains(part), "{error}");
        assert_eq!(bench.files("hub"), Vec::<String>::new());
        assert_eq!(bench.files("models"), Vec::<String>::new());
    }
    // A small file has no sha256, but a length.
    let mut items = folder_items();
    items[0].sent = Some(b"{".to_vec());
    let hub = StandIn::start(with(items));
    let bench = Bench::new();
    let error = resolve(&hub_ref(None, None), &bench.options(&hub.endpoint)).unwrap_err();
    assert!(matches!(error, HubError::Interrupted { .. }), "{error}");
}

#[test]
fn a_file_that_changed_in_the_cache_is_fetched_anew() {
    let hub = StandIn::start(with(vec![Item::large("m.gguf", GGUF)]));
    let bench = Bench::new();
    let options = bench.options(&hub.endpoint);
    let card = test_card(&gguf_card(""));
    let files = resolve_card(card, &options).unwrap();
    assert_eq!(files.id, "t");
    // A card's file that is there is not asked for again.
    let before = hub.seen().len();
    resolve_card(card, &options).unwrap();
    assert_eq!(hub.seen().len(), before);

    let path = files.path.as_path();
    std::thread::sleep(std::time::Duration::from_millis(20));
    fs::write(path, b"GGUF and evil weights").unwrap();
    let files = resolve_card(card, &options).unwrap();
    assert_eq!(sha256_file(files.path.as_path()).unwrap(), sha256(GGUF));
    assert_eq!(hub.sent("m.gguf"), 2);
    assert!(
        bench.said().contains("fetching it anew"),
        "{}",
        bench.said()
    );
}

#[test]
fn what_the_card_states_is_checked_too() {
    let hub = StandIn::start(with(vec![Item::large("m.gguf", GGUF)]));
    let bench = Bench::new();
    let options = bench.options(&hub.endpoint);
    let wrong = gguf_card(&format!("sha256 = '{}'\n", sha256(b"other")));
    let error = resolve_card(test_card(&wrong), &options).unwrap_err();
    assert!(
        error.to_string().contains("the model card states"),
        "{error}"
    );
    assert_eq!(bench.files("hub"), ["main"]);

    let longer = gguf_card("").replace("bytes = 21", "bytes = 22");
    let error = resolve_card(test_card(&longer), &options).unwrap_err();
    assert!(
        error.to_string().contains("has 21 bytes there now"),
        "{error}"
    );
    assert_eq!(hub.sent("m.gguf"), 1);
}

#[test]
fn refusals_say_what_to_do() {
    let cases = [
        (401, "", "HF_TOKEN"),
        (403, "GatedRepo", "accept its terms"),
        (
            404,
            "RepoNotFound",
            "the hub has no owner/name: check the spelling",
        ),
        (404, "RevisionNotFound", "the hub has no owner/name at main"),
        (503, "", "cannot reach the model hub"),
        (404, "", "HTTP 404 Not Found, not as a hub says it"),
        (403, "", "cannot reach the model hub"),
        (418, "", "hub, owner/name"),
    ];
    for (status, code, part) in cases {
        let hub = StandIn::start(Manner {
            refuse: Some((status, code)),
            ..Manner::default()
        });
        let bench = Bench::new();
        let error = resolve(&hub_ref(None, None), &bench.options(&hub.endpoint)).unwrap_err();
        assert!(error.to_string().contains(part), "{status}: {error}");
    }
}

#[test]
fn repositories_without_usable_weights_say_so() {
    let cases = [
        (
            vec![Item::small("README.md", "x")],
            None,
            "no config.json with",
        ),
        (
            vec![
                Item::small("config.json", "{}"),
                Item::large("pytorch_model.bin", b"x"),
            ],
            None,
            "only pickled weights (pytorch_model.bin)",
        ),
        (
            vec![Item::large("a.gguf", b"x"), Item::large("b.gguf", b"y")],
            None,
            "like owner/name:a.gguf",
        ),
        (
            vec![Item::large("a.gguf", b"x")],
            Some("c.gguf"),
            "it has a.gguf",
        ),
        (
            vec![
                Item::small("config.json", "{}"),
                Item::small(
                    "model.safetensors.index.json",
                    r#"{"weight_map":{"a":"../b"}}"#,
                ),
                Item::large("x.safetensors", b"x"),
            ],
            None,
            "weight_map names",
        ),
    ];
    for (items, file, part) in cases {
        let hub = StandIn::start(with(items));
        let bench = Bench::new();
        let error = resolve(&hub_ref(None, file), &bench.options(&hub.endpoint)).unwrap_err();
        assert!(error.to_string().contains(part), "{error}");
    }
    // The only GGUF file is what was meant; offline too.
    let hub = StandIn::start(with(vec![Item::large("a.gguf", GGUF)]));
    let bench = Bench::new();
    let mut options = bench.options(&hub.endpoint);
    let files = resolve(&hub_ref(None, None), &options).unwrap();
    options.offline = true;
    assert_eq!(
        resolve(&hub_ref(None, None), &options).unwrap().path,
        files.path
    );
}

#[test]
fn paths_are_taken_as_they_are() {
    let bench = Bench::new();
    let options = bench.options(&nobody());
    let model = ModelRef::Gguf(bench.dir.path().join("x.gguf"));
    assert!(matches!(
        resolve(&model, &options),
        Err(HubError::PathMissing { .. })
    ));
    fs::write(bench.dir.path().join("x.gguf"), GGUF).unwrap();
    let files = resolve(&model, &options).unwrap();
    assert_eq!(files.origin, Origin::Local);
    assert_eq!(files.path.as_path(), Path::new(&files.id));
}

#[test]
fn named_files_come_whole_or_not_at_all() {
    let hub = StandIn::start(with(vec![
        Item::small("cartridge.json", "{}"),
        Item::large("cartridge.safetensors", b"tensors"),
    ]));
    let bench = Bench::new();
    let options = bench.options(&hub.endpoint);
    let names = ["cartridge.json", "cartridge.safetensors"];
    let folder = fetch_files(ID, &names, 100, &options).unwrap();
    let read = |name: &str| fs::read(folder.join(name)).unwrap();
    assert_eq!(read(names[0]), b"{}");
    assert_eq!(read(names[1]), b"tensors");
    fetch_files(ID, &names, 100, &options).unwrap();
    assert_eq!(hub.sent(names[1]), 1);
    for (id, names, limit, says) in [
        (ID, &["other.json"][..], 100, "other.json"),
        (ID, &names[..], 6, "more than"),
        ("../name", &names[..], 100, "owner/name"),
        ("name", &names[..], 100, "owner/name"),
    ] {
        let error = fetch_files(id, names, limit, &options).unwrap_err();
        assert!(error.to_string().contains(says), "{error}");
    }
}
