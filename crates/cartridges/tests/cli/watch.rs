//! What is measured during training, and what decides which cartridge is kept.

use cartridges_eval::{QuestionList, candidates, prompt_ids};
use cartridges_model::LanguageModel;
use cartridges_model::cartridge::{Cartridge, load};
use cartridges_model::text::ChatMessage;
use cartridges_train::{PackedRow, Target, row_loss};

use super::stages::{Place, SYNTHESIZE, TRAIN, json_lines};
use super::*;

const INSTRUCTION: &str = "In a word.";

/// Settings of a run that asks `questions.json` every step.
fn settings(kinds: &[&str], more: &str) -> String {
    let list = |kind: &&str| {
        format!(
            "{{ path = \"QUESTIONS\", kind = \"{kind}\", max_new_tokens = 4, \
             instruction = \"{INSTRUCTION}\" }}"
        )
    };
    let lists: Vec<String> = kinds.iter().map(list).collect();
    format!(
        "steps = 6\nlr = 0.5\nwarmup_steps = 0\neval_every = 1\neval_questions = [{}]\n{more}\n",
        lists.join(", ")
    )
}

fn train(place: &Place, out: &str, settings: &str) -> String {
    let settings = settings.replace("QUESTIONS", &place.path("questions.json"));
    place.write("train.toml", &settings);
    let words = TRAIN.replace("path:cartridge", &format!("path:{out}"));
    place.works(&format!("{words} --config path:train.toml"))
}

fn best(place: &Place, out: &str) -> Value {
    place.made_by(out)["training"]["best"].clone()
}

fn cartridge_bytes(place: &Place, out: &str) -> Vec<u8> {
    std::fs::read(place.path(&format!("{out}/cartridge.safetensors"))).unwrap()
}

/// The numbers of a likelihood list against the trainer's own forward pass, which shares nothing with
/// the engine that asks.
#[test]
fn likelihood_is_that_of_the_saved_cartridge() {
    let place = Place::new();
    place.works(SYNTHESIZE);
    train(&place, "c", &settings(&["likelihood"], "best_by = \"nll\""));
    let best = best(&place, "c");
    let rows = json_lines(&place.path("c/tables.jsonl"));
    assert_eq!(
        rows.len(),
        2 * 7,
        "two questions, before the first step and after six"
    );
    let rows: Vec<&Value> = rows
        .iter()
        .filter(|row| row["step"] == best["step"])
        .collect();

    let device = cartridges_ops::test_device();
    let folder = place.path("model");
    let model = LanguageModel::load(Path::new(&folder), "model", &device, &mut |_, _| ()).unwrap();
    let (host, _) = load(Path::new(&place.path("c"))).unwrap();
    let cartridge = Cartridge::from_host(&host, &device);
    let list = QuestionList::from_file(Path::new(&place.path("questions.json"))).unwrap();
    let (mut nll, mut tokens, mut right) = (0.0, 0, 0);
    for ((question, choice), row) in list.questions.iter().zip(candidates(&list, 0)).zip(&rows) {
        let asked = format!("{} {INSTRUCTION}", question.question);
        let prompt = prompt_ids(&model.text, None, true, &[ChatMessage::user(asked)]).unwrap();
        let of = |answer: &String| {
            let answer = model.text.encode(answer, false).unwrap();
            let targets = answer.iter().enumerate().map(|(i, id)| Target {
                position: (prompt.len() + i) as u32,
                id: *id,
                weight: 1.0,
            });
            let packed = PackedRow {
                ids: [&prompt[..], &answer[..]].concat(),
                lengths: vec![prompt.len() + answer.len()],
                positions: answer.len() as f64,
                targets: targets.collect(),
            };
            (row_loss(&model.decoder, &cartridge, &packed), answer.len())
        };
        let all: Vec<(f64, usize)> = choice.texts.iter().map(of).collect();
        let (gold, gold_tokens) = all[choice.gold];
        let found = row["nll"].as_f64().unwrap();
        assert!(
            (found - gold).abs() < 1e-3 * gold,
            "{found} instead of {gold}"
        );
        assert_eq!(row["num_assistant_tokens"], gold_tokens);
        assert_eq!(row["num_system_and_user_tokens"], prompt.len());
        let mean = |i: &usize| all[*i].0 / all[*i].1 as f64;
        let chosen = (0..all.len())
            .min_by(|a, b| mean(a).total_cmp(&mean(b)))
            .unwrap();
        assert_eq!(row["pred"], choice.texts[chosen].as_str());
        assert_eq!(row["choice"], chosen == choice.gold);
        right += usize::from(chosen == choice.gold);
        (nll, tokens) = (nll + gold, tokens + gold_tokens);
    }
    let found = best["nll"].as_f64().unwrap();
    assert!((found - nll / tokens as f64).abs() < 1e-3 * found);
    let scores = json_lines(&place.path("c/scores.jsonl"));
    let least = scores.iter().map(|s| s["eval_lamp/loss"].as_f64().unwrap());
    assert_eq!(least.fold(f64::INFINITY, f64::min), found);
    let of_best = scores.iter().find(|s| s["step"] == best["step"]).unwrap();
    assert_eq!(of_best["eval_lamp/loss"], best["nll"]);
    assert_eq!(of_best["eval_lamp/choice"], right as f64 / 2.0);
    assert_eq!(of_best["eval_lamp/num_elements"], 2.0);
}

/// Whatever the model says after some step is made the right answer: then that step's cartridge is the
/// best by generation, and the run ends `patience` evaluations later, whatever the loss does.
#[test]
fn generated_answers_decide_and_end_a_run() {
    let place = Place::new();
    place.works(SYNTHESIZE);
    let data = format!("eval_data = [{:?}]", place.path("study/dataset.parquet"));
    train(&place, "look", &settings(&["generation"], &data));
    let said = |step: usize| -> String {
        let rows = json_lines(&place.path("look/tables.jsonl"));
        let row = rows.iter().find(|row| row["step"] == step).unwrap();
        row["pred"].as_str().unwrap().to_owned()
    };
    // A step whose answer is new and has a word in it.
    let usable = |step: &usize| {
        let words = said(*step).chars().any(char::is_alphanumeric);
        words && (0..*step).all(|before| said(before) != said(*step))
    };
    let step = (1..4).find(usable).expect("an answer that is new");
    place.write(
        "questions.json",
        &json!({"id": "lamp", "questions": [
            {"id": "q1", "question": "Who keeps the lamp?", "answers": [said(step)]},
            {"id": "q2", "question": "How many steps has the tower?", "answers": ["no such word"]},
        ]})
        .to_string(),
    );
    let decided = format!("{data}\nbest_by = \"generation\"\npatience = 2");
    train(
        &place,
        "decided",
        &settings(&["generation", "likelihood"], &decided),
    );
    assert_eq!(
        best(&place, "decided"),
        json!({"step": step, "generation": 0.5})
    );
    let scores = json_lines(&place.path("decided/scores.jsonl"));
    assert_eq!(scores.len(), step + 2 + 1, "{scores:?}");
    for score in &scores {
        let right = if score["step"] == step { 0.5 } else { 0.0 };
        assert_eq!(score["generate_lamp/score"], right, "{score}");
        assert!(score["eval_lamp/loss"].is_f64() && score["eval_held_out/loss"].is_f64());
    }
    // The cartridge of a run that ends there.
    let short = settings(&[], &format!("max_steps = {step}")).replace("eval_every = 1", "");
    train(&place, "short", &short);
    assert!(cartridge_bytes(&place, "decided") == cartridge_bytes(&place, "short"));
}

#[test]
fn evaluations_that_cannot_be_done_are_named() {
    let place = Place::new();
    place.works(SYNTHESIZE);
    let fails = |settings: &str, names: &[&str]| {
        let settings = settings.replace("QUESTIONS", &place.path("questions.json"));
        place.write("train.toml", &settings);
        place.fails(&format!("{TRAIN} --config path:train.toml"), names);
    };
    fails(
        &settings(&["generation", "generation"], ""),
        &["two lists", "`lamp`", "questions.json"],
    );
    fails(
        &settings(&["generation"], "best_by = \"choice\""),
        &["best_by", "choice"],
    );
    let gone = settings(&["generation"], "").replace("QUESTIONS", "gone.json");
    fails(&gone, &["eval_questions", "gone.json"]);
    fails(
        "steps = 1\neval_every = 1\n",
        &["eval_every is 1", "eval_questions"],
    );
}
