//! The tensor operations that a decoder with trained key/value prefixes is made of.
//!
//! [`DecoderOps`] is an extension trait over Burn's `Backend`. Every operation has a portable body,
//! written with Burn's own primitives, that runs on any backend; the CPU backend has fast bodies
//! (rayon, SIMD). The functions of this crate take and give plain [`burn::Tensor`]s and pick
//! the backend at run time from the device a tensor lives on. Gradients are written by hand, so that
//! nothing is kept between forward and backward but what each function's documentation names.
//!
//! The layout of a batch is *packed*: all tokens of all sequences stand in one row axis, and an
//! [`AttentionLayout`] says which keys each run of rows may see.
#![recursion_limit = "256"]
#![deny(missing_docs)]

mod autodiff;
#[cfg(feature = "cpu")]
mod cpu;
#[cfg(any(feature = "wgpu", feature = "cuda"))]
mod cube;
mod device;
mod functions;
mod layout;
mod matrix;
mod packed;
#[cfg(any(feature = "wgpu", feature = "cuda", test))]
mod plan;
mod portable;
mod targets;
#[cfg_attr(feature = "ndarray", allow(deprecated))] // kept for comparison until Burn drops it
mod traits;

#[doc(hidden)]
pub use device::test_device;
pub use device::{DeviceChoice, DeviceError};
pub use functions::{
    linear, prefix_attention, rms_norm, rotary, swiglu, topk_cross_entropy, write_rows,
};
pub use layout::{AttentionLayout, KeyRange, LayoutError, QueryRun};
pub use matrix::{Matrix, PackedMatrix};
pub use packed::{BLOCK, PackedLayout, PackedRows, Packing};
pub use targets::{REST_FLOOR, TargetsError, TopkTargets};
pub use traits::DecoderOps;
