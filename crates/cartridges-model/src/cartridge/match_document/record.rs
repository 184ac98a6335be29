//! What matching needs of a chunk: keys and values of its tokens, and queries from behind it.

use burn::tensor::Tensor;
use cartridges_ops::{AttentionLayout, KeyRange, QueryRun};

use super::super::error::CartridgeError;
use super::MatchChunk;
use crate::adapter::BatchAdapters;
use crate::decoder::{Decoder, KvSource, Packed};

/// Rows that go through the model in one pass.
const PASS_ROWS: usize = 2048;

/// One layer's rows in plain memory.
#[derive(Default, Clone)]
pub(super) struct Recorded {
    /// `[T, kv_heads · d]`.
    pub(super) keys: Vec<f32>,
    /// `[T, kv_heads · d]`.
    pub(super) values: Vec<f32>,
    /// Thinned out, `[rows, heads · d]`.
    pub(super) queries: Vec<f32>,
}

/// Which query rows are kept: `keep` of `rows`, evenly over all chunks together.
pub(super) struct Thinning {
    keep: usize,
    rows: usize,
    seen: usize,
}

impl Thinning {
    pub(super) fn new(keep: usize, rows: usize) -> Self {
        Self {
            keep,
            rows,
            seen: 0,
        }
    }

    /// Those among the next `count` rows.
    fn next(&mut self, count: usize) -> Vec<usize> {
        let at = |row: usize| row * self.keep / self.rows;
        let kept = (0..count)
            .filter(|row| at(self.seen + row) != at(self.seen + row + 1))
            .collect();
        self.seen += count;
        kept
    }
}

/// Runs the chunk, then the query sequences behind it, and keeps what matching needs, per layer.
pub(super) fn record(
    decoder: &Decoder,
    chunk: &MatchChunk,
    thinning: &mut Thinning,
) -> Result<Vec<Recorded>, CartridgeError> {
    let length = chunk.document.len();
    let mut tap = Tap::default();
    let positions: Vec<u32> = (0..length as u32).collect();
    let layout = AttentionLayout::packed(0, &[length]);
    let batch = Packed {
        ids: &chunk.document,
        positions: &positions,
        layout: &layout,
        adapters: BatchAdapters::NONE,
    };
    decoder.hidden(batch, &mut tap);
    let past = std::mem::take(&mut tap.layers);
    let mut recorded = past
        .iter()
        .map(|(keys, values)| {
            Ok(Recorded {
                keys: read(keys)?,
                values: read(values)?,
                queries: Vec::new(),
            })
        })
        .collect::<Result<Vec<_>, CartridgeError>>()?;

    let mut from = 0;
    while from < chunk.queries.len() {
        let mut to = from;
        let mut count = 0;
        while to < chunk.queries.len()
            && (to == from || count + chunk.queries[to].len() <= PASS_ROWS)
        {
            count += chunk.queries[to].len();
            to += 1;
        }
        let group = &chunk.queries[from..to];
        from = to;
        if count == 0 {
            continue;
        }
        let kept = thinning.next(count);
        let ids: Vec<u32> = group.iter().flatten().copied().collect();
        let positions: Vec<u32> = group
            .iter()
            .flat_map(|ids| (length..length + ids.len()).map(|p| p as u32))
            .collect();
        let batch = Packed {
            ids: &ids,
            positions: &positions,
            layout: &behind(length, group, count)?,
            adapters: BatchAdapters::NONE,
        };
        let mut tap = Tap {
            past: past.clone(),
            ..Tap::default()
        };
        decoder.hidden(batch, &mut tap);
        for (layer, queries) in recorded.iter_mut().zip(&tap.queries) {
            let width = queries.dims()[1] * queries.dims()[2];
            let values = read(queries)?;
            for row in &kept {
                layer
                    .queries
                    .extend_from_slice(&values[row * width..(row + 1) * width]);
            }
        }
    }
    Ok(recorded)
}

/// Sequences that each see the document's rows `0 .. length` and themselves, keys behind it.
fn behind(
    length: usize,
    group: &[Vec<u32>],
    count: usize,
) -> Result<AttentionLayout, CartridgeError> {
    let mut start = 0;
    let runs = group
        .iter()
        .filter(|ids| !ids.is_empty())
        .map(|ids| {
            let range = |start, len, causal| KeyRange { start, len, causal };
            let run = QueryRun {
                start,
                len: ids.len(),
                keys: vec![
                    range(0, length, false),
                    range(length + start, ids.len(), true),
                ],
            };
            start += ids.len();
            run
        })
        .collect();
    AttentionLayout::new(runs, count, length + count)
        .map_err(|error| CartridgeError::shape("queries", error.to_string()))
}

/// Records keys and values of what goes by, or, behind a past, its queries.
#[derive(Default)]
struct Tap {
    past: Vec<(Tensor<3>, Tensor<3>)>,
    layers: Vec<(Tensor<3>, Tensor<3>)>,
    queries: Vec<Tensor<3>>,
}

impl KvSource for Tap {
    fn extend(&mut self, layer: usize, k: Tensor<3>, v: Tensor<3>) -> (Tensor<3>, Tensor<3>) {
        match self.past.get(layer) {
            Some((keys, values)) => (
                Tensor::cat(vec![keys.clone(), k], 0),
                Tensor::cat(vec![values.clone(), v], 0),
            ),
            None => {
                self.layers.push((k.clone(), v.clone()));
                (k, v)
            }
        }
    }

    fn observe(&mut self, _layer: usize, q: &Tensor<3>) {
        if !self.past.is_empty() {
            self.queries.push(q.clone());
        }
    }
}

fn read(tensor: &Tensor<3>) -> Result<Vec<f32>, CartridgeError> {
    tensor
        .clone()
        .into_data()
        .convert::<f32>()
        .try_to_vec::<f32>()
        .map_err(|_| CartridgeError::shape("keys", "could not be read from the device"))
}
