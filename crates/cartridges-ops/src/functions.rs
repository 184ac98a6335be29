//! The operations on plain tensors; the device of the arguments picks the body.

use std::sync::Arc;

use burn::backend::Dispatch;
use burn::tensor::Tensor;

use crate::layout::AttentionLayout;
use crate::matrix::Matrix;
use crate::targets::TopkTargets;
use crate::traits::DecoderOps;

/// `x [n, in] · weightᵀ` with `weight [out, in]`, giving `[n, out]`.
pub fn linear(x: Tensor<2>, weight: &Tensor<2>) -> Tensor<2> {
    Tensor::from_dispatch(Dispatch::project(
        x.into_dispatch(),
        weight.clone().into_dispatch(),
    ))
}

/// RMS norm over the last axis of `x [n, h]`, times `gamma [h]`. Backward keeps `x` only.
pub fn rms_norm(x: Tensor<2>, gamma: &Tensor<1>, eps: f64) -> Tensor<2> {
    Tensor::from_dispatch(Dispatch::rms_norm(
        x.into_dispatch(),
        gamma.clone().into_dispatch(),
        eps,
    ))
}

/// Rotates `x [n, heads, d]` by angles given as `cos` and `sin`, both `[n, d / 2]`, in half-split
/// pairs: `(x₁, x₂) → (x₁ cos − x₂ sin, x₂ cos + x₁ sin)`. Backward keeps the angles only.
pub fn rotary(x: Tensor<3>, cos: &Tensor<2>, sin: &Tensor<2>) -> Tensor<3> {
    Tensor::from_dispatch(Dispatch::rotary(
        x.into_dispatch(),
        cos.clone().into_dispatch(),
        sin.clone().into_dispatch(),
        false,
    ))
}

/// `silu(gate) * up`, all `[n, f]`. Backward keeps both arguments.
pub fn swiglu(gate: Tensor<2>, up: Tensor<2>) -> Tensor<2> {
    Tensor::from_dispatch(Dispatch::swiglu(gate.into_dispatch(), up.into_dispatch()))
}

/// Attention of `q [n, heads, d]` over `k, v [m, kv_heads, d]`, scaled by `1 / √d`, where `layout`
/// allows it; `heads` is a multiple of `kv_heads`. Gives `[n, heads, d]`.
///
/// No pair that the layout forbids is computed on the CPU. Backward keeps `q`, `k`, `v`, the output
/// and one number per row and head, and recomputes the probabilities.
pub fn prefix_attention(
    q: Tensor<3>,
    k: Tensor<3>,
    v: Tensor<3>,
    layout: &AttentionLayout,
) -> Tensor<3> {
    Tensor::from_dispatch(Dispatch::attention(
        q.into_dispatch(),
        k.into_dispatch(),
        v.into_dispatch(),
        layout.clone(),
    ))
}

/// Writes `rows [r, heads, d]` over the rows `at` (one per new row) of `pool [m, heads, d]`. The pool
/// is changed in place when this is its only owner.
pub fn write_rows(pool: Tensor<3>, at: &Arc<[usize]>, rows: Tensor<3>) -> Tensor<3> {
    Tensor::from_dispatch(Dispatch::write_rows(
        pool.into_dispatch(),
        at.clone(),
        rows.into_dispatch(),
    ))
}

/// Rows of logits that are alive at a time in [`topk_cross_entropy`].
const CROSS_ENTROPY_CHUNK: usize = 128;

/// Sparse cross entropy straight from hidden states, never holding more than one chunk of logits.
///
/// `hidden [t, h]` must not be tracked by autodiff; the head is `[vocab, h]`. Gives the sum
/// `Σ_j −w_j log_softmax(hidden · headᵀ)[row_j, id_j]` and its gradient with respect to `hidden`.
///
/// A row with a tail bucket ([`TopkTargets::with_rest`]) of weight `r` adds `−r log q`, where `q` is
/// the softmax's mass on all tokens that are no candidates of the row: `1 − Σ_candidates softmax`,
/// summed over the others themselves so that nothing cancels. Where `q` is below [`REST_FLOOR`], the
/// floor stands for it and the term has no gradient.
///
/// [`REST_FLOOR`]: crate::REST_FLOOR
pub fn topk_cross_entropy(
    hidden: Tensor<2>,
    head: &Matrix,
    targets: &TopkTargets,
) -> (f64, Tensor<2>) {
    let [rows, _] = hidden.dims();
    assert_eq!(rows, targets.num_rows(), "one hidden row per target row");
    let mut sum = 0.0;
    let mut grads = Vec::with_capacity(rows.div_ceil(CROSS_ENTROPY_CHUNK));
    for start in (0..rows).step_by(CROSS_ENTROPY_CHUNK) {
        let len = CROSS_ENTROPY_CHUNK.min(rows - start);
        let hidden = hidden.clone().narrow(0, start, len);
        let targets = targets.slice(start, len);
        let (loss, grad) = match head {
            Matrix::Dense(head) => Dispatch::topk_cross_entropy(
                hidden.into_dispatch(),
                head.clone().into_dispatch(),
                targets,
            ),
            head => {
                let logits = head.project(hidden).into_dispatch();
                let (loss, grad) = Dispatch::cross_entropy_of_logits(logits, targets);
                let grad = head.project_grad(Tensor::from_dispatch(grad));
                (loss, grad.into_dispatch())
            }
        };
        sum += Tensor::<1>::from_dispatch(loss).into_scalar::<f32>() as f64;
        grads.push(Tensor::<2>::from_dispatch(grad));
    }
    (sum, Tensor::cat(grads, 0))
}
