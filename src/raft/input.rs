//! Everything that can happen to a server, as values. The driver builds them; only the core reads them.

use super::configuration::Configuration;
use super::message::Message;
use super::types::{Entry, Index, Role, Seq, ServerId, Term, Token};
use bytes::Bytes;

/// The snapshot a log starts from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct SnapshotPoint {
    /// Last index it contains.
    pub index: Index,
    /// Term of that entry.
    pub term: Term,
    /// The last configuration committed at that index.
    pub configuration: Configuration,
    /// Index of the entry that carried that configuration.
    pub configuration_index: Index,
}

/// What the disk held when the server started.
#[derive(Debug, Clone)]
pub struct Start {
    /// Persisted term.
    pub term: Term,
    /// Persisted vote of that term.
    pub voted_for: Option<ServerId>,
    /// Newest snapshot, already restored by the driver.
    pub snapshot: Option<SnapshotPoint>,
    /// Index of `entries[0]`; the next index to append when there is none.
    pub first_index: Index,
    /// The log, from `first_index` on; it may begin before the snapshot's index (trailing entries).
    pub entries: Vec<Entry>,
}

/// The other end of a connection, as it introduced itself.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Peer {
    /// Who it is.
    pub id: ServerId,
    /// Where it is reached; answers go there, as it may be in no configuration we know.
    pub address: String,
}

/// A change of the configuration, by one server at a time (dissertation 4.1).
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Change {
    /// Adds a spare.
    Add {
        /// The new server.
        id: ServerId,
        /// Where it is reached.
        address: String,
    },
    /// Gives a server another role. A server that becomes a voter catches up first (dissertation 4.2.1).
    Assign {
        /// The server.
        id: ServerId,
        /// Its new role.
        role: Role,
    },
    /// Removes a server, which may be this one.
    Remove {
        /// The server.
        id: ServerId,
    },
}

/// One event. The driver passes them to [`Raft::step`](super::Raft::step) one at a time.
#[derive(Debug, Clone)]
pub enum Input {
    /// First input of every server, exactly once.
    Start(Start),
    /// The deadline passed; harmless at any other time.
    Tick,
    /// A message arrived.
    Receive {
        /// From whom, as introduced when the connection was opened.
        from: Peer,
        /// The message.
        message: Message,
    },
    /// A message to this server may have been lost: its connection failed or its queue is full.
    PeerUnreachable {
        /// The server.
        id: ServerId,
    },
    /// The connection on which this leader sends to us has ended. Only a hint: see [`lease`](super::lease).
    ConnectionLost {
        /// The leader. Any other server is ignored.
        leader: ServerId,
    },
    /// Every disk request up to `seq` is durable.
    Persisted {
        /// Highest durable request.
        seq: Seq,
    },
    /// A disk request failed; nothing from `seq` on is durable or will be. Requests before it may still be
    /// reported durable. The server gives up leadership and never leads again: fence the node.
    DiskFailed {
        /// First request that failed.
        seq: Seq,
    },
    /// There was no space for the append `seq`. Everything before it is durable; no append from `seq` on that
    /// was asked for so far is carried out, all other requests are. Tried again after
    /// [`DISK_FULL_RETRY_MS`](crate::config::DISK_FULL_RETRY_MS).
    DiskFull {
        /// First append that was dropped.
        seq: Seq,
        /// Last entry of the log on disk, if some of that append is there.
        stored: Index,
    },
    /// Append these commands to the log, if this server leads.
    Propose {
        /// Names the proposal in the outputs.
        token: Token,
        /// Payload of each command, in order.
        commands: Vec<Bytes>,
    },
    /// Complete once everything now in the log is committed and applied.
    Barrier {
        /// Names the barrier in the outputs.
        token: Token,
    },
    /// The driver has applied everything up to `index`.
    Applied {
        /// Highest applied index.
        index: Index,
    },
    /// The snapshot asked for by [`Output::TakeSnapshot`](super::Output::TakeSnapshot) is on disk.
    SnapshotTaken {
        /// Its index.
        index: Index,
        /// Size of the databases in it, uncompressed; the dynamic trailing strategy compares it with the log.
        size_bytes: u64,
    },
    /// The snapshot could not be written; the core asks again after another threshold of entries.
    SnapshotFailed {
        /// Its index.
        index: Index,
    },
    /// What made the last snapshot fail is over: the core need not wait for more entries.
    RetrySnapshot,
    /// Complete once everything committed when this was asked is applied, and this server was certainly the
    /// leader at some moment since: a query may then read (dissertation 6.4).
    Read {
        /// Names the read in the outputs.
        token: Token,
    },
    /// Change the configuration, if this server leads.
    Change {
        /// Names the change in the outputs.
        token: Token,
        /// What to change.
        change: Change,
    },
    /// Move the leadership to another voter (dissertation 3.10).
    Transfer {
        /// Names the transfer in the outputs.
        token: Token,
        /// The new leader; `None` lets the core choose.
        to: Option<ServerId>,
    },
    /// The snapshot of [`Output::SendSnapshot`](super::Output::SendSnapshot) was sent, or was not.
    SnapshotSent {
        /// To whom.
        to: ServerId,
        /// Whether all of it left this host.
        ok: bool,
    },
    /// The answer to [`Output::ReadEntries`](super::Output::ReadEntries), given once to each, whatever
    /// happened since.
    EntriesRead {
        /// For whom.
        to: ServerId,
        /// The entries from the first one on that was asked for, no more than were asked for; none if they
        /// could not be read.
        entries: Vec<Entry>,
    },
    /// The snapshot of [`Output::InstallSnapshot`](super::Output::InstallSnapshot) is durable and all
    /// databases are in its state; or nothing has changed.
    SnapshotInstalled {
        /// Its index.
        index: Index,
        /// Whether it was installed.
        ok: bool,
    },
}
