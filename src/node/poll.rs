//! Asks the servers of the cluster whether they are there, and for their failure domain and weight: DESCRIBE,
//! as a client would. Runs on the client runtime; the Raft thread knows nothing of it.

use super::roles::{Member, Metadata};
use crate::config::{POLLED_SERVERS_MAX, SERVER_ANSWER_TIMEOUT_MS};
use crate::db::Status;
use crate::net::caller::{CallError, Caller};
use crate::net::connect::Connect;
use crate::raft::{Server, ServerId};
use crate::wire::request::Request;
use crate::wire::response::Response;
use std::collections::HashMap;
use std::time::Duration;
use tokio::sync::Mutex;
use tokio::task::JoinSet;
use tokio::time::Instant;

/// See the module documentation.
pub struct Poller {
    id: ServerId,
    connect: Connect,
    /// Held while servers are asked: there is one round at a time.
    round: Mutex<()>,
}

/// This node has no descriptor or memory left to ask with, so it knows nothing of the others.
#[derive(Debug, thiserror::Error)]
#[error("the other servers cannot be asked: {0}")]
pub struct Shortage(CallError);

impl Poller {
    /// Of the server `id`, which answers for itself.
    pub fn new(id: ServerId, connect: Connect) -> Poller {
        Poller { id, connect, round: Mutex::default() }
    }

    /// Asks all of them, [`POLLED_SERVERS_MAX`] at a time. May be cancelled.
    pub async fn poll(&self, servers: &[Server], own: &Status) -> Result<Vec<Member>, Shortage> {
        let _only = self.round.lock().await;
        let own = Metadata { failure_domain: own.failure_domain(), weight: own.weight() };
        let mut answers = HashMap::from([(self.id, own)]);
        let mut asked = JoinSet::new();
        let mut waiting = servers.iter().filter(|server| server.id != self.id);
        loop {
            while asked.len() < POLLED_SERVERS_MAX
                && let Some(server) = waiting.next()
            {
                let (id, address, connect) = (server.id, server.address.clone(), self.connect.clone());
                asked.spawn(async move { (id, describe(&connect, &address).await) });
            }
            match asked.join_next().await {
                None => break,
                Some(Ok((id, Ok(metadata)))) => drop(answers.insert(id, metadata)),
                Some(Ok((_, Err(error)))) if error.is_own_shortage() => return Err(Shortage(error)),
                Some(Ok((id, Err(error)))) => tracing::debug!(%id, %error, "server does not answer"),
                Some(Err(error)) => tracing::warn!(%error, "a server could not be asked"),
            }
        }
        let member = |s: &Server| Member { id: s.id, role: s.role, online: answers.get(&s.id).copied() };
        Ok(servers.iter().map(member).collect())
    }
}

async fn describe(connect: &Connect, address: &str) -> Result<Metadata, CallError> {
    let deadline = Instant::now() + Duration::from_millis(SERVER_ANSWER_TIMEOUT_MS);
    let mut caller = Caller::connect(connect, address, deadline).await?;
    match caller.call(&Request::Describe { format: 0 }).await? {
        Response::Metadata { failure_domain, weight } => Ok(Metadata { failure_domain, weight }),
        _ => Err(CallError::Unexpected),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::net::connect::Connector;
    use crate::raft::Role;
    use std::io;
    use std::os::fd::OwnedFd;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    fn server(id: u64, address: &str) -> Server {
        Server { id: ServerId(id), address: address.into(), role: Role::Spare }
    }

    /// Refuses everybody, and counts how many it refuses at the same time.
    #[derive(Default)]
    struct Refuses {
        now: AtomicUsize,
        most: AtomicUsize,
    }

    impl Connector for Refuses {
        fn connect(&self, address: &str) -> io::Result<OwnedFd> {
            let now = self.now.fetch_add(1, Ordering::SeqCst) + 1;
            self.most.fetch_max(now, Ordering::SeqCst);
            std::thread::sleep(Duration::from_millis(5));
            self.now.fetch_sub(1, Ordering::SeqCst);
            match address {
                "short" => Err(rustix::io::Errno::MFILE.into()),
                _ => Err(io::ErrorKind::ConnectionRefused.into()),
            }
        }
    }

    #[tokio::test]
    async fn a_server_answers_for_itself_and_who_refuses_is_not_there() {
        let status = Status::default();
        status.set_failure_domain(3);
        status.set_weight(4);
        let refuses = Arc::new(Refuses::default());
        let poller = Poller::new(ServerId(1), Connect::Custom(refuses.clone()));
        let servers: Vec<Server> = (1..=100).map(|id| server(id, "x")).collect();
        let members = poller.poll(&servers, &status).await.unwrap();
        assert_eq!(members.len(), 100);
        assert_eq!(members[0].online, Some(Metadata { failure_domain: 3, weight: 4 }));
        assert!(members[1..].iter().all(|member| member.online.is_none()));
        assert!(refuses.most.load(Ordering::SeqCst) <= POLLED_SERVERS_MAX);
    }

    #[tokio::test]
    async fn without_descriptors_nobody_is_taken_for_unreachable() {
        let poller = Poller::new(ServerId(1), Connect::Custom(Arc::new(Refuses::default())));
        let servers = [server(1, "own"), server(2, "short")];
        assert!(poller.poll(&servers, &Status::default()).await.is_err());
    }
}
