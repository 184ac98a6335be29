//! Hand-written gradients: what each operation keeps for its backward pass, and nothing else.

use burn::backend::autodiff::checkpoint::base::Checkpointer;
use burn::backend::autodiff::checkpoint::strategy::CheckpointStrategy;
use burn::backend::autodiff::grads::Gradients;
use burn::backend::autodiff::ops::{Backward, Ops, OpsKind, unary};
use burn::backend::tensor::{FloatTensor, IntTensor};
use burn::backend::{Autodiff, Backend};

use crate::layout::AttentionLayout;
use crate::packed::{self, PackedLayout};
use crate::portable;
use crate::traits::DecoderOps;

impl<B: Backend + DecoderOps, C: CheckpointStrategy> DecoderOps for Autodiff<B, C> {
    fn project(x: FloatTensor<Self>, weight: FloatTensor<Self>) -> FloatTensor<Self> {
        if weight.is_tracked() {
            return portable::linear::<Self>(x, weight);
        }
        let weight = weight.into_primitive();
        match LinearBackward
            .prepare::<C>([x.node()])
            .compute_bound()
            .stateful()
        {
            OpsKind::Tracked(prep) => {
                prep.finish(weight.clone(), B::project(x.into_primitive(), weight))
            }
            OpsKind::UnTracked(prep) => prep.finish(B::project(x.into_primitive(), weight)),
        }
    }

    fn project_packed(
        x: FloatTensor<Self>,
        words: IntTensor<Self>,
        scales: FloatTensor<Self>,
        layout: PackedLayout,
    ) -> FloatTensor<Self> {
        if scales.is_tracked() {
            return packed::project::<Self>(x, words, scales, layout);
        }
        let scales = scales.into_primitive();
        match PackedLinearBackward
            .prepare::<C>([x.node()])
            .compute_bound()
            .stateful()
        {
            OpsKind::Tracked(prep) => {
                let state = (words.clone(), scales.clone(), layout);
                let out = B::project_packed(x.into_primitive(), words, scales, layout);
                prep.finish(state, out)
            }
            OpsKind::UnTracked(prep) => {
                prep.finish(B::project_packed(x.into_primitive(), words, scales, layout))
            }
        }
    }

    fn rms_norm(x: FloatTensor<Self>, gamma: FloatTensor<Self>, eps: f64) -> FloatTensor<Self> {
        if gamma.is_tracked() {
            return portable::rms_norm::<Self>(x, gamma, eps);
        }
        let gamma = gamma.into_primitive();
        match RmsNormBackward
            .prepare::<C>([x.node()])
            .compute_bound()
            .stateful()
        {
            OpsKind::Tracked(prep) => {
                let x = x.into_primitive();
                let out = B::rms_norm(x.clone(), gamma.clone(), eps);
                prep.finish((x, gamma, eps), out)
            }
            OpsKind::UnTracked(prep) => prep.finish(B::rms_norm(x.into_primitive(), gamma, eps)),
        }
    }

    fn rotary(
        x: FloatTensor<Self>,
        cos: FloatTensor<Self>,
        sin: FloatTensor<Self>,
        inverse: bool,
    ) -> FloatTensor<Self> {
        let (cos, sin) = (cos.into_primitive(), sin.into_primitive());
        match RotaryBackward
            .prepare::<C>([x.node()])
            .compute_bound()
            .stateful()
        {
            OpsKind::Tracked(prep) => {
                let out = B::rotary(x.into_primitive(), cos.clone(), sin.clone(), inverse);
                prep.finish((cos, sin, inverse), out)
            }
            OpsKind::UnTracked(prep) => {
                prep.finish(B::rotary(x.into_primitive(), cos, sin, inverse))
            }
        }
    }

    fn swiglu(gate: FloatTensor<Self>, up: FloatTensor<Self>) -> FloatTensor<Self> {
        match SwigluBackward
            .prepare::<C>([gate.node(), up.node()])
            .compute_bound()
            .stateful()
        {
            OpsKind::Tracked(prep) => {
                let (gate, up) = (gate.into_primitive(), up.into_primitive());
                let out = B::swiglu(gate.clone(), up.clone());
                prep.finish((gate, up), out)
            }
            OpsKind::UnTracked(prep) => {
                prep.finish(B::swiglu(gate.into_primitive(), up.into_primitive()))
            }
        }
    }

    fn attention(
        q: FloatTensor<Self>,
        k: FloatTensor<Self>,
        v: FloatTensor<Self>,
        layout: AttentionLayout,
    ) -> FloatTensor<Self> {
        match AttentionBackward
            .prepare::<C>([q.node(), k.node(), v.node()])
            .compute_bound()
            .stateful()
        {
            OpsKind::Tracked(prep) => {
                let (q, k, v) = (q.into_primitive(), k.into_primitive(), v.into_primitive());
                let (out, log_sum) =
                    B::attention_forward(q.clone(), k.clone(), v.clone(), layout.clone());
                prep.finish((q, k, v, out.clone(), log_sum, layout), out)
            }
            OpsKind::UnTracked(prep) => prep.finish(
                B::attention_forward(
                    q.into_primitive(),
                    k.into_primitive(),
                    v.into_primitive(),
                    layout,
                )
                .0,
            ),
        }
    }
}

#[derive(Debug)]
struct LinearBackward;

impl<B: Backend + DecoderOps> Backward<B, 1> for LinearBackward {
    type State = FloatTensor<B>;

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let weight = ops.state;
        unary::<B, _>(ops.parents, ops.node, grads, |grad| {
            B::project_grad(grad, weight)
        });
    }
}

#[derive(Debug)]
struct PackedLinearBackward;

impl<B: Backend + DecoderOps> Backward<B, 1> for PackedLinearBackward {
    type State = (IntTensor<B>, FloatTensor<B>, PackedLayout);

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let (words, scales, layout) = ops.state;
        unary::<B, _>(ops.parents, ops.node, grads, |grad| {
            B::project_packed_grad(grad, words, scales, layout)
        });
    }
}

#[derive(Debug)]
struct RmsNormBackward;

impl<B: Backend + DecoderOps> Backward<B, 1> for RmsNormBackward {
    type State = (FloatTensor<B>, FloatTensor<B>, f64);

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let (x, gamma, eps) = ops.state;
        unary::<B, _>(ops.parents, ops.node, grads, |grad| {
            B::rms_norm_grad(x, gamma, grad, eps)
        });
    }
}

#[derive(Debug)]
struct RotaryBackward;

impl<B: Backend + DecoderOps> Backward<B, 1> for RotaryBackward {
    type State = (FloatTensor<B>, FloatTensor<B>, bool);

    fn backward(self, ops: Ops<Self::State, 1>, grads: &mut Gradients, _: &mut Checkpointer) {
        let (cos, sin, inverse) = ops.state;
        unary::<B, _>(ops.parents, ops.node, grads, |grad| {
            B::rotary(grad, cos, sin, !inverse)
        });
    }
}

#[derive(Debug)]
struct SwigluBackward;

impl<B: Backend + DecoderOps> Backward<B, 2> for SwigluBackward {
    type State = (FloatTensor<B>, FloatTensor<B>);

    fn backward(self, ops: Ops<Self::State, 2>, grads: &mut Gradients, _: &mut Checkpointer) {
        let (gate, up) = ops.state;
        let grad = grads.consume::<B>(&ops.node);
        let (d_gate, d_up) = B::swiglu_grad(gate, up, grad);
        for (parent, grad) in ops.parents.into_iter().zip([d_gate, d_up]) {
            if let Some(node) = parent {
                grads.register::<B>(node.id, grad);
            }
        }
    }
}

#[derive(Debug)]
struct AttentionBackward;

impl<B: Backend + DecoderOps> Backward<B, 3> for AttentionBackward {
    /// q, k, v, output, log-sums, layout.
    type State = (
        FloatTensor<B>,
        FloatTensor<B>,
        FloatTensor<B>,
        FloatTensor<B>,
        FloatTensor<B>,
        AttentionLayout,
    );

    fn backward(self, ops: Ops<Self::State, 3>, grads: &mut Gradients, _: &mut Checkpointer) {
        let (q, k, v, out, log_sum, layout) = ops.state;
        let grad = grads.consume::<B>(&ops.node);
        let (dq, dk, dv) = B::attention_grad(q, k, v, out, log_sum, grad, layout);
        for (parent, grad) in ops.parents.into_iter().zip([dq, dk, dv]) {
            if let Some(node) = parent {
                grads.register::<B>(node.id, grad);
            }
        }
    }
}
