//! What a sweep works on.

use burn::tensor::{Device, Tensor};
use cartridges_model::decoder::Decoder;

use crate::error::TransmuteError;
use crate::extract::{Batch, Group, Pairs, Stream, Turns};
use crate::statistics::CorpusId;

/// The model and the tokens of a transmutation.
#[derive(Debug, Clone, Copy)]
pub struct Material<'a> {
    /// The frozen model.
    pub decoder: &'a Decoder,
    /// Keys and values that the student has before everything, per layer `[slots, kv_heads, head_dim]`; no
    /// layers for a student without a cartridge.
    pub past: &'a [(Tensor<3>, Tensor<3>)],
    /// Conversations to fit.
    pub fit: &'a Pairs,
    /// Conversations that decide whether a patch is taken.
    pub validation: &'a Pairs,
    /// Token ids of texts at which the model is to stay as it is. All their rows are looked at, the attention
    /// sinks at their beginnings too: a delta that is not held there can move every row behind.
    pub background: &'a [Vec<u32>],
}

/// Teacher and student of the same conversations, batch by batch with the same rows to look at.
pub(crate) struct Paired<'a> {
    pub teacher: Stream<'a>,
    pub student: Stream<'a>,
    /// The corpus of each batch.
    pub corpora: Vec<CorpusId>,
    /// What each row that is looked at counts, per batch.
    pub weights: Vec<Vec<f32>>,
}

impl<'a> Material<'a> {
    fn slots(&self) -> usize {
        self.past.first().map_or(0, |(keys, _)| keys.dims()[0])
    }

    /// Conversations as batches of at most so many tokens behind each prompt. Positions that are fitted
    /// count 1; with `questions` above 0 all others are looked at too and count that.
    pub(crate) fn paired(
        &self,
        pairs: &Pairs,
        batch_tokens: usize,
        questions: f32,
    ) -> Result<Paired<'a>, TransmuteError> {
        let device = self.decoder.device();
        let (mut teacher, mut student) = (Vec::new(), Vec::new());
        let (mut corpora, mut weights) = (Vec::new(), Vec::new());
        for group in &pairs.groups {
            for part in parts(group, batch_tokens) {
                let turns = &group.turns[part];
                let rows: Vec<Vec<usize>> = turns
                    .iter()
                    .map(|turns| match questions > 0.0 {
                        true => (turns.first..turns.ids.len()).collect(),
                        false => turns.fit.clone(),
                    })
                    .collect();
                let pairs = turns.iter().zip(&rows);
                let sequences: Vec<(&[u32], &[usize])> = pairs
                    .clone()
                    .map(|(turns, rows)| (turns.ids.as_slice(), rows.as_slice()))
                    .collect();
                let weight = |turns: &Turns, row| match turns.fit.binary_search(row) {
                    Ok(_) => 1.0,
                    Err(_) => questions,
                };
                let all = pairs.flat_map(|(turns, rows)| rows.iter().map(|r| weight(turns, r)));
                weights.push(all.collect());
                teacher.push(Batch::new(0, &group.teacher, &sequences, device)?);
                student.push(Batch::new(
                    self.slots(),
                    &group.student,
                    &sequences,
                    device,
                )?);
                corpora.push(turns[0].corpus);
            }
        }
        Ok(Paired {
            teacher: Stream::new(self.decoder, &[], teacher),
            student: Stream::new(self.decoder, self.past, student),
            corpora,
            weights,
        })
    }

    /// Background texts, all or some, behind the student's cartridge.
    pub(crate) fn background(
        &self,
        texts: &[impl AsRef<[u32]>],
        batch_tokens: usize,
    ) -> Result<Stream<'a>, TransmuteError> {
        let device: &Device = self.decoder.device();
        let texts = texts.iter().map(AsRef::as_ref);
        let rows: Vec<Vec<usize>> = texts.clone().map(|ids| (0..ids.len()).collect()).collect();
        let all: Vec<(&[u32], &[usize])> = texts.zip(rows.iter().map(Vec::as_slice)).collect();
        let lengths = all.iter().map(|(ids, _)| ids.len());
        let batches = cuts(lengths, batch_tokens)
            .into_iter()
            .map(|part| Batch::new(self.slots(), &[], &all[part], device))
            .collect::<Result<_, _>>()?;
        Ok(Stream::new(self.decoder, self.past, batches))
    }
}

/// The turns of each batch: of one corpus, with at most so many tokens if one alone has not more.
fn parts(group: &Group, batch_tokens: usize) -> Vec<std::ops::Range<usize>> {
    let mut all = Vec::new();
    let mut start = 0;
    for same in group.turns.chunk_by(|a, b| a.corpus == b.corpus) {
        let cuts = cuts(same.iter().map(|turns| turns.ids.len()), batch_tokens);
        all.extend(cuts.into_iter().map(|c| start + c.start..start + c.end));
        start += same.len();
    }
    all
}

/// Runs of items that have at most `most` together, if one alone has not more.
fn cuts(lengths: impl Iterator<Item = usize>, most: usize) -> Vec<std::ops::Range<usize>> {
    let mut all: Vec<std::ops::Range<usize>> = Vec::new();
    let mut sum = 0;
    for (at, length) in lengths.enumerate() {
        match all.last_mut() {
            Some(last) if sum + length <= most => {
                last.end = at + 1;
                sum += length;
            }
            _ => {
                all.push(at..at + 1);
                sum = length;
            }
        }
    }
    all
}
