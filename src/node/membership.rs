//! What the gateway answers about the cluster: configuration and leader, published by the Raft thread.

use crate::raft::{Configuration, Role, Server, ServerId};
use parking_lot::RwLock;

/// Written by the Raft thread, read by every session.
pub struct Membership {
    id: ServerId,
    view: RwLock<View>,
}

#[derive(Default)]
struct View {
    configuration: Configuration,
    leader: Option<ServerId>,
}

impl Membership {
    /// Of the server `id`; knows nobody yet.
    pub fn new(id: ServerId) -> Membership {
        Membership { id, view: RwLock::default() }
    }

    /// The configuration in force, in order.
    pub fn servers(&self) -> Vec<Server> {
        self.view.read().configuration.servers.clone()
    }

    /// The leader as this node knows it. A server that is no voter itself names nobody, as in C.
    pub fn leader(&self) -> Option<Server> {
        let view = self.view.read();
        let find = |id| view.configuration.servers.iter().find(|s| s.id == id);
        find(self.id).filter(|own| own.role == Role::Voter)?;
        find(view.leader?).cloned()
    }

    /// The same, whatever the role of this server. A spare hears of no leader.
    pub fn known_leader(&self) -> Option<Server> {
        let view = self.view.read();
        view.configuration.get(view.leader?).cloned()
    }

    /// See [`Membership::servers`].
    pub fn set_configuration(&self, configuration: Configuration) {
        self.view.write().configuration = configuration;
    }

    /// See [`Membership::leader`].
    pub fn set_leader(&self, leader: Option<ServerId>) {
        self.view.write().leader = leader;
    }
}
