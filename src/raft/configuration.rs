//! The set of servers, its quorum, and its encoding in Change entries and snapshot metadata. Plain data:
//! owned by whoever holds it, used by the Raft core, the store and the wire.
//!
//! ```text
//!  0        1                 9
//! +--------+-----------------+---------------------------------------------+-----------+
//! | u8     | u64             | servers, one after the other:               | zeros up  |
//! | format | count           |   u64 id | address bytes, NUL | u8 role     | to 8 x n  |
//! | = 1    |                 |   role: 0 stand-by, 1 voter, 2 spare        |           |
//! +--------+-----------------+---------------------------------------------+-----------+
//! ```
//!
//! Nothing inside is aligned. Readers ignore what follows the last server: other writers leave garbage in the
//! padding, so encodings must never be compared as bytes.

use super::types::{Role, ServerId};
use crate::codec::{Reader, Truncated, Writer, pad8};
use bytes::{BufMut, Bytes};
use std::collections::BTreeSet;

const FORMAT: u8 = 1;
const HEADER_SIZE: usize = 1 + 8;

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

/// Why bytes are not a configuration.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ConfigurationError {
    /// Not the only format there is.
    #[error("configuration format {0} is unknown")]
    UnknownFormat(u8),
    /// The bytes end inside a server, or before the announced number of them.
    #[error("configuration is {0}")]
    Truncated(#[from] Truncated),
    /// The address is not text.
    #[error("address of server {0} is not UTF-8")]
    AddressNotText(ServerId),
    /// A role that does not exist.
    #[error("server {id} has the unknown role {role}")]
    UnknownRole {
        /// Whose role it is.
        id: ServerId,
        /// The number found.
        role: u8,
    },
    /// Two servers with one id.
    #[error("server id {0} occurs twice")]
    DuplicateId(ServerId),
    /// Two servers at one address.
    #[error("server address {0:?} occurs twice")]
    DuplicateAddress(String),
}

impl Configuration {
    /// The server with this id.
    pub fn get(&self, id: ServerId) -> Option<&Server> {
        self.servers.iter().find(|server| server.id == id)
    }

    /// The server at this address.
    pub fn by_address(&self, address: &str) -> Option<&Server> {
        self.servers.iter().find(|server| server.address == address)
    }

    /// Whether this server is a member, in whatever role.
    pub fn contains(&self, id: ServerId) -> bool {
        self.get(id).is_some()
    }

    /// The voters, in order.
    pub fn voters(&self) -> impl Iterator<Item = &Server> {
        self.servers.iter().filter(|server| server.role == Role::Voter)
    }

    /// Whether this server is a voter.
    pub fn is_voter(&self, id: ServerId) -> bool {
        self.get(id).is_some_and(|server| server.role == Role::Voter)
    }

    /// Whether this server is a voter and there is no other one: it is a quorum by itself.
    pub fn is_sole_voter(&self, id: ServerId) -> bool {
        self.is_voter(id) && self.voters().count() == 1
    }

    /// How many voters are more than half of them. Without voters it is 1, which nobody reaches.
    pub fn quorum(&self) -> usize {
        self.voters().count() / 2 + 1
    }

    /// Bytes that [`encode`](Configuration::encode) produces: a multiple of 8.
    pub fn encoded_len(&self) -> usize {
        let servers: usize = self.servers.iter().map(|server| 8 + server.address.len() + 1 + 1).sum();
        pad8(HEADER_SIZE + servers)
    }

    /// The encoding, padded with zeros.
    ///
    /// # Panics
    /// If an address contains a NUL, which no decoder returns and whoever accepts an address must refuse.
    pub fn encode(&self) -> Bytes {
        let mut out = Vec::with_capacity(self.encoded_len());
        out.put_u8(FORMAT);
        out.put_u64_le(self.servers.len() as u64);
        for server in &self.servers {
            assert!(!server.address.contains('\0'), "address {:?} contains a NUL", server.address);
            out.put_u64_le(server.id.0);
            out.put_slice(server.address.as_bytes());
            out.put_u8(0);
            out.put_u8(server.role as u8);
        }
        out.put_padding(out.len());
        assert_eq!(out.len(), self.encoded_len(), "encoded_len() must agree with encode()");
        out.into()
    }

    /// Reads an encoding; bytes behind the last server are ignored.
    pub fn decode(bytes: Bytes) -> Result<Configuration, ConfigurationError> {
        let mut reader = Reader::new(bytes);
        let format = reader.u8()?;
        if format != FORMAT {
            return Err(ConfigurationError::UnknownFormat(format));
        }
        let count = reader.u64()?;
        let mut servers = Vec::new();
        let mut ids = BTreeSet::new();
        let mut addresses = BTreeSet::new();
        // The announced count is not trusted with an allocation: a wrong one ends in Truncated.
        for _ in 0..count {
            let server = decode_server(&mut reader)?;
            if !ids.insert(server.id) {
                return Err(ConfigurationError::DuplicateId(server.id));
            }
            if !addresses.insert(server.address.clone()) {
                return Err(ConfigurationError::DuplicateAddress(server.address));
            }
            servers.push(server);
        }
        Ok(Configuration { servers })
    }
}

fn decode_server(reader: &mut Reader) -> Result<Server, ConfigurationError> {
    let id = ServerId(reader.u64()?);
    let address = reader.cstring()?;
    let address = str::from_utf8(&address).map_err(|_| ConfigurationError::AddressNotText(id))?.to_owned();
    let role = match reader.u8()? {
        0 => Role::Standby,
        1 => Role::Voter,
        2 => Role::Spare,
        role => return Err(ConfigurationError::UnknownRole { id, role }),
    };
    Ok(Server { id, address, role })
}

#[cfg(test)]
#[path = "configuration_test.rs"]
mod tests;
