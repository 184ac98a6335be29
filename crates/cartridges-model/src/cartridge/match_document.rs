//! A cartridge for a whole document in closed form: every head of every layer is matched to what
//! the document's own keys and values give to reference queries.

use burn::tensor::Tensor;
use cartridges_ops::{AttentionLayout, KeyRange, QueryRun};
use rayon::prelude::*;

use super::error::CartridgeError;
use super::host::{HostCartridge, HostLayer};
use super::matching::{HeadInput, MatchOptions, match_head, rotate_keys};
use crate::adapter::BatchAdapters;
use crate::decoder::{Decoder, KvSource, Packed};

/// What to match, and how closely to look.
#[derive(Debug, Clone)]
pub struct MatchDocument<'a> {
    /// The document as requests would see it: a rendered system message from position 0 on.
    pub document: &'a [u32],
    /// Token sequences that stand behind the document, each on its own: the document once more
    /// ("repeat word for word"), conversations about it. Their queries are the reference.
    pub queries: &'a [Vec<u32>],
    /// Slots of the cartridge.
    pub slots: usize,
    /// Slots that training will leave alone.
    pub frozen: usize,
    /// Most query vectors per key/value head; more are thinned out evenly.
    pub max_queries: usize,
    /// The closed form's own settings.
    pub options: MatchOptions,
}

/// A matched cartridge.
#[derive(Debug, Clone)]
pub struct DocumentMatch {
    /// The cartridge; requests start at position `slots`.
    pub cartridge: HostCartridge,
    /// Relative error of the attention output per layer, averaged over heads.
    pub output_errors: Vec<f64>,
}

/// Rows that go through the model in one pass.
const PASS_ROWS: usize = 2048;

/// Matches a cartridge of `slots` slots to a document; `progress` gets layers done and in all.
///
/// Keys are chosen from the document's, their mass and the values are fitted, and the keys are rotated
/// by `slots − document length` positions: rope is relative, so requests that start at position `slots`
/// see exactly what requests behind the whole document would have seen.
///
/// With `slots` at least the document's length the cartridge is the document, exact.
///
/// # Errors
/// If the document is shorter than two tokens, there are no slots or queries, an id is outside the
/// vocabulary, or a head cannot be solved.
pub fn match_document(
    decoder: &Decoder,
    task: &MatchDocument<'_>,
    progress: &(dyn Fn(usize, usize) + Sync),
) -> Result<DocumentMatch, CartridgeError> {
    if task.document.len() < 2 {
        return Err(CartridgeError::shape(
            "document",
            format!("has {} tokens, expected at least 2", task.document.len()),
        ));
    }
    if task.slots == 0 || task.frozen > task.slots {
        return Err(CartridgeError::shape(
            "slots",
            format!("are {} with {} frozen ones", task.slots, task.frozen),
        ));
    }
    let rows: usize = task.queries.iter().map(Vec::len).sum();
    if rows == 0 {
        return Err(CartridgeError::shape(
            "queries",
            "are none, expected at least one",
        ));
    }
    for ids in task
        .queries
        .iter()
        .map(Vec::as_slice)
        .chain([task.document])
    {
        if let Err(id) = decoder.check_ids(ids) {
            let problem = format!("{id} is outside the model's vocabulary");
            return Err(CartridgeError::shape("token id", problem));
        }
    }
    let config = decoder.config();
    let (length, slots) = (task.document.len(), task.slots.min(task.document.len()));
    let keep = (task.max_queries / config.group_size()).clamp(1, rows);
    let recorded = record(decoder, task, rows, keep)?;

    let (kv, dim, group) = (config.num_kv_heads, config.head_dim, config.group_size());
    let done = std::sync::atomic::AtomicUsize::new(0);
    let heads: Vec<_> = (0..config.num_layers * kv)
        .into_par_iter()
        .map(|index| {
            let (layer, head) = (index / kv, index % kv);
            let part = &recorded[layer];
            let keys = columns(&part.keys, kv * dim, head * dim, dim);
            let values = columns(&part.values, kv * dim, head * dim, dim);
            let queries = columns(
                &part.queries,
                kv * group * dim,
                head * group * dim,
                group * dim,
            );
            let input = HeadInput {
                head_dim: dim,
                keys: &keys,
                values: &values,
                queries: &queries,
                slots,
                weights: None,
            };
            let mut matched = match_head(&input, &task.options)
                .map_err(|error| head_error(layer, head, &error))?;
            let shift = slots as f64 - length as f64;
            rotate_keys(&mut matched.keys, decoder.rotary().frequencies(), shift)
                .map_err(|error| head_error(layer, head, &error))?;
            let count = 1 + done.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            progress(count / kv, config.num_layers);
            Ok(matched)
        })
        .collect::<Result<_, CartridgeError>>()?;

    let mut layers = Vec::with_capacity(config.num_layers);
    let mut output_errors = Vec::with_capacity(config.num_layers);
    for layer in heads.chunks_exact(kv) {
        layers.push(HostLayer {
            key: layer
                .iter()
                .flat_map(|head| head.keys.iter().copied())
                .collect(),
            value: layer
                .iter()
                .flat_map(|head| head.values.iter().copied())
                .collect(),
        });
        let sum: f64 = layer.iter().map(|head| head.output_error).sum();
        output_errors.push(sum / kv as f64);
    }
    Ok(DocumentMatch {
        cartridge: HostCartridge::new(kv, dim, slots, task.frozen, layers)?,
        output_errors,
    })
}

fn head_error(layer: usize, head: usize, error: &super::matching::MatchError) -> CartridgeError {
    CartridgeError::shape(
        "matching",
        format!("of layer {layer}, head {head} failed: {error}"),
    )
}

/// One layer's rows in plain memory.
#[derive(Default, Clone)]
struct Recorded {
    /// `[T, kv_heads · d]`.
    keys: Vec<f32>,
    /// `[T, kv_heads · d]`.
    values: Vec<f32>,
    /// Thinned out, `[rows, heads · d]`.
    queries: Vec<f32>,
}

/// The `width` columns from `from` on of a matrix with rows of `stride`.
fn columns(matrix: &[f32], stride: usize, from: usize, width: usize) -> Vec<f32> {
    matrix
        .chunks_exact(stride)
        .flat_map(|row| row[from..from + width].iter().copied())
        .collect()
}

/// Runs the document, then the query sequences behind it, and keeps what matching needs.
fn record(
    decoder: &Decoder,
    task: &MatchDocument<'_>,
    rows: usize,
    keep: usize,
) -> Result<Vec<Recorded>, CartridgeError> {
    let length = task.document.len();
    let mut tap = Tap::default();
    let positions: Vec<u32> = (0..length as u32).collect();
    let layout = AttentionLayout::packed(0, &[length]);
    let batch = Packed {
        ids: task.document,
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

    let mut seen = 0;
    let mut from = 0;
    while from < task.queries.len() {
        let mut to = from;
        let mut count = 0;
        while to < task.queries.len() && (to == from || count + task.queries[to].len() <= PASS_ROWS)
        {
            count += task.queries[to].len();
            to += 1;
        }
        let group = &task.queries[from..to];
        from = to;
        if count == 0 {
            continue;
        }
        // Evenly thinned over all passes together.
        let kept: Vec<usize> = (0..count)
            .filter(|row| (seen + row) * keep / rows != (seen + row + 1) * keep / rows)
            .collect();
        seen += count;
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

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;
    use crate::cartridge::{Behind, first_tokens};
    use crate::decoder::{ModelConfig, NoPast};
    use crate::weights::Weights;

    fn tiny() -> Decoder {
        let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/tiny-qwen2");
        let config = ModelConfig::from_file(&folder.join("config.json")).unwrap();
        let weights = Weights::open(&folder).unwrap();
        let (device, _) = "cpu"
            .parse::<cartridges_ops::DeviceChoice>()
            .unwrap()
            .open()
            .unwrap();
        Decoder::load(config, &weights, &device, &mut |_, _| {}).unwrap()
    }

    fn ids(count: usize, seed: u32) -> Vec<u32> {
        (0..count as u32)
            .map(|i| (i * i * 31 + i * 7 + seed * 101) % 512)
            .collect()
    }

    fn task<'a>(document: &'a [u32], queries: &'a [Vec<u32>], slots: usize) -> MatchDocument<'a> {
        MatchDocument {
            document,
            queries,
            slots,
            frozen: 1,
            max_queries: 4096,
            options: MatchOptions::default(),
        }
    }

    /// Hidden states of `ids` behind a cartridge.
    fn behind_cartridge(decoder: &Decoder, cartridge: &HostCartridge, ids: &[u32]) -> Vec<f32> {
        let positions: Vec<u32> = (0..ids.len())
            .map(|i| (cartridge.slots + i) as u32)
            .collect();
        let batch = Packed {
            ids,
            positions: &positions,
            layout: &AttentionLayout::packed(cartridge.slots, &[ids.len()]),
            adapters: BatchAdapters::NONE,
        };
        let hidden = decoder.hidden(batch, &mut Behind(cartridge.tensors(decoder.device())));
        hidden.into_data().try_to_vec::<f32>().unwrap()
    }

    /// Hidden states of `ids` behind the document itself.
    fn behind_document(decoder: &Decoder, document: &[u32], ids: &[u32]) -> Vec<f32> {
        let all = [document, ids].concat();
        let positions: Vec<u32> = (0..all.len() as u32).collect();
        let batch = Packed {
            ids: &all,
            positions: &positions,
            layout: &AttentionLayout::packed(0, &[all.len()]),
            adapters: BatchAdapters::NONE,
        };
        let hidden = decoder.hidden(batch, &mut NoPast);
        let width = hidden.dims()[1];
        let values = hidden.into_data().try_to_vec::<f32>().unwrap();
        values[document.len() * width..].to_vec()
    }

    fn distance(a: &[f32], b: &[f32]) -> f64 {
        let sum = |f: &dyn Fn(f32, f32) -> f32| -> f64 {
            a.iter()
                .zip(b)
                .map(|(a, b)| f64::from(f(*a, *b)).powi(2))
                .sum()
        };
        (sum(&|a, b| a - b) / sum(&|_, b| b)).sqrt()
    }

    #[test]
    fn a_slot_for_every_token_is_the_document() {
        let decoder = tiny();
        let (document, queries) = (ids(40, 1), vec![ids(30, 2)]);
        let matched = match_document(&decoder, &task(&document, &queries, 64), &|_, _| {}).unwrap();
        assert_eq!(matched.cartridge.slots, 40);
        let asked = ids(20, 3);
        let got = behind_cartridge(&decoder, &matched.cartridge, &asked);
        let want = behind_document(&decoder, &document, &asked);
        assert!(distance(&got, &want) < 1e-5);
    }

    #[test]
    fn few_slots_stand_in_for_the_document_where_its_first_tokens_do_not() {
        let decoder = tiny();
        let document = ids(160, 1);
        let queries: Vec<Vec<u32>> = (2..60).map(|seed| ids(40, seed)).collect();
        let matched = match_document(&decoder, &task(&document, &queries, 40), &|_, _| {}).unwrap();
        assert_eq!(matched.output_errors.len(), 3);
        let asked = ids(40, 77);
        let want = behind_document(&decoder, &document, &asked);
        let got = distance(
            &behind_cartridge(&decoder, &matched.cartridge, &asked),
            &want,
        );
        let first = first_tokens(&decoder, &document[..40], 1).unwrap();
        let plain = distance(&behind_cartridge(&decoder, &first, &asked), &want);
        assert!(got < 0.5 * plain, "{got} against {plain}");
    }
}
