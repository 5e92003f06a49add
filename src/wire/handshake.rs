//! The first 8 bytes of a connection, sent by the client and never answered.
//!
//! ```text
//! 01 00 00 00 00 00 00 00   the current protocol
//! e5 3f 43 60 d7 4d 10 86   the protocol before 1.0: LEADER is answered without the id, all else is the same
//! anything else             the connection is closed without a byte
//! ```

/// Size of the version word in bytes.
pub const SIZE: usize = 8;

const CURRENT: u64 = 1;
const LEGACY: u64 = 0x8610_4dd7_6043_3fe5;

/// What a client speaks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Protocol {
    /// Version 1.
    Current,
    /// The version before 1.0, which differs only in the answer to LEADER.
    Legacy,
}

impl Protocol {
    /// Reads a version word; `None` means that the connection must be closed.
    pub fn decode(word: [u8; SIZE]) -> Option<Protocol> {
        match u64::from_le_bytes(word) {
            CURRENT => Some(Protocol::Current),
            LEGACY => Some(Protocol::Legacy),
            _ => None,
        }
    }

    /// The version word.
    pub fn encode(self) -> [u8; SIZE] {
        match self {
            Protocol::Current => CURRENT.to_le_bytes(),
            Protocol::Legacy => LEGACY.to_le_bytes(),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_two_known_words_have_their_recorded_bytes() {
        assert_eq!(Protocol::Current.encode(), [1, 0, 0, 0, 0, 0, 0, 0]);
        assert_eq!(Protocol::Legacy.encode(), [0xe5, 0x3f, 0x43, 0x60, 0xd7, 0x4d, 0x10, 0x86]);
        for protocol in [Protocol::Current, Protocol::Legacy] {
            assert_eq!(Protocol::decode(protocol.encode()), Some(protocol));
        }
    }

    #[test]
    fn any_other_word_is_refused() {
        for word in [0, 2, 1 << 32, u64::MAX, LEGACY ^ 1] {
            assert_eq!(Protocol::decode(word.to_le_bytes()), None, "{word:#x}");
        }
    }
}
