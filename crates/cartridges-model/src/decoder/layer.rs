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
        let (residual, features) = self.before_down(x, batch, extend);
        residual + batch.map(Site::DownProj, features, &self.down_proj)
    }

    /// The layer without its last map: the residual stream `[n, hidden]` to which `down_proj` adds, and
    /// what it reads, `[n, intermediate]`.
    pub fn before_down(
        &self,
        x: Tensor<2>,
        batch: LayerBatch<'_>,
        extend: impl FnOnce(&Tensor<3>, Tensor<3>, Tensor<3>) -> (Tensor<3>, Tensor<3>),
    ) -> (Tensor<2>, Tensor<2>) {
        let eps = batch.config.rms_norm_eps;
        let normed = rms_norm(x.clone(), &self.input_norm, eps);
        let (q, k, v) = self.project(normed, batch);
        let (k, v) = extend(&q, k, v);
        let attended = prefix_attention(q, k, v, batch.layout);
        let [n, heads, dim] = attended.dims();
        let attended = attended.reshape([n, heads * dim]);
        let x = x + batch.map(Site::OProj, attended, &self.o_proj);

        let normed = rms_norm(x.clone(), &self.post_norm, eps);
        let gate = batch.map(Site::GateProj, normed.clone(), &self.gate_proj);
        let up = batch.map(Site::UpProj, normed, &self.up_proj);
        (x, swiglu(gate, up))
    }

    /// `down_proj` of `features [n, intermediate]`, without adapters.
    pub fn down(&self, features: Tensor<2>) -> Tensor<2> {
        self.down_proj.project(features)
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
