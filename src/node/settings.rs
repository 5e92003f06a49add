//! What can be set on a node, with the limits of the C API.

use super::{Error, TrailingStrategy};
use crate::config;
use crate::store::AutoRecovery;

/// Everything a setter may change before start.
#[derive(Debug, Clone)]
pub struct Settings {
    /// Election timeout.
    pub election_timeout_ms: u64,
    /// Heartbeat interval.
    pub heartbeat_timeout_ms: u64,
    /// Entries between two snapshots.
    pub snapshot_threshold: u64,
    /// Entries kept behind a snapshot.
    pub snapshot_trailing: u64,
    /// How the entries kept in memory are counted.
    pub trailing_strategy: TrailingStrategy,
    /// Worker threads of the client runtime.
    pub client_threads: u32,
    /// Size of an open segment in bytes.
    pub segment_size: usize,
    /// Whether start may set damaged segments aside.
    pub auto_recovery: AutoRecovery,
}

impl Default for Settings {
    fn default() -> Settings {
        Settings {
            election_timeout_ms: config::ELECTION_TIMEOUT_MS,
            heartbeat_timeout_ms: config::HEARTBEAT_TIMEOUT_MS,
            snapshot_threshold: config::SNAPSHOT_THRESHOLD,
            snapshot_trailing: config::SNAPSHOT_TRAILING,
            trailing_strategy: TrailingStrategy::Static,
            client_threads: default_client_threads(),
            segment_size: config::SEGMENT_SIZE,
            auto_recovery: AutoRecovery::On,
        }
    }
}

fn default_client_threads() -> u32 {
    let processors = std::thread::available_parallelism().map_or(1, |count| count.get() as u32);
    processors.min(config::CLIENT_THREADS_DEFAULT)
}

impl Settings {
    /// Derives the timeouts from a round-trip time between servers.
    pub fn set_network_latency_ms(&mut self, latency_ms: u64) -> Result<(), Error> {
        if !(1..=config::NETWORK_LATENCY_MAX_MS).contains(&latency_ms) {
            return Err(Error::misuse(format!(
                "network latency of {latency_ms} ms is out of range: use 1 to {}",
                config::NETWORK_LATENCY_MAX_MS
            )));
        }
        self.heartbeat_timeout_ms = latency_ms * 15 / 10;
        self.election_timeout_ms = latency_ms * 15;
        Ok(())
    }

    /// Nothing changes on an error.
    pub fn set_snapshot_params(
        &mut self,
        threshold: u32,
        trailing: u32,
        strategy: TrailingStrategy,
    ) -> Result<(), Error> {
        if trailing < 4 {
            return Err(Error::misuse(format!("{trailing} trailing entries are too few: use 4 or more")));
        }
        if trailing < threshold {
            return Err(Error::misuse(format!(
                "{trailing} trailing entries are fewer than the snapshot threshold {threshold}"
            )));
        }
        self.snapshot_threshold = threshold.into();
        self.snapshot_trailing = trailing.into();
        self.trailing_strategy = strategy;
        Ok(())
    }

    /// Powers of two from 512 bytes to 256 KiB. C aligns its direct I/O to it; our log is written through the
    /// page cache, which needs no alignment, so the value is checked and has no effect.
    pub fn set_block_size(&mut self, size: usize) -> Result<(), Error> {
        if !size.is_power_of_two() || !(512..=256 << 10).contains(&size) {
            return Err(Error::failed(format!(
                "block size {size} is not supported: use a power of two from 512 to 262144"
            )));
        }
        Ok(())
    }

    /// Nothing changes on an error.
    pub fn set_segment_size(&mut self, size: usize) -> Result<(), Error> {
        let range = config::SEGMENT_SIZE_MIN..=config::SEGMENT_SIZE;
        if !range.contains(&size) {
            let (min, max) = range.into_inner();
            return Err(Error::misuse(format!("segment size {size} is out of range: use {min} to {max}")));
        }
        self.segment_size = size;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::node::ErrorKind;

    #[test]
    fn network_latency_sets_both_timeouts_within_its_range() {
        let mut settings = Settings::default();
        settings.set_network_latency_ms(5).unwrap();
        assert_eq!((settings.heartbeat_timeout_ms, settings.election_timeout_ms), (7, 75));
        settings.set_network_latency_ms(3_600_000).unwrap();
        for bad in [0, 3_600_001] {
            assert_eq!(settings.set_network_latency_ms(bad).unwrap_err().kind, ErrorKind::Misuse);
        }
        assert_eq!(settings.election_timeout_ms, 54_000_000);
    }

    #[test]
    fn snapshot_parameters_are_refused_whole() {
        let mut settings = Settings::default();
        for (threshold, trailing) in [(1, 3), (10, 9)] {
            let outcome = settings.set_snapshot_params(threshold, trailing, TrailingStrategy::Dynamic);
            assert_eq!(outcome.unwrap_err().kind, ErrorKind::Misuse);
        }
        assert_eq!((settings.snapshot_threshold, settings.snapshot_trailing), (1024, 8192));
        assert_eq!(settings.trailing_strategy, TrailingStrategy::Static);
        settings.set_snapshot_params(0, 4, TrailingStrategy::Dynamic).unwrap();
    }

    #[test]
    fn block_sizes_are_powers_of_two_between_512_and_256_kib() {
        let mut settings = Settings::default();
        for good in (9..=18).map(|bits| 1 << bits) {
            settings.set_block_size(good).unwrap();
        }
        for bad in [0, 1, 256, 513, 4095, 512 << 10] {
            assert_eq!(settings.set_block_size(bad).unwrap_err().kind, ErrorKind::Failed);
        }
    }

    #[test]
    fn segments_have_at_most_their_usual_size_and_room_for_a_page() {
        let mut settings = Settings::default();
        assert_eq!(settings.segment_size, 8 << 20);
        for bad in [0, 8191, (8 << 20) + 1] {
            assert_eq!(settings.set_segment_size(bad).unwrap_err().kind, ErrorKind::Misuse);
        }
        settings.set_segment_size(8192).unwrap();
        assert_eq!(settings.segment_size, 8192);
    }
}
