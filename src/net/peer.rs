//! Connections to the other servers, on which we only write: the version word and CONNECT, then messages.
//! [`Peers`] belongs to the Raft thread and never blocks; each peer has a queue and a task that connects,
//! writes and notices when the other side closes. The tasks run on the Raft thread, too: what it queues
//! leaves without waking anybody, and all that it queued in one go leaves together. Only connecting happens
//! elsewhere: an embedder's function may block for long, and a runtime with such a call cannot end.
//!
//! ```text
//! waiting --(something to send)--> connecting --> connected
//!    ^                                 |              |
//!    +------ delay, 20 ms to 1 s <-----+--- failed <--+      the queue is dropped, Unreachable is reported
//! ```
//!
//! A connection that breaks is made again at once if it was in use lately, before the next message needs it:
//! a follower must not lose its leader for longer than a blip. The delay doubles while connections last less
//! than its maximum, since a server that is not ready accepts and closes.
//!
//! One that the other server closed waits until that server is heard of again, or for the longest delay: it
//! is stopping, and what stands before it (a proxy for TLS, an HTTP server that hands connections over) may
//! still accept in its place. A process with go-dqlite dies of a panic then.
//!
//! Messages on one connection stay in order. What was written before a connection broke may be lost, and a
//! broken one may still deliver after the next has begun: Raft allows for both.

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io;
use std::pin::pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use bytes::{BufMut, Bytes, BytesMut};
use tokio::runtime::Handle;
use tokio::sync::Notify;
use tokio::task::{JoinError, JoinHandle, JoinSet};
use tracing::debug;

use super::connect::{Connect, ConnectError};
use super::outbox::{Outbox, Pushed, Ticket, Writing};
use super::stream::{Detached, Stream};
use crate::config::{PEER_RECENT_MS, PEER_RECONNECT_MAX_MS, PEER_RECONNECT_MIN_MS, PEERS_MAX};
use crate::raft::input::Peer;
use crate::raft::message::{InstallSnapshot, Message};
use crate::raft::types::ServerId;
use crate::wire::handshake::Protocol;
use crate::wire::raft::{Encoded, encode};
use crate::wire::request::{Request, Server};

/// What the Raft core wants to know about its messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum PeerEvent {
    /// Messages to this server were dropped, or were on a connection that broke.
    Unreachable {
        /// The server.
        id: ServerId,
    },
    /// A snapshot was handed to the kernel as a whole, or will not be.
    SnapshotSent {
        /// To whom.
        to: ServerId,
        /// Whether all of it was.
        ok: bool,
    },
}

/// Takes events, from any thread and also from within the calls of [`Peers`]. Must not block.
pub type Events = Arc<dyn Fn(PeerEvent) + Send + Sync>;

/// See the module documentation. When it is dropped, all connections end.
pub struct Peers {
    links: BTreeMap<ServerId, Link>,
    shared: Arc<Shared>,
    runtime: Handle,
    /// Counts what is sent, to find the peer that was longest not sent to.
    sends: u64,
}

/// What is the same for all peers.
struct Shared {
    greeting: Bytes,
    connect: Connect,
    /// Where connections are made.
    connecting: Handle,
    events: Events,
}

/// One peer at one address.
struct Link {
    address: String,
    outbox: Arc<Outbox>,
    heard: Arc<Notify>,
    task: JoinHandle<Infallible>,
    last_send: u64,
}

impl Drop for Link {
    fn drop(&mut self) {
        self.task.abort();
        self.outbox.close();
    }
}

/// The way to another server, for threads other than the one of [`Peers`].
pub struct Recipient {
    to: ServerId,
    outbox: Arc<Outbox>,
    shared: Arc<Shared>,
}

impl Recipient {
    /// Sends a message, or queues it, without waiting for anything. Gives it back if the way has been given
    /// up.
    pub fn send_now(&self, encoded: Encoded) -> Result<(), Encoded> {
        let pushed = self.outbox.push_now(encoded)?;
        self.shared.note(self.to, pushed);
        Ok(())
    }
}

impl Shared {
    fn note(&self, to: ServerId, pushed: Pushed) {
        if pushed == Pushed::FirstDropped {
            debug!(%to, "the queue to a peer is full");
            (self.events)(PeerEvent::Unreachable { id: to });
        }
    }
}

impl Peers {
    /// No connections yet. `own` is how this server introduces itself, and where answers will be sent.
    /// Connections are made on `runtime`, and used there, too, until [`Peers::run_on`] says where.
    pub fn new(own: &Peer, connect: Connect, runtime: Handle, events: Events) -> Peers {
        let shared =
            Arc::new(Shared { greeting: greeting(own), connect, connecting: runtime.clone(), events });
        Peers { links: BTreeMap::new(), shared, runtime, sends: 0 }
    }

    /// Queues a message, without waiting for anything.
    pub fn send(&mut self, to: ServerId, address: &str, message: Message) {
        self.send_encoded(to, address, encode(message));
    }

    /// The same, of a message that is no snapshot.
    pub fn send_encoded(&mut self, to: ServerId, address: &str, encoded: Encoded) {
        let pushed = self.link(to, address).outbox.push(encoded);
        self.shared.note(to, pushed);
    }

    /// The way to a server, until it is removed or has another address.
    pub fn recipient(&mut self, to: ServerId, address: &str) -> Recipient {
        let outbox = self.link(to, address).outbox.clone();
        Recipient { to, outbox, shared: self.shared.clone() }
    }

    /// Queues a snapshot, and reports [`PeerEvent::SnapshotSent`] when it has left or cannot. Messages that
    /// are sent later wait behind it.
    pub fn send_snapshot(&mut self, to: ServerId, address: &str, message: InstallSnapshot) {
        let ticket = SnapshotTicket { to, sent: false, shared: self.shared.clone() };
        let encoded = encode(Message::InstallSnapshot(message));
        self.link(to, address).outbox.push_snapshot(encoded, Box::new(ticket));
    }

    /// Where tasks of peers run from now on; those of peers that were sent to before stay where they are.
    pub fn run_on(&mut self, runtime: Handle) {
        self.runtime = runtime;
    }

    /// Tells that a server has connected to us, or has sent something.
    pub fn heard_of(&self, id: ServerId) {
        if let Some(link) = self.links.get(&id) {
            link.heard.notify_waiters();
        }
    }

    /// Ends the connections to all other servers.
    pub fn retain(&mut self, keep: impl Fn(ServerId) -> bool) {
        self.links.retain(|id, _| keep(*id));
    }

    fn link(&mut self, to: ServerId, address: &str) -> &mut Link {
        if self.links.get(&to).is_some_and(|link| link.address != address) {
            self.links.remove(&to);
            (self.shared.events)(PeerEvent::Unreachable { id: to });
        }
        if !self.links.contains_key(&to) && self.links.len() >= PEERS_MAX {
            let oldest = self.links.iter().min_by_key(|(_, link)| link.last_send).map(|(id, _)| *id);
            oldest.map(|id| self.links.remove(&id));
        }
        self.sends += 1;
        let link = self.links.entry(to).or_insert_with(|| {
            let (outbox, heard) = (Arc::new(Outbox::default()), Arc::new(Notify::new()));
            let (shared, address) = (self.shared.clone(), address.to_owned());
            let (task_outbox, task_heard) = (outbox.clone(), heard.clone());
            let task = Task { to, address: address.clone(), shared, outbox: task_outbox, heard: task_heard };
            Link { address, outbox, heard, task: self.runtime.spawn(task.run()), last_send: 0 }
        });
        link.last_send = self.sends;
        link
    }
}

/// The version word and CONNECT, as one piece.
fn greeting(own: &Peer) -> Bytes {
    let mut out = BytesMut::new();
    out.put_slice(&Protocol::Current.encode());
    let address = Bytes::copy_from_slice(own.address.as_bytes());
    let connect = Request::Connect(Server { id: own.id.0, address });
    connect.encode(&mut out).expect("an address is smaller than the largest frame");
    out.freeze()
}

struct SnapshotTicket {
    to: ServerId,
    sent: bool,
    shared: Arc<Shared>,
}

impl Ticket for SnapshotTicket {
    fn sent(&mut self) {
        self.sent = true;
    }
}

impl Drop for SnapshotTicket {
    fn drop(&mut self) {
        (self.shared.events)(PeerEvent::SnapshotSent { to: self.to, ok: self.sent });
    }
}

/// Why a connection ended, or was not made.
#[derive(Debug, thiserror::Error)]
enum LinkError {
    #[error(transparent)]
    Connect(#[from] ConnectError),
    #[error("closed by the peer")]
    Closed,
    #[error("the peer wrote on a connection on which it only reads")]
    Wrote,
    #[error("the snapshot cannot be read: {0}")]
    Snapshot(io::Error),
    #[error(transparent)]
    Io(#[from] io::Error),
}

/// Serves one peer until it is aborted.
struct Task {
    to: ServerId,
    address: String,
    shared: Arc<Shared>,
    outbox: Arc<Outbox>,
    /// Told when the server is heard of.
    heard: Arc<Notify>,
}

impl Task {
    async fn run(self) -> Infallible {
        let longest = Duration::from_millis(PEER_RECONNECT_MAX_MS);
        let shortest = Duration::from_millis(PEER_RECONNECT_MIN_MS);
        let mut delay = shortest;
        loop {
            self.outbox.wanted(Duration::from_millis(PEER_RECENT_MS)).await;
            let (connected, error) = match self.open().await {
                Ok(stream) => {
                    let since = Instant::now();
                    let error = self.converse(&Arc::new(stream)).await;
                    if since.elapsed() >= longest {
                        delay = shortest;
                    }
                    (true, error)
                }
                Err(error) => (false, error),
            };
            debug!(to = %self.to, address = self.address, %error, "no connection to a peer");
            if self.outbox.clear() || connected {
                (self.shared.events)(PeerEvent::Unreachable { id: self.to });
            }
            tokio::time::sleep(delay).await;
            delay = longest.min(delay * 2);
            if matches!(error, LinkError::Closed) {
                let _ = tokio::time::timeout(longest, self.heard.notified()).await;
            }
        }
    }

    async fn open(&self) -> Result<Stream, LinkError> {
        let (connect, address) = (self.shared.connect.clone(), self.address.clone());
        let open = async move {
            let stream = connect.connect(&address).await?;
            stream.notice_dead_host()?;
            Ok(stream.detach()?)
        };
        // A set, because it ends with this task.
        let mut opening = JoinSet::new();
        opening.spawn_on(open, &self.shared.connecting);
        let opened: Option<Result<Result<Detached, LinkError>, JoinError>> = opening.join_next().await;
        let opened = opened.expect("one task is in the set").map_err(io::Error::other)?;
        Ok(opened?.attach()?)
    }

    /// Writes what is queued, until the connection ends.
    async fn converse(&self, stream: &Arc<Stream>) -> LinkError {
        let mut ended = pin!(end(stream));
        let mut writing = Writing::greeting(self.shared.greeting.clone());
        let mut attached = false;
        self.outbox.take(&mut writing);
        loop {
            if writing.is_empty() {
                if !std::mem::replace(&mut attached, true) {
                    self.outbox.attach(stream.clone());
                }
                tokio::select! {
                    biased;
                    error = &mut ended => return error,
                    () = self.outbox.ready() => self.outbox.take(&mut writing),
                }
            }
            // A snapshot that turns out damaged must not end like a sound one: the connection ends instead.
            let refilled = tokio::select! {
                biased;
                error = &mut ended => return error,
                refilled = writing.refill() => refilled,
            };
            if let Err(error) = refilled {
                tracing::warn!(to = %self.to, %error, "a snapshot cannot be sent");
                return LinkError::Snapshot(error);
            }
            let slices = writing.slices();
            let sent = tokio::select! {
                biased;
                error = &mut ended => return error,
                sent = stream.write_some(&slices) => sent,
            };
            match sent {
                Ok(size) => writing.advance(size, &self.outbox),
                Err(error) => return error.into(),
            }
        }
    }
}

/// Waits for the connection to end. The peer never writes on it.
async fn end(stream: &Stream) -> LinkError {
    let mut bytes = [0; 1];
    loop {
        let read = match stream.readable().await {
            Ok(()) => stream.try_read(&mut &mut bytes[..]),
            Err(error) => return error.into(),
        };
        match read {
            Ok(0) => return LinkError::Closed,
            Ok(_) => return LinkError::Wrote,
            Err(error) if matches!(error.kind(), io::ErrorKind::WouldBlock | io::ErrorKind::Interrupted) => {}
            Err(error) => return error.into(),
        }
    }
}

#[cfg(test)]
#[path = "peer_test.rs"]
mod tests;
