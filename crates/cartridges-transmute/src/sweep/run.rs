//! The sweep over the maps.

use burn::tensor::Tensor;
use cartridges_model::adapter::{BatchAdapters, HostAdapter, HostPatch, Target};
use serde::Serialize;

use super::collect::{TargetStatistics, collect, lacks};
use super::material::{Material, Paired};
use super::options::{SweepOptions, Weighting};
use crate::divergence::{divergences, everywhere, mean_divergence};
use crate::error::TransmuteError;
use crate::extract::{Stream, values};
use crate::matrix::{Matrix, dot};
use crate::rank::Factors;
use crate::ridge::{HeldOut, RidgeOptions, RidgeReport, best_scale, search, solve};

/// What a position counts at least and at most where it counts its divergence.
const WEIGHTS: (f32, f32) = (0.05, 5.0);

/// What a sweep did at one map.
#[derive(Debug, Clone, PartialEq, Serialize)]
pub struct TargetReport {
    /// The map.
    pub target: Target,
    /// How the solve went.
    pub ridge: RidgeReport,
    /// The share of what the map's output lacked that the patch of this rank gives, on the fitted rows.
    pub explained: f64,
    /// The same on the validation conversations, with `scale`; 0 if the patch was not taken.
    pub held_out: f64,
    /// With what the patch is multiplied; none if it was not taken.
    pub scale: Option<f32>,
}

/// A finished sweep.
#[derive(Debug, Clone)]
pub struct Swept {
    /// The patches that were taken.
    pub patches: Vec<HostPatch>,
    /// Divergence from the teacher on the validation conversations without any patch, in nats per token.
    pub before: f64,
    /// The same with all of them.
    pub after: f64,
    /// Map by map.
    pub targets: Vec<TargetReport>,
}

impl Swept {
    /// The patches as an adapter; none if no map took one.
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

/// Goes through the maps from below. At each the teacher's states are what the student's should be; the
/// student's are those that the patches before it have made. A patch is multiplied with what brings the
/// validation's states nearest to the teacher's, 1 at most, and not taken if nothing above 0 does. `keep`
/// gets the statistics of each map before they are dropped, `tell` the report.
///
/// # Errors
/// [`TransmuteError`], if a setting is wrong, there is nothing to fit, or a system cannot be solved; and
/// what `keep` gives.
pub fn sweep(
    material: &Material<'_>,
    options: &SweepOptions,
    keep: &mut dyn FnMut(&TargetStatistics) -> Result<(), TransmuteError>,
    tell: &mut dyn FnMut(&TargetReport),
) -> Result<Swept, TransmuteError> {
    let decoder = material.decoder;
    let targets = options.targets(decoder.config().num_layers)?;
    if material.fit.positions() == 0 {
        let problem = "have no token of the assistant, expected conversations with answers";
        return Err(TransmuteError::field("the conversations", problem));
    }
    let mut pairs = material.paired(material.fit, options.batch_tokens, options.questions)?;
    let mut judge = material.paired(material.validation, options.batch_tokens, 0.0)?;
    let mut base = material.background(material.background, options.batch_tokens)?;
    let mut background = base.clone();
    if options.weighting == Weighting::Divergence {
        weigh(&mut pairs)?;
    }
    let wanted = judge.teacher.clone().finish(BatchAdapters::NONE);
    let judged = |student: &Stream<'_>| {
        let found = student.clone().finish(BatchAdapters::NONE);
        mean_divergence(decoder, &wanted, &found)
    };
    let mut swept = Swept {
        patches: Vec::new(),
        before: judged(&judge.student)?,
        after: 0.0,
        targets: Vec::new(),
    };
    let mut ridge = options.ridge;
    while swept.targets.len() < targets.len() {
        let target = pairs.student.target();
        for stream in [&mut pairs.teacher, &mut judge.teacher, &mut base] {
            stream.step(BatchAdapters::NONE);
        }
        let mut adapters = BatchAdapters::default();
        if targets.contains(&target) {
            for stream in [&mut pairs.student, &mut background, &mut judge.student] {
                stream.read();
            }
            let statistics = collect(&pairs, &base, &background)?;
            keep(&statistics)?;
            let held = held_out(&judge)?;
            let (patch, report) = fitted(&statistics, options, &mut ridge, held.as_ref())?;
            if let Some(patch) = patch {
                let host = HostAdapter::new(vec![patch.clone()])?;
                adapters = everywhere(&host, decoder);
                swept.patches.push(patch);
            }
            tell(&report);
            swept.targets.push(report);
        }
        for stream in [&mut pairs.student, &mut background, &mut judge.student] {
            stream.step(&adapters);
        }
    }
    swept.after = judged(&judge.student)?;
    Ok(swept)
}

/// What the map at the place of the validation's student reads and lacks.
fn held_out(judge: &Paired<'_>) -> Result<Option<HeldOut>, TransmuteError> {
    let (mut inputs, mut targets) = (Vec::new(), Vec::new());
    let mut widths = (0, 0);
    for batch in 0..judge.corpora.len() {
        let (features, lacks) = lacks(&judge.student, &judge.teacher, batch);
        widths = (features.dims()[1], lacks.dims()[1]);
        inputs.extend(values(features)?.into_iter().map(f64::from));
        targets.extend(values(lacks)?.into_iter().map(f64::from));
    }
    if inputs.is_empty() {
        return Ok(None);
    }
    let rows = inputs.len() / widths.0;
    Ok(Some(HeldOut {
        inputs: Matrix::new(rows, widths.0, inputs)?,
        targets: Matrix::new(rows, widths.1, targets)?,
    }))
}

/// With what a delta brings the states of the validation's student nearest to the teacher's, between 0 and
/// 1, and the share of what they lack that it gives then. Without validation it is 1.
fn fitting_scale(factors: &Factors, held: Option<&HeldOut>) -> (f64, f64) {
    let Some(HeldOut { inputs, targets }) = held else {
        return (1.0, 0.0);
    };
    let inner = inputs.times_transposed(factors.a());
    let gives = inner.times_transposed(factors.b());
    let along = dot(gives.values(), targets.values());
    let (scale, explained) = best_scale(along, dot(gives.values(), gives.values()));
    let lacking = dot(targets.values(), targets.values());
    (scale, explained / lacking.max(f64::MIN_POSITIVE))
}

/// Multiplies what each row counts with its divergence, within bounds.
fn weigh(pairs: &mut Paired<'_>) -> Result<(), TransmuteError> {
    let decoder = pairs.teacher.decoder();
    let finish = |stream: &Stream<'_>| stream.clone().finish(BatchAdapters::NONE);
    let (teacher, student): (Vec<Tensor<2>>, _) = (finish(&pairs.teacher), finish(&pairs.student));
    let all = teacher.iter().zip(&student).zip(&mut pairs.weights);
    for ((teacher, student), weights) in all {
        let divergences = divergences(decoder, teacher, student)?;
        for (weight, divergence) in weights.iter_mut().zip(divergences) {
            *weight *= divergence.clamp(WEIGHTS.0, WEIGHTS.1);
        }
    }
    Ok(())
}

/// The patch of a map at the rank that was asked for; none if there is nothing that it should change, or
/// it does not help. `ridge` is where a search for the ridge begins, and gets the one that it finds.
fn fitted(
    statistics: &TargetStatistics,
    options: &SweepOptions,
    ridge: &mut RidgeOptions,
    held: Option<&HeldOut>,
) -> Result<(Option<HostPatch>, TargetReport), TransmuteError> {
    let (facts, background) = (statistics.facts()?, statistics.background());
    if let Some(held) = held.filter(|_| options.search_ridge && facts.target_energy() > 0.0) {
        ridge.ridge = search(&facts, background, ridge, held)?;
    }
    let solution = solve(&facts, background, ridge)?;
    let mut report = TargetReport {
        target: statistics.target,
        ridge: solution.report,
        explained: 0.0,
        held_out: 0.0,
        scale: None,
    };
    if solution.solved.weight().frobenius_norm() == 0.0 {
        return Ok((None, report));
    }
    let reduced = solution.solved.reduce(options.rank)?;
    let left = facts.squared_error_of(&reduced.factors)?;
    report.explained = 1.0 - left / facts.target_energy().max(f64::MIN_POSITIVE);
    let (scale, held_out) = fitting_scale(&reduced.factors, held);
    if scale <= 0.0 {
        return Ok((None, report));
    }
    (report.scale, report.held_out) = (Some(scale as f32), held_out);
    let patch = HostPatch {
        scale: scale as f32,
        ..reduced
            .factors
            .balanced()?
            .patch(statistics.target, reduced.bias.as_deref())
    };
    Ok((Some(patch), report))
}
