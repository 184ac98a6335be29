//! An adapter in plain memory, checked.

use serde::{Deserialize, Serialize};
use sha2::{Digest, Sha256};

use super::error::AdapterError;
use super::target::Target;
use crate::decoder::ModelConfig;

/// What a patch's weight is multiplied with.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Mode {
    /// Beside the linear map, with its input: `y + scale · (Δ x + bias)`. Can be merged into the weights.
    Linear,
    /// Behind it, with its output: `y + scale · (Δ y + bias)`, the form of the reference.
    Post,
}

/// A weight delta.
#[derive(Debug, Clone, PartialEq)]
pub enum Delta {
    /// None: the patch is a bias.
    None,
    /// `Δ = b · a` with `a [rank, in]` and `b [out, rank]`, row-major.
    LowRank {
        /// Rows of `a`, columns of `b`.
        rank: usize,
        /// `[rank, in]`
        a: Vec<f32>,
        /// `[out, rank]`
        b: Vec<f32>,
    },
    /// `Δ [out, in]`, row-major.
    Dense(Vec<f32>),
}

/// What an adapter does at one target.
#[derive(Debug, Clone, PartialEq)]
pub struct HostPatch {
    /// Where.
    pub target: Target,
    /// With what the delta is multiplied.
    pub mode: Mode,
    /// Multiplies delta and bias.
    pub scale: f32,
    /// Width of what the delta is multiplied with.
    pub inputs: usize,
    /// Width of the target's output.
    pub outputs: usize,
    /// The weight delta.
    pub delta: Delta,
    /// Added to the output, `[out]`.
    pub bias: Option<Vec<f32>>,
}

impl HostPatch {
    /// A patch beside the linear map at `target`, without a bias and times 1: `Δ = b · a` with
    /// `a [rank, in]` and `b [out, rank]`, whose lengths say the widths.
    pub fn low_rank(target: Target, rank: usize, a: Vec<f32>, b: Vec<f32>) -> Self {
        Self {
            target,
            mode: Mode::Linear,
            scale: 1.0,
            inputs: a.len() / rank.max(1),
            outputs: b.len() / rank.max(1),
            delta: Delta::LowRank { rank, a, b },
            bias: None,
        }
    }
}

/// A thought adapter: at most one patch per target, all of them finite.
#[derive(Debug, Clone, PartialEq)]
pub struct HostAdapter {
    patches: Vec<HostPatch>,
}

impl HostAdapter {
    /// Checks the patches and puts them in the order of their targets.
    ///
    /// # Errors
    /// If there is none, two have the same target, or one contradicts itself or is not finite.
    pub fn new(mut patches: Vec<HostPatch>) -> Result<Self, AdapterError> {
        if patches.is_empty() {
            return Err(AdapterError::Empty);
        }
        patches.sort_by_key(|patch| patch.target);
        if let Some(pair) = patches.windows(2).find(|p| p[0].target == p[1].target) {
            return Err(AdapterError::patch(pair[0].target, "has two patches"));
        }
        patches.iter().try_for_each(HostPatch::validate)?;
        Ok(Self { patches })
    }

    /// The patches, by target.
    pub fn patches(&self) -> &[HostPatch] {
        &self.patches
    }

    /// Checks that every target is a place of this model with these widths.
    ///
    /// # Errors
    /// [`AdapterError::Patch`] for the first that does not fit.
    pub fn check(&self, config: &ModelConfig) -> Result<(), AdapterError> {
        for patch in &self.patches {
            let Some((inputs, outputs)) = patch.target.widths(config) else {
                let layers = config.num_layers;
                let problem = format!("the model has {layers} layers");
                return Err(AdapterError::patch(patch.target, problem));
            };
            let inputs = match patch.mode {
                Mode::Linear => inputs,
                Mode::Post => outputs,
            };
            if (patch.inputs, patch.outputs) != (inputs, outputs) {
                let problem = format!(
                    "maps {} to {} values, the model has {inputs} and {outputs} there",
                    patch.inputs, patch.outputs
                );
                return Err(AdapterError::patch(patch.target, problem));
            }
        }
        Ok(())
    }

    /// Bytes of all deltas and biases as f32.
    pub fn byte_len(&self) -> usize {
        let values: usize = self.patches.iter().map(HostPatch::num_values).sum();
        values * size_of::<f32>()
    }

    /// SHA-256 over everything that decides what it does.
    pub fn digest(&self) -> [u8; 32] {
        let mut hash = Sha256::new();
        for patch in &self.patches {
            hash.update(patch.target.to_string());
            hash.update([0, patch.mode as u8]);
            hash.update(patch.scale.to_le_bytes());
            for part in patch.parts() {
                hash.update((part.len() as u64).to_le_bytes());
                part.iter().for_each(|x| hash.update(x.to_le_bytes()));
            }
        }
        hash.finalize().into()
    }
}

impl HostPatch {
    /// Turns the bias into one more rank: `feature · x` should be near 1 for the inputs `x` that the
    /// adapter is for, such as `feature = R⁻¹ Σ x` with their Gram matrix `R`. The bias is then what
    /// that rank adds, so that the patch fits formats without biases. A patch without one stays as it is.
    ///
    /// # Errors
    /// If the patch contradicts itself, its delta is dense, or the feature has another width than the
    /// inputs or is not finite.
    pub fn absorb_bias(mut self, feature: &[f32]) -> Result<Self, AdapterError> {
        self.validate()?;
        let wrong = |problem: String| Err(AdapterError::patch(self.target, problem));
        if feature.len() != self.inputs {
            let (found, inputs) = (feature.len(), self.inputs);
            return wrong(format!(
                "the feature has {found} values, the input {inputs}"
            ));
        }
        let Some(bias) = self.bias.take() else {
            return Ok(self);
        };
        let (rank, mut a, b) = match std::mem::replace(&mut self.delta, Delta::None) {
            Delta::None => (0, Vec::new(), Vec::new()),
            Delta::LowRank { rank, a, b } => (rank, a, b),
            Delta::Dense(_) => return wrong("a dense delta absorbs no bias".to_owned()),
        };
        a.extend(feature);
        let rows = bias.iter().enumerate();
        let b = rows
            .flat_map(|(row, last)| b[row * rank..(row + 1) * rank].iter().chain([last]))
            .copied()
            .collect();
        self.delta = Delta::LowRank {
            rank: rank + 1,
            a,
            b,
        };
        self.validate()?;
        Ok(self)
    }

    /// All tensors: delta, then bias; empty where there is none.
    pub(super) fn parts(&self) -> [&[f32]; 3] {
        let bias = self.bias.as_deref().unwrap_or_default();
        match &self.delta {
            Delta::None => [&[], &[], bias],
            Delta::LowRank { a, b, .. } => [a, b, bias],
            Delta::Dense(delta) => [delta, &[], bias],
        }
    }

    fn num_values(&self) -> usize {
        self.parts().iter().map(|part| part.len()).sum()
    }

    fn validate(&self) -> Result<(), AdapterError> {
        let wrong = |problem: String| Err(AdapterError::patch(self.target, problem));
        let (inputs, outputs) = (self.inputs, self.outputs);
        if inputs == 0 || outputs == 0 {
            return wrong(format!("maps {inputs} to {outputs} values"));
        }
        if self.mode == Mode::Linear && self.target == Target::FinalNorm {
            return wrong("the final norm is no linear map; mode must be post".to_owned());
        }
        if self.mode == Mode::Post && inputs != outputs {
            return wrong(format!(
                "mode post multiplies the output with the delta, which must be square, not {outputs} \
                 by {inputs}"
            ));
        }
        let length = |name: &str, found: usize, rows: usize, columns: usize| {
            if rows.checked_mul(columns) == Some(found) {
                return Ok(());
            }
            let problem = format!("{name} has {found} values, expected {rows} by {columns}");
            Err(AdapterError::patch(self.target, problem))
        };
        match &self.delta {
            Delta::None if self.bias.is_none() => return wrong("changes nothing".to_owned()),
            Delta::None => {}
            Delta::LowRank { rank: 0, .. } => return wrong("has rank 0".to_owned()),
            Delta::LowRank { rank, a, b } => {
                length("a", a.len(), *rank, inputs)?;
                length("b", b.len(), outputs, *rank)?;
            }
            Delta::Dense(delta) => length("the delta", delta.len(), outputs, inputs)?,
        }
        if let Some(bias) = &self.bias {
            length("the bias", bias.len(), outputs, 1)?;
        }
        let all = self.parts().into_iter().flatten().copied();
        let odd = all.chain([self.scale]).find(|x| !x.is_finite());
        match odd {
            Some(value) => wrong(format!("holds {value}, expected finite numbers")),
            None => Ok(()),
        }
    }
}
