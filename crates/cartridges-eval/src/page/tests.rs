//! Pages as their readers get them.

use std::path::Path;

use resvg::usvg::roxmltree::{Document, ParsingOptions};

use crate::figure::tests::{full, row, speed};
use crate::measurement::{ConditionKind, Graded};
use crate::report::{Report, Timing};

use super::*;

/// The page as XML, which it is as well; fails if it is not well-formed.
fn checked(html: &str) {
    let options = ParsingOptions {
        allow_dtd: true,
        nodes_limit: 1_000_000,
        ..ParsingOptions::default()
    };
    let document = Document::parse_with_options(html, options).unwrap();
    let mut ids = std::collections::HashSet::new();
    for node in document.descendants().filter(|n| n.is_element()) {
        if let Some(id) = node.attribute("id") {
            assert!(ids.insert(id.to_owned()), "twice: {id}");
        }
        for name in ["src", "href"] {
            if let Some(to) = node.attribute(name) {
                assert!(to.starts_with('#'), "{to}");
            }
        }
        assert!(!matches!(
            node.tag_name().name(),
            "script" | "link" | "img" | "iframe"
        ));
    }
    assert!(!html.contains("url(") && !html.contains("@import"));
    for word in ["NaN", ">inf", "\"inf"] {
        assert!(!html.contains(word), "{word}");
    }
}

fn plain(html: &str) -> String {
    html.replace('\u{a0}', " ")
}

#[test]
fn one_report_is_all_there() {
    let mut report = full();
    for (index, row) in report.rows.iter_mut().enumerate() {
        row.questions[0].graded = Some(Graded {
            samples: 7,
            score: 0.5,
            truncated: 2,
            unanswered: 3,
        });
        row.questions[0].generated = Some(format!("answer <{index}>"));
    }
    report.timings.push(Timing {
        name: "self-study".into(),
        seconds: 3600.0,
    });
    let page = page(std::slice::from_ref(&report), None);
    checked(&page.html);
    let html = plain(&page.html);
    for row in &report.rows {
        assert!(html.contains(&row.condition), "{}", row.condition);
        assert!(html.contains(&format!("{:.2}", row.nll.unwrap().value)));
    }
    for index in 0..report.rows.len() {
        assert!(html.contains(&format!("answer &lt;{index}&gt;")));
    }
    for part in [
        "tiny &lt;model&gt;",
        "cartridges eval --seed 3",
        "cartridges 0.1.0",
        "Some CPU, 2 threads",
        "2026-01-02",
        "corpus.txt, 4000 tokens",
        "ab12",
        "<dt>seed</dt><dd>3</dd>",
        // Answers, truncated, unanswered.
        "<td class=\"n\">7</td><td class=\"n\">2</td><td class=\"n\">3</td>",
        // (6 − 4) / (6 − 1) of the gap.
        "40 %<small>36 % to 42 %</small>",
        "lower is better",
        "of 100, higher is better",
        "Who &amp; &lt;what&gt;?",
        "Self-study took 60 min",
        "prefers-color-scheme",
        "@media print",
    ] {
        assert!(html.contains(part), "{part}");
    }
    let names: Vec<&str> = page.figures.iter().map(|f| f.name.as_str()).collect();
    assert_eq!(
        names,
        [
            "nll-size",
            "nll-build-time",
            "score-size",
            "score-build-time",
            "scores",
            "locality"
        ]
    );
}

#[test]
fn several_reports_are_compared() {
    let mut other = full();
    other.model = "another".into();
    let mut third = full();
    third.suite = "suite-2".into();
    let page = page(&[full(), other, third], Some("A <title>"));
    checked(&page.html);
    let html = plain(&page.html);
    for part in [
        "<h1>A &lt;title&gt;</h1>",
        "Compared: suite-1",
        "Compared: suite-2",
        "<a href=\"#report-B\">B</a>",
        "id=\"report-C\"",
        "A · c-64",
        "B · c-64",
    ] {
        assert!(html.contains(part), "{part}");
    }
    let has = |name: &str| page.figures.iter().any(|f| f.name == name);
    assert!(has("all-nll-gap-size") && has("suite-1-scores") && has("report-c-scores"));
    assert!(!has("suite-2-scores") && !has("all-throughput"));
    let mut names: Vec<&str> = page.figures.iter().map(|f| f.name.as_str()).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), page.figures.len());
}

#[test]
fn the_costs_follow_from_what_was_measured() {
    let mut report = full();
    report.rows.truncate(3);
    report.throughput = vec![
        speed(ConditionKind::Document, "document", 4096, 30.0),
        speed(ConditionKind::Document, "document, cached", 4096, 12.0),
        speed(ConditionKind::Cartridge, "c-64", 4096, 5.0),
        speed(ConditionKind::Cartridge, "c-64", 64_000, 1.0),
    ];
    // 640 s to build; 0.5 s a query, against 3 s with reading and, of 12 s for ten queries of which one
    // reads, (12 − 3) / 9 = 1 s with caching:
    // 640 / 2.5 = 256 and (640 − 2) / 0.5 = 1276.
    let html = plain(&page(std::slice::from_ref(&report), None).html);
    assert!(
        html.contains("<td class=\"n\">256</td><td class=\"n\">1276</td>"),
        "{html}"
    );
    report.throughput[2].seconds = 40.0;
    let html = plain(&page(std::slice::from_ref(&report), None).html);
    assert!(html.contains("<td class=\"n\">never</td><td class=\"n\">never</td>"));
    // Without throughput, the evaluation's own time: 4 s for its one question, as for the document.
    report.throughput.clear();
    let html = plain(&page(std::slice::from_ref(&report), None).html);
    assert!(html.contains("<td class=\"n\">not measured</td><td class=\"n\">never</td>"));
}

#[test]
fn throughput_of_a_report_of_its_own_counts() {
    let mut timed = full();
    timed.rows.clear();
    timed.suite = "throughput".into();
    timed.throughput = vec![
        speed(ConditionKind::Cartridge, "cartridge", 64_000, 5.0),
        speed(
            ConditionKind::Document,
            "document, prefix cached",
            4096,
            12.0,
        ),
        speed(
            ConditionKind::Document,
            "document in every prompt",
            4096,
            30.0,
        ),
        speed(
            ConditionKind::Document,
            "document in every prompt",
            64_000,
            300.0,
        ),
    ];
    let mut report = full();
    report.rows.truncate(3);
    let found = page(&[report.clone(), timed.clone()], None);
    checked(&found.html);
    let html = plain(&found.html);
    assert!(html.contains("<td class=\"n\">256</td><td class=\"n\">1276</td>"));
    assert!(html.contains("B · cartridge, 1 at a time, document of 4096 tokens"));
    assert!(!html.contains("Nothing was measured") && !html.contains("Compared: throughput"));
    assert!(
        found
            .figures
            .iter()
            .any(|f| f.name == "report-b-throughput")
    );
    // That of another machine does not.
    timed.machine.threads += 1;
    let html = plain(&page(&[report, timed], None).html);
    assert!(html.contains("not measured"));
}

#[test]
fn odd_reports_do_not_break_the_page() {
    let mut report = full();
    report.rows.clear();
    checked(&page(std::slice::from_ref(&report), None).html);
    report.rows = vec![row("\u{0}<b>", ConditionKind::Cartridge, f64::NAN, 0)];
    report.rows[0].unrelated = Some(f64::INFINITY);
    report.rows[0].seconds = f64::NAN;
    report.command.clear();
    report.recipe = serde_json::Value::Null;
    report.throughput = vec![speed(ConditionKind::None, "x", 0, 0.0)];
    checked(&page(&[report.clone(), report], None).html);
}

fn written(folder: &Path, report: &Report) -> std::path::PathBuf {
    let path = folder.join("report.json");
    std::fs::create_dir_all(folder).unwrap();
    std::fs::write(&path, serde_json::to_vec(report).unwrap()).unwrap();
    path
}

#[test]
fn files_become_files() {
    let dir = tempfile::tempdir().unwrap();
    let [one, two, out] = ["one", "two", "out"].map(|name| dir.path().join(name));
    written(&one, &full());
    let file = written(&two, &full());
    let done = write_page(&[one.clone(), file], &out, None).unwrap();
    assert_eq!((done.reports, &done.page), (2, &out.join("report.html")));
    checked(&std::fs::read_to_string(&done.page).unwrap());
    let figures = std::fs::read_dir(out.join("figures")).unwrap().count();
    assert_eq!(figures, 2 * done.figures);
    // The list can be shown again, together with others.
    assert_eq!(load_reports(&out).unwrap(), [full(), full()]);
    let again = dir.path().join("again");
    assert_eq!(
        write_page(&[out.clone(), one.clone()], &again, None)
            .unwrap()
            .reports,
        3
    );

    // Beside a report of its own it stays as it is; among several it is not replaced.
    let before = std::fs::read(one.join("report.json")).unwrap();
    write_page(std::slice::from_ref(&one), &one, None).unwrap();
    assert_eq!(std::fs::read(one.join("report.json")).unwrap(), before);
    let error = write_page(&[one.clone(), two], &one, None).unwrap_err();
    assert!(matches!(error, PageError::WouldReplace { .. }), "{error}");
}

#[test]
fn what_is_no_report_is_named() {
    let dir = tempfile::tempdir().unwrap();
    let told = |text: &str| {
        let path = dir.path().join("some.json");
        std::fs::write(&path, text).unwrap();
        let error = load_reports(&path).unwrap_err().to_string();
        assert!(error.contains("some.json"), "{error}");
        error
    };
    assert!(told("{}").contains("missing field `program`"));
    assert!(told("[]").contains("holds no report"));
    assert!(told("not json").contains("not a report"));
    assert!(told("").contains("not a report"));
    let mut value = serde_json::to_value(full()).unwrap();
    value["rows"][1]["nll"]["low"] = serde_json::Value::Null;
    assert!(told(&value.to_string()).contains("`rows[1].nll.low`"));
    value["rows"][1]["nll"]["low"] = 0.5.into();
    // What newer reports have besides does not stand in the way, nor what older ones lack.
    value["rows"][1]["new"] = 1.into();
    for name in ["suite", "command", "throughput"] {
        value.as_object_mut().unwrap().remove(name);
    }
    let path = dir.path().join("old.json");
    std::fs::write(&path, value.to_string()).unwrap();
    assert_eq!(load_reports(&path).unwrap()[0].suite, "");
    std::fs::write(&path, format!("{value} more")).unwrap();
    assert!(load_reports(&path).is_err());
    let missing = load_reports(&dir.path().join("missing"))
        .unwrap_err()
        .to_string();
    assert!(missing.contains("missing"), "{missing}");
}
