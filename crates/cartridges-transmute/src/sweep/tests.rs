//! Properties 14 and 15: no prompt, no patch; targets of patched states; patches that harm are refused.

use std::collections::HashMap;
use std::sync::Arc;

use cartridges_model::adapter::{BatchAdapters, HostAdapter, ThoughtAdapter};
use cartridges_model::decoder::Decoder;
use cartridges_model::weights::Weights;
use safetensors::tensor::{Dtype, TensorView};

use super::{Material, Sites, SweepOptions, Swept, TargetStatistics, sweep};
use crate::extract::{Pairs, values};
use crate::fold::fold;
use crate::tiny;

fn options() -> SweepOptions {
    SweepOptions {
        rank: 16,
        sites: Sites::Down,
        ..SweepOptions::default()
    }
}

fn material<'a>(decoder: &'a Decoder, fit: &'a Pairs, validation: &'a Pairs) -> Material<'a> {
    Material {
        decoder,
        past: &[],
        fit,
        validation,
        background: &[],
    }
}

fn run(material: &Material<'_>, options: &SweepOptions) -> (Swept, Vec<TargetStatistics>) {
    let mut kept = Vec::new();
    let mut keep = |statistics: &TargetStatistics| {
        kept.push(statistics.clone());
        Ok(())
    };
    let swept = sweep(material, options, &mut keep, &mut |_| ()).unwrap();
    (swept, kept)
}

fn adapters(decoder: &Decoder, adapter: &HostAdapter) -> BatchAdapters {
    let adapter = ThoughtAdapter::from_host(adapter, decoder.device());
    BatchAdapters::everywhere([Arc::new(adapter)])
}

/// Teacher's minus student's states behind `layer` at the fitted rows, squared and summed.
fn lacking(material: &Material<'_>, layer: usize, adapters: &BatchAdapters) -> f64 {
    let mut pairs = material.paired(material.fit, 2048, 0.0).unwrap();
    for below in 0..=layer {
        pairs.teacher.advance(BatchAdapters::NONE);
        // The layer that is looked at is not patched yet.
        let patched = if below < layer {
            adapters
        } else {
            BatchAdapters::NONE
        };
        pairs.student.advance(patched);
    }
    let batches = 0..pairs.corpora.len();
    let apart = batches
        .flat_map(|b| values(pairs.teacher.looked_at(b) - pairs.student.looked_at(b)).unwrap());
    apart.map(|x| f64::from(x).powi(2)).sum()
}

#[test]
fn without_a_prompt_there_is_nothing_to_patch() {
    let decoder = tiny::decoder();
    let pairs = tiny::pairs(1, 2, 4, false);
    let (swept, kept) = run(&material(&decoder, &pairs, &pairs), &options());
    assert_eq!(swept.before, 0.0);
    assert!(swept.adapter().unwrap().is_none());
    assert_eq!(kept.len(), decoder.config().num_layers);
    for statistics in kept {
        let facts = &statistics.corpora[0];
        assert!(facts.tokens() > 0);
        assert_eq!(facts.target_energy(), 0.0);
        assert!(facts.cross_moment().values().iter().all(|x| *x == 0.0));
    }
}

#[test]
fn each_layer_lacks_what_the_patches_below_leave() {
    let decoder = tiny::decoder();
    let pairs = tiny::pairs(2, 2, 30, true);
    let material = material(&decoder, &pairs, &pairs);
    let (swept, kept) = run(&material, &options());
    let adapter = swept.adapter().unwrap().unwrap();
    assert!(
        swept.targets.iter().all(|report| report.scale.is_some()),
        "{:?}",
        swept.targets
    );
    let patched = adapters(&decoder, &adapter);
    for (layer, statistics) in kept.iter().enumerate() {
        let found = statistics.corpora[0].target_energy();
        let wanted = lacking(&material, layer, &patched);
        assert!(
            (found - wanted).abs() < 1e-3 * wanted,
            "layer {layer}: {found} for {wanted}"
        );
        let unpatched = lacking(&material, layer, BatchAdapters::NONE);
        let same = (found - unpatched).abs() < 1e-3 * unpatched;
        assert_eq!(
            same,
            layer == 0,
            "layer {layer}: {found}, unpatched {unpatched}"
        );
    }
    assert!(
        swept.after < 0.7 * swept.before,
        "{} of {}",
        swept.after,
        swept.before
    );
    // The streams of the sweep and a run with the finished adapter agree.
    let pairs = material.paired(material.validation, 2048, 0.0).unwrap();
    let teacher = pairs.teacher.finish(BatchAdapters::NONE);
    let student = pairs.student.finish(&patched);
    let again = crate::divergence::mean_divergence(&decoder, &teacher, &student).unwrap();
    assert!((again - swept.after).abs() < 1e-4 * again, "{again}");
}

#[test]
fn a_patch_that_harms_is_refused() {
    let decoder = tiny::decoder();
    let fit = tiny::pairs(3, 1, 10, true);
    // On these the student is right already, so that any change is for the worse.
    let right = tiny::pairs(4, 1, 3, false);
    let (swept, _) = run(&material(&decoder, &fit, &right), &options());
    assert!(swept.adapter().unwrap().is_none());
    for report in &swept.targets {
        assert!(report.explained > 0.1, "{report:?}");
        assert_eq!((report.scale, report.held_out), (None, 0.0));
    }
    assert_eq!((swept.before, swept.after), (0.0, 0.0));
}

#[test]
fn background_keeps_the_model_nearer_to_itself() {
    let decoder = tiny::decoder();
    let pairs = tiny::pairs(2, 1, 30, true);
    let background = tiny::texts(7, 20);
    let moved = |kept: &[Vec<u32>]| {
        let material = Material {
            background: kept,
            ..material(&decoder, &pairs, &pairs)
        };
        let (swept, _) = run(&material, &options());
        let patched = adapters(&decoder, &swept.adapter().unwrap().unwrap());
        let looked = Material {
            background: &background,
            ..material
        };
        let base = looked.background(looked.background, 2048).unwrap();
        let before = base.clone().finish(BatchAdapters::NONE);
        crate::divergence::mean_divergence(&decoder, &before, &base.finish(&patched)).unwrap()
    };
    let (with, without) = (moved(&background), moved(&[]));
    assert!(
        with < 0.5 * without,
        "{with} with background, {without} without"
    );
}

/// Property 12: beside the maps or in the weights, the logits are the same.
#[test]
fn patches_in_the_weights_give_the_logits_of_patches_beside_them() {
    let folder = tiny::fixture("tiny-qwen2");
    let decoder = tiny::load(&folder);
    let pairs = tiny::pairs(2, 2, 30, true);
    let material = material(&decoder, &pairs, &pairs);
    let (swept, _) = run(&material, &options());
    let adapter = swept.adapter().unwrap().unwrap();
    let weights = Weights::open_folder(&folder).unwrap();
    let tensors: HashMap<String, (Vec<usize>, Vec<u8>)> = weights
        .names()
        .map(|name| {
            let mut tensor = weights.read(name).unwrap();
            for patch in adapter.patches() {
                if format!("{}.weight", patch.target) == name {
                    fold(&mut tensor.values, None, patch).unwrap();
                }
            }
            let bytes = tensor.values.iter().flat_map(|v| v.to_le_bytes()).collect();
            (name.to_owned(), (tensor.shape, bytes))
        })
        .collect();
    let views = tensors.iter().map(|(name, (shape, bytes))| {
        (
            name,
            TensorView::new(Dtype::F32, shape.clone(), bytes).unwrap(),
        )
    });
    let copy = tempfile::tempdir().unwrap();
    std::fs::copy(folder.join("config.json"), copy.path().join("config.json")).unwrap();
    safetensors::serialize_to_file(views, None, &copy.path().join("model.safetensors")).unwrap();
    let merged = tiny::load(copy.path());

    let run = |decoder: &Decoder, adapters: &BatchAdapters| {
        let material = Material {
            decoder,
            ..material
        };
        let student = material.paired(&pairs, 2048, 0.0).unwrap().student;
        let logits = student.finish(adapters).into_iter();
        let logits = logits.map(|x| decoder.logits(x, BatchAdapters::NONE));
        logits
            .flat_map(|x| values(x).unwrap())
            .collect::<Vec<f32>>()
    };
    let beside = run(&decoder, &adapters(&decoder, &adapter));
    let inside = run(&merged, BatchAdapters::NONE);
    let without = run(&decoder, BatchAdapters::NONE);
    let apart = |a: &[f32]| {
        let apart = a.iter().zip(&beside).map(|(a, b)| (a - b).abs());
        apart.fold(0f32, f32::max)
    };
    let size = beside.iter().fold(0f32, |max, x| max.max(x.abs()));
    assert!(
        apart(&inside) < 1e-5 * size.max(1.0),
        "{} of {size}",
        apart(&inside)
    );
    assert!(apart(&without) > 1e-2, "{}", apart(&without));
}
