//! The printable alphabet of byte-level BPE (GPT-2): one character for each of the 256 bytes.

/// The byte that a character of the alphabet stands for; none for characters outside it.
///
/// Printable Latin-1 characters stand for themselves; the other 68 bytes follow, in order, from
/// U+0100 on.
pub(super) fn byte_of(character: char) -> Option<u8> {
    let code = u32::from(character);
    match code {
        0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff => u8::try_from(code).ok(),
        0x100..=0x120 => u8::try_from(code - 0x100).ok(),
        0x121..=0x142 => u8::try_from(code - 0x121 + 0x7f).ok(),
        0x143 => Some(0xad),
        _ => None,
    }
}

/// The characters of the alphabet in the order of their bytes.
pub(super) fn characters() -> [char; 256] {
    let mut all = [char::default(); 256];
    for character in '\u{21}'..='\u{143}' {
        if let Some(byte) = byte_of(character) {
            all[usize::from(byte)] = character;
        }
    }
    all
}

/// The bytes a token stands for. A token with a character outside the alphabet (an added token
/// in plain text) stands for its own UTF-8 bytes.
pub(super) fn token_bytes(token: &str) -> Vec<u8> {
    let mapped: Option<Vec<u8>> = token.chars().map(byte_of).collect();
    mapped.unwrap_or_else(|| token.as_bytes().to_vec())
}

#[cfg(test)]
mod tests {
    use super::{byte_of, characters};

    #[test]
    fn every_byte_has_exactly_one_character() {
        // Written from the alphabet's definition: self for printable, then U+0100 upwards.
        let mut next = 0x100;
        for byte in 0u32..256 {
            let printable = matches!(byte, 0x21..=0x7e | 0xa1..=0xac | 0xae..=0xff);
            let code = if printable {
                byte
            } else {
                next += 1;
                next - 1
            };
            let character = char::from_u32(code).unwrap();
            assert_eq!(byte_of(character).map(u32::from), Some(byte));
            assert_eq!(characters()[byte as usize], character);
        }
        assert_eq!(byte_of(char::from_u32(next).unwrap()), None);
        assert_eq!(byte_of(' '), None);
    }
}
