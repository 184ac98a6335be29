//! The student's own answers as data.

use std::error::Error;

use cartridges_model::cartridge::Cartridge;

use crate::packing::PackedRow;

/// Lets the student answer and scores the answers.
pub trait Teacher {
    /// Rows with answers that the student gives before step `step`, from 0, and the teacher's distribution
    /// over them: the share of process `rank` of `size`. They depend on the student, the step and what the
    /// teacher was made with, so that a resumed run sees the same.
    ///
    /// # Errors
    /// If the model fails.
    fn rows(
        &mut self,
        student: &Cartridge,
        step: usize,
        rank: usize,
        size: usize,
    ) -> Result<Vec<PackedRow>, Box<dyn Error + Send + Sync>>;
}
