//! Suites of small files: what is asked, what is right, and what is refused.

use std::path::PathBuf;

use cartridges_study::resource::{NeedleText, TrailText};
use serde_json::{Value, json};
use tempfile::TempDir;

use super::*;
use crate::questions::Question;

fn file(home: &TempDir, name: &str, content: &Value) -> PathBuf {
    let path = home.path().join(name);
    std::fs::write(&path, content.to_string()).unwrap();
    path
}

fn lines(home: &TempDir, name: &str, content: &[Value]) -> PathBuf {
    let path = home.path().join(name);
    let lines: Vec<String> = content.iter().map(Value::to_string).collect();
    std::fs::write(&path, lines.join("\n")).unwrap();
    path
}

fn score(suite: &Suite, question: usize, completion: &str) -> (f64, bool) {
    let question = &suite.questions.questions[question];
    let mark = suite.options.grade.mark(question, completion);
    (mark.score, mark.answered)
}

fn patient() -> Value {
    json!({ "texts": { "note": "..." }, "name": "Anna Sample", "birthday": "1990-01-02",
    "diagnosis": "Flu", "questions": [
        { "No": 4, "question": "Which drug?", "answer_a": "Oseltamivir", "answer_b": "Aspirin",
          "answer_c": "None", "answer_d": "Both", "answer_e": "Unknown", "correct": "Aspirin" },
    ]})
}

#[test]
fn longhealth_asks_as_the_reference_and_counts_missing_answers_apart() {
    let home = TempDir::new().unwrap();
    let path = file(
        &home,
        "b.json",
        &json!({ "patient_01": patient(), "patient_02": patient() }),
    );
    let suite = longhealth(&path, &["patient_02".to_owned()], false).unwrap();
    let [question] = suite.questions.questions.as_slice() else {
        panic!("one patient has one question");
    };
    assert_eq!(question.id, "patient_02_4");
    assert_eq!(question.options.len(), 5);
    for part in [
        "Anna Sample",
        "1990-01-02",
        "Flu",
        "Which drug?",
        "<options>\nOseltamivir\nAspirin\n",
    ] {
        assert!(question.question.contains(part), "{}", question.question);
    }
    assert_eq!(
        score(&suite, 0, "<answer>\naspirin.\n</answer>"),
        (1.0, true)
    );
    assert_eq!(
        score(&suite, 0, "<answer>Oseltamivir</answer>"),
        (0.0, true)
    );
    assert_eq!(score(&suite, 0, "The answer is: Aspirin."), (1.0, true));
    assert_eq!(score(&suite, 0, "Aspirin or Oseltamivir"), (0.0, false));
    assert_eq!(score(&suite, 0, "Ibuprofen"), (0.0, false));
    let all = longhealth(&path, &[], true).unwrap();
    assert_eq!(all.questions.questions.len(), 2);
    assert!(all.questions.questions[0].question.contains("<thinking>"));

    let none = longhealth(&path, &["patient_9".to_owned()], false).unwrap_err();
    assert!(none.to_string().contains("patient_9"), "{none}");
    let mut wrong = patient();
    wrong["questions"][0]["correct"] = json!("Ibuprofen");
    let path = file(&home, "c.json", &json!({ "p": wrong }));
    let error = longhealth(&path, &[], false).unwrap_err().to_string();
    assert!(
        error.contains("c.json") && error.contains("question 4"),
        "{error}"
    );
}

#[test]
fn quality_is_read_in_both_forms() {
    let home = TempDir::new().unwrap();
    let official = json!({ "article_id": "51", "article": "A story.", "questions": [
        { "question": "Who left?", "options": ["Ann", "Bob", "Cy", "Di"], "gold_label": 3 }]});
    let other = json!({ "input": "Another.", "outputs": ["(B) He slept."], "instructions":
        ["Why was Bob late?\n\n (A) He ran. \n (B) He slept. \n (C) No reason."] });
    let path = lines(&home, "q.jsonl", &[official, other]);
    let first = quality(&path, "51", false).unwrap();
    assert_eq!(first.text.as_deref(), Some("A story."));
    assert_eq!(first.questions.questions[0].gold(), "Cy");
    let second = quality(&path, "2", false).unwrap();
    let question = &second.questions.questions[0];
    assert_eq!(question.options, ["He ran.", "He slept.", "No reason."]);
    assert_eq!(question.gold(), "He slept.");
    assert!(
        question
            .question
            .contains("<question>\nWhy was Bob late?\n</question>")
    );
    assert!(
        quality(&path, "3", false)
            .unwrap_err()
            .to_string()
            .contains("`3`")
    );
}

#[test]
fn qasper_is_read_in_three_forms() {
    let home = TempDir::new().unwrap();
    let answer = |value: Value| json!({ "answer": value });
    let official = file(
        &home,
        "dev.json",
        &json!({ "1908.06606": { "qas": [
            { "question": "What?", "answers": [
                answer(json!({ "unanswerable": true, "extractive_spans": [] })),
                answer(json!({ "unanswerable": false, "extractive_spans": ["x", "y"] })),
                answer(json!({ "unanswerable": false, "yes_no": false, "extractive_spans": [] })),
            ]},
            { "question": "Never?", "answers": [answer(json!({ "unanswerable": true }))] },
        ]}}),
    );
    let suite = qasper(&official, &[]).unwrap();
    assert_eq!(suite.questions.questions.len(), 1);
    assert_eq!(suite.questions.questions[0].answers, ["x, y", "No"]);
    // Two of four words are right, and all that are wanted are there.
    let (f1, answered) = score(&suite, 0, "<answer>x, y or others</answer>");
    assert!(answered && (f1 - 2.0 / 3.0).abs() < 1e-9, "{f1}");

    let rewritten = lines(
        &home,
        "r.jsonl",
        &[
            json!({ "paper_id": "x", "question": "Q1?", "answer": "one" }),
            json!({ "paper_id": "y", "question": "Q2?", "answer": "two" }),
        ],
    );
    let only = qasper(&rewritten, &["y".to_owned()]).unwrap();
    assert_eq!(only.questions.questions[0].gold(), "two");
    assert!(qasper(&rewritten, &["z".to_owned()]).is_err());

    let leval =
        json!({ "instructions": ["Q?", "R?"], "outputs": ["yes", "Unanswerable"], "input": "T" });
    let leval = lines(&home, "l.jsonl", &[leval]);
    let suite = qasper(&leval, &["1".to_owned()]).unwrap();
    assert_eq!(suite.questions.questions.len(), 1);
    assert_eq!(suite.text.as_deref(), Some("T"));
}

#[test]
fn mtob_goes_both_ways_and_skips_what_is_no_sentence() {
    let home = TempDir::new().unwrap();
    let pairs = json!([{ "note": "canary" }, { "kgv": "Ma bo.", "eng": "She goes." }]);
    let path = file(
        &home,
        "m.json",
        &json!({ "note": "x", "test": pairs.clone(), "train": pairs }),
    );
    let settings = MtobSuite {
        list: Some("test".to_owned()),
        fields: Some(("kgv".to_owned(), "eng".to_owned())),
        ..MtobSuite::default()
    };
    let suite = mtob(&path, &settings).unwrap();
    let [question] = suite.questions.questions.as_slice() else {
        panic!("one sentence");
    };
    assert!(
        question
            .question
            .contains("from Kalamang into English: Ma bo.")
    );
    assert_eq!(question.gold(), "She goes.");
    let (same, answered) = score(&suite, 0, "She goes.");
    assert!(answered && (same - 1.0).abs() < 1e-9);
    let scores = suite.options.grade.scores(
        &suite.questions.questions,
        &[vec!["She goes.".to_owned()]],
        0,
    );
    let names: Vec<&str> = scores.iter().map(|score| score.name.as_str()).collect();
    assert_eq!(names, ["chrF2", "chrF2++", "BLEU"]);
    assert!((scores[0].estimate.value - 100.0).abs() < 1e-9);
    let back = MtobSuite {
        direction: Direction::Ek,
        ..settings.clone()
    };
    let back = mtob(&path, &back).unwrap();
    assert_eq!(back.questions.questions[0].gold(), "Ma bo.");
    let unnamed = MtobSuite {
        list: None,
        ..settings
    };
    let error = mtob(&path, &unnamed).unwrap_err().to_string();
    assert!(error.contains("test") && error.contains("train"), "{error}");
}

#[test]
fn mmlu_draws_with_a_seed_and_grades_letters() {
    let home = TempDir::new().unwrap();
    let all: Vec<Value> = (0..20)
        .map(|i| json!({ "question": format!("Q{i}?"), "choices": ["w", "x", "y", "z"], "answer": i % 4 }))
        .collect();
    let path = lines(&home, "mmlu.jsonl", &all);
    let suite = mmlu(&path, 5, 3).unwrap();
    assert_eq!(suite.questions.questions.len(), 5);
    assert_eq!(suite, mmlu(&path, 5, 3).unwrap());
    assert_ne!(suite, mmlu(&path, 5, 4).unwrap());
    let whole = mmlu(&path, 100, 0).unwrap();
    assert_eq!(whole.questions.questions[2].gold(), "C");
    assert!(whole.questions.questions[2].question.contains("C. y"));
    assert_eq!(score(&whole, 2, "So <answer>(C)</answer>"), (1.0, true));
    assert_eq!(score(&whole, 2, "So C"), (0.0, false));
    let bad = json!({ "question": "Q", "choices": ["a"], "answer": 1 });
    let error = mmlu(&lines(&home, "bad.jsonl", &[bad]), 9, 0).unwrap_err();
    assert!(error.to_string().contains("question 1"), "{error}");
}

#[test]
fn hidden_things_are_asked_for_one_by_one() {
    let made = NeedleText {
        text: "One of the special magic values for tall-tree is 1234567.".to_owned(),
        needles: vec![
            ("tall-tree".to_owned(), vec!["1234567".to_owned()]),
            ("red-cup".to_owned(), vec!["1".to_owned(), "2".to_owned()]),
        ],
    };
    let suite = needles(made).unwrap();
    assert_eq!(score(&suite, 0, "Answer: 1234567."), (1.0, true));
    assert_eq!(score(&suite, 0, "Answer: 7654321"), (0.0, true));
    assert_eq!(score(&suite, 1, "2, 1"), (1.0, true));
    assert_eq!(score(&suite, 1, ""), (0.0, false));
    let none = NeedleText {
        text: "x".to_owned(),
        needles: Vec::new(),
    };
    assert!(needles(none).is_err());

    let made = TrailText {
        text: "A = 1; B = A".to_owned(),
        chains: vec![("1".to_owned(), vec!["A".to_owned(), "B".to_owned()])],
    };
    let suite = variables(made).unwrap();
    assert_eq!(score(&suite, 0, "<answer>\nA\nB\n</answer>"), (1.0, true));
    let (half, _) = score(&suite, 0, "<answer>A</answer>");
    assert!((half - 2.0 / 3.0).abs() < 1e-9);
    let scores = suite.options.grade.scores(
        &suite.questions.questions,
        &[vec!["<answer>A</answer>".to_owned(), "A".to_owned()]],
        0,
    );
    let value = |name: &str| {
        let found = scores.iter().find(|score| score.name == name).unwrap();
        found.estimate.value
    };
    // One of two samples is unanswered.
    assert!((value("precision") - 0.5).abs() < 1e-9 && (value("recall") - 0.25).abs() < 1e-9);
}

#[test]
fn earlier_turns_are_those_before_in_a_circle() {
    let question = |id: &str| Question {
        id: id.to_owned(),
        question: format!("{id}?"),
        answers: vec![id.to_uppercase()],
        ..Question::default()
    };
    let list = QuestionList {
        id: "l".to_owned(),
        licence: String::new(),
        corpus: String::new(),
        questions: ["a", "b", "c"].map(question).to_vec(),
    };
    let suite = multi_turn(list.clone(), 2).unwrap();
    let pair = |id: &str| (format!("{id}?"), id.to_uppercase());
    assert_eq!(suite.questions.questions[0].earlier, [pair("b"), pair("c")]);
    assert_eq!(suite.questions.questions[2].earlier, [pair("a"), pair("b")]);
    assert!(multi_turn(list.clone(), 3).is_err() && multi_turn(list, 0).is_err());
}

#[test]
fn what_is_no_data_is_refused_with_its_file() {
    let home = TempDir::new().unwrap();
    let path = home.path().join("broken.json");
    std::fs::write(&path, "{\"a\": ").unwrap();
    let errors = [
        longhealth(&path, &[], false).unwrap_err(),
        quality(&path, "1", false).unwrap_err(),
        qasper(&path, &[]).unwrap_err(),
        mtob(&path, &MtobSuite::default()).unwrap_err(),
        mmlu(&path, 1, 0).unwrap_err(),
        mmlu(&home.path().join("gone"), 1, 0).unwrap_err(),
    ];
    for error in errors {
        let text = error.to_string();
        assert!(
            text.contains("broken.json") || text.contains("gone"),
            "{text}"
        );
    }
    let empty = file(&home, "empty.json", &json!([]));
    assert!(mmlu(&empty, 1, 0).is_err() && qasper(&empty, &[]).is_err());
    assert!(mtob(&empty, &MtobSuite::default()).is_err());
}
