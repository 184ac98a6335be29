//! What belongs to NVIDIA's instruction set.

/// The version of PTX that a driver reads.
pub mod ptx_version {
    use std::fmt;

    /// A PTX version; there is none without LLVM.
    #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
    pub enum PtxVersion {}

    impl PtxVersion {
        /// Always `None`: nothing here writes PTX.
        #[must_use]
        pub fn for_driver(_driver: i32) -> Option<Self> {
            None
        }
    }

    impl fmt::Display for PtxVersion {
        fn fmt(&self, _: &mut fmt::Formatter<'_>) -> fmt::Result {
            match *self {}
        }
    }
}
