//! What the members of a group do together.

use std::net::SocketAddr;
use std::time::Duration;

use burn::tensor::Tensor;

/// A group that cannot begin or go on.
#[derive(Debug, thiserror::Error)]
pub enum GroupError {
    /// Another process cannot be reached.
    #[error("the leader at {leader} cannot be reached: {source}")]
    Unreachable {
        /// Its address.
        leader: String,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// The leader's own address cannot be used.
    #[error("cannot listen at {address}: {source}")]
    Listen {
        /// The address.
        address: String,
        /// What the system said.
        #[source]
        source: std::io::Error,
    },
    /// Not everybody came.
    #[error("{found} of {size} processes have joined after {waited:?}; start the others as well")]
    Incomplete {
        /// Members there, the leader among them.
        found: usize,
        /// Members wanted.
        size: usize,
        /// How long they were waited for.
        waited: Duration,
    },
    /// Two processes do not train the same.
    #[error("rank {rank} at {address} does not fit: {problem}; start all processes alike")]
    Mismatch {
        /// The rank that it says it has.
        rank: usize,
        /// Where it is.
        address: SocketAddr,
        /// What differs.
        problem: String,
    },
    /// The leader does not take this process.
    #[error("the leader refuses this process: {0}")]
    Refused(String),
    /// A process of the group is gone or hangs.
    #[error("{who} is gone: {problem}; the same command goes on from the last checkpoint")]
    Lost {
        /// Which one.
        who: String,
        /// What was seen.
        problem: String,
    },
    /// There are more processes than rows.
    #[error(
        "rows_per_step is {rows} for {size} processes, expected at least a row for each (give \
         --rows-per-step)"
    )]
    TooFewRows {
        /// Rows of a step.
        rows: usize,
        /// Processes.
        size: usize,
    },
    /// A tensor cannot be read from its device, or the devices cannot add up.
    #[error("adding up gradients: {0}")]
    Device(String),
}

/// The members of a group, seen from one of them. All call the same methods in the same order.
pub trait Exchange {
    /// This member's number; member 0 keeps logs, checkpoints and the result.
    fn rank(&self) -> usize;

    /// How many there are.
    fn size(&self) -> usize;

    /// Adds up tensors and numbers over all members; every member gets the same bits.
    ///
    /// # Errors
    /// [`GroupError`] if a member is lost.
    fn sum(
        &mut self,
        tensors: Vec<Tensor<3>>,
        numbers: &mut [f64],
    ) -> Result<Vec<Tensor<3>>, GroupError>;

    /// Gives member 0's bytes to all; those of the others are not looked at.
    ///
    /// # Errors
    /// [`GroupError`] if a member is lost.
    fn share(&mut self, bytes: Vec<u8>) -> Result<Vec<u8>, GroupError>;
}

/// A group of one.
#[derive(Debug, Clone, Copy, Default)]
pub struct Alone;

impl Exchange for Alone {
    fn rank(&self) -> usize {
        0
    }

    fn size(&self) -> usize {
        1
    }

    fn sum(
        &mut self,
        tensors: Vec<Tensor<3>>,
        _: &mut [f64],
    ) -> Result<Vec<Tensor<3>>, GroupError> {
        Ok(tensors)
    }

    fn share(&mut self, bytes: Vec<u8>) -> Result<Vec<u8>, GroupError> {
        Ok(bytes)
    }
}
