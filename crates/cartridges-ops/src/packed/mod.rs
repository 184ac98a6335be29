//! Matrices in blocks of 32 small integers with one scale: a quarter or an eighth of f32's memory.

mod portable;
mod rows;

pub use portable::{project, project_grad, unpack};
pub use rows::{BLOCK, PackedLayout, PackedRows, Packing};
