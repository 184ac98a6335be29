//! Fast bodies for the CPU backend: rayon over rows, SIMD inside them, f32 only.
//!
//! Other dtypes and shapes that the fast loops do not cover go to the portable bodies.

mod attention;
mod attention_grad;
mod bf16;
mod blocks;
mod cross_entropy;
mod linear;
mod packed;
mod rows;
mod simd;
mod slices;
mod tiles;
mod unpack;

pub use attention::attention_forward;
pub use attention_grad::attention_grad;
pub use bf16::Bf16;
pub use cross_entropy::{cross_entropy_of_logits, topk_cross_entropy};
pub use linear::{linear, linear_grad};
pub use packed::{project_packed, project_packed_grad, unpack};
pub use rows::{rms_norm, rms_norm_grad, rotary, swiglu, swiglu_grad};
pub use slices::write_rows;
