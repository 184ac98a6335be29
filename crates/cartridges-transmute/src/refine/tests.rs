//! Property 16: gradients by finite differences, and the loss by its definition.

use std::sync::Arc;

use cartridges_engine::Flow;
use cartridges_model::adapter::{
    BatchAdapters, HostAdapter, HostPatch, Site, Target, ThoughtAdapter,
};
use cartridges_model::decoder::Decoder;

use super::gradient::{Wanted, gradient};
use super::{RefineOptions, Step, refine};
use crate::divergence::mean_divergence;
use crate::extract::Pairs;
use crate::sweep::Material;
use crate::synthetic::{gaussian, generator};
use crate::tiny;

#[test]
fn what_the_background_loses_counts_where_the_best_is_chosen() {
    let decoder = tiny::decoder();
    let pairs = tiny::pairs(13, 2, 4, true);
    let background = tiny::texts(14, 20);
    let material = material(&decoder, &pairs, &background);
    // Factors that change much: the first steps bring the background back, whatever the conversations lose.
    let start = adapter(&decoder);
    let options = RefineOptions {
        steps: 20,
        lr: 2e-2,
        check_every: 5,
        background: 1000.0,
        ..RefineOptions::default()
    };
    let all = &mut |_: &Step, _: Option<&HostAdapter>| Ok(Flow::Continue);
    let refined = refine(&material, &start, &options, all).unwrap();
    let (before, after) = (refined.before, refined.after);
    assert!(
        after.background < 0.5 * before.background,
        "{after:?} of {before:?}"
    );
    assert_ne!(refined.adapter, start);
}

/// Small random factors at two layers.
fn adapter(decoder: &Decoder) -> HostAdapter {
    let mut rng = generator(9);
    let (inputs, outputs) = (
        decoder.config().intermediate_size,
        decoder.config().hidden_size,
    );
    let mut part = |count: usize| -> Vec<f32> {
        let values = gaussian(&mut rng, count).into_iter();
        values.map(|x| 0.05 * x as f32).collect()
    };
    let patches = (0..2).map(|layer| {
        let site = Site::DownProj;
        let (a, b) = (part(3 * inputs), part(3 * outputs));
        HostPatch::low_rank(Target::Layer { layer, site }, 3, a, b)
    });
    HostAdapter::new(patches.collect()).unwrap()
}

fn material<'a>(
    decoder: &'a Decoder,
    pairs: &'a Pairs,
    background: &'a [Vec<u32>],
) -> Material<'a> {
    Material {
        decoder,
        past: &[],
        fit: pairs,
        validation: pairs,
        background,
    }
}

#[test]
fn with_all_tokens_the_loss_is_the_divergence_and_with_few_it_is_less() {
    let decoder = tiny::decoder();
    let pairs = tiny::pairs(11, 1, 3, true);
    let paired = material(&decoder, &pairs, &[])
        .paired(&pairs, 2048, 0.0)
        .unwrap();
    let adapter = Arc::new(ThoughtAdapter::from_host(
        &adapter(&decoder),
        decoder.device(),
    ));
    let adapters = BatchAdapters::everywhere([adapter.clone()]);
    let teacher = paired.teacher.clone().finish(BatchAdapters::NONE);
    let student = paired.student.clone().finish(&adapters);
    let whole = mean_divergence(&decoder, &teacher, &student).unwrap();
    let loss = |k: usize| {
        let wanted = Wanted::new(&decoder, &teacher[0], k, Vec::new()).unwrap();
        gradient(&paired.student, 0, &adapter, &wanted, 0.0, 0)
            .unwrap()
            .0
    };
    let all = loss(decoder.config().vocab_size);
    assert!((all - whole).abs() < 1e-4 * whole, "{all} for {whole}");
    // Tokens in one bucket hide what differs among them.
    let few = loss(5);
    assert!(few > 0.0 && few < whole, "{few}, {whole}");
}

#[test]
fn gradients_are_those_of_finite_differences() {
    let decoder = tiny::decoder();
    let pairs = tiny::pairs(12, 1, 3, true);
    let mut paired = material(&decoder, &pairs, &[])
        .paired(&pairs, 2048, 0.0)
        .unwrap();
    let plain = Arc::new(ThoughtAdapter::from_host(
        &adapter(&decoder),
        decoder.device(),
    ));
    let mut states = Vec::new();
    let teacher = paired.teacher.clone().finish(BatchAdapters::NONE);
    for _ in 0..decoder.config().num_layers {
        paired.teacher.advance(BatchAdapters::NONE);
        states.push(paired.teacher.looked_at(0));
    }
    for (hidden, states) in [(0.0, Vec::new()), (0.7, states)] {
        let wanted = Wanted::new(&decoder, &teacher[0], 10, states).unwrap();
        let at = |adapter: &Arc<ThoughtAdapter>| {
            gradient(&paired.student, 0, adapter, &wanted, hidden, 0).unwrap()
        };
        let (_, slopes) = at(&plain);
        // Along each matrix's own gradient the loss changes by the gradient's norm.
        for (which, slope) in slopes.iter().enumerate() {
            let norm = slope
                .clone()
                .powf_scalar(2.0)
                .sum()
                .sqrt()
                .into_scalar::<f32>();
            assert!(norm > 1e-4, "matrix {which} has no gradient");
            let step = 3e-2f32;
            let moved = |by: f32| {
                let mut matrices = plain.matrices();
                matrices[which] = matrices[which].clone() + slope.clone() * (by / norm);
                at(&Arc::new(plain.with_matrices(matrices))).0
            };
            let difference = (moved(step) - moved(-step)) / f64::from(2.0 * step);
            let off = (difference - f64::from(norm)).abs() / f64::from(norm);
            // f32 losses differ by rounding of 1e-6 over a step of 6e-2.
            assert!(
                off < 5e-3,
                "matrix {which}, hidden {hidden}: {difference} for {norm}"
            );
        }
    }
}

#[test]
fn steps_bring_the_student_nearer_to_the_teacher() {
    let decoder = tiny::decoder();
    let pairs = tiny::pairs(13, 2, 4, true);
    let background = tiny::texts(14, 3);
    let material = material(&decoder, &pairs, &background);
    let options = RefineOptions {
        steps: 30,
        lr: 5e-3,
        check_every: 10,
        hidden: 0.05,
        background: 1.0,
        ..RefineOptions::default()
    };
    let (mut losses, mut bests) = (Vec::new(), Vec::new());
    let start = adapter(&decoder);
    let refined = refine(&material, &start, &options, &mut |step, better| {
        losses.push(step.loss);
        bests.extend(better.cloned().map(|adapter| (step.step, adapter)));
        Ok(Flow::Continue)
    })
    .unwrap();
    assert_eq!(bests.last().unwrap().1, refined.adapter);
    assert_eq!(losses.len(), 30);
    let (before, after) = (refined.before, refined.after);
    assert!(
        after.divergence < 0.8 * before.divergence,
        "{after:?} of {before:?}"
    );
    assert_ne!(refined.adapter, start);
    // The same seed gives the same factors.
    let all = &mut |_: &Step, _: Option<&HostAdapter>| Ok(Flow::Continue);
    let again = refine(&material, &start, &options, all).unwrap();
    assert_eq!(again.adapter, refined.adapter);
    // Stopped after the first look, what was best then is there.
    let stopped = refine(&material, &start, &options, &mut |step, _| {
        Ok(if step.step == 12 {
            Flow::Stop
        } else {
            Flow::Continue
        })
    });
    assert_eq!((10, stopped.unwrap().adapter), bests[0]);
}
