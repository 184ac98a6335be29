//! Reading files within limits.

use std::fs::File;
use std::io::Read;
use std::path::Path;

use super::error::ResourceError;
use super::notes::Notes;

/// The largest text that is read, in bytes; also the largest that a folder or an archive may add up to.
pub const MAX_TEXT_BYTES: u64 = 1 << 30;

/// Reads a UTF-8 file of at most [`MAX_TEXT_BYTES`]; a byte order mark is dropped.
pub fn read_text(path: &Path) -> Result<String, ResourceError> {
    let bytes = read_bytes(path, MAX_TEXT_BYTES)?;
    let text = String::from_utf8(bytes).map_err(|e| ResourceError::NotText {
        path: path.to_owned(),
        offset: e.utf8_error().valid_up_to(),
    })?;
    Ok(match text.strip_prefix('\u{feff}') {
        Some(rest) => rest.to_owned(),
        None => text,
    })
}

/// Reads a file of at most `limit` bytes.
pub(super) fn read_bytes(path: &Path, limit: u64) -> Result<Vec<u8>, ResourceError> {
    let file = File::open(path).map_err(ResourceError::io(path))?;
    read_limited(file, path, limit)
}

/// Reads at most `limit` bytes; `path` is for the error.
pub(super) fn read_limited(
    reader: impl Read,
    path: &Path,
    limit: u64,
) -> Result<Vec<u8>, ResourceError> {
    let mut bytes = Vec::new();
    reader
        .take(limit.saturating_add(1))
        .read_to_end(&mut bytes)
        .map_err(ResourceError::io(path))?;
    if bytes.len() as u64 > limit {
        return Err(ResourceError::TooLarge {
            path: path.to_owned(),
            limit,
        });
    }
    Ok(bytes)
}

/// The text of bytes in UTF-8, in UTF-16 with a byte order mark, or else in Windows-1252, which is
/// noted; `None` if there is a zero byte, which no text has.
pub(super) fn decode_lenient(bytes: &[u8], name: &str, notes: &mut Notes) -> Option<String> {
    if let Some((encoding, _)) = encoding_rs::Encoding::for_bom(bytes) {
        let (text, _, errors) = encoding.decode(bytes);
        if errors {
            notes.add("file has bytes that form no character, replaced", name);
        }
        return (!text.contains('\0')).then(|| text.into_owned());
    }
    if bytes.contains(&0) {
        return None;
    }
    Some(match std::str::from_utf8(bytes) {
        Ok(text) => text.to_owned(),
        Err(_) => {
            notes.add("file is not UTF-8, read as Windows-1252", name);
            encoding_rs::WINDOWS_1252.decode(bytes).0.into_owned()
        }
    })
}

/// A path's file name, for people.
pub fn file_name(path: &Path) -> String {
    path.file_name()
        .unwrap_or(path.as_os_str())
        .to_string_lossy()
        .into_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_kept_and_missing_and_binary_files_are_named() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("gone.txt");
        let error = read_text(&path).unwrap_err().to_string();
        assert!(error.contains("gone.txt"), "{error}");
        std::fs::write(&path, b"ab\xff").unwrap();
        assert!(matches!(
            read_text(&path),
            Err(ResourceError::NotText { offset: 2, .. })
        ));
        std::fs::write(&path, "\u{feff}ab").unwrap();
        assert_eq!(read_text(&path).unwrap(), "ab");
        assert_eq!(read_bytes(&path, 5).unwrap().len(), 5);
        assert!(matches!(
            read_bytes(&path, 4),
            Err(ResourceError::TooLarge { limit: 4, .. })
        ));
    }

    #[test]
    fn other_encodings_are_read_and_noted() {
        let mut notes = Notes::default();
        let mut decode = |bytes: &[u8]| decode_lenient(bytes, "f", &mut notes);
        assert_eq!(decode("naïve".as_bytes()).unwrap(), "naïve");
        assert_eq!(decode(b"\xff\xfea\0b\0").unwrap(), "ab");
        assert_eq!(decode(b"na\xefve \x80").unwrap(), "naïve €");
        assert_eq!(decode(b"a\0b"), None);
        assert_eq!(notes.finish()[0].count, 1);
    }
}
