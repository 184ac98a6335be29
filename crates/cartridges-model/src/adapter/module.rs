//! The adapter as a Burn module.

use burn::module::{Module, Param};
use burn::tensor::{Device, Tensor, TensorData};
use cartridges_ops::linear;

use super::host::{Delta, HostAdapter, HostPatch, Mode};
use super::target::Target;

/// A bias and a weight delta on a device. A dense delta is `a` without `b`.
#[derive(Module, Debug)]
struct Patch {
    a: Option<Param<Tensor<2>>>,
    b: Option<Param<Tensor<2>>>,
    bias: Option<Param<Tensor<1>>>,
}

/// Where and how a patch is used.
#[derive(Debug, Clone, Copy)]
struct Place {
    target: Target,
    mode: Mode,
    scale: f32,
}

/// Bias and weight deltas on a device, each at its target (arXiv 2510.08734, and the linear form that
/// can be merged into the weights).
///
/// It computes in f32 whatever the model's matrices are.
#[derive(Module, Debug)]
pub struct ThoughtAdapter {
    patches: Vec<Patch>,
    /// As long as `patches`, sorted by target.
    #[module(skip)]
    places: Vec<Place>,
}

impl ThoughtAdapter {
    /// Puts an adapter on a device.
    pub fn from_host(host: &HostAdapter, device: &Device) -> Self {
        let place = |patch: &HostPatch| Place {
            target: patch.target,
            mode: patch.mode,
            scale: patch.scale,
        };
        Self {
            patches: host.patches().iter().map(|p| upload(p, device)).collect(),
            places: host.patches().iter().map(place).collect(),
        }
    }

    /// What it adds at `target` to the output `y [n, out]` of input `x [n, in]`; `None` where it has no
    /// patch.
    pub fn delta(&self, target: Target, x: &Tensor<2>, y: &Tensor<2>) -> Option<Tensor<2>> {
        let at = self.at(target)?;
        let (patch, place) = (&self.patches[at], self.places[at]);
        let input = match place.mode {
            Mode::Linear => x,
            Mode::Post => y,
        };
        let product = match (&patch.a, &patch.b) {
            (Some(a), Some(b)) => Some(linear(linear(input.clone(), &a.val()), &b.val())),
            (Some(dense), None) => Some(linear(input.clone(), &dense.val())),
            _ => None,
        };
        let bias = patch.bias.as_ref().map(|bias| bias.val().unsqueeze());
        let sum = match (product, bias) {
            (Some(product), Some(bias)) => product + bias,
            (Some(product), None) => product,
            (None, Some(bias)) => bias.expand(y.dims()),
            (None, None) => return None,
        };
        Some(match place.scale {
            1.0 => sum,
            scale => sum * scale,
        })
    }

    /// The matrices of its deltas: of each patch `a` and `b`, or the dense one.
    pub fn matrices(&self) -> Vec<Tensor<2>> {
        let all = self.patches.iter().flat_map(|patch| [&patch.a, &patch.b]);
        all.flatten().map(Param::val).collect()
    }

    /// The same adapter with other matrices, in the order of [`Self::matrices`]; those that are missing
    /// stay as they are.
    pub fn with_matrices(&self, matrices: Vec<Tensor<2>>) -> Self {
        let mut matrices = matrices.into_iter();
        let mut changed = self.clone();
        for patch in &mut changed.patches {
            for part in [&mut patch.a, &mut patch.b].into_iter().flatten() {
                if let Some(matrix) = matrices.next() {
                    *part = Param::from_tensor(matrix);
                }
            }
        }
        changed
    }

    /// Whether it has a patch at `target`.
    pub fn changes(&self, target: Target) -> bool {
        self.at(target).is_some()
    }

    fn at(&self, target: Target) -> Option<usize> {
        let found = self
            .places
            .binary_search_by_key(&target, |place| place.target);
        found.ok()
    }
}

fn upload(patch: &HostPatch, device: &Device) -> Patch {
    let matrix = |values: &[f32], shape: [usize; 2]| {
        let data = TensorData::new(values.to_vec(), shape);
        Some(Param::from_tensor(Tensor::from_data(data, device)))
    };
    let (inputs, outputs) = (patch.inputs, patch.outputs);
    let (a, b) = match &patch.delta {
        Delta::None => (None, None),
        Delta::LowRank { rank, a, b } => (matrix(a, [*rank, inputs]), matrix(b, [outputs, *rank])),
        Delta::Dense(delta) => (matrix(delta, [outputs, inputs]), None),
    };
    let bias = patch.bias.as_ref().map(|bias| {
        let data = TensorData::new(bias.clone(), [outputs]);
        Param::from_tensor(Tensor::from_data(data, device))
    });
    Patch { a, b, bias }
}
