//! Databases: sessions that run SQL on the leader, the write lane, and the state machine that applies
//! commands.
//!
//! A session executes a write on the *speculative* view of its database, hands the resulting transaction to
//! Raft as a [`Proposal`] and answers its client once the transaction is published: docs/ARCHITECTURE.md,
//! section 6a.

mod budget;
mod command;
mod connection;
mod fsm;
mod lane;
mod query;
mod registry;
mod snapshot;
mod status;
mod turns;

pub use budget::{ClientWatch, Verdict};
pub use connection::DatabaseConnection;
pub use fsm::{Error as FsmError, Fsm};
pub use query::{Fill, Query};
pub use registry::{Database, Registry};
pub use snapshot::{Snapshot, SnapshotError};
pub use status::Status;

use crate::sqlite;
use crate::vfs::{self, TransactionId};
use crate::wire::failure;
use bytes::Bytes;
use std::borrow::Cow;
use std::sync::Arc;
use tokio::sync::oneshot;

/// A transaction that SQLite closed in the speculative view, on its way to the log.
pub struct Proposal {
    /// Where it ran.
    pub database: Arc<Database>,
    /// Its number in that database.
    pub transaction: TransactionId,
    /// [`Database::void_count`] when it ran: it is void if the count has changed since.
    pub void_count: u64,
    /// The FRAMES command.
    pub command: Bytes,
    /// Told once it is published, or why it will not be.
    pub done: oneshot::Sender<Result<(), Refused>>,
}

/// What sessions ask of the Raft thread.
pub enum Request {
    /// To commit a transaction.
    Propose(Proposal),
    /// To confirm that the databases may be read: everything committed when this was asked is applied, and
    /// this node certainly led at some moment since.
    Read {
        /// Told once it is so.
        done: oneshot::Sender<Result<(), Refused>>,
    },
}

/// Why a request was not carried out here. Clients may repeat what was refused with `NotLeader`, so it is
/// never said of a request of which anything may have reached the log.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Refused {
    /// This node does not lead, or does no longer: nothing of the request is in any log.
    NotLeader,
    /// Leadership ended while a transaction of the request waited for its commit: its outcome is unknown.
    LeadershipLost,
    /// The disk is full: the transaction is nowhere.
    DiskFull,
}

/// What a client is told when its request fails.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Failure {
    /// SQLite's extended code, or one of [`failure`].
    pub code: u64,
    /// The message.
    pub text: Cow<'static, str>,
}

/// SQLITE_INTERRUPT: a statement was stopped.
const INTERRUPT: u64 = 9;
/// SQLITE_CANTOPEN: the database cannot be created or opened under this name.
const CANTOPEN: u64 = 14;

impl From<failure::Failure> for Failure {
    fn from(fixed: failure::Failure) -> Failure {
        Failure { code: fixed.code, text: Cow::Borrowed(fixed.text) }
    }
}

impl From<sqlite::Error> for Failure {
    fn from(error: sqlite::Error) -> Failure {
        Failure { code: u64::from(error.code.unsigned_abs()), text: Cow::Owned(error.message) }
    }
}

impl From<vfs::Error> for Failure {
    fn from(error: vfs::Error) -> Failure {
        Failure { code: CANTOPEN, text: Cow::Owned(error.to_string()) }
    }
}

impl From<Refused> for Failure {
    fn from(refused: Refused) -> Failure {
        match refused {
            Refused::NotLeader => failure::NOT_LEADER.into(),
            Refused::LeadershipLost => failure::LEADERSHIP_LOST.into(),
            Refused::DiskFull => failure::DISK_FULL.into(),
        }
    }
}
