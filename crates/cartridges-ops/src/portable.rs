//! Bodies in Burn's own primitives: right on every backend, and the yardstick of the fast ones.

use std::sync::Arc;

use burn::backend::tensor::FloatTensor;
use burn::backend::{Backend, TensorMetadata};
use burn::tensor::{Shape, Slice, TensorData};

use crate::layout::AttentionLayout;
use crate::targets::{REST_FLOOR, TopkTargets};

/// Stands for "not allowed" in additive masks; far below any real score, yet finite in f16's stead.
const MASKED: f32 = -1e30;

fn dims<B: Backend, const N: usize>(tensor: &FloatTensor<B>) -> [usize; N] {
    tensor.shape().dims()
}

pub fn linear<B: Backend>(x: FloatTensor<B>, weight: FloatTensor<B>) -> FloatTensor<B> {
    let weight = like::<B>(weight, &x);
    B::float_matmul(x, B::float_transpose(weight))
}

/// [`linear`] in the element type of the weight, for devices that multiply it faster: `x` is rounded to
/// it, and so is the result.
#[cfg(any(feature = "wgpu", feature = "cuda"))]
pub fn linear_as_weight<B: Backend>(x: FloatTensor<B>, weight: FloatTensor<B>) -> FloatTensor<B> {
    let dtype = x.dtype();
    let y = linear::<B>(like::<B>(x, &weight), weight);
    B::float_cast(y, dtype.into())
}

/// [`linear_grad`] in the element type of the weight.
#[cfg(any(feature = "wgpu", feature = "cuda"))]
pub fn linear_grad_as_weight<B: Backend>(
    grad: FloatTensor<B>,
    weight: FloatTensor<B>,
) -> FloatTensor<B> {
    let dtype = grad.dtype();
    let y = linear_grad::<B>(like::<B>(grad, &weight), weight);
    B::float_cast(y, dtype.into())
}

pub fn linear_grad<B: Backend>(grad: FloatTensor<B>, weight: FloatTensor<B>) -> FloatTensor<B> {
    let weight = like::<B>(weight, &grad);
    B::float_matmul(grad, weight)
}

/// The tensor in the element type of another.
fn like<B: Backend>(tensor: FloatTensor<B>, other: &FloatTensor<B>) -> FloatTensor<B> {
    match tensor.dtype() == other.dtype() {
        true => tensor,
        false => B::float_cast(tensor, other.dtype().into()),
    }
}

/// `1 / √(mean(x²) + eps)` per row, `[n, 1]`.
fn inverse_rms<B: Backend>(x: FloatTensor<B>, eps: f64) -> FloatTensor<B> {
    let square = B::float_mul(x.clone(), x);
    let mean = B::float_mean_dim(square, 1);
    B::float_recip(B::float_sqrt(B::float_add_scalar(mean, eps.into())))
}

pub fn rms_norm<B: Backend>(x: FloatTensor<B>, gamma: FloatTensor<B>, eps: f64) -> FloatTensor<B> {
    let [_, h] = dims::<B, 2>(&x);
    let scale = inverse_rms::<B>(x.clone(), eps);
    let gamma = B::float_reshape(gamma, Shape::from([1, h]));
    B::float_mul(B::float_mul(x, scale), gamma)
}

/// `dx = r·gγ − x · r³/h · Σ(gγ·x)`, with `r` the inverse RMS.
pub fn rms_norm_grad<B: Backend>(
    x: FloatTensor<B>,
    gamma: FloatTensor<B>,
    grad: FloatTensor<B>,
    eps: f64,
) -> FloatTensor<B> {
    let [_, h] = dims::<B, 2>(&x);
    let r = inverse_rms::<B>(x.clone(), eps);
    let gamma = B::float_reshape(gamma, Shape::from([1, h]));
    let scaled = B::float_mul(grad, gamma);
    let dot = B::float_sum_dim(B::float_mul(scaled.clone(), x.clone()), 1);
    let r3 = B::float_mul(B::float_mul(r.clone(), r.clone()), r.clone());
    let along = B::float_mul_scalar(B::float_mul(dot, r3), (1.0 / h as f64).into());
    B::float_sub(B::float_mul(scaled, r), B::float_mul(x, along))
}

pub fn rotary<B: Backend>(
    x: FloatTensor<B>,
    cos: FloatTensor<B>,
    sin: FloatTensor<B>,
    inverse: bool,
) -> FloatTensor<B> {
    let [n, heads, d] = dims::<B, 3>(&x);
    let half = d / 2;
    let angle = |t| B::float_reshape(t, Shape::from([n, 1, half]));
    let (cos, sin) = (angle(cos), angle(sin));
    let sin = if inverse { B::float_neg(sin) } else { sin };
    let part = |from: usize| {
        let slices = [
            Slice::from(0..n),
            Slice::from(0..heads),
            Slice::from(from..from + half),
        ];
        B::float_slice(x.clone(), &slices)
    };
    let (a, b) = (part(0), part(half));
    let first = B::float_sub(
        B::float_mul(a.clone(), cos.clone()),
        B::float_mul(b.clone(), sin.clone()),
    );
    let second = B::float_add(B::float_mul(b, cos), B::float_mul(a, sin));
    B::float_cat(vec![first, second], 2)
}

/// `1 / (1 + e^−x)`.
fn sigmoid<B: Backend>(x: FloatTensor<B>) -> FloatTensor<B> {
    let exp = B::float_exp(B::float_neg(x));
    B::float_recip(B::float_add_scalar(exp, 1f64.into()))
}

pub fn swiglu<B: Backend>(gate: FloatTensor<B>, up: FloatTensor<B>) -> FloatTensor<B> {
    let silu = B::float_mul(gate.clone(), sigmoid::<B>(gate));
    B::float_mul(silu, up)
}

/// `d gate = g·up·(σ + gate·σ·(1 − σ))`, `d up = g·gate·σ`.
pub fn swiglu_grad<B: Backend>(
    gate: FloatTensor<B>,
    up: FloatTensor<B>,
    grad: FloatTensor<B>,
) -> (FloatTensor<B>, FloatTensor<B>) {
    let s = sigmoid::<B>(gate.clone());
    let silu = B::float_mul(gate, s.clone());
    let one_minus = B::float_add_scalar(B::float_neg(s.clone()), 1f64.into());
    let slope = B::float_add(s, B::float_mul(silu.clone(), one_minus));
    let d_gate = B::float_mul(B::float_mul(grad.clone(), up), slope);
    (d_gate, B::float_mul(grad, silu))
}

/// The heads of one key/value head stacked on the row axis: `[n, heads, d] → [kv, n · group, d]`.
fn stack_heads<B: Backend>(q: FloatTensor<B>, kv: usize) -> FloatTensor<B> {
    let [n, heads, d] = dims::<B, 3>(&q);
    let split = B::float_reshape(q, Shape::from([n, kv, heads / kv, d]));
    let swapped = B::float_permute(split, &[1, 0, 2, 3]);
    B::float_reshape(swapped, Shape::from([kv, n * heads / kv, d]))
}

/// Undoes [`stack_heads`].
fn unstack_heads<B: Backend>(x: FloatTensor<B>, n: usize) -> FloatTensor<B> {
    let [kv, rows, d] = dims::<B, 3>(&x);
    let group = rows / n;
    let split = B::float_reshape(x, Shape::from([kv, n, group, d]));
    let swapped = B::float_permute(split, &[1, 0, 2, 3]);
    B::float_reshape(swapped, Shape::from([n, kv * group, d]))
}

/// The layout as an additive mask `[1, n, 1, m]`.
fn mask<B: Backend>(layout: &AttentionLayout, like: &FloatTensor<B>) -> FloatTensor<B> {
    let (n, m) = (layout.num_queries(), layout.num_keys());
    let mut values = vec![MASKED; n * m];
    for run in layout.runs() {
        for query in run.start..run.start + run.len {
            for range in &run.keys {
                let seen = AttentionLayout::visible(run, range, query);
                let from = query * m + range.start;
                values[from..from + seen].fill(0.0);
            }
        }
    }
    let data = TensorData::new(values, [1, n, 1, m]).convert_dtype(like.dtype());
    B::float_from_data(data, &like.device())
}

/// Masked, scaled scores `[kv, n · group, m]`.
fn scores<B: Backend>(
    q: FloatTensor<B>,
    k: FloatTensor<B>,
    layout: &AttentionLayout,
    group: usize,
) -> FloatTensor<B> {
    let [kv, rows, d] = dims::<B, 3>(&q);
    let fits = |kept: &FloatTensor<B>| kept.dtype() == q.dtype() && kept.device() == q.device();
    let mask = layout.cached(fits, || mask::<B>(layout, &q));
    let raw = B::float_matmul(q, B::float_permute(k, &[1, 2, 0]));
    let scaled = B::float_mul_scalar(raw, (1.0 / (d as f64).sqrt()).into());
    let m = layout.num_keys();
    let split = B::float_reshape(scaled, Shape::from([kv, rows / group, group, m]));
    let masked = B::float_add(split, mask);
    B::float_reshape(masked, Shape::from([kv, rows, m]))
}

pub fn attention_forward<B: Backend>(
    q: FloatTensor<B>,
    k: FloatTensor<B>,
    v: FloatTensor<B>,
    layout: AttentionLayout,
) -> (FloatTensor<B>, FloatTensor<B>) {
    let [n, heads, _] = dims::<B, 3>(&q);
    let [_, kv, _] = dims::<B, 3>(&k);
    let s = scores::<B>(stack_heads::<B>(q, kv), k, &layout, heads / kv);
    let max = B::float_max_dim(s.clone(), 2);
    let exp = B::float_exp(B::float_sub(s, max.clone()));
    let sum = B::float_sum_dim(exp.clone(), 2);
    let p = B::float_div(exp, sum.clone());
    let out = B::float_matmul(p, B::float_permute(v, &[1, 0, 2]));
    let log_sum = B::float_add(B::float_log(sum), max);
    let log_sum = unstack_heads::<B>(log_sum, n);
    (
        unstack_heads::<B>(out, n),
        B::float_reshape(log_sum, Shape::from([n, heads])),
    )
}

pub fn attention_grad<B: Backend>(
    q: FloatTensor<B>,
    k: FloatTensor<B>,
    v: FloatTensor<B>,
    out: FloatTensor<B>,
    log_sum: FloatTensor<B>,
    grad: FloatTensor<B>,
    layout: AttentionLayout,
) -> (FloatTensor<B>, FloatTensor<B>, FloatTensor<B>) {
    let [n, heads, d] = dims::<B, 3>(&q);
    let [_, kv, _] = dims::<B, 3>(&k);
    let scale = 1.0 / (d as f64).sqrt();
    let log_sum = B::float_reshape(log_sum, Shape::from([n, heads, 1]));
    let log_sum = stack_heads::<B>(log_sum, kv);
    let q = stack_heads::<B>(q, kv);
    let s = scores::<B>(q.clone(), k.clone(), &layout, heads / kv);
    let p = B::float_exp(B::float_sub(s, log_sum));
    let delta = B::float_sum_dim(B::float_mul(out, grad.clone()), 2);
    let delta = stack_heads::<B>(delta, kv);
    let grad = stack_heads::<B>(grad, kv);
    let dv = B::float_matmul(B::float_transpose(p.clone()), grad.clone());
    let dp = B::float_matmul(grad, B::float_permute(v, &[1, 2, 0]));
    let ds = B::float_mul(p, B::float_sub(dp, delta));
    let ds = B::float_mul_scalar(ds, scale.into());
    let dq = B::float_matmul(ds.clone(), B::float_permute(k, &[1, 0, 2]));
    let dk = B::float_matmul(B::float_transpose(ds), q);
    (
        unstack_heads::<B>(dq, n),
        B::float_permute(dk, &[1, 0, 2]),
        B::float_permute(dv, &[1, 0, 2]),
    )
}

pub fn write_rows<B: Backend>(
    pool: FloatTensor<B>,
    at: Arc<[usize]>,
    rows: FloatTensor<B>,
) -> FloatTensor<B> {
    let [_, heads, d] = dims::<B, 3>(&rows);
    let whole = |from: usize, len: usize| {
        [
            Slice::from(from..from + len),
            Slice::from(0..heads),
            Slice::from(0..d),
        ]
    };
    let mut pool = pool;
    let mut from = 0;
    // Neighbouring targets are written together.
    for run in at.chunk_by(|a, b| a + 1 == *b) {
        let part = B::float_slice(rows.clone(), &whole(from, run.len()));
        pool = B::float_slice_assign(pool, &whole(run[0], run.len()), part);
        from += run.len();
    }
    pool
}

pub fn topk_cross_entropy<B: Backend>(
    hidden: FloatTensor<B>,
    head: FloatTensor<B>,
    targets: TopkTargets,
) -> (FloatTensor<B>, FloatTensor<B>) {
    let logits = linear::<B>(hidden, head.clone());
    let (loss, grad) = cross_entropy_of_logits::<B>(logits, targets);
    (loss, linear_grad::<B>(grad, head))
}

pub fn cross_entropy_of_logits<B: Backend>(
    logits: FloatTensor<B>,
    targets: TopkTargets,
) -> (FloatTensor<B>, FloatTensor<B>) {
    let [rows, vocab] = dims::<B, 2>(&logits);
    let mut dense = vec![0f32; rows * vocab];
    let mut mass = vec![0f32; rows];
    for &(row, id, weight) in targets.entries() {
        dense[row as usize * vocab + id as usize] += weight;
        mass[row as usize] += weight;
    }
    let (device, dtype) = (logits.device(), logits.dtype());
    let upload = |values: Vec<f32>, columns: usize| {
        let data = TensorData::new(values, [rows, columns]).convert_dtype(dtype);
        B::float_from_data(data, &device)
    };
    let rest = targets.rest().map(|weights| {
        let mut masked = vec![0f32; rows * vocab];
        for &(row, id, _) in targets.entries() {
            masked[row as usize * vocab + id as usize] = MASKED;
        }
        (upload(masked, vocab), upload(weights.to_vec(), 1))
    });
    let (dense, mass) = (upload(dense, vocab), upload(mass, 1));
    let max = B::float_max_dim(logits.clone(), 1);
    let exp = B::float_exp(B::float_sub(logits.clone(), max.clone()));
    let sum = B::float_sum_dim(exp.clone(), 1);
    let log_sum = B::float_add(B::float_log(sum.clone()), max.clone());
    let log_probs = B::float_sub(logits.clone(), log_sum.clone());
    let loss = B::float_neg(B::float_sum(B::float_mul(dense.clone(), log_probs)));
    let softmax = B::float_div(exp, sum);
    let expected = B::float_mul(softmax.clone(), mass);
    let grad = B::float_sub(expected, dense);
    let (loss, grad) = match rest {
        None => (loss, grad),
        Some((masked, weight)) => {
            let others = B::float_add(logits, masked);
            let (rest_loss, rest_grad) = tail_bucket::<B>(others, softmax, log_sum, weight);
            (B::float_add(loss, rest_loss), B::float_add(grad, rest_grad))
        }
    };
    (B::float_reshape(loss, Shape::from([1])), grad)
}

/// `Σ_rows −weight · log q` with `q` the mass of `others`, the logits with all candidates masked,
/// and its gradient for the logits: `weight · (softmax − softmax over the others)`.
fn tail_bucket<B: Backend>(
    others: FloatTensor<B>,
    softmax: FloatTensor<B>,
    log_sum: FloatTensor<B>,
    weight: FloatTensor<B>,
) -> (FloatTensor<B>, FloatTensor<B>) {
    let max = B::float_max_dim(others.clone(), 1);
    let exp = B::float_exp(B::float_sub(others, max.clone()));
    let sum = B::float_sum_dim(exp.clone(), 1);
    let log_rest = B::float_sub(B::float_add(B::float_log(sum.clone()), max), log_sum);
    let floor = REST_FLOOR.ln();
    let log_rest = B::float_clamp_min(log_rest, floor.into());
    let loss = B::float_neg(B::float_sum(B::float_mul(weight.clone(), log_rest.clone())));
    // 1 above the floor, 0 on it.
    let above = B::float_sign(B::float_add_scalar(log_rest, (-floor).into()));
    let above = B::float_clamp_min(above, 0f64.into());
    let slope = B::float_sub(softmax, B::float_div(exp, sum));
    let grad = B::float_mul(slope, B::float_mul(weight, above));
    (loss, grad)
}
