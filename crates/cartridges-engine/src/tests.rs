//! The engine on the golden models: numbers from transformers, and independence from neighbours.

use std::path::{Path, PathBuf};
use std::sync::Arc;

use cartridges_model::LanguageModel;
use cartridges_model::cartridge::{HostCartridge, HostLayer, ModelIdentity};
use cartridges_model::decoder::{Decoder, ModelConfig};
use cartridges_model::text::ChatTokenizer;
use cartridges_model::weights::Weights;
use safetensors::SafeTensors;

use crate::*;

mod schedule;

const MODELS: [&str; 3] = ["tiny-llama3", "tiny-qwen2", "tiny-qwen3"];

fn fixture(name: &str) -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR"))
        .join("../../tests/fixtures")
        .join(name)
}

fn model(name: &str) -> Arc<LanguageModel> {
    let device = cartridges_ops::test_device();
    let folder = fixture(name);
    let config = ModelConfig::from_file(&folder.join("config.json")).unwrap();
    let weights = Weights::open_folder(&folder).unwrap();
    let identity = ModelIdentity {
        id: name.to_owned(),
        config_fingerprint: String::new(),
        weights_fingerprint: String::new(),
        tokenizer_fingerprint: String::new(),
        num_layers: config.num_layers,
        num_kv_heads: config.num_kv_heads,
        head_dim: config.head_dim,
        rope: serde_json::Value::Null,
    };
    Arc::new(LanguageModel {
        text: ChatTokenizer::of_bytes(config.vocab_size).unwrap(),
        decoder: Decoder::load(config, &weights, &device, &mut |_, _| ()).unwrap(),
        identity,
    })
}

fn engine(name: &str, options: EngineOptions) -> Engine {
    Engine::new(model(name), options)
}

fn greedy(prompt: &[u32], tokens: usize) -> GenerateRequest {
    GenerateRequest::new(prompt.to_vec(), tokens)
}

fn run(engine: &mut Engine, requests: &[GenerateRequest]) -> Vec<Completion> {
    engine.generate(requests, &mut |_| Flow::Continue).unwrap()
}

fn ints(file: &SafeTensors, name: &str) -> Vec<u32> {
    let tensor = file.tensor(name).unwrap();
    let width = tensor.data().len() / tensor.shape().iter().product::<usize>();
    tensor
        .data()
        .chunks_exact(width)
        .map(|b| u32::from_le_bytes(b[..4].try_into().unwrap()))
        .collect()
}

#[test]
fn greedy_text_is_that_of_transformers_whatever_else_is_in_the_batch() {
    for name in MODELS {
        let bytes = std::fs::read(fixture(name).join("reference.safetensors")).unwrap();
        let file = SafeTensors::deserialize(&bytes).unwrap();
        let length = file.tensor("input_ids").unwrap().shape()[1];
        let ids = ints(&file, "input_ids");
        let wanted = ints(&file, "greedy");
        let mut engine = engine(
            name,
            EngineOptions {
                max_batch: 3,
                prefill_rows: 20,
                ..EngineOptions::default()
            },
        );
        let main = greedy(&ids[..length], wanted.len());
        assert_eq!(
            run(&mut engine, std::slice::from_ref(&main))[0].token_ids,
            wanted,
            "{name}"
        );
        // Neighbours of other lengths, some with the same beginning.
        let mut requests = vec![
            greedy(&ids[length..], 5),
            main.clone(),
            greedy(&ids[..length - 4], 9),
            greedy(&ids[3..10], 30),
            main.clone(),
        ];
        requests[3].sampling = Sampling {
            temperature: 1.0,
            seed: 3,
            ..Sampling::default()
        };
        let results = run(&mut engine, &requests);
        assert_eq!(results[1].token_ids, wanted, "{name} among others");
        assert_eq!(results[4].token_ids, wanted, "{name} twice");
        let alone = run(&mut engine, &requests[3..4]);
        assert_eq!(alone[0].token_ids, results[3].token_ids, "{name} sampled");
    }
}

fn golden_cartridge(name: &str) -> (HostCartridge, Vec<u32>, Vec<u32>) {
    let bytes = std::fs::read(fixture(name).join("cartridge_training.safetensors")).unwrap();
    let file = SafeTensors::deserialize(&bytes).unwrap();
    let meta = ints(&file, "meta");
    let floats = |name: String| -> Vec<f32> {
        let data = file.tensor(&name).unwrap().data().to_vec();
        data.chunks_exact(4)
            .map(|b| f32::from_le_bytes(b.try_into().unwrap()))
            .collect()
    };
    let layers = (0..meta[2])
        .map(|l| HostLayer {
            key: floats(format!("final_keys.{l}")),
            value: floats(format!("final_values.{l}")),
        })
        .collect();
    let [p, frozen, _, heads, dim] = [0, 1, 2, 3, 4].map(|i| meta[i] as usize);
    let cartridge = HostCartridge::new(heads, dim, p, frozen, layers).unwrap();
    (
        cartridge,
        ints(&file, "chat_prompt"),
        ints(&file, "chat_greedy"),
    )
}

#[test]
fn greedy_text_behind_a_cartridge_is_that_of_pytorch() {
    for name in MODELS {
        let (cartridge, prompt, wanted) = golden_cartridge(name);
        let mut engine = engine(name, EngineOptions::default());
        let handle = engine.add_cartridge(&cartridge).unwrap();
        let mut request = greedy(&prompt, wanted.len());
        request.cartridges = vec![handle];
        let plain = greedy(&prompt, 4);
        let results = run(
            &mut engine,
            &[plain.clone(), request.clone(), request.clone()],
        );
        assert_eq!(results[1].token_ids, wanted, "{name}");
        assert_eq!(results[2].token_ids, wanted, "{name}");
        engine.remove_cartridge(handle);
        let error = engine
            .generate(&[request], &mut |_| Flow::Continue)
            .unwrap_err();
        assert!(matches!(
            error,
            EngineError::Request {
                index: 0,
                error: RequestError::UnknownCartridge
            }
        ));
        assert_eq!(run(&mut engine, &[plain])[0], results[0], "{name}");
    }
}

#[test]
fn scores_are_the_log_probs_of_generation_and_prefixes_change_nothing() {
    let mut engine = engine("tiny-qwen3", EngineOptions::default());
    let prompt: Vec<u32> = (0..40).map(|i| (i * 13 + 5) % 500).collect();
    let mut request = greedy(&prompt, 12);
    request.top_logprobs = 5;
    let made = run(&mut engine, &[request]).remove(0);
    let top = made.top_logprobs.clone().unwrap();
    assert_eq!(top.ids.len(), 12 * 5);
    for (row, id) in made.token_ids.iter().enumerate() {
        assert_eq!(top.ids[row * 5], *id, "greedy takes the most likely");
        assert!(
            top.logprobs[row * 5..row * 5 + 5]
                .windows(2)
                .all(|w| w[0] >= w[1])
        );
    }
    let score = |prompt: &[u32], continuation: &[u32]| ScoreRequest {
        adapters: Vec::new(),
        cartridges: Vec::new(),
        prompt: prompt.to_vec(),
        continuation: continuation.to_vec(),
        top_logprobs: 5,
    };
    // The second and third share a long beginning, so a stored prefix is used.
    let requests = [
        score(&prompt, &made.token_ids),
        score(
            &[&prompt[..], &made.token_ids[..3]].concat(),
            &made.token_ids[3..],
        ),
    ];
    let scores = engine.score(&requests).unwrap();
    let close = |a: &[f32], b: &[f32]| a.iter().zip(b).all(|(a, b)| (a - b).abs() < 1e-5);
    assert!(close(&scores[0].logprobs, &made.logprobs));
    assert!(close(&scores[1].logprobs, &made.logprobs[3..]));
    assert!(close(
        &scores[0].top_logprobs.as_ref().unwrap().logprobs,
        &top.logprobs
    ));
    assert_eq!(scores[0].top_logprobs.as_ref().unwrap().ids, top.ids);
}

#[test]
fn a_chat_goes_on_as_if_it_were_new() {
    let mut kept = engine("tiny-llama3", EngineOptions::default());
    let prompt: Vec<u32> = (1..30).collect();
    let first = greedy(&prompt, 6);
    let answer = run(&mut kept, &[first]).remove(0).token_ids;
    let longer = [&prompt[..], &answer, &[7, 8, 9]].concat();
    let again = run(&mut kept, &[greedy(&longer, 8)]);
    let fresh = run(
        &mut engine("tiny-llama3", EngineOptions::default()),
        &[greedy(&longer, 8)],
    );
    assert_eq!(again[0].token_ids, fresh[0].token_ids);
}

#[test]
fn a_small_pool_still_serves_everybody_and_refuses_what_cannot_fit() {
    let options = EngineOptions {
        max_kv_rows: 64,
        ..EngineOptions::default()
    };
    let mut small = engine("tiny-qwen2", options);
    let prompts: Vec<Vec<u32>> = (0..6).map(|i| (i..i + 20).collect()).collect();
    let requests: Vec<_> = prompts.iter().map(|p| greedy(p, 10)).collect();
    let mut large = engine("tiny-qwen2", EngineOptions::default());
    assert_eq!(run(&mut small, &requests), run(&mut large, &requests));
    let error = small.generate(&[greedy(&prompts[0], 60)], &mut |_| Flow::Continue);
    assert!(matches!(
        error,
        Err(EngineError::Request {
            index: 0,
            error: RequestError::TooLarge {
                needed: 80,
                limit: 64
            }
        })
    ));
    assert_eq!(
        run(&mut small, &requests[..1]),
        run(&mut large, &requests[..1])
    );
}

#[test]
fn stops_limits_and_hostile_requests() {
    let mut engine = engine("tiny-qwen2", EngineOptions::default());
    let prompt: Vec<u32> = (40..60).collect();
    let free = run(&mut engine, &[greedy(&prompt, 16)]).remove(0);
    assert_eq!(free.finish, FinishReason::Length);
    let mut stopped = greedy(&prompt, 16);
    stopped.stop.ids = vec![free.token_ids[4]];
    let made = run(&mut engine, &[stopped]).remove(0);
    let first = free
        .token_ids
        .iter()
        .position(|id| *id == free.token_ids[4])
        .unwrap();
    assert_eq!(made.finish, FinishReason::Stop);
    assert_eq!(made.token_ids, free.token_ids[..=first]);

    // Streamed pieces add up to the text.
    let mut streamed = String::new();
    engine
        .generate(&[greedy(&prompt, 16)], &mut |event| {
            if let Event::Token { text, .. } = event {
                streamed.push_str(text);
            }
            Flow::Continue
        })
        .unwrap();
    assert_eq!(streamed, free.text);

    let refused = |engine: &mut Engine, request| {
        engine
            .generate(&[request], &mut |_| Flow::Continue)
            .unwrap_err()
            .to_string()
    };
    assert!(refused(&mut engine, greedy(&[], 1)).contains("empty prompt"));
    assert!(refused(&mut engine, greedy(&[512], 1)).contains("512"));
    assert!(refused(&mut engine, greedy(&[1], usize::MAX)).contains("positions"));
    let mut odd = greedy(&[1], 1);
    odd.sampling.temperature = -1.0;
    assert!(refused(&mut engine, odd).contains("temperature"));
    let stop = engine.generate(&[greedy(&prompt, 9)], &mut |_| Flow::Stop);
    assert!(matches!(stop, Err(EngineError::Stopped)));
    assert_eq!(run(&mut engine, &[greedy(&prompt, 16)])[0], free);
}
