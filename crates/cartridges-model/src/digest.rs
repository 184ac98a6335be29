//! Digests as text.

/// Lower-case hexadecimal digits, two per byte.
pub(crate) fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

/// Whether this is a SHA-256 as [`hex`] writes it.
pub(crate) fn is_sha256(text: &str) -> bool {
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
