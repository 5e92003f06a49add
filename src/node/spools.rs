//! Where the connections of other servers put the snapshots that they send: into the store.

use crate::net::receive;
use crate::raft::SnapshotData;
use crate::store::{self, Compression};
use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

/// The store's, compressed as the node is set.
pub(super) struct Spools {
    store: store::Spools,
    compression: Arc<AtomicBool>,
}

impl Spools {
    pub(super) fn new(store: store::Spools, compression: Arc<AtomicBool>) -> Spools {
        Spools { store, compression }
    }
}

impl receive::Spools for Spools {
    fn begin(&self, size: u64) -> io::Result<Box<dyn receive::Spool>> {
        Ok(Box::new(self.store.begin(size, Compression::when(self.compression.load(Ordering::Relaxed)))?))
    }
}

impl receive::Spool for store::Spool {
    fn write(&mut self, bytes: &[u8]) -> io::Result<()> {
        store::Spool::write(self, bytes)
    }

    fn finish(self: Box<Self>) -> io::Result<SnapshotData> {
        store::Spool::finish(*self).map(SnapshotData::new)
    }
}
