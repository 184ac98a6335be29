//! An adapter with the statistics it was solved from.

use std::collections::BTreeSet;
use std::path::{Path, PathBuf};

use cartridges_model::adapter::{
    AdapterManifest, Delta, HostAdapter, HostPatch, Mode, Target, load_adapter,
};
use serde::{Deserialize, Serialize};

use super::folder::StatisticsFolder;
use crate::error::TransmuteError;
use crate::matrix::Matrix;
use crate::rank::Factors;
use crate::ridge::{RidgeOptions, RidgeReport, system_matrix};
use crate::statistics::CorpusId;
use crate::sweep::{SweepOptions, TargetStatistics};

/// What its manifest says of how it was made, as far as it is needed here.
#[derive(Debug, Clone, Deserialize)]
pub(super) struct Made {
    /// The corpora.
    data: BTreeSet<CorpusId>,
    student_context: String,
    pub(super) sweep: SweepOptions,
    pub(super) targets: Vec<MadeTarget>,
}

/// How one map was solved.
#[derive(Debug, Clone, Copy, Serialize, Deserialize)]
pub struct MadeTarget {
    /// The map.
    pub target: Target,
    /// The solve.
    pub ridge: RidgeReport,
    /// With what the patch is multiplied; none if it was not taken.
    pub scale: Option<f32>,
}

/// An adapter of a sweep whose statistics were kept.
#[derive(Debug, Clone)]
pub struct Kept {
    folder: PathBuf,
    /// Its deltas.
    pub adapter: HostAdapter,
    /// Its manifest.
    pub manifest: AdapterManifest,
    pub(super) made: Made,
}

impl Kept {
    /// Opens the adapter in `folder`. Statistics are read later, map by map.
    ///
    /// # Errors
    /// [`TransmuteError::File`] if it is no adapter of a sweep, has no statistics, or has patches at other
    /// places than those that statistics are kept of; what loading an adapter gives.
    pub fn open(folder: &Path) -> Result<Self, TransmuteError> {
        let wrong = |problem: String| TransmuteError::file(folder, problem);
        let (adapter, manifest) = load_adapter(folder)?;
        let made: Made = serde_json::from_value(manifest.made_by.clone()).map_err(|error| {
            wrong(format!(
                "does not say how it was solved ({error}); expected an adapter of `cartridges transmute`"
            ))
        })?;
        if !StatisticsFolder::of(folder).path().is_dir() {
            return Err(wrong(
                "has no statistics; make it with `cartridges transmute --keep-statistics`"
                    .to_owned(),
            ));
        }
        let known = |target: Target| made.targets.iter().any(|made| made.target == target);
        if let Some(patch) = adapter.patches().iter().find(|p| !known(p.target)) {
            let problem = format!("has a patch at {}, without statistics", patch.target);
            return Err(wrong(problem));
        }
        Ok(Self {
            folder: folder.to_owned(),
            adapter,
            manifest,
            made,
        })
    }

    /// Where it is.
    pub fn folder(&self) -> &Path {
        &self.folder
    }

    /// What is in it.
    pub fn corpora(&self) -> &BTreeSet<CorpusId> {
        &self.made.data
    }

    /// How many maps were solved.
    pub fn maps(&self) -> usize {
        self.made.targets.len()
    }

    /// The statistics of a map.
    ///
    /// # Errors
    /// [`TransmuteError::File`] if they are of other corpora than the manifest says, and
    /// [`StatisticsFolder::load`]'s.
    pub fn statistics(&self, target: Target) -> Result<TargetStatistics, TransmuteError> {
        let folder = StatisticsFolder::of(&self.folder);
        let statistics = folder.load(target)?;
        let corpora = statistics.corpora.iter().flat_map(|s| s.corpora().keys());
        let found: BTreeSet<CorpusId> = corpora.copied().collect();
        if found == self.made.data {
            return Ok(statistics);
        }
        let names = |ids: &BTreeSet<CorpusId>| -> Vec<String> {
            ids.iter().map(|id| id.to_string()).collect()
        };
        let problem = format!(
            "holds statistics of the corpora {:?} for {target}, adapter.json says {:?}",
            names(&found),
            names(&self.made.data)
        );
        Err(TransmuteError::file(folder.path(), problem))
    }

    /// That both can be put together: of one model, behind the same context, at the same maps.
    pub(super) fn check_fits(&self, other: &Self) -> Result<(), TransmuteError> {
        self.manifest.check(&other.manifest.base_model, false)?;
        let wrong = |what: &str, mine: String, theirs: String| {
            let problem = format!(
                "{what} {mine}, that in {} {theirs}; expected the same",
                other.folder.display()
            );
            Err(TransmuteError::file(&self.folder, problem))
        };
        let targets = |kept: &Self| -> Vec<String> {
            let made = kept.made.targets.iter();
            made.map(|made| made.target.to_string()).collect()
        };
        let (mine, theirs) = (targets(self), targets(other));
        if mine != theirs {
            let named = |targets: Vec<String>| targets.join(", ");
            return wrong("was solved at", named(mine), named(theirs));
        }
        let context = |kept: &Self| format!("'{}'", kept.made.student_context);
        let (mine, theirs) = (context(self), context(other));
        if mine != theirs {
            return wrong("was solved with --student-context", mine, theirs);
        }
        match self.made.data.intersection(&other.made.data).next() {
            None => Ok(()),
            Some(corpus) => Err(TransmuteError::Corpus {
                corpus: *corpus,
                problem: format!(
                    "is in {} and in {} and would count twice",
                    self.folder.display(),
                    other.folder.display()
                ),
            }),
        }
    }

    /// The delta of a map with its scale; none if the map has no patch.
    pub(super) fn factors(&self, target: Target) -> Result<Option<Factors>, TransmuteError> {
        let patch = self.adapter.patches().iter().find(|p| p.target == target);
        patch.map(factors).transpose()
    }
}

/// The factors of a patch, with its scale in `b`.
pub(super) fn factors(patch: &HostPatch) -> Result<Factors, TransmuteError> {
    let wrong = |problem: &str| {
        let problem = format!("at {} {problem}", patch.target);
        Err(TransmuteError::field("the patch", problem))
    };
    if patch.mode != Mode::Linear {
        return wrong("has mode post, which does not add up with others; expected linear");
    }
    if patch.bias.is_some() {
        return wrong("has a bias; expected an adapter that was solved without intercept");
    }
    let Delta::LowRank { rank, a, b } = &patch.delta else {
        return wrong("is not of low rank");
    };
    let scale = f64::from(patch.scale);
    let wide = |values: &[f32], factor: f64| -> Vec<f64> {
        values.iter().map(|x| factor * f64::from(*x)).collect()
    };
    Factors::new(
        Matrix::new(patch.outputs, *rank, wide(b, scale))?,
        Matrix::new(*rank, patch.inputs, wide(a, 1.0))?,
    )
}

/// The settings with which a map was solved: the ridge may be its own.
pub(super) fn options(kept: &Kept, made: &MadeTarget) -> RidgeOptions {
    RidgeOptions {
        ridge: made.ridge.ridge,
        ..kept.made.sweep.ridge
    }
}

/// `R [p, p]` of a map as it was solved.
pub(super) fn system(
    kept: &Kept,
    made: &MadeTarget,
    statistics: &TargetStatistics,
) -> Result<Matrix, TransmuteError> {
    let facts = statistics.facts()?;
    system_matrix(
        &facts,
        statistics.background(),
        &kept.made.sweep.ridge,
        &made.ridge,
    )
}
