//! The two checksums of 32 bits that log files use, both with reflected bits and inverted ends.

/// A checksum's table.
pub struct Crc32([u32; 256]);

/// Castagnoli's polynomial, in TensorFlow's records.
pub const CASTAGNOLI: Crc32 = Crc32::new(0x82f6_3b78);

/// The polynomial of IEEE 802.3 (zlib's), in the records of Weights & Biases.
pub const IEEE: Crc32 = Crc32::new(0xedb8_8320);

impl Crc32 {
    const fn new(polynomial: u32) -> Self {
        let mut table = [0; 256];
        let mut byte = 0;
        while byte < 256 {
            let mut crc = byte as u32;
            let mut bit = 0;
            while bit < 8 {
                crc = match crc & 1 {
                    0 => crc >> 1,
                    _ => (crc >> 1) ^ polynomial,
                };
                bit += 1;
            }
            table[byte] = crc;
            byte += 1;
        }
        Self(table)
    }

    /// The checksum of all parts one behind the other.
    pub fn of(&self, parts: &[&[u8]]) -> u32 {
        let bytes = parts.iter().copied().flatten();
        !bytes.fold(u32::MAX, |crc, byte| {
            (crc >> 8) ^ self.0[((crc ^ u32::from(*byte)) & 0xff) as usize]
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The check values of the catalogue of CRC algorithms, and RFC 3720's B.4.
    #[test]
    fn known_vectors() {
        assert_eq!(CASTAGNOLI.of(&[b"123456789"]), 0xe306_9283);
        assert_eq!(CASTAGNOLI.of(&[&[0; 32]]), 0x8a91_36aa);
        assert_eq!(CASTAGNOLI.of(&[&[0xff; 32]]), 0x62a8_ab43);
        let rising: Vec<u8> = (0..32).collect();
        assert_eq!(CASTAGNOLI.of(&[&rising[..7], &rising[7..]]), 0x46dd_794e);
        assert_eq!(IEEE.of(&[b"1234", b"56789"]), 0xcbf4_3926);
    }
}
