//! Training on the student's own answers.

use std::sync::Arc;

use cartridges::pipeline::EngineTeacher;
use cartridges_engine::{Engine, EngineOptions, ScoreRequest};
use cartridges_model::LanguageModel;
use cartridges_model::cartridge::{Cartridge, random_vectors};
use cartridges_model::text::{ChatMessage, RenderOptions};
use cartridges_study::parquet::read_conversations;
use cartridges_train::{OnPolicyConfig, Teacher, TrainConfig, prompt_ids};

use super::stages::{Place, SYNTHESIZE};
#[cfg(unix)]
use super::stages::{TRAIN, json_lines, lines, signal_when};
use super::*;

fn own_answers() -> TrainConfig {
    TrainConfig {
        tail_bucket: true,
        packed_seq_length: 4096,
        on_policy: OnPolicyConfig {
            every: 1,
            conversations: 3,
            max_tokens: 5,
            min_prob_mass: 1.0,
            ..OnPolicyConfig::default()
        },
        ..TrainConfig::default()
    }
}

/// Every answer is found again by its question, and the teacher is asked directly.
#[test]
fn targets_are_what_the_teacher_says_with_the_text_in_view() {
    let place = Place::new();
    place.works(SYNTHESIZE);
    let device = cartridges_ops::test_device();
    let folder = place.path("model");
    let model = LanguageModel::load(Path::new(&folder), "tiny", &device, &mut |_, _| ()).unwrap();
    let model = Arc::new(model);
    let dataset = place.path("study/dataset.parquet");
    let conversations = read_conversations(Path::new(&dataset), None).unwrap();
    let config = own_answers();
    let student = random_vectors(&model.decoder, 8, 1, 5).unwrap();
    let student = Cartridge::from_host(&student, &device);
    let open = || {
        let opened = EngineTeacher::open(&model, &conversations, None, 8, &config);
        opened.unwrap().unwrap()
    };
    let rows = open().rows(&student, 3, 0, 1).unwrap();
    assert_eq!(rows, open().rows(&student, 3, 0, 1).unwrap());
    assert_ne!(rows, open().rows(&student, 4, 0, 1).unwrap());
    let mut engine = Engine::new(model.clone(), EngineOptions::default());
    let (mut start, mut found, mut shares) = (0, 0, Vec::new());
    for length in &rows[0].lengths {
        let ids = &rows[0].ids[start..start + length];
        let asked = conversations
            .iter()
            .find_map(|c| {
                let prompt = prompt_ids(&c.messages[..1], &model.text).unwrap();
                ids.starts_with(&prompt).then_some((c, prompt.len()))
            })
            .expect("the student's prompt is one of the data's questions");
        let (conversation, answer) = asked;
        let chat = [
            ChatMessage::system(conversation.system_prompt.clone()),
            ChatMessage::new("user", conversation.messages[0].content.clone()),
        ];
        let options = RenderOptions {
            add_generation_prompt: true,
            ..RenderOptions::default()
        };
        let request = ScoreRequest {
            cartridges: Vec::new(),
            adapters: Vec::new(),
            prompt: model.text.encode_chat(&chat, &options).unwrap(),
            continuation: ids[answer..].to_vec(),
            top_logprobs: 20,
        };
        let score = engine.score(&[request]).unwrap().remove(0);
        let top = score.top_logprobs.unwrap();
        for (place, (named, logprobs)) in
            (top.ids.chunks(20).zip(top.logprobs.chunks(20))).enumerate()
        {
            let at = (start + answer + place) as u32;
            let targets: Vec<_> = rows[0]
                .targets
                .iter()
                .filter(|t| t.position == at)
                .collect();
            // Twenty candidates and the rest.
            assert_eq!(targets.len(), 21);
            for target in &targets[..20] {
                let at = named.iter().position(|id| *id == target.id).unwrap();
                assert!((target.weight - logprobs[at].exp()).abs() < 1e-4);
            }
            let mass: f32 = targets.iter().map(|t| t.weight).sum();
            assert!((mass - 1.0).abs() < 1e-4);
            found += targets.len();
        }
        shares.push(length - answer);
        start += length;
    }
    assert_eq!(found, rows[0].targets.len());
    assert!(
        shares.len() == 3 && shares.iter().all(|n| (1..=5).contains(n)),
        "{shares:?}"
    );
    // Two processes answer the same three together.
    let both = [0, 1].map(|rank| open().rows(&student, 3, rank, 2).unwrap());
    let answered = both.iter().map(|rows| rows[0].lengths.len()).sum::<usize>();
    assert_eq!(answered, 3);

    let mut silent = conversations.clone();
    silent.iter_mut().for_each(|c| c.system_prompt.clear());
    let error = EngineTeacher::open(&model, &silent, None, 8, &config)
        .err()
        .unwrap();
    assert!(error.to_string().contains("--corpus"), "{error}");
    assert!(EngineTeacher::open(&model, &silent, Some("A lamp."), 8, &config).is_ok());
}

#[cfg(unix)]
#[test]
fn own_answers_come_nearer_to_the_teachers_and_a_stopped_run_goes_on() {
    let place = Place::new();
    place.works(SYNTHESIZE);
    place.write(
        "train.toml",
        "lr = 0.05\ntail_bucket = true\n[on_policy]\nevery = 3\nmax_tokens = 6\n",
    );
    let words = format!("{TRAIN} --steps 61 --config path:train.toml --init random");
    let log = place.path("cartridge/train.jsonl");
    let (killed, _) = signal_when(place.start(&words), "-INT", || lines(&log) > 7);
    assert_eq!(killed, Some(1));
    place.works(&words);
    let divergences: Vec<f64> = json_lines(&log)
        .iter()
        .filter_map(|line| line["on_policy_kl"].as_f64())
        .collect();
    assert_eq!(divergences.len(), 21);
    let mean = |part: &[f64]| part.iter().sum::<f64>() / part.len() as f64;
    let (first, last) = (mean(&divergences[..3]), mean(&divergences[18..]));
    assert!(last < 0.8 * first, "{divergences:?}");
    let once = std::fs::read(place.path("cartridge/cartridge.safetensors")).unwrap();
    let other = words.replace("path:cartridge", "path:undisturbed");
    place.works(&other);
    let undisturbed = std::fs::read(place.path("undisturbed/cartridge.safetensors")).unwrap();
    assert_eq!(once, undisturbed);
}
