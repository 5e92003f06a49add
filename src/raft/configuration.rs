//! The set of servers and its log-entry encoding.

use super::types::{Role, ServerId};

/// One member.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Server {
    /// Identity.
    pub id: ServerId,
    /// Where others reach it. Opaque to the core; never contains a NUL.
    pub address: String,
    /// What it does.
    pub role: Role,
}

/// The members, in the order in which they were added.
#[derive(Debug, Clone, PartialEq, Eq, Default)]
pub struct Configuration {
    /// Order is significant and kept.
    pub servers: Vec<Server>,
}
