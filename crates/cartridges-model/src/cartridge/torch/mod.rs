//! The reference's own file format: a dict of four lists of tensors in a `torch.save` container.
//!
//! Reading never executes anything. The crate `pytorch-reader` 0.22.1 was tried first: it reads the
//! reference's files and executes nothing either, but it keeps unknown Python objects as opaque
//! values or drops them instead of refusing them (a file that calls `os.system` opens without an
//! error), and it inflates compressed pickles (a file of 20 kB took 1.8 GB of memory). So `machine`
//! is a small machine of our own that knows this kind of file and whose memory is bounded by the
//! file's size; the ZIP layer is the crate `zip`.

pub(crate) mod container;
mod machine;
pub(crate) mod pickle;
mod read;
pub(crate) mod storage;
#[cfg(test)]
pub(crate) mod tests;
mod write;

pub use pickle::PickleError;
pub(crate) use read::MAX_PICKLE;
pub use read::read_pt;
pub use write::write_pt;
