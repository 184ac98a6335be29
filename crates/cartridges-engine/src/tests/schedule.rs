//! Requests that come and go: what they get does not depend on it, and nothing is left behind.

use cartridges_model::adapter::{HostAdapter, HostPatch, Site, Target};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

use super::*;

fn prompt(rng: &mut ChaCha8Rng, most: usize) -> Vec<u32> {
    // A few common beginnings, so that prefixes are found.
    let beginning = rng.random_range(0..3u32);
    let length = rng.random_range(1..=most);
    let mut ids: Vec<u32> = (0..length as u32)
        .map(|i| (beginning * 97 + i * 13 + 5) % 500)
        .collect();
    let own = rng.random_range(0..=length);
    for id in &mut ids[own..] {
        *id = rng.random_range(0..500);
    }
    ids
}

/// Nothing but cartridges is in memory once stored prefixes are dropped.
fn is_clean(engine: &mut Engine) {
    engine.forget_prefixes();
    let stats = engine.stats();
    assert_eq!(stats.kv_rows_used, stats.cartridge_rows);
    assert_eq!(stats.prefixes.pinned_blocks, 0);
    assert_eq!(stats.kv_faults, 0);
    assert_eq!((stats.waiting, stats.running), (0, 0));
}

/// A low-rank change at two places of every layer, and of the logits.
fn adapter(engine: &Engine, seed: u64) -> HostAdapter {
    let config = engine.model().decoder.config();
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let mut numbers =
        |count: usize| -> Vec<f32> { (0..count).map(|_| rng.random_range(-0.3..0.3)).collect() };
    let inside = [Site::VProj, Site::DownProj];
    let layers = (0..config.num_layers)
        .flat_map(|layer| inside.map(|site| Target::Layer { layer, site }))
        .chain([Target::LmHead]);
    let patches = layers.map(|target| {
        let (inputs, outputs) = target.widths(config).unwrap();
        let (a, b) = (numbers(2 * inputs), numbers(2 * outputs));
        HostPatch {
            bias: Some(numbers(outputs)),
            ..HostPatch::low_rank(target, 2, a, b)
        }
    });
    HostAdapter::new(patches.collect()).unwrap()
}

/// Answers of a fresh engine, one request at a time.
fn alone(
    name: &str,
    cartridge: Option<&HostCartridge>,
    adapters: &[HostAdapter],
    requests: &[GenerateRequest],
) -> Vec<Vec<u32>> {
    let mut engine = engine(name, EngineOptions::default());
    let handle = cartridge.map(|c| engine.add_cartridge(c).unwrap());
    for adapter in adapters {
        // Handles count from the first, so those of another engine are these.
        engine.add_adapter(adapter).unwrap();
    }
    requests
        .iter()
        .map(|request| {
            let mut request = request.clone();
            request.cartridges = match request.cartridges.is_empty() {
                true => Vec::new(),
                false => vec![handle.unwrap()],
            };
            engine.forget_prefixes();
            run(&mut engine, &[request]).remove(0).token_ids
        })
        .collect()
}

#[test]
fn random_neighbours_short_memory_and_cancels_change_no_answer() {
    for (name, rows) in [
        ("tiny-llama3", 4096),
        ("tiny-qwen2", 224),
        ("tiny-qwen3", 176),
    ] {
        let (cartridge, _, _) = golden_cartridge(name);
        let mut rng = ChaCha8Rng::seed_from_u64(11);
        let mut engine = engine(
            name,
            EngineOptions {
                max_batch: 6,
                max_kv_rows: rows,
                prefill_rows: 24,
                ..EngineOptions::default()
            },
        );
        let handle = engine.add_cartridge(&cartridge).unwrap();
        let adapters = [1, 2].map(|seed| adapter(&engine, seed));
        let adapter_handles = [0, 1].map(|i| engine.add_adapter(&adapters[i]).unwrap());
        let requests: Vec<GenerateRequest> = (0..40)
            .map(|i| {
                let mut request = greedy(&prompt(&mut rng, 40), rng.random_range(1..40));
                if rng.random_bool(0.4) {
                    request.cartridges = vec![handle];
                }
                if rng.random_bool(0.3) {
                    request.sampling = Sampling {
                        temperature: 0.8,
                        seed: i,
                        ..Sampling::default()
                    };
                }
                for adapter in adapter_handles {
                    if rng.random_bool(0.3) {
                        request.adapters.push(adapter);
                    }
                }
                request.client = format!("client {}", i % 3);
                request
            })
            .collect();
        let wanted = alone(name, Some(&cartridge), &adapters, &requests);

        let mut waiting: Vec<usize> = (0..requests.len()).rev().collect();
        let mut open: Vec<(RequestId, usize)> = Vec::new();
        let mut answered = 0;
        let mut busy = true;
        while busy || !waiting.is_empty() {
            for _ in 0..rng.random_range(0..4) {
                if let Some(index) = waiting.pop() {
                    open.push((engine.submit(requests[index].clone()).unwrap(), index));
                }
            }
            if rng.random_bool(0.1) && !open.is_empty() {
                let (id, _) = open.swap_remove(rng.random_range(0..open.len()));
                assert!(engine.cancel(id));
                assert!(!engine.cancel(id));
            }
            busy = engine
                .step(&mut |event| match event {
                    StepEvent::Finished {
                        request,
                        completion,
                    } => {
                        let at = open.iter().position(|(id, _)| *id == request).unwrap();
                        let (_, index) = open.swap_remove(at);
                        assert_eq!(completion.token_ids, wanted[index], "{name} {index}");
                        answered += 1;
                    }
                    StepEvent::Failed { error, .. } => panic!("{error}"),
                    _ => {}
                })
                .unwrap();
            let stats = engine.stats();
            assert!(stats.kv_rows_used <= rows, "{stats:?}");
        }
        assert!(open.is_empty() && answered > 20, "{answered}");
        let stats = engine.stats();
        assert_eq!(stats.preemptions > 0, rows < 1000, "{name}: {stats:?}");
        assert!(stats.prefixes.hits > 0, "{stats:?}");
        is_clean(&mut engine);
        engine.remove_cartridge(handle);
        is_clean(&mut engine);
    }
}

#[test]
fn an_adapter_changes_the_requests_that_name_it_and_no_prefix_of_others() {
    let mut engine = engine("tiny-qwen3", EngineOptions::default());
    let prompt: Vec<u32> = (0..70).map(|i| (i * 11 + 2) % 500).collect();
    let plain = greedy(&prompt, 12);
    let before = run(&mut engine, std::slice::from_ref(&plain)).remove(0);
    let host = adapter(&engine, 7);
    let handle = engine.add_adapter(&host).unwrap();
    let mut changed = plain.clone();
    changed.adapters = vec![handle];
    // The prompt is stored already, but without the adapter.
    let made = run(
        &mut engine,
        &[changed.clone(), plain.clone(), changed.clone()],
    );
    assert_eq!(made[1], before);
    assert_eq!(made[0], made[2]);
    assert_ne!(made[0].token_ids, before.token_ids);

    let score = |adapters: Vec<AdapterHandle>| ScoreRequest {
        cartridges: Vec::new(),
        adapters,
        prompt: prompt.clone(),
        continuation: before.token_ids.clone(),
        top_logprobs: 0,
    };
    let scores = engine
        .score(&[score(vec![]), score(vec![handle]), score(vec![])])
        .unwrap();
    let apart = |a: usize, b: usize| {
        let pairs = scores[a].logprobs.iter().zip(&scores[b].logprobs);
        pairs.map(|(x, y)| (x - y).abs()).fold(0.0, f32::max)
    };
    assert!(apart(0, 2) < 1e-5 && apart(0, 1) > 1e-2, "{scores:?}");

    let id = engine.submit(changed.clone()).unwrap();
    engine.step(&mut |_| ()).unwrap();
    engine.remove_adapter(handle);
    let refused = engine.submit(changed).unwrap_err();
    assert!(matches!(refused, RequestError::UnknownAdapter));
    // The one that runs ends as it began.
    let mut ended = None;
    while engine
        .step(&mut |event| {
            if let StepEvent::Finished {
                request,
                completion,
            } = event
            {
                ended = Some((request, completion.token_ids));
            }
        })
        .unwrap()
    {}
    assert_eq!(ended, Some((id, made[0].token_ids.clone())));
    assert_eq!(run(&mut engine, &[plain]).remove(0), before);
    is_clean(&mut engine);
}

#[test]
fn a_panic_fails_the_request_that_causes_it_and_no_other() {
    const POISON: u32 = 501;
    let name = "tiny-qwen2";
    let mut rng = ChaCha8Rng::seed_from_u64(3);
    let mut requests: Vec<GenerateRequest> =
        (0..6).map(|_| greedy(&prompt(&mut rng, 30), 10)).collect();
    let wanted = alone(name, None, &[], &requests);
    requests[2].prompt = vec![4, 5, POISON, 6];
    let mut engine = engine(name, EngineOptions::default());
    engine.poison = Some(POISON);
    let ids: Vec<RequestId> = requests
        .iter()
        .map(|request| engine.submit(request.clone()).unwrap())
        .collect();
    let (mut failed, mut answered) = (Vec::new(), 0);
    while engine
        .step(&mut |event| match event {
            StepEvent::Failed { request, error } => failed.push((request, error)),
            StepEvent::Finished {
                request,
                completion,
            } => {
                let index = ids.iter().position(|id| *id == request).unwrap();
                assert_eq!(completion.token_ids, wanted[index], "{index}");
                answered += 1;
            }
            _ => {}
        })
        .unwrap()
    {}
    assert_eq!(answered, 5);
    assert!(matches!(failed[..], [(id, RequestError::Panicked)] if id == ids[2]));
    is_clean(&mut engine);
}

#[test]
fn a_common_beginning_is_computed_once() {
    let mut engine = engine("tiny-qwen2", EngineOptions::default());
    let beginning: Vec<u32> = (0..200).map(|i| (i * 7 + 3) % 500).collect();
    let requests: Vec<GenerateRequest> = (0..5)
        .map(|i| greedy(&[&beginning[..], &[i, i + 1]].concat(), 3))
        .collect();
    let mut cached = Vec::new();
    for request in &requests {
        engine.submit(request.clone()).unwrap();
    }
    let mut made = Vec::new();
    while engine
        .step(&mut |event| match event {
            StepEvent::Started { cached_tokens, .. } => cached.push(cached_tokens),
            StepEvent::Finished { completion, .. } => made.push(completion.token_ids),
            _ => {}
        })
        .unwrap()
    {}
    // All but the first read its 200 tokens, in whole blocks of 16.
    assert_eq!(cached, [0, 192, 192, 192, 192]);
    assert_eq!(made, alone("tiny-qwen2", None, &[], &requests));
    is_clean(&mut engine);
}

#[test]
fn a_long_prompt_does_not_stall_the_others() {
    let mut engine = engine(
        "tiny-qwen2",
        EngineOptions {
            prefill_rows: 64,
            ..EngineOptions::default()
        },
    );
    let short = engine.submit(greedy(&[1, 2, 3], 40)).unwrap();
    engine.step(&mut |_| ()).unwrap();
    let long: Vec<u32> = (0..400).map(|i| (i * 11) % 500).collect();
    let long = engine.submit(greedy(&long, 2)).unwrap();
    // 16 tokens of the long prompt go with every token of the short one.
    let mut before = 0;
    let mut begun = false;
    while !begun {
        engine
            .step(&mut |event| {
                if let StepEvent::Token { request, .. } = event {
                    before += usize::from(request == short);
                    begun |= request == long;
                }
            })
            .unwrap();
    }
    assert_eq!(before, 400 / 16);
    assert!(engine.cancel(short) && engine.cancel(long));
    is_clean(&mut engine);
}

#[test]
fn clients_take_turns_and_the_queue_has_an_end() {
    let mut engine = engine(
        "tiny-qwen2",
        EngineOptions {
            max_batch: 1,
            max_queue: 5,
            ..EngineOptions::default()
        },
    );
    let request = |client: &str, i: u32| {
        let mut request = greedy(&[i, 7], 1);
        request.client = client.to_owned();
        request
    };
    let mut ids = Vec::new();
    for (client, i) in [
        ("many", 0),
        ("many", 1),
        ("many", 2),
        ("few", 3),
        ("one", 4),
    ] {
        ids.push(engine.submit(request(client, i)).unwrap());
    }
    let refused = engine.submit(request("late", 5));
    assert!(matches!(refused, Err(RequestError::QueueFull(5))));
    let mut order = Vec::new();
    while engine
        .step(&mut |event| {
            if let StepEvent::Finished { request, .. } = event {
                order.push(ids.iter().position(|id| *id == request).unwrap());
            }
        })
        .unwrap()
    {}
    assert_eq!(order, [0, 3, 4, 1, 2]);
}

#[test]
fn a_cartridge_in_use_stays_until_it_is_read() {
    let (cartridge, prompt, wanted) = golden_cartridge("tiny-qwen3");
    let mut engine = engine("tiny-qwen3", EngineOptions::default());
    let handle = engine.add_cartridge(&cartridge).unwrap();
    let mut request = greedy(&prompt, wanted.len());
    request.cartridges = vec![handle];
    engine.submit(request.clone()).unwrap();
    engine.step(&mut |_| ()).unwrap();
    engine.remove_cartridge(handle);
    assert_eq!(engine.cartridge_users(handle), 1);
    assert!(matches!(
        engine.submit(request),
        Err(RequestError::UnknownCartridge)
    ));
    let mut made = Vec::new();
    while engine
        .step(&mut |event| {
            if let StepEvent::Finished { completion, .. } = event {
                made = completion.token_ids;
            }
        })
        .unwrap()
    {}
    assert_eq!(made, wanted);
    assert_eq!(engine.stats().cartridge_rows, 0);
    is_clean(&mut engine);
}

#[test]
fn a_damaged_cartridge_fails_its_request_only() {
    let (mut cartridge, prompt, wanted) = golden_cartridge("tiny-llama3");
    let mut engine = engine("tiny-llama3", EngineOptions::default());
    let good = engine.add_cartridge(&cartridge).unwrap();
    cartridge.layers[1].value.fill(f32::NAN);
    let bad = engine.add_cartridge(&cartridge).unwrap();
    let ids = [bad, good].map(|handle| {
        let mut request = greedy(&prompt, wanted.len());
        request.cartridges = vec![handle];
        engine.submit(request).unwrap()
    });
    let (mut failed, mut made) = (Vec::new(), Vec::new());
    while engine
        .step(&mut |event| match event {
            StepEvent::Failed { request, error } => failed.push((request, error.to_string())),
            StepEvent::Finished {
                request,
                completion,
            } => made.push((request, completion.token_ids)),
            _ => {}
        })
        .unwrap()
    {}
    assert_eq!(failed.len(), 1);
    assert_eq!(failed[0].0, ids[0]);
    assert!(failed[0].1.contains("not finite"));
    assert_eq!(made, [(ids[1], wanted)]);
    is_clean(&mut engine);
}

#[test]
fn an_answer_takes_the_form_that_is_asked_for() {
    let mut engine = engine("tiny-qwen2", EngineOptions::default());
    let text = engine.model().text.clone();
    let vocabulary: Vec<TokenBytes> = (0..512)
        .map(|id| {
            let plain = (id < 257).then(|| text.decode(&[id], false).unwrap());
            plain
                .filter(|t| !t.contains('\u{fffd}'))
                .map(String::into_bytes)
        })
        .collect();
    let factory = ConstraintFactory::new(&vocabulary, &text.stop_ids()).unwrap();
    let schema = r#"{"type": "object", "properties": {"steps": {"type": "integer", "minimum": 10,
        "maximum": 99}, "lit": {"type": "boolean"}}, "required": ["steps", "lit"],
        "additionalProperties": false}"#;
    let mut request = greedy(&[5, 6, 7], 600);
    request.constraint = Some(factory.json_schema(schema).unwrap());
    request.stop.ids = text.stop_ids();
    let made = run(&mut engine, &[request, greedy(&[5, 6, 7], 4)]);
    let value: serde_json::Value = serde_json::from_str(&made[0].text).unwrap();
    assert!(
        (10..100).contains(&value["steps"].as_i64().unwrap()),
        "{value}"
    );
    assert!(value["lit"].is_boolean(), "{value}");
    assert_eq!(made[0].finish, FinishReason::Stop);
}
