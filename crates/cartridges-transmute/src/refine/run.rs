//! The steps.

use std::sync::Arc;

use burn::tensor::Tensor;
use cartridges_engine::Flow;
use cartridges_model::adapter::{
    BatchAdapters, Delta, HostAdapter, HostPatch, Target, ThoughtAdapter,
};
use rand::SeedableRng;
use rand::seq::SliceRandom;
use rand_chacha::ChaCha8Rng;
use serde::Serialize;

use super::adam::Adam;
use super::gradient::{Wanted, gradient};
use super::options::RefineOptions;
use crate::divergence::mean_divergence;
use crate::error::TransmuteError;
use crate::extract::{Stream, values};
use crate::sweep::Material;

/// Tokens behind a prompt in the batches of the teacher, who reads the prompt once for each.
const LARGE: usize = 8192;
/// Every so manieth background text is kept out.
const KEEP_OUT: usize = 9;

/// One step.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Step {
    /// Its number, from 1.
    pub step: usize,
    /// The loss before it.
    pub loss: f64,
    /// How good the factors are after it, where that was looked at.
    pub look: Option<Look>,
}

/// How good an adapter is where it was not trained, in nats per token.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct Look {
    /// Divergence from the teacher on the validation conversations.
    pub divergence: f64,
    /// Divergence from the untouched model on background texts that are kept out; on all of them where
    /// they are few.
    pub background: f64,
}

impl Look {
    /// What the refinement lowers.
    fn objective(self, options: &RefineOptions) -> f64 {
        self.divergence + options.background * self.background
    }
}

/// Refined factors.
#[derive(Debug, Clone)]
pub struct Refinement {
    /// The adapter with the least objective where it was looked at, or after the last step if there are no
    /// validation conversations.
    pub adapter: HostAdapter,
    /// Before the first step.
    pub before: Look,
    /// Of [`Self::adapter`].
    pub after: Look,
}

/// What is told of each step: the step, and the adapter where it is better than all before.
pub type Tell<'a> = dyn FnMut(&Step, Option<&HostAdapter>) -> Result<Flow, TransmuteError> + 'a;

/// Refines the weight deltas of an adapter; biases stay. `tell` gets each step, and the adapter where it is
/// better than all before; with [`Flow::Stop`] it ends the refinement at the best so far.
///
/// # Errors
/// [`TransmuteError`], if a setting is wrong or a factor is no longer finite; and what `tell` gives.
pub fn refine(
    material: &Material<'_>,
    adapter: &HostAdapter,
    options: &RefineOptions,
    tell: &mut Tell<'_>,
) -> Result<Refinement, TransmuteError> {
    options.check()?;
    let decoder = material.decoder;
    adapter.check(decoder.config())?;
    let mut lowest = decoder.config().num_layers;
    for patch in adapter.patches() {
        let Target::Layer { layer, .. } = patch.target else {
            let problem = format!("has a patch at {}, expected layers only", patch.target);
            return Err(TransmuteError::field("the adapter", problem));
        };
        lowest = lowest.min(layer);
    }
    let pairs = material.paired(material.fit, options.batch_tokens, 0.0)?;
    let whole = material.paired(material.fit, LARGE, 0.0)?;
    let (trained, kept_out) = split(material.background);
    let base = material.background(&trained, options.batch_tokens)?;
    let quiet = material.background(&kept_out, LARGE)?;
    let judge = material.paired(material.validation, LARGE, 0.0)?;
    let hidden = options.hidden > 0.0;
    let facts = wanted(&whole.teacher, &pairs.student, options.top_k, hidden)?;
    let kept = wanted(&base, &base, options.top_k, false)?;
    let teacher = judge.teacher.finish(BatchAdapters::NONE);
    let untouched = quiet.clone().finish(BatchAdapters::NONE);
    let judged = |adapter: &Arc<ThoughtAdapter>| -> Result<Look, TransmuteError> {
        let adapters = BatchAdapters::everywhere([adapter.clone()]);
        let student = judge.student.clone().finish(&adapters);
        let touched = quiet.clone().finish(&adapters);
        Ok(Look {
            divergence: mean_divergence(decoder, &teacher, &student)?,
            background: mean_divergence(decoder, &untouched, &touched)?,
        })
    };
    let mut current = Arc::new(ThoughtAdapter::from_host(adapter, decoder.device()));
    let before = judged(&current)?;
    let mut best = (before, adapter.clone());
    let mut adam = Adam::new(&current.matrices());
    let mut rng = ChaCha8Rng::seed_from_u64(options.seed);
    let (mut order, mut texts) = (Vec::new(), Vec::new());
    for step in 1..=options.steps {
        let (mut loss, mut slope) = {
            let at = next(&mut order, facts.len(), &mut rng);
            let (wanted, weight) = (&facts[at], options.hidden);
            gradient(&pairs.student, at, &current, wanted, weight, lowest)?
        };
        if options.background > 0.0 && !kept.is_empty() {
            let at = next(&mut texts, kept.len(), &mut rng);
            let (more, other) = gradient(&base, at, &current, &kept[at], 0.0, lowest)?;
            loss += options.background * more;
            let both = slope.into_iter().zip(other);
            slope = both.map(|(a, b)| a + b * options.background).collect();
        }
        let done = (step - 1) as f64 / options.steps as f64;
        let lr = options.lr * 0.5 * (1.0 + (std::f64::consts::PI * done).cos());
        let matrices = adam.update(current.matrices(), slope, lr);
        current = Arc::new(current.with_matrices(matrices));
        let mut report = Step {
            step,
            loss,
            look: None,
        };
        let mut better = None;
        if step % options.check_every == 0 || step == options.steps {
            let look = judged(&current)?;
            report.look = Some(look);
            if look.objective(options) < best.0.objective(options) || teacher.is_empty() {
                best = (look, to_host(adapter, &current)?);
                better = Some(&best.1);
            }
        }
        if tell(&report, better)? == Flow::Stop {
            break;
        }
    }
    Ok(Refinement {
        adapter: best.1,
        before,
        after: best.0,
    })
}

/// Background texts to train on, and those that are kept out of it.
fn split(texts: &[Vec<u32>]) -> (Vec<&[u32]>, Vec<&[u32]>) {
    let all = texts.iter().map(Vec::as_slice);
    if texts.len() < KEEP_OUT {
        return (all.clone().collect(), all.collect());
    }
    let part = |kept_out: bool| {
        let numbered = all.clone().enumerate();
        let part = numbered.filter(|(at, _)| (at % KEEP_OUT == KEEP_OUT - 1) == kept_out);
        part.map(|(_, text)| text).collect()
    };
    (part(false), part(true))
}

/// The next batch of a pass in random order.
fn next(order: &mut Vec<usize>, count: usize, rng: &mut ChaCha8Rng) -> usize {
    if order.is_empty() {
        order.extend(0..count);
        order.shuffle(rng);
    }
    order.pop().unwrap_or_default()
}

/// What each batch of `steps` is to give, from the model without patches on the same rows in the larger
/// batches of `whole`.
fn wanted(
    whole: &Stream<'_>,
    steps: &Stream<'_>,
    k: usize,
    hidden: bool,
) -> Result<Vec<Wanted>, TransmuteError> {
    let decoder = whole.decoder();
    let mut whole = whole.clone();
    let split = |rows: Vec<Tensor<2>>| -> Vec<Tensor<2>> {
        let rows = Tensor::cat(rows, 0);
        let mut first = 0;
        let counts = steps.batches.iter().map(|batch| batch.index.dims()[0]);
        let part = counts.map(|count| {
            first += count;
            rows.clone().narrow(0, first - count, count)
        });
        part.collect()
    };
    if steps.batches.is_empty() {
        return Ok(Vec::new());
    }
    let mut states: Vec<Vec<Tensor<2>>> = vec![Vec::new(); steps.batches.len()];
    for _ in 0..decoder.config().num_layers {
        whole.advance(BatchAdapters::NONE);
        if hidden {
            let rows = (0..whole.batches.len()).map(|batch| whole.looked_at(batch));
            for (states, part) in states.iter_mut().zip(split(rows.collect())) {
                states.push(part);
            }
        }
    }
    let normed = split(whole.finish(BatchAdapters::NONE));
    let all = normed.iter().zip(states);
    all.map(|(normed, states)| Wanted::new(decoder, normed, k, states))
        .collect()
}

/// The adapter with the matrices that are on the device.
fn to_host(host: &HostAdapter, adapter: &ThoughtAdapter) -> Result<HostAdapter, TransmuteError> {
    let mut matrices = adapter.matrices().into_iter();
    let mut next = || {
        values(
            matrices
                .next()
                .unwrap_or_else(|| unreachable!("as many as before")),
        )
    };
    let patches = host.patches().iter().map(|patch| {
        let delta = match &patch.delta {
            Delta::None => Delta::None,
            Delta::LowRank { rank, .. } => Delta::LowRank {
                rank: *rank,
                a: next()?,
                b: next()?,
            },
            Delta::Dense(_) => Delta::Dense(next()?),
        };
        Ok(HostPatch {
            delta,
            ..patch.clone()
        })
    });
    let patches = patches.collect::<Result<_, TransmuteError>>()?;
    Ok(HostAdapter::new(patches)?)
}
