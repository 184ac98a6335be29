//! One transformer layer.

use burn::tensor::Tensor;
use cartridges_ops::{AttentionLayout, Matrix, prefix_attention, rms_norm, swiglu};

use super::config::ModelConfig;
use super::rope::RotaryAngles;
use crate::adapter::{BatchAdapters, Site, Target};

/// What a layer has to know of the batch besides its rows.
#[derive(Debug, Clone, Copy)]
pub struct LayerBatch<'a> {
    /// The layer's number.
    pub layer: usize,
    /// The model's shape.
    pub config: &'a ModelConfig,
    /// Rotary angles of the rows.
    pub angles: &'a RotaryAngles,
    /// Which keys each run of rows sees.
    pub layout: &'a AttentionLayout,
    /// Adapters of the rows.
    pub adapters: &'a BatchAdapters,
}

impl LayerBatch<'_> {
    /// `x [n, in] · weightᵀ` and what the adapters add to it at `site`.
    fn map(&self, site: Site, x: Tensor<2>, weight: &Matrix) -> Tensor<2> {
        if self.adapters.is_empty() {
            return weight.project(x);
        }
        let target = Target::Layer {
            layer: self.layer,
            site,
        };
        let y = weight.project(x.clone());
        self.adapters.add(target, &x, y)
    }
}

/// A part of a layer that adds to the residual stream.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Half {
    /// Attention, which ends in `o_proj`.
    Attention,
    /// The feed-forward network, which ends in `down_proj`.
    Mlp,
}

impl Half {
    fn site(self) -> Site {
        match self {
            Self::Attention => Site::OProj,
            Self::Mlp => Site::DownProj,
        }
    }

    /// The map that it ends in.
    pub fn target(self, layer: usize) -> Target {
        let site = self.site();
        Target::Layer { layer, site }
    }
}

/// The weights of one layer, projections `[out, in]` as checkpoints store them.
#[derive(Debug, Clone)]
pub struct Layer {
    pub(super) input_norm: Tensor<1>,
    pub(super) q_proj: Matrix,
    pub(super) k_proj: Matrix,
    pub(super) v_proj: Matrix,
    /// Biases of q, k and v.
    pub(super) qkv_bias: Option<[Tensor<1>; 3]>,
    /// Norms of query and key heads.
    pub(super) qk_norm: Option<[Tensor<1>; 2]>,
    pub(super) o_proj: Matrix,
    pub(super) post_norm: Tensor<1>,
    pub(super) gate_proj: Matrix,
    pub(super) up_proj: Matrix,
    pub(super) down_proj: Matrix,
}

impl Layer {
    /// The matrices, in the order of the computation.
    pub(super) fn matrices(&self) -> [&Matrix; 7] {
        [
            &self.q_proj,
            &self.k_proj,
            &self.v_proj,
            &self.o_proj,
            &self.gate_proj,
            &self.up_proj,
            &self.down_proj,
        ]
    }

    /// Runs the layer on `x [n, hidden]` and gives `[n, hidden]`.
    ///
    /// `extend` gets the new queries `[n, heads, head_dim]`, keys and values `[n, kv_heads, head_dim]`
    /// (after rope) and gives back all keys and values that the layout refers to,
    /// `[m, kv_heads, head_dim]`.
    pub fn forward(
        &self,
        x: Tensor<2>,
        batch: LayerBatch<'_>,
        extend: impl FnOnce(&Tensor<3>, Tensor<3>, Tensor<3>) -> (Tensor<3>, Tensor<3>),
    ) -> Tensor<2> {
        let attended = self.attend(x.clone(), batch, extend);
        let x = self.add(Half::Attention, x, attended, batch);
        let gated = self.gate(x.clone(), batch);
        self.add(Half::Mlp, x, gated, batch)
    }

    /// What `o_proj` reads, `[n, heads · head_dim]`, from the layer's input `x [n, hidden]`. `extend` as
    /// for [`Layer::forward`].
    pub fn attend(
        &self,
        x: Tensor<2>,
        batch: LayerBatch<'_>,
        extend: impl FnOnce(&Tensor<3>, Tensor<3>, Tensor<3>) -> (Tensor<3>, Tensor<3>),
    ) -> Tensor<2> {
        let normed = rms_norm(x, &self.input_norm, batch.config.rms_norm_eps);
        let (q, k, v) = self.project(normed, batch);
        let (k, v) = extend(&q, k, v);
        let attended = prefix_attention(q, k, v, batch.layout);
        let [n, heads, dim] = attended.dims();
        attended.reshape([n, heads * dim])
    }

    /// What `down_proj` reads, `[n, intermediate]`, from the residual stream behind attention.
    pub fn gate(&self, x: Tensor<2>, batch: LayerBatch<'_>) -> Tensor<2> {
        let normed = rms_norm(x, &self.post_norm, batch.config.rms_norm_eps);
        let gate = batch.map(Site::GateProj, normed.clone(), &self.gate_proj);
        let up = batch.map(Site::UpProj, normed, &self.up_proj);
        swiglu(gate, up)
    }

    /// The residual stream `x [n, hidden]` with what the last map of a half makes of `features`.
    pub fn add(
        &self,
        half: Half,
        x: Tensor<2>,
        features: Tensor<2>,
        batch: LayerBatch<'_>,
    ) -> Tensor<2> {
        let weight = match half {
            Half::Attention => &self.o_proj,
            Half::Mlp => &self.down_proj,
        };
        x + batch.map(half.site(), features, weight)
    }

    /// Queries `[n, heads, d]`, keys and values `[n, kv_heads, d]`, rotated to their positions.
    fn project(
        &self,
        normed: Tensor<2>,
        batch: LayerBatch<'_>,
    ) -> (Tensor<3>, Tensor<3>, Tensor<3>) {
        let [n, _] = normed.dims();
        let config = batch.config;
        let project = |site: Site, weight: &Matrix, which: usize, heads: usize| {
            let mut y = batch.map(site, normed.clone(), weight);
            if let Some(bias) = &self.qkv_bias {
                y = y + bias[which].clone().unsqueeze::<2>();
            }
            y.reshape([n, heads, config.head_dim])
        };
        let mut q = project(Site::QProj, &self.q_proj, 0, config.num_heads);
        let mut k = project(Site::KProj, &self.k_proj, 1, config.num_kv_heads);
        let v = project(Site::VProj, &self.v_proj, 2, config.num_kv_heads);
        if let Some([q_norm, k_norm]) = &self.qk_norm {
            q = norm_heads(q, q_norm, config.rms_norm_eps);
            k = norm_heads(k, k_norm, config.rms_norm_eps);
        }
        (batch.angles.apply(q), batch.angles.apply(k), v)
    }
}

/// RMS norm over every head of `x [n, heads, d]`.
fn norm_heads(x: Tensor<3>, gamma: &Tensor<1>, eps: f64) -> Tensor<3> {
    let [n, heads, d] = x.dims();
    rms_norm(x.reshape([n * heads, d]), gamma, eps).reshape([n, heads, d])
}
