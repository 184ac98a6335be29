//! One adapter of several that were solved apart.

use cartridges_model::adapter::{HostAdapter, HostPatch, Target};
use serde::Serialize;

use super::adapter::{Kept, factors, options, system};
use crate::error::TransmuteError;
use crate::matrix::Matrix;
use crate::merge::{Finished, merge_finished};
use crate::rank::Factors;
use crate::ridge::solve;

/// An adapter that stands for several.
#[derive(Debug, Clone)]
pub struct Combined {
    /// The adapter.
    pub adapter: HostAdapter,
    /// Map by map.
    pub targets: Vec<CombinedTarget>,
}

/// How the deltas of one map were put together.
#[derive(Debug, Clone, Copy, PartialEq, Serialize)]
pub struct CombinedTarget {
    /// The map.
    pub target: Target,
    /// Rank of the delta.
    pub rank: usize,
    /// The share of the delta's gain that the reduction to this rank loses.
    pub lost: f64,
    /// Condition number of the sum of the systems, estimated.
    pub condition: f64,
    /// `‖W R - C‖ / ‖C‖` for the sums.
    pub relative_residual: f64,
}

/// Puts adapters together by what they were solved on: `W = (Σ C_k)(Σ R_k)⁻¹` per map, with the systems
/// `R_k` of their statistics. `C_k = W_k R_k` for the deltas `W_k` as they are, refined or not; with
/// `anew`, `C_k` are the statistics' own, so that refinement is lost and nothing that the rank cut off.
///
/// This is the joint solve only for the lowest map: above it, the states that the statistics were taken
/// of had been changed by other patches. `rank` is that of each delta; without it the sum of the ranks.
///
/// # Errors
/// [`TransmuteError::File`] if the adapters are not of one model, maps and student context,
/// [`TransmuteError::Corpus`] if a corpus is in two of them, and what solving gives.
pub fn combine(
    parts: &[Kept],
    anew: bool,
    rank: Option<usize>,
    tell: &mut dyn FnMut(Target),
) -> Result<Combined, TransmuteError> {
    let Some((first, rest)) = parts.split_first() else {
        return Err(TransmuteError::field("adapters", "are none"));
    };
    for (at, part) in rest.iter().enumerate() {
        parts[..=at]
            .iter()
            .try_for_each(|other| part.check_fits(other))?;
    }
    let (mut patches, mut targets) = (Vec::new(), Vec::new());
    for (at, made) in first.made.targets.iter().enumerate() {
        let target = made.target;
        tell(target);
        let (mut weights, mut systems, mut ranks) = (Vec::new(), Vec::new(), 0);
        for part in parts {
            let statistics = part.statistics(target)?;
            let own = part.factors(target)?;
            ranks += own.as_ref().map_or(0, Factors::rank);
            weights.push(match (own, anew) {
                (Some(_), true) => {
                    let (facts, background) = (statistics.facts()?, statistics.background());
                    let solved =
                        solve(&facts, background, &options(part, &part.made.targets[at]))?.solved;
                    solved.weight().clone()
                }
                (Some(own), false) => own.product(),
                // The map was better without a patch for this corpus.
                (None, _) => {
                    let any = &statistics.background;
                    Matrix::zeros(any.outputs(), any.inputs())
                }
            });
            systems.push(system(part, &part.made.targets[at], &statistics)?);
        }
        if ranks == 0 {
            continue;
        }
        let finished = weights.iter().zip(&systems);
        let finished: Vec<Finished<'_>> = finished
            .map(|(weight, system)| Finished {
                weight,
                bias: None,
                system,
            })
            .collect();
        let merged = merge_finished(&finished)?;
        let reduced = merged.solved.reduce(rank.unwrap_or(ranks))?;
        let whole: f64 = reduced.gains.iter().sum();
        targets.push(CombinedTarget {
            target,
            rank: reduced.factors.rank(),
            // The sum of nothing is -0.
            lost: reduced.excess.max(0.0) / whole.max(f64::MIN_POSITIVE),
            condition: merged.condition,
            relative_residual: merged.relative_residual,
        });
        patches.push(reduced.factors.balanced()?.patch(target, None));
    }
    Ok(Combined {
        adapter: HostAdapter::new(patches)?,
        targets,
    })
}

/// The plain sum of adapters, their factors beside each other: what they do when all are registered at
/// once. Each undoes some of what the others need; see [`combine`] for what does not.
///
/// # Errors
/// [`TransmuteError::Field`] if there are none, or a patch is not linear, not of low rank or has a bias.
pub fn sum(adapters: &[HostAdapter]) -> Result<HostAdapter, TransmuteError> {
    let all = || adapters.iter().flat_map(HostAdapter::patches);
    let mut targets: Vec<Target> = all().map(|patch| patch.target).collect();
    targets.sort();
    targets.dedup();
    let patch = |target: Target| -> Result<HostPatch, TransmuteError> {
        let parts = all().filter(|patch| patch.target == target).map(factors);
        let parts = parts.collect::<Result<Vec<_>, _>>()?;
        Ok(Factors::stack(&parts)?.patch(target, None))
    };
    let patches = targets.into_iter().map(patch);
    Ok(HostAdapter::new(patches.collect::<Result<_, _>>()?)?)
}
