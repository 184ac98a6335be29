//! One transformer layer.

use burn::tensor::Tensor;
use cartridges_ops::{AttentionLayout, linear, prefix_attention, rms_norm, swiglu};

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
    fn map(&self, site: Site, x: Tensor<2>, weight: &Tensor<2>) -> Tensor<2> {
        if self.adapters.is_empty() {
            return linear(x, weight);
        }
        let target = Target::Layer {
            layer: self.layer,
            site,
        };
        let y = linear(x.clone(), weight);
        self.adapters.add(target, &x, y)
    }
}

/// The weights of one layer, projections `[out, in]` as checkpoints store them.
#[derive(Debug, Clone)]
pub struct Layer {
    pub(super) input_norm: Tensor<1>,
    pub(super) q_proj: Tensor<2>,
    pub(super) k_proj: Tensor<2>,
    pub(super) v_proj: Tensor<2>,
    /// Biases of q, k and v.
    pub(super) qkv_bias: Option<[Tensor<1>; 3]>,
    /// Norms of query and key heads.
    pub(super) qk_norm: Option<[Tensor<1>; 2]>,
    pub(super) o_proj: Tensor<2>,
    pub(super) post_norm: Tensor<1>,
    pub(super) gate_proj: Tensor<2>,
    pub(super) up_proj: Tensor<2>,
    pub(super) down_proj: Tensor<2>,
}

impl Layer {
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
        x + batch.map(Site::DownProj, swiglu(gate, up), &self.down_proj)
    }

    /// Queries `[n, heads, d]`, keys and values `[n, kv_heads, d]`, rotated to their positions.
    fn project(
        &self,
        normed: Tensor<2>,
        batch: LayerBatch<'_>,
    ) -> (Tensor<3>, Tensor<3>, Tensor<3>) {
        let [n, _] = normed.dims();
        let config = batch.config;
        let project = |site: Site, weight: &Tensor<2>, which: usize, heads: usize| {
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
