//! The leader gives the servers their roles, if the host asked for that: every second it asks who is there
//! ([`super::poll`]), decides ([`super::roles`]) and has the Raft thread make one change after the other. One
//! task on the client runtime.

use super::driver::{Order, OrderKind};
use super::gateway::Shared;
use super::poll::Poller;
use super::roles::{self, RoleChange, Targets};
use crate::config::ROLE_MANAGEMENT_PERIOD_MS;
use crate::raft::{Change, ServerId};
use std::sync::Arc;
use std::sync::atomic::{AtomicI32, Ordering};
use std::time::Duration;
use tokio::sync::{oneshot, watch};

/// What the host may set at any time.
pub struct RoleSettings {
    enabled: watch::Sender<bool>,
    target_voters: AtomicI32,
    target_standbys: AtomicI32,
}

impl Default for RoleSettings {
    fn default() -> RoleSettings {
        RoleSettings {
            enabled: watch::Sender::new(false),
            target_voters: AtomicI32::new(3),
            target_standbys: AtomicI32::new(0),
        }
    }
}

impl RoleSettings {
    /// Role management goes on until [`RoleSettings::disable`].
    pub fn enable(&self) {
        self.enabled.send_replace(true);
    }

    /// For a server that leaves.
    pub fn disable(&self) {
        self.enabled.send_replace(false);
    }

    /// Voters to aim at.
    pub fn set_target_voters(&self, count: i32) {
        self.target_voters.store(count, Ordering::Relaxed);
    }

    /// Stand-bys to aim at.
    pub fn set_target_standbys(&self, count: i32) {
        self.target_standbys.store(count, Ordering::Relaxed);
    }

    /// What is below zero is zero.
    fn targets(&self) -> Targets {
        let count = |target: &AtomicI32| usize::try_from(target.load(Ordering::Relaxed)).unwrap_or(0);
        Targets { voters: count(&self.target_voters), standbys: count(&self.target_standbys) }
    }
}

/// See the module documentation.
pub struct RoleManagement {
    /// This server.
    pub id: ServerId,
    /// The host's wishes.
    pub settings: Arc<RoleSettings>,
    /// The parts of the node.
    pub shared: Shared,
    /// Asks the servers.
    pub poller: Arc<Poller>,
}

impl RoleManagement {
    /// Runs as long as the node does.
    pub async fn run(self) {
        let mut enabled = self.settings.enabled.subscribe();
        // The sender lives as long as `self`.
        while enabled.wait_for(|enabled| *enabled).await.is_ok() {
            tokio::select! {
                biased;
                _ = enabled.wait_for(|enabled| !*enabled) => {}
                () = self.keep_roles() => {}
            }
        }
    }

    async fn keep_roles(&self) {
        loop {
            tokio::time::sleep(Duration::from_millis(ROLE_MANAGEMENT_PERIOD_MS)).await;
            if self.shared.registry.status.is_leading() {
                self.adjust().await;
            }
        }
    }

    /// One round. Ends when all is done, or when the cluster is not as it was when the servers were asked.
    async fn adjust(&self) {
        let servers = self.shared.membership.servers();
        let mut members = match self.poller.poll(&servers, &self.shared.registry.status).await {
            Ok(members) => members,
            Err(error) => return tracing::warn!(%error, "no roles are changed"),
        };
        // Each server changes once at most.
        for _ in 0..members.len() {
            let now = self.shared.membership.servers();
            let unchanged = now.iter().map(|s| (s.id, s.role)).eq(members.iter().map(|m| (m.id, m.role)));
            let change = roles::next_change(&members, self.settings.targets(), self.id);
            let Some(RoleChange { id, role }) = change.filter(|_| unchanged) else { return };
            let (done, outcome) = oneshot::channel();
            let kind = OrderKind::Change(Change::Assign { id, role });
            // The queue is closed only once the node has stopped; then the outcome reports it.
            let _ = self.shared.orders.send(Order { kind, done }).await;
            match outcome.await {
                Ok(Ok(())) => tracing::info!(%id, role = role.name(), "role changed by role management"),
                Ok(Err(refusal)) => {
                    return tracing::info!(%id, role = role.name(), %refusal, "role not changed");
                }
                Err(_) => return,
            }
            members.iter_mut().filter(|member| member.id == id).for_each(|member| member.role = role);
        }
    }
}
