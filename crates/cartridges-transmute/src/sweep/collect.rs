//! The statistics of one place of a sweep.

use std::borrow::Cow;
use std::collections::BTreeMap;

use burn::tensor::Tensor;
use cartridges_model::adapter::{BatchAdapters, Target};

use super::material::Paired;
use crate::error::TransmuteError;
use crate::extract::{Stream, values};
use crate::merge::join;
use crate::rows::Rows;
use crate::statistics::{CorpusId, SiteStatistics};

/// The statistics of one map.
#[derive(Debug, Clone, PartialEq)]
pub struct TargetStatistics {
    /// The map.
    pub target: Target,
    /// One per corpus.
    pub corpora: Vec<SiteStatistics>,
    /// Of the background, without rows if there is none.
    pub background: SiteStatistics,
}

impl TargetStatistics {
    /// Those of all corpora together.
    ///
    /// # Errors
    /// As [`join`]'s.
    pub fn facts(&self) -> Result<Cow<'_, SiteStatistics>, TransmuteError> {
        match self.corpora.as_slice() {
            [one] => Ok(Cow::Borrowed(one)),
            several => Ok(Cow::Owned(join(several)?)),
        }
    }

    /// Those of the background, if it has rows.
    pub fn background(&self) -> Option<&SiteStatistics> {
        (self.background.tokens() > 0).then_some(&self.background)
    }
}

/// The identity of the background's rows in statistics.
fn background_id() -> CorpusId {
    CorpusId::of(b"background")
}

/// Of a batch of `student` at its place, at the rows that are looked at: what the map reads, and what its
/// output lacks of the states of `wanted`, which is behind it.
pub(super) fn lacks(
    student: &Stream<'_>,
    wanted: &Stream<'_>,
    batch: usize,
) -> (Tensor<2>, Tensor<2>) {
    let features = student.features(batch);
    let out = student.after(batch, features.clone(), BatchAdapters::NONE);
    let lacks = wanted.looked_at(batch) - student.rows(batch, out);
    (student.rows(batch, features), lacks)
}

/// What the map at the students' place reads and lacks. Teacher and base are behind it.
pub(super) fn collect(
    pairs: &Paired<'_>,
    base: &Stream<'_>,
    background: &Stream<'_>,
) -> Result<TargetStatistics, TransmuteError> {
    let target = pairs.student.target();
    let widths = target.widths(pairs.student.decoder().config());
    let Some((inputs, outputs)) = widths else {
        return Err(TransmuteError::field("the layer", "is not in the model"));
    };
    let new = || SiteStatistics::new(inputs, outputs, false);
    let add = |to: &mut SiteStatistics, corpus, rows: (Tensor<2>, Tensor<2>), weights| {
        let (inputs, targets) = (values(rows.0)?, values(rows.1)?);
        let rows = Rows {
            inputs: &inputs,
            targets: &targets,
            weights,
        };
        to.add_rows(corpus, rows)
    };
    let mut facts: BTreeMap<CorpusId, SiteStatistics> = BTreeMap::new();
    for (batch, corpus) in pairs.corpora.iter().enumerate() {
        let mine = match facts.entry(*corpus) {
            std::collections::btree_map::Entry::Occupied(entry) => entry.into_mut(),
            std::collections::btree_map::Entry::Vacant(entry) => entry.insert(new()?),
        };
        let rows = lacks(&pairs.student, &pairs.teacher, batch);
        add(mine, *corpus, rows, Some(pairs.weights[batch].as_slice()))?;
    }
    let mut preserved = new()?;
    for batch in 0..background.batches.len() {
        let rows = lacks(background, base, batch);
        add(&mut preserved, background_id(), rows, None)?;
    }
    Ok(TargetStatistics {
        target,
        corpora: facts.into_values().collect(),
        background: preserved,
    })
}
