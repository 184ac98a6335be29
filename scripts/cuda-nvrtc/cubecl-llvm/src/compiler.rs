//! The compiler that refuses, and the types its signature needs.

use std::ffi::c_char;
use std::fmt;

use cubecl_core::ir::nvidia::SmArch;
use cubecl_core::prelude::KernelDefinition;
use cubecl_environment::backtrace::BackTrace;
use cubecl_runtime::compiler::{CompilationError, Compiler};
use cubecl_runtime::kernel::BufferIOAttr;

use crate::nvptx::ptx_version::PtxVersion;

const REASON: &str = "this program was built without LLVM and without the feature that sends CUDA \
                      kernels through NVRTC; build it with `--features cuda-nvrtc`";

/// The machines that the LLVM path compiles for.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum LlvmTarget {
    /// NVIDIA GPUs.
    #[default]
    Nvptx,
}

/// What a kernel is compiled with.
#[derive(Clone, Debug, Default)]
pub struct PlironOptions {
    /// AMD architecture; always `None` here.
    pub arch: Option<()>,
    /// NVIDIA architecture.
    pub sm_arch: Option<SmArch>,
    /// PTX version to write.
    pub ptx_version: Option<PtxVersion>,
    /// Whether scalars go into the kernel's parameter block.
    pub grid_constants: bool,
    /// Set by nobody: the caller fills up with `..Default::default()`.
    pub unused: (),
}

/// A compiled kernel; none is ever made.
#[derive(Clone, Debug)]
pub struct NvptxModule {
    /// PTX text, ended by a zero byte.
    pub ptx: Vec<c_char>,
    /// Name of the kernel's entry.
    pub entrypoint: String,
    /// Text for logs.
    pub ir: String,
    /// Shared memory of a launch, in bytes.
    pub shared_memory_size: usize,
    /// What the kernel does with each buffer.
    pub io: Vec<BufferIOAttr>,
}

/// What the compiler gives; never made.
#[derive(Clone, Debug)]
#[non_exhaustive]
pub enum PlironArtifact {
    /// A kernel for an NVIDIA GPU.
    NvptxCode(NvptxModule),
}

impl fmt::Display for PlironArtifact {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::NvptxCode(module) => f.write_str(&module.ir),
        }
    }
}

/// Answers every kernel with an error.
#[derive(Clone, Debug, Default)]
pub struct PlironCompiler {
    /// The machine to compile for.
    pub target: LlvmTarget,
}

impl Compiler for PlironCompiler {
    type Representation = PlironArtifact;
    type CompilationOptions = PlironOptions;

    fn compile(
        &mut self,
        _: KernelDefinition,
        _: &Self::CompilationOptions,
    ) -> Result<Self::Representation, CompilationError> {
        Err(CompilationError::Generic {
            reason: REASON.to_owned(),
            backtrace: BackTrace::capture(),
        })
    }

    fn extension(&self) -> &'static str {
        "ll"
    }

    fn lang_tag(&self) -> &'static str {
        "llvm"
    }
}
