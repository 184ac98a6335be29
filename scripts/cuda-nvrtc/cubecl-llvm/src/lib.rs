//! The names that `cubecl-cuda` takes from `cubecl-llvm`, without LLVM.
//!
//! `cubecl-cuda` always links both of its compilers and picks one when it starts. With its feature
//! `cpp` it picks the one that writes CUDA C++ for NVRTC, and nothing in this crate is ever called.
//! Without that feature, [`PlironCompiler`] answers every kernel with an error that says what to do.
#![deny(missing_docs)]

mod compiler;
pub mod nvptx;
pub mod shared;

pub use compiler::{LlvmTarget, NvptxModule, PlironArtifact, PlironCompiler, PlironOptions};
