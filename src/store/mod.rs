//! The data directory.

mod crc;
mod directory;
mod error;
pub mod fs;
mod list;
mod load;
mod metadata;
mod segment;
mod snapshot;

pub use directory::{Directory, LockedDirectory};
pub use error::Error;
pub use load::{AutoRecovery, Loaded, LoadedSnapshot};
pub use metadata::Metadata;
pub use snapshot::{Compression, SnapshotContent};
