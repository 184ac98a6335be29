//! What all targets share.

/// Narrowing of what a device offers.
pub mod lowered_features {
    use cubecl_core::ir::DeviceProperties;

    /// The machine that features are narrowed for.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    pub enum GpuTarget {
        /// NVIDIA GPUs.
        Nvptx,
    }

    /// Changes nothing: no kernel is compiled on this path.
    pub fn restrict_features(_: &mut DeviceProperties, _: GpuTarget) {}
}
