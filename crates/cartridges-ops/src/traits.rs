//! The extension trait: one line per operation, a portable body for each.

use std::sync::Arc;

use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Backend, backend_extension};
use burn::tensor::FloatDType;

use crate::layout::AttentionLayout;
use crate::packed::{self, PackedLayout};
use crate::portable;
use crate::targets::TopkTargets;

/// What a decoder needs beyond Burn's own operations.
///
/// `n` rows are packed tokens, `m` key rows; heads are contiguous inside a row. Backends may
/// override any body; each fast body is tested against the portable one.
#[backend_extension(
    Flex: cfg(feature = "cpu"),
    NdArray: cfg(feature = "ndarray"),
    Cube: cfg(any(feature = "wgpu", feature = "cuda")),
    Autodiff,
)]
pub trait DecoderOps: Backend {
    /// `x [n, in] · weightᵀ`, weight `[out, in]` as checkpoints store it, giving `[n, out]`.
    ///
    /// The weight may be bf16 beside an f32 `x`; `x` may then be rounded to bf16 too.
    fn project(x: FloatTensor<Self>, weight: FloatTensor<Self>) -> FloatTensor<Self> {
        portable::linear::<Self>(x, weight)
    }

    /// Gradient of [`DecoderOps::project`] for `x`: `grad [n, out] · weight`, giving `[n, in]`.
    fn project_grad(grad: FloatTensor<Self>, weight: FloatTensor<Self>) -> FloatTensor<Self> {
        portable::linear_grad::<Self>(grad, weight)
    }

    /// The values `[rows, width]` of packed rows: `words [rows, words of a row]` of 32 bits and
    /// `scales [rows, blocks]`.
    fn unpack(
        words: IntTensor<Self>,
        scales: FloatTensor<Self>,
        layout: PackedLayout,
        dtype: FloatDType,
    ) -> FloatTensor<Self> {
        packed::unpack::<Self>(words, scales, layout, dtype)
    }

    /// [`DecoderOps::project`] with packed weight rows: `x [n, width]`, giving `[n, rows]`.
    fn project_packed(
        x: FloatTensor<Self>,
        words: IntTensor<Self>,
        scales: FloatTensor<Self>,
        layout: PackedLayout,
    ) -> FloatTensor<Self> {
        packed::project::<Self>(x, words, scales, layout)
    }

    /// Gradient of [`DecoderOps::project_packed`] for `x`: `grad [n, rows]` to `[n, width]`.
    fn project_packed_grad(
        grad: FloatTensor<Self>,
        words: IntTensor<Self>,
        scales: FloatTensor<Self>,
        layout: PackedLayout,
    ) -> FloatTensor<Self> {
        packed::project_grad::<Self>(grad, words, scales, layout)
    }

    /// RMS norm over the last axis of `x [n, h]` times `gamma [h]`.
    fn rms_norm(x: FloatTensor<Self>, gamma: FloatTensor<Self>, eps: f64) -> FloatTensor<Self> {
        portable::rms_norm::<Self>(x, gamma, eps)
    }

    /// Gradient of [`DecoderOps::rms_norm`] for `x`, from the gradient `grad [n, h]` of its output.
    fn rms_norm_grad(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        eps: f64,
    ) -> FloatTensor<Self> {
        portable::rms_norm_grad::<Self>(x, gamma, grad, eps)
    }

    /// Rotates `x [n, heads, d]` by the angles whose `cos` and `sin` are `[n, d / 2]` (half-split
    /// pairs, as Hugging Face weights expect); `inverse` rotates back, which is also the gradient.
    fn rotary(
        x: FloatTensor<Self>,
        cos: FloatTensor<Self>,
        sin: FloatTensor<Self>,
        inverse: bool,
    ) -> FloatTensor<Self> {
        portable::rotary::<Self>(x, cos, sin, inverse)
    }

    /// `silu(gate) * up`, both `[n, f]`.
    fn swiglu(gate: FloatTensor<Self>, up: FloatTensor<Self>) -> FloatTensor<Self> {
        portable::swiglu::<Self>(gate, up)
    }

    /// Gradients of [`DecoderOps::swiglu`] for `gate` and `up`.
    fn swiglu_grad(
        gate: FloatTensor<Self>,
        up: FloatTensor<Self>,
        grad: FloatTensor<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        portable::swiglu_grad::<Self>(gate, up, grad)
    }

    /// Attention of `q [n, heads, d]` over `k, v [m, kv_heads, d]` where `layout` allows it, scaled
    /// by `1 / √d`. Gives the output `[n, heads, d]` and the log of each softmax sum `[n, heads]`.
    fn attention_forward(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        layout: AttentionLayout,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        portable::attention_forward::<Self>(q, k, v, layout)
    }

    /// Gradients of attention for `q`, `k` and `v`; probabilities are recomputed from the log-sums.
    fn attention_grad(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        out: FloatTensor<Self>,
        log_sum: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        layout: AttentionLayout,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        portable::attention_grad::<Self>(q, k, v, out, log_sum, grad, layout)
    }

    /// The output of [`DecoderOps::attention_forward`] alone; this is the differentiable one.
    fn attention(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        layout: AttentionLayout,
    ) -> FloatTensor<Self> {
        Self::attention_forward(q, k, v, layout).0
    }

    /// Writes `rows [r, heads, d]` over the rows `at` of `pool [m, heads, d]`, in place where nobody
    /// else holds the pool.
    fn write_rows(
        pool: FloatTensor<Self>,
        at: Arc<[usize]>,
        rows: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        portable::write_rows::<Self>(pool, at, rows)
    }

    /// Cross entropy of sparse targets from hidden states `[t, h]` and the head `[vocab, h]`: gives
    /// `Σ_j −w_j log_softmax(hidden · headᵀ)[row_j, id_j]` as `[1]` and its gradient `[t, h]`.
    fn topk_cross_entropy(
        hidden: FloatTensor<Self>,
        head: FloatTensor<Self>,
        targets: TopkTargets,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        portable::topk_cross_entropy::<Self>(hidden, head, targets)
    }

    /// [`DecoderOps::topk_cross_entropy`] from the logits `[t, vocab]`, and its gradient for them.
    fn cross_entropy_of_logits(
        logits: FloatTensor<Self>,
        targets: TopkTargets,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        portable::cross_entropy_of_logits::<Self>(logits, targets)
    }
}

#[cfg(feature = "cpu")]
impl DecoderOps for burn::backend::Flex {
    fn project(x: FloatTensor<Self>, weight: FloatTensor<Self>) -> FloatTensor<Self> {
        crate::cpu::linear(x, weight)
    }

    fn project_grad(grad: FloatTensor<Self>, weight: FloatTensor<Self>) -> FloatTensor<Self> {
        crate::cpu::linear_grad(grad, weight)
    }

    fn unpack(
        words: IntTensor<Self>,
        scales: FloatTensor<Self>,
        layout: PackedLayout,
        dtype: FloatDType,
    ) -> FloatTensor<Self> {
        crate::cpu::unpack(words, scales, layout, dtype)
    }

    fn project_packed(
        x: FloatTensor<Self>,
        words: IntTensor<Self>,
        scales: FloatTensor<Self>,
        layout: PackedLayout,
    ) -> FloatTensor<Self> {
        crate::cpu::project_packed(x, words, scales, layout)
    }

    fn project_packed_grad(
        grad: FloatTensor<Self>,
        words: IntTensor<Self>,
        scales: FloatTensor<Self>,
        layout: PackedLayout,
    ) -> FloatTensor<Self> {
        crate::cpu::project_packed_grad(grad, words, scales, layout)
    }

    fn rms_norm(x: FloatTensor<Self>, gamma: FloatTensor<Self>, eps: f64) -> FloatTensor<Self> {
        crate::cpu::rms_norm(x, gamma, eps)
    }

    fn rms_norm_grad(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        eps: f64,
    ) -> FloatTensor<Self> {
        crate::cpu::rms_norm_grad(x, gamma, grad, eps)
    }

    fn rotary(
        x: FloatTensor<Self>,
        cos: FloatTensor<Self>,
        sin: FloatTensor<Self>,
        inverse: bool,
    ) -> FloatTensor<Self> {
        crate::cpu::rotary(x, cos, sin, inverse)
    }

    fn swiglu(gate: FloatTensor<Self>, up: FloatTensor<Self>) -> FloatTensor<Self> {
        crate::cpu::swiglu(gate, up)
    }

    fn swiglu_grad(
        gate: FloatTensor<Self>,
        up: FloatTensor<Self>,
        grad: FloatTensor<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        crate::cpu::swiglu_grad(gate, up, grad)
    }

    fn attention_forward(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        layout: AttentionLayout,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        crate::cpu::attention_forward(q, k, v, layout)
    }

    fn attention_grad(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        out: FloatTensor<Self>,
        log_sum: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        layout: AttentionLayout,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        crate::cpu::attention_grad(q, k, v, out, log_sum, grad, layout)
    }

    fn write_rows(
        pool: FloatTensor<Self>,
        at: Arc<[usize]>,
        rows: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        crate::cpu::write_rows(pool, at, rows)
    }

    fn topk_cross_entropy(
        hidden: FloatTensor<Self>,
        head: FloatTensor<Self>,
        targets: TopkTargets,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        crate::cpu::topk_cross_entropy(hidden, head, targets)
    }

    fn cross_entropy_of_logits(
        logits: FloatTensor<Self>,
        targets: TopkTargets,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        crate::cpu::cross_entropy_of_logits(logits, targets)
    }
}

#[cfg(feature = "ndarray")]
#[allow(deprecated)] // the backend is kept for comparison until Burn drops it
impl DecoderOps for burn::backend::NdArray {}

#[cfg(any(feature = "wgpu", feature = "cuda"))]
impl DecoderOps for burn_cubecl::CubeBackend {
    fn project(x: FloatTensor<Self>, weight: FloatTensor<Self>) -> FloatTensor<Self> {
        crate::cube::project(x, weight)
    }

    fn project_grad(grad: FloatTensor<Self>, weight: FloatTensor<Self>) -> FloatTensor<Self> {
        crate::portable::linear_grad_as_weight::<Self>(grad, weight)
    }

    fn unpack(
        words: IntTensor<Self>,
        scales: FloatTensor<Self>,
        layout: PackedLayout,
        dtype: FloatDType,
    ) -> FloatTensor<Self> {
        crate::cube::unpack(words, scales, layout, dtype)
    }

    fn project_packed(
        x: FloatTensor<Self>,
        words: IntTensor<Self>,
        scales: FloatTensor<Self>,
        layout: PackedLayout,
    ) -> FloatTensor<Self> {
        crate::cube::project_packed(x, words, scales, layout)
    }

    fn rms_norm(x: FloatTensor<Self>, gamma: FloatTensor<Self>, eps: f64) -> FloatTensor<Self> {
        crate::cube::rms_norm(x, gamma, eps)
    }

    fn rms_norm_grad(
        x: FloatTensor<Self>,
        gamma: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        eps: f64,
    ) -> FloatTensor<Self> {
        crate::cube::rms_norm_grad(x, gamma, grad, eps)
    }

    fn rotary(
        x: FloatTensor<Self>,
        cos: FloatTensor<Self>,
        sin: FloatTensor<Self>,
        inverse: bool,
    ) -> FloatTensor<Self> {
        crate::cube::rotary(x, cos, sin, inverse)
    }

    fn swiglu(gate: FloatTensor<Self>, up: FloatTensor<Self>) -> FloatTensor<Self> {
        crate::cube::swiglu(gate, up)
    }

    fn swiglu_grad(
        gate: FloatTensor<Self>,
        up: FloatTensor<Self>,
        grad: FloatTensor<Self>,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        crate::cube::swiglu_grad(gate, up, grad)
    }

    fn attention_forward(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        layout: AttentionLayout,
    ) -> (FloatTensor<Self>, FloatTensor<Self>) {
        crate::cube::attention_forward(q, k, v, layout)
    }

    fn attention_grad(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        out: FloatTensor<Self>,
        log_sum: FloatTensor<Self>,
        grad: FloatTensor<Self>,
        layout: AttentionLayout,
    ) -> (FloatTensor<Self>, FloatTensor<Self>, FloatTensor<Self>) {
        crate::cube::attention_grad(q, k, v, out, log_sum, grad, layout)
    }

    fn write_rows(
        pool: FloatTensor<Self>,
        at: Arc<[usize]>,
        rows: FloatTensor<Self>,
    ) -> FloatTensor<Self> {
        crate::cube::write_rows(pool, at, rows)
    }
}
