//! A file mapped into memory for reading.

use std::fs::File;
use std::ops::Range;
use std::path::Path;

use memmap2::Mmap;

use super::WeightsError;

/// A read-only mapping with the path it came from, for error messages.
#[derive(Debug)]
pub(super) struct MappedFile {
    map: Mmap,
    name: String,
}

impl MappedFile {
    /// Maps a regular, non-empty file.
    pub(super) fn open(path: &Path) -> Result<Self, WeightsError> {
        let name = path.display().to_string();
        let read_error = |source| WeightsError::Read {
            file: path.display().to_string(),
            source,
        };
        // Looked at before opening: opening a named pipe would wait for a writer.
        let about = std::fs::metadata(path).map_err(read_error)?;
        if !about.is_file() || about.len() == 0 {
            return Err(WeightsError::Header {
                file: name,
                at: 0,
                reason: "not a file with content".to_owned(),
            });
        }
        let file = File::open(path).map_err(read_error)?;
        // SAFETY: the mapping is only read. As with every mapped file, another process that cuts
        // the file short while it is in use makes this one fail; model files are not edited in place.
        #[allow(unsafe_code)]
        let map = unsafe { Mmap::map(&file) }.map_err(read_error)?;
        Ok(Self { map, name })
    }

    /// The whole file.
    pub(super) fn bytes(&self) -> &[u8] {
        &self.map
    }

    /// The path, for messages.
    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// Tells the system that `range` is about to be read from front to back. Only a hint: a refusal
    /// changes nothing but speed.
    pub(super) fn expect(&self, range: &Range<usize>) {
        #[cfg(unix)]
        let _ = self
            .map
            .advise_range(memmap2::Advice::WillNeed, range.start, range.len());
        #[cfg(not(unix))]
        let _ = range;
    }

    /// Gives the pages of `range` back to the system, so that a loaded model and its file are not
    /// both counted as this process's memory. Only a hint, too.
    pub(super) fn release(&self, range: &Range<usize>) {
        #[cfg(target_os = "linux")]
        {
            use memmap2::UncheckedAdvice::DontNeed;
            // SAFETY: the pages belong to a shared read-only file mapping; a later access reads the
            // same bytes from the file again, also for neighbours on a page that is shared.
            #[allow(unsafe_code)]
            let _ = unsafe {
                self.map
                    .unchecked_advise_range(DontNeed, range.start, range.len())
            };
        }
        #[cfg(not(target_os = "linux"))]
        let _ = range;
    }
}
