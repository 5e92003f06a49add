//! Connections to other servers: the built-in way, or a function of the embedder. Used by the tasks of
//! [`super::peer`], and by whoever else asks another server something, see [`super::caller`].
//!
//! The built-in way takes the numeric addresses of [`super::addr`], IPv6 included, and never looks up a name.

use std::collections::HashSet;
use std::io;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use rustix::net::{AddressFamily, SocketType, getpeername, sockopt};
use tokio::net::{TcpStream, UnixStream};

use super::addr::{AddressError, BindAddress};
use super::stream::Stream;
use crate::config::PEER_CONNECT_TIMEOUT_MS;

/// Connects in the embedder's own way, for example through a proxy that encrypts.
pub trait Connector: Send + Sync {
    /// Returns a connected stream socket, TCP or Unix. May block: it is called on a thread of its own, where
    /// a panic counts as a failure. Nothing interrupts it.
    fn connect(&self, address: &str) -> io::Result<OwnedFd>;
}

/// How to connect.
#[derive(Clone)]
pub enum Connect {
    /// To a numeric address over TCP.
    Tcp,
    /// As the embedder says.
    Custom(Arc<dyn Connector>),
}

/// Calls another connector at most once at a time for each address. For who asks again and again: a call that
/// does not return must not be joined by more and more of them.
struct OneAtATime {
    connector: Arc<dyn Connector>,
    calls: Mutex<HashSet<String>>,
}

impl Connector for OneAtATime {
    fn connect(&self, address: &str) -> io::Result<OwnedFd> {
        if !self.calls.lock().insert(address.to_owned()) {
            return Err(io::Error::other("an earlier call of the connect function has not returned"));
        }
        let _call = Call { calls: &self.calls, address };
        self.connector.connect(address)
    }
}

/// A call under way. It ends by a panic, too.
struct Call<'a> {
    calls: &'a Mutex<HashSet<String>>,
    address: &'a str,
}

impl Drop for Call<'_> {
    fn drop(&mut self) {
        self.calls.lock().remove(self.address);
    }
}

/// Why there is no connection.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// Not a numeric address.
    #[error(transparent)]
    Address(#[from] AddressError),
    /// The address of a Unix socket, which only the embedder's own function can reach.
    #[error("cannot connect to {0:?}: not a TCP address")]
    NotTcp(String),
    /// No answer within [`PEER_CONNECT_TIMEOUT_MS`].
    #[error("no answer")]
    Timeout,
    /// What the embedder's function returned cannot be used.
    #[error("the connect function returned {0}")]
    NotUsable(&'static str),
    /// The embedder's function panicked, or the node is stopping.
    #[error("the connect function did not return")]
    NoReturn,
    /// The system, or the embedder's function, refused.
    #[error(transparent)]
    Io(#[from] io::Error),
}

impl Connect {
    /// The same, but a function of the embedder is called at most once at a time for each address.
    pub fn one_at_a_time(self) -> Connect {
        match self {
            Connect::Tcp => Connect::Tcp,
            Connect::Custom(connector) => {
                Connect::Custom(Arc::new(OneAtATime { connector, calls: Mutex::default() }))
            }
        }
    }

    /// Connects. Must be called within a tokio runtime. If this is cancelled, a call of the embedder's
    /// function runs to its end, and its connection is closed.
    pub async fn connect(&self, address: &str) -> Result<Stream, ConnectError> {
        match self {
            Connect::Tcp => connect_tcp(address).await,
            Connect::Custom(connector) => {
                let (connector, address) = (connector.clone(), address.to_owned());
                let connected = tokio::task::spawn_blocking(move || connector.connect(&address)).await;
                adopt(connected.map_err(|_| ConnectError::NoReturn)??)
            }
        }
    }
}

async fn connect_tcp(address: &str) -> Result<Stream, ConnectError> {
    let BindAddress::Tcp(target) = address.parse()? else {
        return Err(ConnectError::NotTcp(address.to_owned()));
    };
    let timeout = Duration::from_millis(PEER_CONNECT_TIMEOUT_MS);
    let stream = tokio::time::timeout(timeout, TcpStream::connect(target)).await;
    let stream = stream.map_err(|_| ConnectError::Timeout)??;
    if stream.local_addr()? == target {
        // Nobody listens, and the kernel chose the target's own port for our side.
        return Err(io::Error::from(io::ErrorKind::ConnectionRefused).into());
    }
    stream.set_nodelay(true)?;
    Ok(Stream::Tcp(stream))
}

/// Makes a stream of a socket that somebody else has connected.
fn adopt(socket: OwnedFd) -> Result<Stream, ConnectError> {
    let kind =
        sockopt::socket_type(&socket).map_err(|_| ConnectError::NotUsable("something else than a socket"))?;
    if kind != SocketType::STREAM {
        return Err(ConnectError::NotUsable("a socket that is no stream"));
    }
    let domain = sockopt::socket_domain(&socket).map_err(io::Error::from)?;
    getpeername(&socket).map_err(|_| ConnectError::NotUsable("a socket that is not connected"))?;
    rustix::io::fcntl_setfd(&socket, rustix::io::FdFlags::CLOEXEC).map_err(io::Error::from)?;
    rustix::io::ioctl_fionbio(&socket, true).map_err(io::Error::from)?;
    match domain {
        AddressFamily::UNIX => Ok(Stream::Unix(UnixStream::from_std(socket.into())?)),
        AddressFamily::INET | AddressFamily::INET6 => {
            sockopt::set_tcp_nodelay(&socket, true).map_err(io::Error::from)?;
            Ok(Stream::Tcp(TcpStream::from_std(socket.into())?))
        }
        _ => Err(ConnectError::NotUsable("a socket that is neither TCP nor Unix")),
    }
}

#[cfg(test)]
#[path = "connect_test.rs"]
mod tests;
