//! Keeps a server in touch with its cluster: joins it at the start, then notes from time to time who is in
//! it. Thread `dqlite/server`, with a runtime of its own; nothing that the node does waits for it.

use std::io;
use std::thread::JoinHandle;
use std::time::Duration;

use tokio::runtime::{self, Runtime};
use tokio::sync::oneshot;
use tokio::time::{Instant, sleep};

use super::files::{Files, ServerInfo};
use crate::client::{self, Leader, Server};
use crate::config::{LEADER_ANSWER_TIMEOUT_MS, SERVER_JOIN_RETRY_MS, SERVER_JOIN_TIMEOUT_MS};
use crate::net::connect::Connect;

/// What it takes to stay in touch.
pub struct Contact {
    /// The way to the servers.
    pub connect: Connect,
    /// This server.
    pub own: ServerInfo,
    /// Where to note who is in the cluster.
    pub files: Files,
    /// Servers of the cluster as far as they are known; none may be there any more.
    pub known: Vec<String>,
    /// Servers that may be asked besides.
    pub join: Vec<String>,
    /// Time between two looks.
    pub refresh_period: Duration,
}

/// A contact under way.
pub struct RunningContact {
    thread: JoinHandle<()>,
    stop: oneshot::Sender<()>,
}

impl RunningContact {
    /// Ends it. Waits for a connect function of the host that has not returned yet.
    pub fn stop(self) {
        // It is gone already if it panicked.
        let _ = self.stop.send(());
        if self.thread.join().is_err() {
            tracing::error!("internal error: the list of servers was not kept up to date any more");
        }
    }
}

impl Contact {
    /// Starts the thread and waits until the server is in its cluster: [`SERVER_JOIN_TIMEOUT_MS`] at most.
    pub fn start(self) -> Result<RunningContact, String> {
        let (joined, outcome) = oneshot::channel();
        let (stop, stopped) = oneshot::channel();
        // The runtime is built on its thread: it would leave something behind on that of the host.
        let run = move || match runtime() {
            Ok(runtime) => runtime.block_on(self.run(joined, stopped)),
            // The caller waits for it.
            Err(error) => drop(joined.send(Err(format!("the server's thread cannot run: {error}")))),
        };
        let thread = std::thread::Builder::new().name("dqlite/server".into()).spawn(run);
        let thread = thread.map_err(|error| format!("the server's thread cannot be started: {error}"))?;
        let running = RunningContact { thread, stop };
        let outcome = outcome.blocking_recv().unwrap_or_else(|_| Err("internal error while joining".into()));
        match outcome {
            Ok(()) => Ok(running),
            Err(why) => {
                running.stop();
                Err(why)
            }
        }
    }

    async fn run(mut self, joined: oneshot::Sender<Result<(), String>>, stopped: oneshot::Receiver<()>) {
        let outcome = self.join().await;
        let has_joined = outcome.is_ok();
        if joined.send(outcome.map_err(|error| error.to_string())).is_err() || !has_joined {
            return;
        }
        let refresh = async {
            loop {
                sleep(self.refresh_period).await;
                match self.look(deadline()).await {
                    Ok((_, servers)) => self.note(&servers),
                    Err(error) => tracing::debug!(%error, "the servers of the cluster are not known anew"),
                }
            }
        };
        tokio::select! {
            _ = stopped => {}
            () = refresh => {}
        }
    }

    /// Becomes a server of the cluster, if it is none yet. Tried again while there is a chance, since the
    /// cluster may be about to elect its leader, or may be starting at the same time.
    async fn join(&mut self) -> Result<(), client::Error> {
        let deadline = deadline();
        let pause = Duration::from_millis(SERVER_JOIN_RETRY_MS);
        // An attempt without the time for an answer would only hide what the one before has met.
        let last = deadline - Duration::from_millis(LEADER_ANSWER_TIMEOUT_MS) - pause;
        loop {
            match self.try_to_join(deadline).await {
                Ok(servers) => {
                    self.note(&servers);
                    return Ok(());
                }
                Err(error) if !error.is_temporary() || Instant::now() >= last => return Err(error),
                Err(error) => tracing::debug!(%error, "joining the cluster: trying again"),
            }
            sleep(pause).await;
        }
    }

    async fn try_to_join(&self, deadline: Instant) -> Result<Vec<Server>, client::Error> {
        let (mut leader, servers) = self.look(deadline).await?;
        if servers.iter().any(|server| server.id == self.own.id) {
            return Ok(servers);
        }
        leader.add(self.own.id, &self.own.address).await?;
        leader.servers().await
    }

    /// Asks the leader who is in the cluster. The node of this server, which knows the leader if it is a
    /// voter, is asked for it first: it answers at once in any case.
    async fn look(&self, deadline: Instant) -> Result<(Leader, Vec<Server>), client::Error> {
        let mut addresses = vec![self.own.address.clone()];
        for address in self.known.iter().chain(&self.join) {
            if !addresses.contains(address) {
                addresses.push(address.clone());
            }
        }
        let mut leader = Leader::find(&self.connect, &addresses, deadline).await?;
        let servers = leader.servers().await?;
        Ok((leader, servers))
    }

    /// Remembers the servers. A file that cannot be written is tried again at the next look: the server
    /// works without.
    fn note(&mut self, servers: &[Server]) {
        self.known = servers.iter().map(|server| server.address.clone()).collect();
        if let Err(error) = self.files.write_node_store(servers) {
            tracing::warn!(%error, "the servers of the cluster cannot be noted");
        }
    }
}

fn runtime() -> io::Result<Runtime> {
    runtime::Builder::new_current_thread().thread_name("dqlite/connect").enable_io().enable_time().build()
}

fn deadline() -> Instant {
    Instant::now() + Duration::from_millis(SERVER_JOIN_TIMEOUT_MS)
}
