//! Loss and gradient of one packed row behind one cartridge or several.

use burn::tensor::{Gradients, Int, Tensor, TensorData};
use cartridges_model::adapter::BatchAdapters;
use cartridges_model::cartridge::{Behind, Cartridge};
use cartridges_model::decoder::{Decoder, LayerBatch, ModelConfig, Packed};
use cartridges_ops::{AttentionLayout, TopkTargets, topk_cross_entropy};

use crate::before::Before;
use crate::config::Recompute;
use crate::example::Target;
use crate::packing::PackedRow;

/// The summed loss of a row and its gradient.
#[derive(Debug)]
pub struct Gradient {
    /// `Σ −w log p` over all targets, plus `Σ r log(r / q)` over the tail buckets.
    pub loss: f64,
    /// Gradient of `loss`, in the order of [`Cartridge::trainable`], cartridge after cartridge.
    pub tensors: Vec<Tensor<3>>,
}

/// What a row needs besides the weights.
struct Plan<'a> {
    decoder: &'a Decoder,
    ids: &'a [u32],
    positions: Vec<u32>,
    layout: AttentionLayout,
    /// Rows of the residual stream that predict a target.
    predicting: Tensor<1, Int>,
    targets: TopkTargets,
    /// `Σ r log r` of the tail buckets, which no gradient sees.
    constant: f64,
}

impl<'a> Plan<'a> {
    fn new(decoder: &'a Decoder, before: Before<'_>, row: &'a PackedRow) -> Self {
        let lengths = row.lengths.iter().enumerate();
        let positions = lengths
            .flat_map(|(example, len)| {
                let slots = before.slots(example) as u32;
                (0..*len as u32).map(move |i| slots + i)
            })
            .collect();
        // A target at position t is predicted by the row before it.
        let mut rows: Vec<i32> = Vec::new();
        let mut entries = Vec::with_capacity(row.targets.len());
        let mut rest: Vec<f32> = Vec::new();
        let mut constant = 0.0;
        for position in row.targets.chunk_by(|a, b| a.position == b.position) {
            let index = rows.len() as u32;
            rows.push(position[0].position as i32 - 1);
            let (others, named): (Vec<&Target>, Vec<&Target>) =
                position.iter().partition(|t| t.id == Target::REST);
            entries.extend(named.iter().map(|t| (index, t.id, t.weight)));
            rest.push(others.iter().map(|t| t.weight).sum());
            constant += others.iter().fold(0.0, |sum, bucket| {
                // All weights of a position add up to its example's, so that this is the rest's mass.
                let weight: f64 = position.iter().map(|t| f64::from(t.weight)).sum();
                let bucket = f64::from(bucket.weight);
                sum + bucket * (bucket / weight).ln()
            });
        }
        let count = rows.len();
        let vocab = decoder.config().vocab_size;
        let targets = TopkTargets::new(entries, count, vocab).and_then(|t| t.with_rest(rest));
        let targets = match targets {
            Ok(targets) => targets,
            Err(error) => unreachable!("examples were checked when they were made: {error}"),
        };
        Self {
            decoder,
            ids: &row.ids,
            positions,
            layout: before.layout(&row.lengths),
            predicting: Tensor::from_data(TensorData::new(rows, [count]), decoder.device()),
            targets,
            constant,
        }
    }

    fn batch(&self) -> Packed<'_> {
        Packed {
            ids: self.ids,
            positions: &self.positions,
            layout: &self.layout,
            adapters: BatchAdapters::NONE,
        }
    }

    /// The loss, and a scalar whose gradient with respect to the residual stream is the loss's.
    fn loss(&self, hidden: Tensor<2>) -> (f64, Tensor<1>) {
        let normed = self.decoder.final_norm(
            hidden.select(0, self.predicting.clone()),
            BatchAdapters::NONE,
        );
        let plain = normed.clone().inner();
        let (loss, gradient) = topk_cross_entropy(plain, self.decoder.head(), &self.targets);
        let objective = (normed * gradient.autodiff()).sum();
        (loss + self.constant, objective)
    }
}

/// The summed loss of a row behind a cartridge, as [`Gradient::loss`], without a gradient.
pub fn row_loss(decoder: &Decoder, cartridge: &Cartridge, row: &PackedRow) -> f64 {
    loss_among(
        decoder,
        &[cartridge],
        &vec![vec![0]; row.lengths.len()],
        row,
    )
}

/// The summed loss of a row of which example `i` sees those `cartridges` whose numbers are in `seen[i]`,
/// one after the other and without moving keys, as when they are served together: its first token stands
/// after the sum of their slots.
///
/// # Panics
/// If `seen` has fewer entries than the row has examples, or names a cartridge that is not there.
pub fn loss_among(
    decoder: &Decoder,
    cartridges: &[&Cartridge],
    seen: &[Vec<usize>],
    row: &PackedRow,
) -> f64 {
    let before = Before { cartridges, seen };
    let plan = Plan::new(decoder, before, row);
    let trainable = before.trainable();
    let layers = (0..before.num_layers())
        .map(|layer| before.layer_with(layer, |i| trainable[i].clone()))
        .collect();
    let hidden = decoder.hidden(plan.batch(), &mut Behind(layers));
    let normed = decoder.final_norm(
        hidden.select(0, plan.predicting.clone()),
        BatchAdapters::NONE,
    );
    topk_cross_entropy(normed, decoder.head(), &plan.targets).0 + plan.constant
}

/// Loss and gradient of a row with respect to the cartridge's trainable slots.
pub fn row_gradient(
    decoder: &Decoder,
    cartridge: &Cartridge,
    row: &PackedRow,
    recompute: Recompute,
) -> Gradient {
    let seen = vec![vec![0]; row.lengths.len()];
    gradient_among(decoder, &[cartridge], &seen, row, recompute)
}

/// Loss and gradient of a row behind several cartridges, with respect to the trainable slots of all of
/// them; see [`loss_among`].
///
/// # Panics
/// As [`loss_among`].
pub fn gradient_among(
    decoder: &Decoder,
    cartridges: &[&Cartridge],
    seen: &[Vec<usize>],
    row: &PackedRow,
    recompute: Recompute,
) -> Gradient {
    let before = Before { cartridges, seen };
    let plan = Plan::new(decoder, before, row);
    let layers = before.num_layers();
    let kept = match recompute {
        Recompute::Nothing => layers,
        Recompute::Layers => 0,
        Recompute::Auto => light_layers(decoder.config(), row.ids.len()).min(layers),
    };
    walk(&plan, before, layers - kept)
}

/// Of how many layers the backward pass over `tokens` rows needs no more memory than half of the model's
/// matrices in f32: per layer the inputs of both norms, queries, keys, values, what attention gives, and both
/// sides of the gate.
fn light_layers(shape: &ModelConfig, tokens: usize) -> usize {
    let heads = shape.head_dim * (2 * shape.num_heads + 2 * shape.num_kv_heads);
    let row = 2 * shape.hidden_size + heads + 2 * shape.intermediate_size;
    let budget = shape.matrix_values(shape.tie_word_embeddings) / 2;
    budget / (tokens * row).max(1)
}

/// The layers from `first_kept` on are kept for the way back. Of those below only the inputs are, and each is
/// run again with its own small graph, so that memory does not grow with their number beyond one
/// `[n, hidden]` tensor per layer.
fn walk(plan: &Plan<'_>, before: Before<'_>, first_kept: usize) -> Gradient {
    let decoder = plan.decoder;
    let config = decoder.config();
    let angles = decoder.angles(&plan.positions);
    let trainable = before.trainable();

    let run = |index: usize, x: Tensor<2>, (keys, values): (Tensor<3>, Tensor<3>)| {
        let batch = LayerBatch {
            layer: index,
            config,
            angles: &angles,
            layout: &plan.layout,
            adapters: BatchAdapters::NONE,
        };
        decoder.layers()[index].forward(x, batch, |_, k, v| {
            (
                Tensor::cat(vec![keys, k], 0),
                Tensor::cat(vec![values, v], 0),
            )
        })
    };
    // A layer's keys and values with those that are trained as leaves.
    let tracked = |index: usize, leaves: &mut Vec<(usize, Tensor<3>)>| {
        before.layer_with(index, |i| {
            let leaf = trainable[i].clone().autodiff().require_grad();
            leaves.push((i, leaf.clone()));
            leaf
        })
    };
    // The first layer's input is constant.
    let input = |index: usize, x: Tensor<2>| match index {
        0 => x,
        _ => x.autodiff().require_grad(),
    };
    let mut inputs = Vec::with_capacity(first_kept);
    let mut x = decoder.embed(plan.ids);
    for index in 0..first_kept {
        inputs.push(x.clone());
        x = run(index, x, before.layer_with(index, |i| trainable[i].clone()));
    }
    let mut leaves = Vec::new();
    let bottom = input(first_kept, x);
    let top = (first_kept..before.num_layers()).fold(bottom.clone(), |x, index| {
        run(index, x, tracked(index, &mut leaves))
    });
    let (loss, objective) = plan.loss(top);
    let mut tape = objective.backward();

    let mut tensors: Vec<Tensor<3>> = trainable.iter().map(Tensor::zeros_like).collect();
    let mut take = |leaves: Vec<(usize, Tensor<3>)>, tape: &mut Gradients| {
        for (i, leaf) in leaves {
            if let Some(gradient) = leaf.grad_remove(tape) {
                tensors[i] = gradient;
            }
        }
    };
    take(leaves, &mut tape);
    let mut flowing = match first_kept {
        0 => None,
        _ => bottom.grad_remove(&mut tape),
    };
    for (index, x) in inputs.into_iter().enumerate().rev() {
        let Some(gradient) = flowing.take() else {
            break;
        };
        let x = input(index, x);
        let mut leaves = Vec::new();
        let y = run(index, x.clone(), tracked(index, &mut leaves));
        let mut tape = (y * gradient.autodiff()).sum().backward();
        take(leaves, &mut tape);
        if index > 0 {
            flowing = x.grad_remove(&mut tape);
        }
    }
    Gradient { loss, tensors }
}

#[cfg(test)]
mod tests {
    use cartridges_model::hub::find_card;

    use super::light_layers;

    #[test]
    fn layers_are_kept_up_to_half_the_size_of_the_matrices() {
        let shape = &find_card("smollm2-135m").unwrap().unwrap().shape;
        // 134.5 million values in matrices; 5 760 of each token in each layer.
        assert_eq!(light_layers(shape, 512), 134_479_872 / 2 / (512 * 5760));
        assert_eq!(light_layers(shape, 512), 22);
        assert_eq!(light_layers(shape, 20_000), 0);
    }
}
