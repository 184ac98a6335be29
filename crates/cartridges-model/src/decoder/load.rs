//! Filling a decoder from weight files, one tensor at a time.

use std::fmt;

use burn::tensor::{Device, FloatDType, Tensor, TensorData};
use cartridges_ops::{BLOCK, Matrix, Packing};

use super::config::ModelConfig;
use super::layer::Layer;
use super::model::Decoder;
use super::rope::RotaryTable;
use crate::weights::{Weights, WeightsError};

/// Weights that do not make the decoder that the config describes.
#[derive(Debug, thiserror::Error)]
pub enum LoadError {
    /// The file could not be read.
    #[error(transparent)]
    Weights(#[from] WeightsError),
    /// A tensor is not in the file.
    #[error("{source_name}: tensor {name} is missing")]
    Missing {
        /// The file or folder.
        source_name: String,
        /// The tensor.
        name: String,
    },
    /// A tensor has another shape than the config says.
    #[error("{source_name}: tensor {name} has shape {found:?}, the config says {expected:?}")]
    Shape {
        /// The file or folder.
        source_name: String,
        /// The tensor.
        name: String,
        /// Its shape.
        found: Vec<usize>,
        /// The shape the config asks for.
        expected: Vec<usize>,
    },
}

/// How matrices are kept in memory. Norms, biases, activations, keys and values are f32 in any case.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub enum Precision {
    /// As exact as the files are.
    #[default]
    F32,
    /// Half the memory; what is multiplied with a matrix may be rounded to bf16 as well.
    Bf16,
    /// 8.5 bits per value: blocks of 32 signed bytes with one scale. What is stored in at most 8 bits
    /// with a scale per 32 values (GGML's Q8_0, Q5_0 and Q4_0) is taken as it is.
    Q8,
    /// 4.5 bits per value: as [`Precision::Q8`] with integers from −8 to 7. GGML's Q4_0 is taken as it is.
    Q4,
}

impl Precision {
    /// Bytes of `values` matrix elements, at most.
    fn bytes(self, values: usize) -> usize {
        match self {
            Self::F32 => 4 * values,
            Self::Bf16 => 2 * values,
            Self::Q8 => values / BLOCK * Packing::Q8.block_bytes(),
            Self::Q4 => values / BLOCK * Packing::Q4.block_bytes(),
        }
    }
}

impl fmt::Display for Precision {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::F32 => "f32",
            Self::Bf16 => "bf16",
            Self::Q8 => "q8",
            Self::Q4 => "q4",
        })
    }
}

impl Decoder {
    /// Reads all weights to `device` as f32. `progress` gets bytes done and bytes in all (both as
    /// resident in memory).
    pub fn load(
        config: ModelConfig,
        weights: &Weights,
        device: &Device,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<Self, LoadError> {
        Self::load_as(config, weights, Precision::F32, device, progress)
    }

    /// [`Decoder::load`] with the matrices in `precision`.
    pub fn load_as(
        config: ModelConfig,
        weights: &Weights,
        precision: Precision,
        device: &Device,
        progress: &mut dyn FnMut(usize, usize),
    ) -> Result<Self, LoadError> {
        let tied = config.tie_word_embeddings || weights.head_is_embedding();
        let mut reader = Reader {
            weights,
            precision,
            device,
            done: 0,
            total: precision.bytes(config.matrix_values(tied)),
            progress,
        };
        Self::assemble(config, tied, precision, device, &mut reader)
    }

    /// The decoder of all tensors that `parts` has.
    pub(super) fn assemble<P: Parts>(
        config: ModelConfig,
        tied: bool,
        precision: Precision,
        device: &Device,
        parts: &mut P,
    ) -> Result<Self, P::Error> {
        let (h, v) = (config.hidden_size, config.vocab_size);
        let embedding = parts.matrix("model.embed_tokens.weight", [v, h])?;
        let layers = (0..config.num_layers)
            .map(|index| layer(parts, &config, index))
            .collect::<Result<_, _>>()?;
        let norm = parts.vector("model.norm.weight", h)?;
        let head = match tied {
            true => None,
            false => Some(parts.matrix("lm_head.weight", [v, h])?),
        };
        Ok(Self {
            rotary: RotaryTable::new(&config),
            config,
            embedding,
            layers,
            norm,
            head,
            precision,
            device: device.clone(),
        })
    }
}

/// Where the tensors of a decoder come from, by Hugging Face name.
pub(super) trait Parts {
    /// Why there is none.
    type Error;

    fn matrix(&mut self, name: &str, shape: [usize; 2]) -> Result<Matrix, Self::Error>;

    fn vector(&mut self, name: &str, len: usize) -> Result<Tensor<1>, Self::Error>;
}

fn layer<P: Parts>(parts: &mut P, c: &ModelConfig, index: usize) -> Result<Layer, P::Error> {
    let name = |part: &str| format!("model.layers.{index}.{part}");
    let (h, f) = (c.hidden_size, c.intermediate_size);
    let (q, kv) = (c.num_heads * c.head_dim, c.num_kv_heads * c.head_dim);
    let qkv_bias = match c.qkv_bias {
        true => Some([
            parts.vector(&name("self_attn.q_proj.bias"), q)?,
            parts.vector(&name("self_attn.k_proj.bias"), kv)?,
            parts.vector(&name("self_attn.v_proj.bias"), kv)?,
        ]),
        false => None,
    };
    let qk_norm = match c.qk_norm {
        true => Some([
            parts.vector(&name("self_attn.q_norm.weight"), c.head_dim)?,
            parts.vector(&name("self_attn.k_norm.weight"), c.head_dim)?,
        ]),
        false => None,
    };
    Ok(Layer {
        input_norm: parts.vector(&name("input_layernorm.weight"), h)?,
        q_proj: parts.matrix(&name("self_attn.q_proj.weight"), [q, h])?,
        k_proj: parts.matrix(&name("self_attn.k_proj.weight"), [kv, h])?,
        v_proj: parts.matrix(&name("self_attn.v_proj.weight"), [kv, h])?,
        qkv_bias,
        qk_norm,
        o_proj: parts.matrix(&name("self_attn.o_proj.weight"), [h, q])?,
        post_norm: parts.vector(&name("post_attention_layernorm.weight"), h)?,
        gate_proj: parts.matrix(&name("mlp.gate_proj.weight"), [f, h])?,
        up_proj: parts.matrix(&name("mlp.up_proj.weight"), [f, h])?,
        down_proj: parts.matrix(&name("mlp.down_proj.weight"), [h, f])?,
    })
}

struct Reader<'a> {
    weights: &'a Weights,
    precision: Precision,
    device: &'a Device,
    done: usize,
    total: usize,
    progress: &'a mut dyn FnMut(usize, usize),
}

impl Parts for Reader<'_> {
    type Error = LoadError;

    fn matrix(&mut self, name: &str, shape: [usize; 2]) -> Result<Matrix, LoadError> {
        self.check(name, &shape)?;
        let plain = |dtype| -> Result<Matrix, LoadError> {
            let values = self.weights.read(name)?.values;
            Ok(Matrix::dense(values, shape[1], dtype, self.device))
        };
        let matrix = match self.precision {
            Precision::F32 => plain(FloatDType::F32)?,
            Precision::Bf16 => plain(FloatDType::BF16)?,
            Precision::Q8 => self.packed(name, Packing::Q8)?,
            Precision::Q4 => self.packed(name, Packing::Q4)?,
        };
        let bytes = self.precision.bytes(shape[0] * shape[1]);
        self.done = (self.done + bytes).min(self.total);
        (self.progress)(self.done, self.total);
        Ok(matrix)
    }

    fn vector(&mut self, name: &str, len: usize) -> Result<Tensor<1>, LoadError> {
        self.check(name, &[len])?;
        let values = self.weights.read(name)?.values;
        Ok(Tensor::from_data(
            TensorData::new(values, [len]),
            self.device,
        ))
    }
}

impl Reader<'_> {
    fn packed(&self, name: &str, packing: Packing) -> Result<Matrix, LoadError> {
        let rows = self.weights.read_packed(name, packing)?;
        Ok(Matrix::packed(rows, self.device))
    }

    /// Whether the tensor is there, in the shape that the config says.
    fn check(&self, name: &str, expected: &[usize]) -> Result<(), LoadError> {
        let source_name = || self.weights.source_name().to_owned();
        let found = self.weights.shape(name).ok_or_else(|| LoadError::Missing {
            source_name: source_name(),
            name: name.to_owned(),
        })?;
        if found != expected {
            return Err(LoadError::Shape {
                source_name: source_name(),
                name: name.to_owned(),
                found: found.to_vec(),
                expected: expected.to_vec(),
            });
        }
        Ok(())
    }
}
