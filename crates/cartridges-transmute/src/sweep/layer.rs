//! One layer of a sweep: its statistics.

use std::collections::BTreeMap;

use burn::tensor::Tensor;
use cartridges_model::adapter::BatchAdapters;
use cartridges_model::decoder::Decoder;

use super::material::Paired;
use super::run::LayerStatistics;
use crate::error::TransmuteError;
use crate::extract::{Stream, values};
use crate::rows::Rows;
use crate::statistics::{CorpusId, SiteStatistics};

/// The identity of the background's rows in statistics.
fn background_id() -> CorpusId {
    CorpusId::of(b"background")
}

/// What `down_proj` of the next layer reads and lacks. Moves teacher and base behind the layer; gives the
/// student's outputs without a patch.
pub(crate) fn collect(
    decoder: &Decoder,
    layer: usize,
    pairs: &mut Paired<'_>,
    weights: Option<&[Vec<f32>]>,
    base: &mut Stream<'_>,
    background: &Stream<'_>,
) -> Result<(LayerStatistics, [Vec<Tensor<2>>; 2]), TransmuteError> {
    let (inputs, outputs) = (
        decoder.config().intermediate_size,
        decoder.config().hidden_size,
    );
    let new = || SiteStatistics::new(inputs, outputs, false);
    pairs.teacher.advance(BatchAdapters::NONE);
    base.advance(BatchAdapters::NONE);
    let mut facts: BTreeMap<CorpusId, SiteStatistics> = BTreeMap::new();
    let add = |student: &Stream<'_>,
               wanted: &Stream<'_>,
               batch: usize,
               weights: Option<&[f32]>,
               corpus: CorpusId,
               to: &mut SiteStatistics|
     -> Result<Tensor<2>, TransmuteError> {
        let (residual, features) = student.parts(batch);
        let index = student.batches[batch].index.clone();
        let read = values(features.clone().select(0, index.clone()))?;
        let out = residual + decoder.layers()[layer].down(features);
        let lacks = wanted.looked_at(batch) - out.clone().select(0, index);
        let rows = Rows {
            inputs: &read,
            targets: &values(lacks)?,
            weights,
        };
        to.add_rows(corpus, rows)?;
        Ok(out)
    };
    let mut student = Vec::with_capacity(pairs.corpora.len());
    for (batch, corpus) in pairs.corpora.iter().enumerate() {
        let weights = weights.map(|weights| weights[batch].as_slice());
        let mine = match facts.entry(*corpus) {
            std::collections::btree_map::Entry::Occupied(entry) => entry.into_mut(),
            std::collections::btree_map::Entry::Vacant(entry) => entry.insert(new()?),
        };
        let out = add(
            &pairs.student,
            &pairs.teacher,
            batch,
            weights,
            *corpus,
            mine,
        )?;
        student.push(out);
    }
    let mut preserved = new()?;
    let mut patched = Vec::with_capacity(background.batches.len());
    for batch in 0..background.batches.len() {
        let out = add(
            background,
            base,
            batch,
            None,
            background_id(),
            &mut preserved,
        )?;
        patched.push(out);
    }
    let statistics = LayerStatistics {
        layer,
        corpora: facts.into_values().collect(),
        background: preserved,
    };
    Ok((statistics, [student, patched]))
}
