//! Figures as their readers get them: parsed again, and measured.

use resvg::usvg;

use crate::measurement::{Build, ConditionKind, Measurement, QuestionRecord, Score};
use crate::report::{Corpus, Machine, Report, Throughput};
use crate::statistics::Estimate;

use super::*;

fn estimate(value: f64) -> Estimate {
    Estimate {
        value,
        low: value - 0.1,
        high: value + 0.2,
    }
}

/// A measurement with what figures show.
pub(crate) fn row(name: &str, kind: ConditionKind, nll: f64, rows: usize) -> Measurement {
    let question = QuestionRecord {
        id: "q1".into(),
        question: "Who & <what>?".into(),
        gold: "gold".into(),
        candidates: Vec::new(),
        gold_index: 0,
        chosen: 0,
        choice_correct: true,
        nll,
        gold_tokens: 2,
        prompt_tokens: 10,
        generated: Some("an answer".into()),
        generated_correct: Some(true),
        graded: None,
    };
    Measurement {
        condition: name.into(),
        kind,
        nll: Some(estimate(nll)),
        choice_accuracy: Some(estimate(0.5)),
        choice_chance: 0.25,
        generated_accuracy: Some(estimate(0.5)),
        tokens_before_answer: 12.0,
        document_rows: rows,
        kv_bytes: (rows as u64) << 14,
        scores: vec![Score {
            name: "chrF".into(),
            best: 100.0,
            estimate: estimate(10.0 * nll),
        }],
        build: (kind == ConditionKind::Cartridge).then_some(Build {
            seconds: rows as f64 * 10.0,
            bytes: 1 << 20,
        }),
        unrelated: Some(10.0 + nll),
        seconds: 8.0,
        score_seconds: 4.0,
        generate_seconds: 4.0,
        questions: vec![question],
    }
}

/// A report around measurements.
pub(crate) fn report(rows: Vec<Measurement>) -> Report {
    Report {
        program: "cartridges 0.1.0".into(),
        model: "tiny <model>".into(),
        corpus: Corpus {
            name: "corpus.txt".into(),
            sha256: "ab12".into(),
            tokens: 4000,
        },
        questions: "list".into(),
        suite: "suite-1".into(),
        command: "cartridges eval --seed 3".into(),
        date: "2026-01-02".into(),
        machine: Machine {
            cpu: "Some CPU".into(),
            threads: 2,
        },
        recipe: serde_json::json!({ "seed": 3 }),
        rows,
        timings: Vec::new(),
        throughput: Vec::new(),
    }
}

/// One of each.
pub(crate) fn full() -> Report {
    report(vec![
        row("no document", ConditionKind::None, 6.0, 0),
        row("document", ConditionKind::Document, 1.0, 4096),
        row("c-64", ConditionKind::Cartridge, 4.0, 64),
        row("c-256", ConditionKind::Cartridge, 3.0, 256),
        row("c-1024", ConditionKind::Cartridge, 2.0, 1024),
        row("adapter", ConditionKind::Adapter, 2.5, 0),
    ])
}

pub(crate) fn speed(kind: ConditionKind, name: &str, tokens: usize, seconds: f64) -> Throughput {
    Throughput {
        condition: name.into(),
        kind,
        document_tokens: tokens,
        rows: 64,
        batch: 1,
        requests: 10,
        prompt_tokens: 20,
        new_tokens: 30,
        kv_budget: 9000,
        kv_rows: 800,
        seconds,
        tokens_per_second: 300.0 / seconds,
        first_token_seconds: [0.1, 0.2],
        between_tokens_seconds: [0.01, 0.02],
        cached: name.contains("cache"),
        preemptions: 0,
    }
}

fn entry(report: &Report) -> [Entry<'_>; 1] {
    [Entry {
        tag: String::new(),
        index: 0,
        report,
    }]
}

/// Parses what was drawn; returns each marker with its words, place and whisker.
fn markers(figure: &Figure) -> Vec<(String, [f64; 2], Option<[f64; 2]>)> {
    let svg = figure.svg(Ground::Reader);
    for word in ["NaN", "nan", "inf"] {
        let numbers = svg.replace("font-family", "").replace("information", "");
        assert!(!numbers.contains(&format!("\"{word}")), "{svg}");
    }
    usvg::Tree::from_str(&svg, &usvg::Options::default()).unwrap();
    let document = usvg::roxmltree::Document::parse(&svg).unwrap();
    let number = |node: &usvg::roxmltree::Node<'_, '_>, name: &str| -> f64 {
        node.attribute(name).unwrap().parse().unwrap()
    };
    document
        .descendants()
        .filter(|node| node.has_tag_name("g"))
        .map(|group| {
            let told = group.children().find(|n| n.has_tag_name("title")).unwrap();
            let whisker = group
                .children()
                .find(|n| n.attribute("class") == Some("cf-line cf-whisker"))
                .map(|n| [number(&n, "y1"), number(&n, "y2")]);
            let form = group.children().rfind(|n| n.is_element()).unwrap();
            let at = match form.attribute("points") {
                None => [number(&form, "cx"), number(&form, "cy")],
                Some(points) => {
                    let first = points.split(' ').next().unwrap();
                    let (x, _) = first.split_once(',').unwrap();
                    [x.parse().unwrap(), f64::NAN]
                }
            };
            (told.text().unwrap().to_owned(), at, whisker)
        })
        .collect()
}

fn named<'a, T>(found: &'a [(String, [f64; 2], T)], name: &str) -> &'a (String, [f64; 2], T) {
    found.iter().find(|m| m.0.starts_with(name)).unwrap()
}

#[test]
fn points_stand_where_their_numbers_say() {
    let report = full();
    let shown = Quality::Plain(Metric::Nll);
    let figure = quality("f", &entry(&report), &shown, Against::Size).unwrap();
    let found = markers(&figure);
    // No document is a line; the others are points.
    assert_eq!(found.len(), 5);
    let [a, b, c] = ["c-64:", "c-256:", "c-1024:"].map(|name| named(&found, name));
    // Equal ratios, and equal differences, are equally far apart.
    assert!((b.1[0] - a.1[0] - (c.1[0] - b.1[0])).abs() < 0.05);
    assert!((b.1[1] - a.1[1] - (c.1[1] - b.1[1])).abs() < 0.05);
    // Lower is further down, and the whisker reaches from 0.1 below to 0.2 above.
    let unit = (b.1[1] - a.1[1]) / (4.0 - 3.0);
    let [low, high] = a.2.unwrap();
    assert!((low - a.1[1] - 0.1 * unit).abs() < 0.05 && (a.1[1] - high - 0.2 * unit).abs() < 0.05);
    // Two anchors are named at their lines.
    let svg = figure.svg(Ground::Light);
    assert!(
        svg.contains("no document  6.00") && svg.contains("document  1.00"),
        "{svg}"
    );
}

#[test]
fn gaps_reach_from_no_document_to_the_document() {
    let report = full();
    let shown = Quality::Gap(Metric::Nll);
    let found = markers(&quality("f", &entry(&report), &shown, Against::BuildTime).unwrap());
    // (6 − 4) / (6 − 1), with the interval turned round.
    let told = &named(&found, "c-64:").0;
    assert_eq!(
        told.replace('\u{a0}', " "),
        "c-64: 40 % (36 % to 42 %) at 11 min"
    );
    assert_eq!(found.len(), 3);
}

#[test]
fn what_is_not_a_number_is_left_out() {
    let mut report = full();
    report.rows[2].nll.as_mut().unwrap().value = f64::NAN;
    report.rows[3].nll.as_mut().unwrap().high = f64::INFINITY;
    report.rows[4].unrelated = Some(f64::NAN);
    report.rows[5].scores[0].estimate.low = f64::NEG_INFINITY;
    let mut strange = speed(ConditionKind::Cartridge, "c", 1000, 1.0);
    strange.tokens_per_second = f64::NAN;
    report.throughput = vec![strange, speed(ConditionKind::Cartridge, "c", 2000, 1.0)];
    let entry = entry(&report);
    let shown = Quality::Plain(Metric::Nll);
    let figure = quality("f", &entry, &shown, Against::Size).unwrap();
    assert_eq!(markers(&figure).len(), 3);
    assert_eq!(markers(&throughput("f", &entry).unwrap()).len(), 1);
    let bars = locality("f", &entry).unwrap().svg(Ground::Dark);
    assert!(!bars.contains("c-1024") && bars.contains("c-256"));
    let dots = markers(&scores("f", "t", &entry).unwrap());
    assert_eq!(
        dots.iter().filter(|m| m.0.starts_with("adapter:")).count(),
        1
    );
}

#[test]
fn without_data_there_is_no_figure() {
    let mut report = report(vec![row("no document", ConditionKind::None, 6.0, 0)]);
    report.rows[0].unrelated = None;
    let shown = Quality::Plain(Metric::Nll);
    for against in [Against::Size, Against::BuildTime] {
        assert_eq!(quality("f", &entry(&report), &shown, against), None);
    }
    assert_eq!(locality("f", &entry(&report)), None);
    assert_eq!(throughput("f", &entry(&report)), None);
    report.rows.clear();
    assert_eq!(scores("f", "t", &entry(&report)), None);
}

#[test]
fn bars_are_as_long_as_the_change_and_cut_where_it_is_far() {
    let mut report = full();
    for (row, unrelated) in report
        .rows
        .iter_mut()
        .zip([100.0, 101.0, 98.0, 104.0, 900.0, 100.0])
    {
        row.unrelated = Some(unrelated);
    }
    let svg = locality("f", &entry(&report)).unwrap().svg(Ground::Reader);
    let document = usvg::roxmltree::Document::parse(&svg).unwrap();
    let bars: Vec<f64> = document
        .descendants()
        .filter(|n| n.attribute("rx").is_some())
        .map(|n| n.attribute("width").unwrap().parse().unwrap())
        .collect();
    let [one, minus_two, four, cut, none] = bars[..] else {
        panic!("{bars:?}")
    };
    assert!((minus_two - 2.0 * one).abs() < 0.05 && (four - 4.0 * one).abs() < 0.05);
    assert!((cut - 25.0 * one).abs() < 0.2 && none == 0.0);
    assert!(
        svg.contains("+800\u{a0}% »") && svg.contains("−2.0\u{a0}%"),
        "{svg}"
    );
}

#[test]
fn throughput_has_a_panel_for_each_batch() {
    let mut report = full();
    for (batch, factor) in [(1, 1.0), (8, 4.0)] {
        for tokens in [1000, 4000, 16_000] {
            for (kind, name, seconds) in [
                (ConditionKind::Document, "document", tokens as f64 / 100.0),
                (ConditionKind::Document, "document, cached", 6.0),
                (ConditionKind::Cartridge, "c", 5.0),
            ] {
                let mut row = speed(kind, name, tokens, seconds / factor);
                row.batch = batch;
                report.throughput.push(row);
            }
        }
    }
    let figure = throughput("f", &entry(&report)).unwrap();
    assert_eq!(markers(&figure).len(), 18);
    let svg = figure.svg(Ground::Light);
    assert!(svg.contains("1 request at a time") && svg.contains("8 requests at a time"));
    assert_eq!(svg.matches("<polyline").count(), 6);
    // Twice in each panel: what is cached is dashed.
    assert_eq!(svg.matches("stroke-dasharray").count(), 2);
}

#[test]
fn names_are_escaped_and_do_not_meet() {
    let mut rows = full().rows;
    rows[2].condition = "<script>\"&'</script>".into();
    for i in 0..12 {
        rows.push(row(
            &format!("again {i}"),
            ConditionKind::Cartridge,
            2.0 + 0.02 * f64::from(i),
            900 + i as usize,
        ));
    }
    let report = report(rows);
    let shown = Quality::Plain(Metric::Nll);
    let figure = quality("f", &entry(&report), &shown, Against::Size).unwrap();
    markers(&figure);
    let svg = figure.svg(Ground::Reader);
    assert!(!svg.contains("<script"), "{svg}");
    assert!(svg.contains("&lt;script&gt;"), "{svg}");
    let document = usvg::roxmltree::Document::parse(&svg).unwrap();
    let labels: Vec<[f64; 4]> = document
        .descendants()
        .filter(|n| n.attribute("class").is_some_and(|c| c.ends_with("cf-halo")))
        .map(|n| {
            let number = |name| n.attribute(name).unwrap().parse::<f64>().unwrap();
            let (x, y, size) = (number("x"), number("y"), number("font-size"));
            [x, y - size, x + text::width(n.text().unwrap(), size), y]
        })
        .collect();
    assert!(labels.len() > 8, "{}", labels.len());
    for (i, a) in labels.iter().enumerate() {
        for b in &labels[..i] {
            assert!(
                a[0] >= b[2] || b[0] >= a[2] || a[1] >= b[3] || b[1] >= a[3],
                "{a:?} {b:?}"
            );
        }
    }
}

#[test]
fn pictures_have_their_size_and_are_not_blank() {
    let report = full();
    let figure = scores("f", "Title", &entry(&report)).unwrap();
    let colours = |ground| {
        let png = figure.png(ground, 1.5).unwrap();
        let picture = resvg::tiny_skia::Pixmap::decode_png(&png).unwrap();
        let side = |length: f64| (length * 1.5).ceil() as u32;
        assert_eq!(picture.width(), side(figure.width));
        assert_eq!(picture.height(), side(figure.height));
        let pixels = picture.pixels().iter();
        let mut counts = std::collections::HashMap::new();
        for pixel in pixels {
            *counts
                .entry((pixel.red(), pixel.green(), pixel.blue(), pixel.alpha()))
                .or_insert(0) += 1;
        }
        counts
    };
    let light = colours(Ground::Light);
    // Ground, text with its soft edges, and the blue of cartridges.
    assert!(light.len() > 20, "{}", light.len());
    assert!(light[&(255, 255, 255, 255)] > 100_000);
    assert!(light[&(0, 0x67, 0xa5, 255)] > 50);
    // Letters leave ink of their own colour.
    assert!(light[&(0x1c, 0x27, 0x33, 255)] > 300);
    assert!(colours(Ground::Dark)[&(0x16, 0x1b, 0x22, 255)] > 100_000);
    assert_eq!(
        figure.png(Ground::Reader, 1.0).unwrap(),
        figure.png(Ground::Light, 1.0).unwrap()
    );
    for scale in [0.0, f64::NAN, 1e9] {
        assert!(matches!(
            figure.png(Ground::Light, scale),
            Err(PngError::Size { .. })
        ));
    }
}
