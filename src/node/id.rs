//! Ids for new servers.

use sha1_smol::Sha1;
use std::time::{SystemTime, UNIX_EPOCH};

/// A node id from an address and the clock: the last 8 bytes, little-endian, of the SHA-1 of the address
/// followed by the nanoseconds since 1970 as 8 little-endian bytes, as in C. Not guaranteed to be unique.
pub fn generate_node_id(address: &[u8]) -> u64 {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    node_id(address, since_epoch.as_nanos() as u64)
}

fn node_id(address: &[u8], now_ns: u64) -> u64 {
    let mut sha1 = Sha1::new();
    sha1.update(address);
    sha1.update(&now_ns.to_le_bytes());
    let digest = sha1.digest().bytes();
    digest[12..].iter().rev().fold(0, |id, byte| id << 8 | u64::from(*byte))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_bootstrap_id_is_that_of_the_text_1_at_time_zero() {
        assert_eq!(node_id(b"1", 0), crate::config::BOOTSTRAP_IDS[1]);
    }
}
