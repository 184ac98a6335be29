//! A corpus taken out of an adapter of several.

use std::path::Path;

use cartridges_model::adapter::{HostAdapter, HostPatch, Target};

use super::adapter::{Kept, MadeTarget, options};
use super::folder::StatisticsFolder;
use crate::error::TransmuteError;
use crate::ridge::solve;
use crate::statistics::{CorpusId, SiteStatistics};
use crate::sweep::TargetStatistics;

/// An adapter without a corpus.
#[derive(Debug, Clone)]
pub struct Removed {
    /// The adapter.
    pub adapter: HostAdapter,
    /// How its maps were solved.
    pub targets: Vec<MadeTarget>,
}

/// Solves the deltas of an adapter of several corpora again without one of them, and saves the statistics
/// of the others beside `out`. Each delta has the rank and the scale that the old one has.
///
/// Nothing of the old deltas is in the new ones, so that refinement is lost. Above the lowest map they
/// are approximate: the statistics were taken of states that the old patches below had changed.
///
/// # Errors
/// [`TransmuteError::Corpus`] if the corpus is not in it, is the only one, or is not kept by itself; what
/// solving and writing give.
pub fn remove(
    kept: &Kept,
    corpus: CorpusId,
    out: &Path,
    tell: &mut dyn FnMut(Target),
) -> Result<Removed, TransmuteError> {
    let wrong = |problem: &str| {
        Err(TransmuteError::Corpus {
            corpus,
            problem: format!("{problem} {}", kept.folder().display()),
        })
    };
    if !kept.corpora().contains(&corpus) {
        return wrong("is not in");
    }
    if kept.corpora().len() == 1 {
        return wrong("is all that is in");
    }
    let mut patches: Vec<HostPatch> = Vec::new();
    let mut targets = Vec::new();
    for made in &kept.made.targets {
        tell(made.target);
        let TargetStatistics {
            target,
            corpora,
            background,
        } = kept.statistics(made.target)?;
        let has = |statistics: &SiteStatistics| statistics.corpora().contains_key(&corpus);
        let (taken, rest): (Vec<_>, Vec<_>) = corpora.into_iter().partition(has);
        if taken
            .iter()
            .any(|statistics| statistics.corpora().len() > 1)
        {
            return wrong("shares a file of statistics with others in");
        }
        let statistics = TargetStatistics {
            target,
            corpora: rest,
            background,
        };
        StatisticsFolder::of(out).save(&statistics)?;
        let old = kept.factors(target)?;
        let (Some(old), Some(scale)) = (old, made.scale) else {
            targets.push(*made);
            continue;
        };
        let (facts, background) = (statistics.facts()?, statistics.background());
        let solution = solve(&facts, background, &options(kept, made))?;
        targets.push(MadeTarget {
            ridge: solution.report,
            ..*made
        });
        let reduced = solution.solved.reduce(old.rank())?;
        patches.push(HostPatch {
            scale,
            ..reduced.factors.balanced()?.patch(target, None)
        });
    }
    Ok(Removed {
        adapter: HostAdapter::new(patches)?,
        targets,
    })
}
