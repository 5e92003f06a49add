//! A client of a cluster: finds the leader and asks it about the cluster. Runs on the runtime of the caller.
//!
//! It is built on [`Connect`] and [`Caller`], the parts of `net` that know neither Raft nor SQLite, and must
//! stay so: it shall be usable without a node.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use tokio::time::Instant;

use crate::config::LEADER_ANSWER_TIMEOUT_MS;
use crate::net::caller::{CallError, Caller};
use crate::net::connect::Connect;
use crate::wire::failure::{CHANGE_IN_PROGRESS, CODE_LEADERSHIP_LOST, CODE_NOT_LEADER};
use crate::wire::request::{self, Request};
use crate::wire::response::{Response, ServerEntry};

/// What a server is in its cluster, numbered as in the protocol.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Role {
    /// Has the data and votes.
    Voter = 0,
    /// Has the data.
    Standby = 1,
    /// Has neither.
    Spare = 2,
}

impl Role {
    /// All of them.
    pub const ALL: [Role; 3] = [Role::Voter, Role::Standby, Role::Spare];

    /// Its name, as the C library writes it into files.
    pub fn name(self) -> &'static str {
        match self {
            Role::Voter => "voter",
            Role::Standby => "standby",
            Role::Spare => "spare",
        }
    }
}

/// A server of a cluster.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// Its id.
    pub id: u64,
    /// Where it is reached.
    pub address: String,
    /// What it is.
    pub role: Role,
}

/// Why the leader did not do what was asked.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// None of the servers asked could name one that answers.
    #[error("no leader found: {0}")]
    NoLeader(Attempts),
    /// The leader failed or refused.
    #[error("the leader at {address}: {error}")]
    Leader {
        /// Where it was.
        address: String,
        /// What it said.
        error: CallError,
    },
}

impl Error {
    /// Whether trying again has a chance.
    pub fn is_temporary(&self) -> bool {
        match self {
            Error::Leader { error: CallError::Refused { code, .. }, .. } => TEMPORARY.contains(code),
            _ => true,
        }
    }
}

/// Codes with which a leader refuses what it, or the next one, may accept a moment later.
const TEMPORARY: [u64; 3] = [CHANGE_IN_PROGRESS.code, CODE_NOT_LEADER, CODE_LEADERSHIP_LOST];

/// Who was asked for the leader, and what came of it.
#[derive(Debug, Default)]
pub struct Attempts(Vec<String>);

impl fmt::Display for Attempts {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0.join("; "))
    }
}

/// A connection to the leader.
pub struct Leader {
    caller: Caller,
    address: String,
}

impl Leader {
    /// Asks the servers at these addresses, one after the other, who leads, and connects to that one.
    /// Everything, also what is asked later, ends at the deadline.
    pub async fn find(connect: &Connect, addresses: &[String], deadline: Instant) -> Result<Leader, Error> {
        let mut attempts = Attempts::default();
        for asked in addresses {
            if Instant::now() >= deadline {
                attempts.0.push("no time left to ask others".into());
                break;
            }
            let soon = deadline.min(Instant::now() + Duration::from_millis(LEADER_ANSWER_TIMEOUT_MS));
            match who_leads(connect, asked, soon).await {
                Err(error) => attempts.0.push(format!("{asked}: {error}")),
                Ok(None) => attempts.0.push(format!("{asked} knows none")),
                Ok(Some(address)) => match Caller::connect(connect, &address, deadline).await {
                    Ok(caller) => return Ok(Leader { caller, address }),
                    Err(error) => attempts.0.push(format!("{asked} names {address}: {error}")),
                },
            }
        }
        Err(Error::NoLeader(attempts))
    }

    /// The servers of the cluster. One whose address is no text, or whose role does not exist, is left out.
    pub async fn servers(&mut self) -> Result<Vec<Server>, Error> {
        match self.call(&Request::Cluster { format: 1 }).await? {
            Response::Servers(entries) => Ok(entries.into_iter().filter_map(server).collect()),
            _ => Err(self.failed(CallError::Unexpected)),
        }
    }

    /// Adds a server, as a spare.
    pub async fn add(&mut self, id: u64, address: &str) -> Result<(), Error> {
        let server = request::Server { id, address: Bytes::copy_from_slice(address.as_bytes()) };
        match self.call(&Request::Add(server)).await? {
            Response::Empty => Ok(()),
            _ => Err(self.failed(CallError::Unexpected)),
        }
    }

    async fn call(&mut self, request: &Request) -> Result<Response, Error> {
        let answer = self.caller.call(request).await;
        answer.map_err(|error| self.failed(error))
    }

    fn failed(&self, error: CallError) -> Error {
        Error::Leader { address: self.address.clone(), error }
    }
}

/// The address of the leader, if the server at `asked` knows one.
async fn who_leads(connect: &Connect, asked: &str, deadline: Instant) -> Result<Option<String>, CallError> {
    let mut caller = Caller::connect(connect, asked, deadline).await?;
    match caller.call(&Request::Leader).await? {
        Response::Server { id: 0, .. } => Ok(None),
        Response::Server { address, .. } => {
            String::from_utf8(address.to_vec()).map(Some).map_err(|_| CallError::Unexpected)
        }
        _ => Err(CallError::Unexpected),
    }
}

fn server(entry: ServerEntry<Bytes>) -> Option<Server> {
    let role = Role::ALL.into_iter().find(|role| *role as u64 == entry.role)?;
    Some(Server { id: entry.id, address: String::from_utf8(entry.address.to_vec()).ok()?, role })
}

#[cfg(test)]
#[path = "mod_test.rs"]
mod tests;
