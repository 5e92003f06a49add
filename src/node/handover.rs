//! Gives up the duties of a server that is about to stop: leadership goes to another voter, its own role to a
//! server that has less, and it becomes a spare. One task on the client runtime; the Raft thread is asked for
//! what a leader does itself, the next leader as by a client.
//!
//! ```text
//! leader, other voters:  transfer ─▶ (as a follower)
//! leader, only voter:    promote a successor ─▶ transfer to it ─▶ make this one a spare
//! follower:              who is there? ─▶ promote a successor ─▶ make this one a spare
//! ```
//!
//! Leadership goes first, so that clients do not wait for the rest. Who has no successor for its role keeps
//! it: it would not get it back when it starts again. A spare has nothing to give up.

use super::driver::{Order, OrderKind};
use super::gateway::{Shared, raft_role, wire_role};
use super::poll::Poller;
use super::role_management::RoleSettings;
use super::roles;
use crate::config::{HANDOVER_RETRY_MS, HANDOVER_TIMEOUT_MS, HANDOVER_WAIT_MS, SERVER_ANSWER_TIMEOUT_MS};
use crate::net::caller::{CallError, Caller};
use crate::net::connect::Connect;
use crate::raft::{Change, Refusal, Role, Server, ServerId};
use crate::wire::failure::{CHANGE_IN_PROGRESS, CODE_LEADERSHIP_LOST, CODE_NOT_LEADER};
use crate::wire::request::Request;
use crate::wire::response::{Response, ServerEntry};
use bytes::Bytes;
use parking_lot::Condvar;
use std::sync::Arc;
use std::time::Duration;
use tokio::sync::{Mutex, oneshot};
use tokio::time::{Instant, sleep, timeout_at};

/// See the module documentation.
pub struct Handover {
    /// This server.
    pub id: ServerId,
    /// Told that this server manages roles no longer.
    pub settings: Arc<RoleSettings>,
    /// The parts of the node.
    pub shared: Shared,
    /// Asks the servers.
    pub poller: Arc<Poller>,
    /// The way to the leader.
    pub connect: Connect,
    /// Held by the one that is under way.
    pub only: Mutex<()>,
}

/// Where a thread outside of the runtime waits for a handover. Not a channel of the standard library: that
/// leaves something behind for each thread that has ever waited, and a program's first thread never frees it.
#[derive(Default)]
pub struct Outcome {
    ended: parking_lot::Mutex<Option<Result<(), String>>>,
    changed: Condvar,
}

impl Outcome {
    /// Blocks for [`HANDOVER_WAIT_MS`] at most.
    pub fn wait(&self) -> Result<(), String> {
        let mut ended = self.ended.lock();
        let longest = Duration::from_millis(HANDOVER_WAIT_MS);
        self.changed.wait_while_for(&mut ended, |ended| ended.is_none(), longest);
        ended.clone().unwrap_or_else(|| Err("no thread was free for the handover".into()))
    }

    /// The first end counts.
    fn end(&self, ended: Result<(), String>) {
        self.ended.lock().get_or_insert(ended);
        self.changed.notify_all();
    }
}

/// Ends an [`Outcome`], also if the task that has it is dropped.
pub struct Report(pub Arc<Outcome>);

impl Report {
    /// The handover has ended by itself.
    pub fn send(self, ended: Result<(), String>) {
        self.0.end(ended);
    }
}

impl Drop for Report {
    fn drop(&mut self) {
        self.0.end(Err("the node was stopped meanwhile".into()));
    }
}

/// What may be tried again, or not. The text is for the host.
enum Failed {
    ForNow(String),
    ForGood(String),
}

use Failed::{ForGood, ForNow};

impl Handover {
    /// Ends within [`HANDOVER_TIMEOUT_MS`]. An error says what this server has kept.
    pub async fn run(&self) -> Result<(), String> {
        let Ok(_only) = self.only.try_lock() else { return Err("a handover is under way already".into()) };
        self.settings.disable();
        let deadline = Instant::now() + Duration::from_millis(HANDOVER_TIMEOUT_MS);
        let status = &self.shared.registry.status;
        // A client may have asked for a transfer just before.
        let _ = timeout_at(deadline, status.transfer_ended()).await;
        let servers = self.shared.membership.servers();
        match servers.iter().find(|server| server.id == self.id) {
            None => return Err("this server knows of no cluster that it belongs to".into()),
            Some(own) if own.role == Role::Spare => return Ok(()),
            Some(_) => {}
        }
        if !status.is_leading() {
            return self.give_up_role(deadline).await;
        }
        let is_other_voter = |server: &Server| server.id != self.id && server.role == Role::Voter;
        if servers.iter().any(is_other_voter) {
            self.transfer(None, deadline).await?;
            let given_up = self.give_up_role(deadline).await;
            return given_up.map_err(|e| format!("leadership was given up, but {e}"));
        }
        let successor = self.promote_successor(&servers, Role::Voter, deadline).await?;
        self.transfer(Some(successor), deadline).await?;
        self.become_spare(successor, deadline).await
    }

    /// Leadership goes to the server named, or to any voter.
    async fn transfer(&self, to: Option<ServerId>, deadline: Instant) -> Result<(), String> {
        match self.order(OrderKind::Transfer(to), deadline).await {
            Ok(()) => Ok(()),
            // Somebody else leads by now.
            Err(_) if !self.shared.registry.status.is_leading() => Ok(()),
            Err(ForNow(why) | ForGood(why)) => Err(format!("this server still leads: {why}")),
        }
    }

    /// Of a follower: somebody else gets its role, and it becomes a spare.
    async fn give_up_role(&self, deadline: Instant) -> Result<(), String> {
        // What this server knows may be old: a spare is not told that it has become one.
        let soon = deadline.min(Instant::now() + Duration::from_millis(SERVER_ANSWER_TIMEOUT_MS));
        let servers = retry(soon, || self.servers(soon)).await;
        let servers = servers.map_err(|e| format!("this server keeps its role: {e}"))?;
        match servers.iter().find(|server| server.id == self.id).map(|own| own.role) {
            None | Some(Role::Spare) => Ok(()),
            Some(role) => {
                let successor = self.promote_successor(&servers, role, deadline).await?;
                self.become_spare(successor, deadline).await
            }
        }
    }

    /// Tries who could take over, the best first.
    async fn promote_successor(
        &self,
        servers: &[Server],
        role: Role,
        deadline: Instant,
    ) -> Result<ServerId, String> {
        let keeps = |why| format!("this server keeps its role of a {}: {why}", role.name());
        let polling = self.poller.poll(servers, &self.shared.registry.status);
        let Ok(polled) = timeout_at(deadline, polling).await else {
            return Err(keeps("the other servers did not answer in time".into()));
        };
        let members = polled.map_err(|shortage| keeps(shortage.to_string()))?;
        let mut why = match servers.len() {
            1 => "it is the only server of its cluster".to_owned(),
            _ => "no other server that is there has less than this role".to_owned(),
        };
        for id in roles::successors(&members, self.id, role) {
            match self.assign(id, role, deadline).await {
                Ok(()) => return Ok(id),
                Err(error) => why = format!("server {id} could not take it: {error}"),
            }
        }
        Err(keeps(why))
    }

    async fn become_spare(&self, successor: ServerId, deadline: Instant) -> Result<(), String> {
        let assigned = self.assign(self.id, Role::Spare, deadline).await;
        assigned.map_err(|e| format!("server {successor} has taken over, but this one is no spare yet: {e}"))
    }

    /// Has the leader of the moment assign a role, until one has done it.
    async fn assign(&self, id: ServerId, role: Role, deadline: Instant) -> Result<(), String> {
        retry(deadline, || async move {
            // A leader may have done it before it could say so.
            let servers = self.servers(deadline).await?;
            match servers.iter().find(|server| server.id == id) {
                None => return Err(ForGood("it was removed".into())),
                Some(server) if server.role == role => return Ok(()),
                Some(_) => {}
            }
            if self.shared.registry.status.is_leading() {
                return self.order(OrderKind::Change(Change::Assign { id, role }), deadline).await;
            }
            self.ask_leader(&Request::Assign { id: id.0, role: Some(wire_role(role)) }, deadline)
                .await
                .map(drop)
        })
        .await
    }

    /// The servers as the leader knows them.
    async fn servers(&self, deadline: Instant) -> Result<Vec<Server>, Failed> {
        if self.shared.registry.status.is_leading() {
            return Ok(self.shared.membership.servers());
        }
        let soon = Instant::now() + Duration::from_millis(SERVER_ANSWER_TIMEOUT_MS);
        match self.ask_leader(&Request::Cluster { format: 1 }, deadline.min(soon)).await? {
            Response::Servers(entries) => Ok(entries.into_iter().filter_map(server).collect()),
            _ => Err(ForGood("the leader answers something else than was asked".into())),
        }
    }

    async fn ask_leader(&self, request: &Request, deadline: Instant) -> Result<Response, Failed> {
        let leader = self.shared.membership.known_leader().filter(|leader| leader.id != self.id);
        let leader = leader.ok_or_else(|| ForNow("no leader is known".into()))?;
        let answer = async {
            let mut caller = Caller::connect(&self.connect, &leader.address, deadline).await?;
            caller.call(request).await
        };
        answer.await.map_err(|error| {
            let text = format!("the leader, server {}: {error}", leader.id);
            match error {
                CallError::Refused { code, .. } if !TEMPORARY.contains(&code) => ForGood(text),
                _ => ForNow(text),
            }
        })
    }

    /// Has the Raft thread do what a leader does.
    async fn order(&self, kind: OrderKind, deadline: Instant) -> Result<(), Failed> {
        let (done, outcome) = oneshot::channel();
        // The queue is closed only once the node has stopped; then the outcome reports it.
        let ordered = async {
            let _ = self.shared.orders.send(Order { kind, done }).await;
            outcome.await
        };
        match timeout_at(deadline, ordered).await {
            Ok(Ok(Ok(()))) => Ok(()),
            Ok(Ok(Err(refusal))) => {
                let again =
                    matches!(refusal, Refusal::CantChange | Refusal::NotLeader | Refusal::LeadershipLost);
                Err(if again { ForNow(refusal.to_string()) } else { ForGood(refusal.to_string()) })
            }
            Ok(Err(_)) => Err(ForGood("the node is stopping".into())),
            Err(_) => Err(ForGood("it takes too long".into())),
        }
    }
}

/// Tries until it worked, is refused for good, or the deadline comes.
async fn retry<T, F>(deadline: Instant, attempt: impl Fn() -> F) -> Result<T, String>
where
    F: Future<Output = Result<T, Failed>>,
{
    let pause = Duration::from_millis(HANDOVER_RETRY_MS);
    loop {
        match attempt().await {
            Ok(done) => return Ok(done),
            Err(ForGood(why)) => return Err(why),
            Err(ForNow(why)) if Instant::now() + pause >= deadline => return Err(why),
            Err(ForNow(why)) => tracing::debug!(why, "handover: trying again"),
        }
        sleep(pause).await;
    }
}

/// Codes with which a leader refuses what it, or the next one, may accept a moment later.
const TEMPORARY: [u64; 3] = [CHANGE_IN_PROGRESS.code, CODE_NOT_LEADER, CODE_LEADERSHIP_LOST];

/// A server whose address is no text, or whose role does not exist, is none that could take over.
fn server(entry: ServerEntry<Bytes>) -> Option<Server> {
    let address = String::from_utf8(entry.address.to_vec()).ok()?;
    Some(Server { id: ServerId(entry.id), address, role: raft_role(entry.role)? })
}
