//! How messages stand in log files: TensorFlow's records, and LevelDB's log as Weights & Biases has it.

use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;

use super::crc::{CASTAGNOLI, IEEE};

/// TensorFlow's checksum of a checksum ("masked"): rotated and moved, so that records may hold records.
fn masked(crc: u32) -> u32 {
    crc.rotate_right(15).wrapping_add(0xa282_ead8)
}

/// A record of TensorFlow: length, its checksum, the bytes, their checksum.
pub fn tf_record(bytes: &[u8]) -> Vec<u8> {
    let length = (bytes.len() as u64).to_le_bytes();
    let mut record = Vec::with_capacity(bytes.len() + 16);
    record.extend_from_slice(&length);
    record.extend_from_slice(&masked(CASTAGNOLI.of(&[&length])).to_le_bytes());
    record.extend_from_slice(bytes);
    record.extend_from_slice(&masked(CASTAGNOLI.of(&[bytes])).to_le_bytes());
    record
}

const BLOCK: usize = 32768;
const HEADER: usize = 7;

/// A file of Weights & Biases (`run-*.wandb`): a head of seven bytes, then LevelDB's log with the IEEE
/// checksum. A record stands in blocks of 32 KiB; what does not fit goes on in the next.
#[derive(Debug)]
pub struct WandbLog {
    file: File,
    /// Bytes written.
    length: usize,
}

impl WandbLog {
    /// A new file.
    ///
    /// # Errors
    /// If it exists or cannot be written.
    pub fn create(path: &Path) -> io::Result<Self> {
        let mut file = OpenOptions::new().write(true).create_new(true).open(path)?;
        file.write_all(b":W&B\xe1\xbe\x00")?;
        Ok(Self {
            file,
            length: HEADER,
        })
    }

    /// Appends a record.
    ///
    /// # Errors
    /// If it cannot be written.
    pub fn append(&mut self, record: &[u8]) -> io::Result<()> {
        let mut out = Vec::with_capacity(record.len() + 2 * HEADER);
        let mut rest = record;
        let mut first = true;
        loop {
            let mut room = BLOCK - (self.length + out.len()) % BLOCK;
            if room < HEADER {
                out.resize(out.len() + room, 0);
                room = BLOCK;
            }
            let (part, after) = rest.split_at(rest.len().min(room - HEADER));
            // Whole, first, middle and last part.
            let kind: u8 = match (first, after.is_empty()) {
                (true, true) => 1,
                (true, false) => 2,
                (false, false) => 3,
                (false, true) => 4,
            };
            out.extend_from_slice(&IEEE.of(&[&[kind], part]).to_le_bytes());
            out.extend_from_slice(&(part.len() as u16).to_le_bytes());
            out.push(kind);
            out.extend_from_slice(part);
            (rest, first) = (after, false);
            if rest.is_empty() {
                break;
            }
        }
        self.file.write_all(&out)?;
        self.length += out.len();
        Ok(())
    }

    /// Waits until everything is on disk.
    ///
    /// # Errors
    /// If that fails.
    pub fn sync(&self) -> io::Result<()> {
        self.file.sync_all()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Reads the log by its description: blocks, headers, checksums, parts.
    fn read_log(bytes: &[u8]) -> Vec<Vec<u8>> {
        let (mut at, mut records, mut open) = (HEADER, Vec::new(), Vec::new());
        while at < bytes.len() {
            if BLOCK - at % BLOCK < HEADER {
                at += BLOCK - at % BLOCK;
                continue;
            }
            let crc = u32::from_le_bytes(bytes[at..at + 4].try_into().unwrap());
            let len = usize::from(u16::from_le_bytes(
                bytes[at + 4..at + 6].try_into().unwrap(),
            ));
            let kind = bytes[at + 6];
            let end = at + HEADER + len;
            assert_eq!(at / BLOCK, (end - 1) / BLOCK, "a part crosses a block");
            assert_eq!(crc, IEEE.of(&[&bytes[at + 6..end]]));
            assert_eq!(matches!(kind, 1 | 2), open.is_empty());
            open.extend_from_slice(&bytes[at + HEADER..end]);
            if matches!(kind, 1 | 4) {
                records.push(std::mem::take(&mut open));
            }
            at = end;
        }
        records
    }

    #[test]
    fn records_go_across_blocks() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("run.wandb");
        let mut log = WandbLog::create(&path).unwrap();
        // The second ends 3 bytes before a block does, the third needs three blocks.
        let lengths = [10, BLOCK - 3 * HEADER - 10 - 3, 70_000, 1];
        let records: Vec<Vec<u8>> = lengths
            .iter()
            .map(|n| (0..*n).map(|i| (i % 251) as u8).collect())
            .collect();
        for record in &records {
            log.append(record).unwrap();
        }
        let bytes = std::fs::read(&path).unwrap();
        assert_eq!(&bytes[..HEADER], b":W&B\xe1\xbe\x00");
        assert_eq!(read_log(&bytes), records);
        assert!(WandbLog::create(&path).is_err());
    }

    /// The head of an event file as TensorBoard's own writer (2.21) writes it at time 0.
    #[test]
    fn a_record_is_that_of_tensorboard() {
        let event = b"\x09\0\0\0\0\0\0\0\0\x1a\x0dbrain.Event:2";
        let hex: String = tf_record(event)
            .iter()
            .map(|b| format!("{b:02x}"))
            .collect();
        let wanted =
            "1800000000000000a37f4b220900000000000000001a0d627261696e2e4576656e743a32eedf28a3";
        assert_eq!(hex, wanted);
    }
}
