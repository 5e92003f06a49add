//! The Raft core.

pub mod configuration;
pub mod input;
pub mod output;
pub mod types;

pub use configuration::{Configuration, ConfigurationError, Server};
pub use input::{Input, SnapshotPoint, Start};
pub use output::{Output, Refusal, State};
pub use types::{Entry, EntryKind, Index, Role, Seq, ServerId, Term, Time, Token};
