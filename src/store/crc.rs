//! The CRC-32 of segments and snapshot metadata. Pure.
//!
//! Polynomial 0x04C11DB7, most significant bit first, initial value 0, no final inversion: not zlib's. It is
//! `cksum`'s without its final inversion, which `crc-fast` computes with carry-less multiplication. Measured
//! against a slicing-by-8 table on x86-64: 4 KiB at 8.4 instead of 1.4 GB/s, 24 bytes in 32 instead of 13 ns.

use crc_fast::{CrcAlgorithm, Digest};

/// A running checksum: feeding pieces one after the other equals feeding their concatenation.
pub(super) struct Crc(Digest);

impl Crc {
    /// Of no bytes.
    pub(super) fn new() -> Crc {
        Crc(Digest::new(CrcAlgorithm::Crc32Cksum))
    }

    /// Continues with `bytes`.
    pub(super) fn update(&mut self, bytes: &[u8]) {
        self.0.update(bytes);
    }

    /// The checksum of everything so far.
    pub(super) fn value(&self) -> u32 {
        !(self.0.finalize() as u32)
    }
}

/// The checksum of one piece.
pub(super) fn crc(bytes: &[u8]) -> u32 {
    let mut crc = Crc::new();
    crc.update(bytes);
    crc.value()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The definition, bit by bit.
    fn by_definition(bytes: &[u8]) -> u32 {
        bytes.iter().fold(0u32, |mut crc, byte| {
            crc ^= u32::from(*byte) << 24;
            for _ in 0..8 {
                crc = if crc & 0x8000_0000 != 0 { crc << 1 ^ 0x04C1_1DB7 } else { crc << 1 };
            }
            crc
        })
    }

    #[test]
    fn the_check_value_is_that_of_the_c_library() {
        assert_eq!(crc(b"123456789"), 0x89A1_897F);
    }

    #[test]
    fn a_run_of_zeros_has_the_checksum_zero() {
        assert_eq!(crc(&[0; 4096]), 0);
        assert_eq!(crc(&[]), 0);
    }

    #[test]
    fn every_length_agrees_with_the_definition_and_pieces_chain() {
        let bytes: Vec<u8> = (0..1500u32).map(|i| (i.wrapping_mul(2_654_435_761) >> 13) as u8).collect();
        for len in (0..300).chain([511, 512, 513, 1024, 1499, 1500]) {
            let expected = by_definition(&bytes[..len]);
            assert_eq!(crc(&bytes[..len]), expected, "{len} bytes");
            let mut chained = Crc::new();
            bytes[..len].chunks(7).for_each(|piece| chained.update(piece));
            assert_eq!(chained.value(), expected, "{len} bytes in pieces");
        }
    }
}
