//! The sweep over the layers.

use std::sync::Arc;

use burn::tensor::Tensor;
use cartridges_model::adapter::{
    BatchAdapters, HostAdapter, HostPatch, Site, Target, ThoughtAdapter,
};
use serde::Serialize;

use super::layer::collect;
use super::material::Material;
use super::options::{SweepOptions, Weighting};
use crate::divergence::{divergences, mean_divergence};
use crate::error::TransmuteError;
use crate::extract::Stream;
use crate::merge::join;
use crate::ridge::{RidgeReport, solve};
use crate::statistics::SiteStatistics;

/// What a position counts at least and at most where it counts its divergence.
const WEIGHTS: (f32, f32) = (0.05, 5.0);

/// The statistics of one layer's `down_proj`.
#[derive(Debug, Clone, PartialEq)]
pub struct LayerStatistics {
    /// The layer.
    pub layer: usize,
    /// One per corpus.
    pub corpora: Vec<SiteStatistics>,
    /// Of the background, without rows if there is none.
    pub background: SiteStatistics,
}

/// What a sweep did at one layer.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct LayerReport {
    /// The layer.
    pub layer: usize,
    /// How the solve went.
    pub ridge: RidgeReport,
    /// The share of what the layer's output lacked that the patch of this rank gives, on the fitted rows.
    pub explained: f64,
    /// With what the patch is multiplied; none if it was not taken.
    pub scale: Option<f32>,
    /// Divergence from the teacher on the validation conversations behind this layer, in nats per token.
    pub divergence: f64,
}

/// A finished sweep.
#[derive(Debug, Clone)]
pub struct Swept {
    /// The patches that were taken.
    pub patches: Vec<HostPatch>,
    /// Divergence on the validation conversations without any patch, in nats per token.
    pub before: f64,
    /// Layer by layer.
    pub layers: Vec<LayerReport>,
}

impl Swept {
    /// The patches as an adapter; none if no layer took one.
    ///
    /// # Errors
    /// If a patch is not finite.
    pub fn adapter(&self) -> Result<Option<HostAdapter>, TransmuteError> {
        match self.patches.is_empty() {
            true => Ok(None),
            false => Ok(Some(HostAdapter::new(self.patches.clone())?)),
        }
    }
}

/// Goes through the layers from below. At each the teacher's states are what the student's should be; the
/// student's are those that the patches below have made. `keep` gets the statistics of each layer before
/// they are dropped, `tell` the report.
///
/// # Errors
/// [`TransmuteError`], if a setting is wrong, there is nothing to fit, or a system cannot be solved; and
/// what `keep` gives.
pub fn sweep(
    material: &Material<'_>,
    options: &SweepOptions,
    keep: &mut dyn FnMut(&LayerStatistics) -> Result<(), TransmuteError>,
    tell: &mut dyn FnMut(&LayerReport),
) -> Result<Swept, TransmuteError> {
    let decoder = material.decoder;
    let layers = options.check(decoder.config().num_layers)?;
    if material.fit.positions() == 0 {
        let problem = "have no token of the assistant, expected conversations with answers";
        return Err(TransmuteError::field("the conversations", problem));
    }
    let mut pairs = material.paired(material.fit, options.batch_tokens)?;
    let judge = material.paired(material.validation, options.batch_tokens)?;
    let mut base = material.background(options.batch_tokens)?;
    let mut background = base.clone();
    let weights = match options.weighting {
        Weighting::Uniform => None,
        Weighting::Divergence => Some(weights(material, &pairs.teacher, &pairs.student)?),
    };
    let wanted = judge.teacher.finish(BatchAdapters::NONE);
    let judged = |stream: &Stream<'_>, adapters: &BatchAdapters| {
        let found = stream.clone().finish(adapters);
        mean_divergence(decoder, &wanted, &found)
    };
    let mut validation = judge.student;
    let mut best = judged(&validation, BatchAdapters::NONE)?;
    let mut swept = Swept {
        patches: Vec::new(),
        before: best,
        layers: Vec::new(),
    };
    for layer in 0..layers.end {
        if !layers.contains(&layer) {
            for stream in [&mut pairs.teacher, &mut pairs.student, &mut base] {
                stream.advance(BatchAdapters::NONE);
            }
            background.advance(BatchAdapters::NONE);
            validation.advance(BatchAdapters::NONE);
            continue;
        }
        let (statistics, outputs) = collect(
            decoder,
            layer,
            &mut pairs,
            weights.as_deref(),
            &mut base,
            &background,
        )?;
        keep(&statistics)?;
        let (patch, mut report) = fitted(statistics, options)?;
        let mut taken = None;
        if let Some(patch) = patch {
            for scale in &options.scales {
                let patch = HostPatch {
                    scale: *scale,
                    ..patch.clone()
                };
                let adapters = alone(&patch, material)?;
                let divergence = judged(&validation, &adapters)?;
                if divergence < best {
                    best = divergence;
                    report.scale = Some(*scale);
                    taken = Some((patch, adapters));
                    break;
                }
            }
        }
        report.divergence = best;
        match taken {
            None => {
                let [student, patched] = outputs;
                pairs.student.advance_to(student);
                background.advance_to(patched);
                validation.advance(BatchAdapters::NONE);
            }
            Some((patch, adapters)) => {
                for stream in [&mut pairs.student, &mut background, &mut validation] {
                    stream.advance(&adapters);
                }
                swept.patches.push(patch);
            }
        }
        tell(&report);
        swept.layers.push(report);
    }
    Ok(swept)
}

/// The divergence of each fitted position, within bounds.
fn weights(
    material: &Material<'_>,
    teacher: &Stream<'_>,
    student: &Stream<'_>,
) -> Result<Vec<Vec<f32>>, TransmuteError> {
    let finish = |stream: &Stream<'_>| stream.clone().finish(BatchAdapters::NONE);
    let (teacher, student): (Vec<Tensor<2>>, _) = (finish(teacher), finish(student));
    let pairs = teacher.iter().zip(&student);
    pairs
        .map(|(teacher, student)| {
            let all = divergences(material.decoder, teacher, student)?;
            Ok(all
                .into_iter()
                .map(|x| x.clamp(WEIGHTS.0, WEIGHTS.1))
                .collect())
        })
        .collect()
}

/// The patch of a layer at the rank that was asked for; none if there is nothing that it should change.
fn fitted(
    statistics: LayerStatistics,
    options: &SweepOptions,
) -> Result<(Option<HostPatch>, LayerReport), TransmuteError> {
    let LayerStatistics {
        layer,
        corpora,
        background,
    } = statistics;
    let facts = match corpora.len() {
        1 => corpora.into_iter().next(),
        _ => Some(join(&corpora)?),
    };
    let Some(facts) = facts else {
        return Err(TransmuteError::field("the statistics", "are of no corpus"));
    };
    let background = (background.tokens() > 0).then_some(&background);
    let solution = solve(&facts, background, &options.ridge)?;
    let mut report = LayerReport {
        layer,
        ridge: solution.report,
        explained: 0.0,
        scale: None,
        divergence: 0.0,
    };
    if facts.target_energy() == 0.0 && solution.solved.weight().frobenius_norm() == 0.0 {
        return Ok((None, report));
    }
    let reduced = solution.solved.reduce(options.rank)?;
    report.explained = explained(&facts, &reduced.factors.product())?;
    let target = Target::Layer {
        layer,
        site: Site::DownProj,
    };
    let patch = reduced
        .factors
        .balanced()?
        .patch(target, reduced.bias.as_deref());
    Ok((Some(patch), report))
}

fn explained(
    facts: &SiteStatistics,
    weight: &crate::matrix::Matrix,
) -> Result<f64, TransmuteError> {
    let left = facts.squared_error(weight, None)?;
    Ok(1.0 - left / facts.target_energy().max(f64::MIN_POSITIVE))
}

/// An adapter of one patch, for all rows.
fn alone(patch: &HostPatch, material: &Material<'_>) -> Result<BatchAdapters, TransmuteError> {
    let host = HostAdapter::new(vec![patch.clone()])?;
    let adapter = ThoughtAdapter::from_host(&host, material.decoder.device());
    Ok(BatchAdapters::everywhere([Arc::new(adapter)]))
}
