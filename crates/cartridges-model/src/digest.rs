//! Digests, of files and as text.

use std::fs::File;
use std::io::{self, ErrorKind, Read, Write};
use std::path::Path;

use sha2::Digest;
use sha2::digest::Output;

/// Lower-case hexadecimal digits, two per byte.
pub fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// The digest of a file's bytes.
pub(crate) fn of_file<D: Digest>(path: &Path) -> io::Result<Output<D>> {
    let (digest, _) = pass_on::<D>(&mut File::open(path)?, &mut io::sink())??;
    Ok(digest)
}

/// Passes on all that comes; its digest and its length. The outer error is the sink's, the inner the source's.
pub(crate) fn pass_on<D: Digest>(
    source: &mut impl Read,
    sink: &mut dyn Write,
) -> io::Result<io::Result<(Output<D>, u64)>> {
    let (mut hash, mut length) = (D::new(), 0);
    let mut piece = vec![0; 1 << 20];
    loop {
        match source.read(&mut piece) {
            Ok(0) => return Ok(Ok((hash.finalize(), length))),
            Ok(n) => {
                hash.update(&piece[..n]);
                length += n as u64;
                sink.write_all(&piece[..n])?;
            }
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) => return Ok(Err(error)),
        }
    }
}

/// Whether this is a SHA-256 as [`hex`] writes it.
pub fn is_sha256(text: &str) -> bool {
    let is_digit = |b: u8| b.is_ascii_digit() || (b'a'..=b'f').contains(&b);
    text.len() == 64 && text.bytes().all(is_digit)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn digits_are_lower_case_and_all_of_them_count() {
        assert_eq!(hex(&[0, 9, 0xab, 0xff]), "0009abff");
        assert!(is_sha256(&hex(&[0xe1; 32])));
        assert!(!is_sha256(&hex(&[0xe1; 31])) && !is_sha256(&"E1".repeat(32)));
    }
}
