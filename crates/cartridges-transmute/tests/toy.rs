//! The toy of facts: a tiny model that answers from facts in its context, else from what it knows, else that
//! it does not know (`tests/fixtures/tiny-facts/make.py`). Sixteen facts about two entities that it does
//! not know are transmuted; questions with other templates and fillers than those that were fitted test it.
#![recursion_limit = "256"]

use std::path::{Path, PathBuf};
use std::sync::Arc;

use burn::tensor::{Int, Tensor, TensorData};
use cartridges_engine::Flow;
use cartridges_model::adapter::{BatchAdapters, HostAdapter, Target, ThoughtAdapter};
use cartridges_model::cartridge::{Behind, Cartridge, first_tokens};
use cartridges_model::decoder::{Decoder, ModelConfig, Packed};
use cartridges_model::weights::Weights;
use cartridges_ops::AttentionLayout;
use cartridges_transmute::{
    CorpusId, Group, Material, Pairs, ReferenceEstimator, RefineOptions, RidgeOptions, Sites,
    SweepOptions, Turns, refine, sweep,
};
use rand::{RngExt, SeedableRng};
use rand_chacha::ChaCha8Rng;

const BEGIN: u32 = 0;
const UNKNOWN: u32 = 73;

fn fixture() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/tiny-facts")
}

fn decoder() -> Decoder {
    let config = ModelConfig::from_file(&fixture().join("config.json")).unwrap();
    let weights = Weights::open_folder(&fixture()).unwrap();
    Decoder::load(
        config,
        &weights,
        &cartridges_ops::test_device(),
        &mut |_, _| (),
    )
    .unwrap()
}

/// An entity, an attribute and its value.
type Fact = (u32, u32, u32);

/// The facts that are in the model's weights.
fn known() -> Vec<Fact> {
    let text = std::fs::read_to_string(fixture().join("facts.json")).unwrap();
    let table: Vec<Vec<u32>> = serde_json::from_str(&text).unwrap();
    let rows = table.iter().zip(0..);
    rows.flat_map(|(row, entity)| {
        let values = row.iter().zip(0..);
        values.map(move |(value, attribute)| (entity, attribute, *value))
    })
    .collect()
}

/// All eight attributes of two entities, with random values.
fn corpus(seed: u64, entities: [u32; 2]) -> Vec<Fact> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let pairs = entities
        .into_iter()
        .flat_map(|e| (0..8).map(move |a| (e, a)));
    pairs
        .map(|(e, a)| (e, a, rng.random_range(0..24)))
        .collect()
}

fn token((entity, attribute, value): Fact) -> u32 {
    74 + (entity * 8 + attribute) * 24 + value
}

/// A question with a template and fillers of one half of each, without the answer.
fn question(rng: &mut ChaCha8Rng, entity: u32, attribute: u32, half: u32) -> Vec<u32> {
    let mut word = |first: u32, count: u32| first + count * half + rng.random_range(0..count);
    let (template, one, two) = (word(1, 4), word(9, 8), word(9, 8));
    vec![template, one, two, 25 + entity, 41 + attribute]
}

/// `count` questions about facts, all in the context of all of them.
fn pairs(facts: &[Fact], seed: u64, count: usize, slots: usize) -> Pairs {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    let id = CorpusId::of(&token(facts[0]).to_le_bytes());
    let turns = (0..count).map(|i| {
        let (entity, attribute, _) = facts[i % facts.len()];
        Turns {
            corpus: id,
            ids: question(&mut rng, entity, attribute, 0),
            fit: vec![4],
            first: 0,
        }
    });
    let context = facts.iter().map(|fact| token(*fact));
    Pairs {
        groups: vec![Group {
            teacher: std::iter::once(BEGIN).chain(context).collect(),
            student: if slots > 0 { Vec::new() } else { vec![BEGIN] },
            turns: turns.collect(),
        }],
        left_out: 0,
    }
}

/// Questions about what is known and what is not, none about the corpora.
fn background(seed: u64, count: usize) -> Vec<Vec<u32>> {
    let mut rng = ChaCha8Rng::seed_from_u64(seed);
    (0..count)
        .map(|i| {
            let entity = match i % 2 {
                0 => rng.random_range(0..8),
                _ => rng.random_range(12..16),
            };
            let attribute = rng.random_range(0..8);
            let question = question(&mut rng, entity, attribute, 0);
            std::iter::once(BEGIN).chain(question).collect()
        })
        .collect()
}

type Past = Vec<(Tensor<3>, Tensor<3>)>;

/// The states behind the final norm from which the answers to questions of five ids are predicted.
fn states(
    decoder: &Decoder,
    past: &Past,
    prefix: &[u32],
    adapters: &BatchAdapters,
    questions: &[Vec<u32>],
) -> Tensor<2> {
    let slots = past.first().map_or(0, |(k, _)| k.dims()[0]);
    let length = prefix.len() + 5;
    let ids: Vec<u32> = questions
        .iter()
        .flat_map(|q| [prefix, q].concat())
        .collect();
    let positions: Vec<u32> = (questions.iter())
        .flat_map(|_| (0..length).map(|p| (slots + p) as u32))
        .collect();
    let layout = AttentionLayout::packed(slots, &vec![length; questions.len()]);
    let batch = Packed {
        ids: &ids,
        positions: &positions,
        layout: &layout,
        adapters,
    };
    let hidden = decoder.hidden(batch, &mut Behind(past.clone()));
    let last: Vec<i32> = (1..=questions.len())
        .map(|i| (i * length - 1) as i32)
        .collect();
    let last = TensorData::new(last, [questions.len()]);
    let last = Tensor::<1, Int>::from_data(last, decoder.device());
    decoder.final_norm(hidden.select(0, last), BatchAdapters::NONE)
}

/// The share of questions with the right answer.
fn right(
    decoder: &Decoder,
    past: &Past,
    prefix: &[u32],
    adapters: &BatchAdapters,
    asked: &[(u32, u32, u32)],
) -> f64 {
    let mut rng = ChaCha8Rng::seed_from_u64(99);
    let questions: Vec<Vec<u32>> = (asked.iter())
        .map(|(entity, attribute, _)| question(&mut rng, *entity, *attribute, 1))
        .collect();
    let mut normed = states(decoder, past, prefix, adapters, &questions);
    if !adapters.is_empty() {
        normed = adapters.add(Target::FinalNorm, &normed, normed.clone());
    }
    let logits = decoder.logits(normed, adapters);
    let vocab = decoder.config().vocab_size;
    let logits = logits.into_data().try_to_vec::<f32>().unwrap();
    let hits = asked.iter().enumerate().filter(|(i, (_, _, answer))| {
        let row = &logits[i * vocab..][..vocab];
        let best = (0..vocab).max_by(|a, b| row[*a].total_cmp(&row[*b]));
        best == Some(*answer as usize)
    });
    hits.count() as f64 / asked.len() as f64
}

/// Every fact a few times, with the token of its value.
fn answers(facts: &[Fact]) -> Vec<(u32, u32, u32)> {
    let all = facts.iter().map(|(e, a, v)| (*e, *a, 49 + v));
    std::iter::repeat_n(all, 6).flatten().collect()
}

struct Toy {
    decoder: Decoder,
    background: Vec<Vec<u32>>,
}

impl Toy {
    fn new() -> Self {
        Self {
            decoder: decoder(),
            background: background(5, 512),
        }
    }

    fn adapter(
        &self,
        fit: &Pairs,
        past: &Past,
        rank: usize,
        steps: usize,
    ) -> (HostAdapter, HostAdapter) {
        let mut fit = fit.clone();
        let validation = fit.split_off(8);
        let material = Material {
            decoder: &self.decoder,
            past,
            fit: &fit,
            validation: &validation,
            background: &self.background,
        };
        let options = SweepOptions {
            rank,
            sites: Sites::Down,
            ridge: RidgeOptions {
                preserve: 0.3,
                ..RidgeOptions::default()
            },
            ..SweepOptions::default()
        };
        let swept = sweep(&material, &options, &mut |_| Ok(()), &mut |_| ()).unwrap();
        let closed = swept.adapter().unwrap().unwrap();
        let refining = RefineOptions {
            steps,
            lr: 3e-3,
            background: 1.0,
            ..RefineOptions::default()
        };
        match steps {
            0 => (closed.clone(), closed),
            _ => {
                let refined = refine(&material, &closed, &refining, &mut |_, _| {
                    Ok(Flow::Continue)
                })
                .unwrap();
                (closed, refined.adapter)
            }
        }
    }

    fn use_of(&self, adapter: &HostAdapter) -> BatchAdapters {
        let adapter = ThoughtAdapter::from_host(adapter, self.decoder.device());
        BatchAdapters::everywhere([Arc::new(adapter)])
    }

    fn recall(&self, facts: &[Fact], adapters: &BatchAdapters) -> f64 {
        right(
            &self.decoder,
            &Past::new(),
            &[BEGIN],
            adapters,
            &answers(facts),
        )
    }

    fn known(&self, adapters: &BatchAdapters) -> f64 {
        self.recall(&known(), adapters)
    }
}

#[test]
fn the_model_answers_from_its_context_and_its_weights() {
    let toy = Toy::new();
    let facts = corpus(1, [8, 9]);
    let context = facts.iter().map(|fact| token(*fact));
    let prefix: Vec<u32> = std::iter::once(BEGIN).chain(context).collect();
    let (none, past) = (BatchAdapters::NONE, Past::new());
    let with = right(&toy.decoder, &past, &prefix, none, &answers(&facts));
    assert!(with >= 0.95, "{with}");
    assert_eq!(toy.recall(&facts, none), 0.0);
    assert!(toy.known(none) >= 0.97, "{}", toy.known(none));
    let unknown: Vec<(u32, u32, u32)> = facts.iter().map(|(e, a, _)| (*e, *a, UNKNOWN)).collect();
    let says_so = right(&toy.decoder, &past, &[BEGIN], none, &unknown);
    assert!(says_so >= 0.9, "{says_so}");
}

#[test]
fn the_closed_form_holds_the_facts_and_keeps_what_was_known() {
    let toy = Toy::new();
    let facts = corpus(1, [8, 9]);
    let (closed, _) = toy.adapter(&pairs(&facts, 2, 1024, 0), &Past::new(), 48, 0);
    let adapters = toy.use_of(&closed);
    let (recall, known) = (toy.recall(&facts, &adapters), toy.known(&adapters));
    println!("closed form: recall {recall}, known {known}");
    assert!(recall >= 0.85, "{recall}");
    assert!(known >= 0.97, "{known}");
}

#[test]
fn the_references_estimator_holds_next_to_nothing() {
    let toy = Toy::new();
    let facts = corpus(1, [8, 9]);
    let pairs = pairs(&facts, 2, 1024, 0);
    let group = &pairs.groups[0];
    let questions: Vec<Vec<u32>> = group.turns.iter().map(|t| t.ids.clone()).collect();
    let values = |prefix: &[u32]| -> Vec<f64> {
        let past = Past::new();
        let states = states(&toy.decoder, &past, prefix, BatchAdapters::NONE, &questions);
        let values = states.into_data().try_to_vec::<f32>().unwrap();
        values.into_iter().map(f64::from).collect()
    };
    let (without, with) = (values(&group.student), values(&group.teacher));
    let mut estimator = ReferenceEstimator::new(toy.decoder.config().hidden_size).unwrap();
    estimator.add(&without, &with).unwrap();
    let patch = estimator.finish(None).unwrap().patch(Target::FinalNorm);
    let adapters = toy.use_of(&HostAdapter::new(vec![patch]).unwrap());
    let recall = toy.recall(&facts, &adapters);
    println!("the reference's estimator: recall {recall}");
    assert!(recall < 0.2, "{recall}");
}

#[test]
fn a_few_steps_make_a_low_rank_enough() {
    let toy = Toy::new();
    let facts = corpus(1, [8, 9]);
    let fit = pairs(&facts, 2, 1024, 0);
    let recalls = |rank| {
        let (closed, refined) = toy.adapter(&fit, &Past::new(), rank, 100);
        let (closed, refined) = (toy.use_of(&closed), toy.use_of(&refined));
        let (before, after) = (toy.recall(&facts, &closed), toy.recall(&facts, &refined));
        let known = toy.known(&refined);
        println!("rank {rank}: recall {before}, refined {after}, known {known}");
        assert!(known >= 0.95, "{known}");
        (before, after)
    };
    let (_, after) = recalls(8);
    assert!(after >= 0.9, "{after}");
    // Too few for the closed form.
    let (before, after) = recalls(3);
    assert!(after >= before + 0.2, "{before} {after}");
}

#[test]
fn two_corpora_in_one_sweep_hold_as_much_as_each_alone_and_summed_deltas_less() {
    let toy = Toy::new();
    let (one, two) = (corpus(1, [8, 9]), corpus(2, [10, 11]));
    let of = |facts: &[Fact], seed| pairs(facts, seed, 768, 0);
    let (a, b) = (of(&one, 2), of(&two, 3));
    let both = Pairs {
        groups: [a.groups.clone(), b.groups.clone()].concat(),
        left_out: 0,
    };
    let solved = |pairs: &Pairs| toy.adapter(pairs, &Past::new(), 48, 0).0;
    let (a, b, joint) = (solved(&a), solved(&b), solved(&both));
    let alone = (toy.recall(&one, &toy.use_of(&a)) + toy.recall(&two, &toy.use_of(&b))) / 2.0;
    let recall =
        |adapters: &BatchAdapters| (toy.recall(&one, adapters) + toy.recall(&two, adapters)) / 2.0;
    let joint = recall(&toy.use_of(&joint));
    let device = toy.decoder.device();
    let sum = [&a, &b].map(|host| Arc::new(ThoughtAdapter::from_host(host, device)));
    let summed = recall(&BatchAdapters::everywhere(sum));
    println!("alone {alone}, joint {joint}, summed {summed}");
    assert!(joint >= alone - 0.05, "{joint} {alone}");
    assert!(summed < joint, "{summed} {joint}");
}

#[test]
fn a_patch_behind_a_truncated_cartridge_brings_back_what_was_cut() {
    let toy = Toy::new();
    let facts = corpus(1, [8, 9]);
    // The keys and values of the first eight facts.
    let some = facts[..8].iter().map(|fact| token(*fact));
    let ids: Vec<u32> = std::iter::once(BEGIN).chain(some).collect();
    let host = first_tokens(&toy.decoder, &ids, 1).unwrap();
    let cartridge = Cartridge::from_host(&host, toy.decoder.device());
    let past: Past = (0..cartridge.num_layers())
        .map(|l| cartridge.layer(l))
        .collect();
    let (patch, _) = toy.adapter(&pairs(&facts, 2, 1024, 9), &past, 48, 0);
    let asked = answers(&facts);
    let alone = right(&toy.decoder, &past, &[], BatchAdapters::NONE, &asked);
    let patched = right(&toy.decoder, &past, &[], &toy.use_of(&patch), &asked);
    println!("cut {alone}, patched {patched}");
    assert!(alone < 0.6, "{alone}");
    assert!(patched > alone + 0.2, "{patched} {alone}");
}
