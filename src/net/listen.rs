//! Listening sockets: bound when the address is set, listening when the node starts, accepting on a client
//! worker.
//!
//! Two nodes may bind the same TCP address, for SO_REUSEADDR allows it while nobody listens; the second one
//! then fails to listen, at its start.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::time::Duration;

use rustix::net::{self, AddressFamily, SocketAddrUnix, SocketFlags, SocketType, sockopt};
use tokio::net::{TcpListener, UnixListener};
use tracing::{debug, warn};

use super::addr::BindAddress;
use super::stream::Stream;
use crate::config::{ACCEPT_RETRY_MAX_MS, ACCEPT_RETRY_MIN_MS, LISTEN_BACKLOG};

/// A socket that has its address and does not listen yet.
#[derive(Debug)]
pub struct BoundSocket {
    socket: OwnedFd,
    address: BindAddress,
}

impl BoundSocket {
    /// Opens a socket and binds it.
    pub fn bind(address: &BindAddress) -> io::Result<BoundSocket> {
        let (socket, address) = match address {
            BindAddress::Tcp(address) => bind_tcp(address)?,
            BindAddress::Abstract(name) => bind_unix(&SocketAddrUnix::new_abstract_name(name.as_bytes())?)?,
            BindAddress::Autobind => bind_unix(&SocketAddrUnix::new_unnamed())?,
        };
        Ok(BoundSocket { socket, address })
    }

    /// The address as the kernel knows it: with the port or the name that it chose.
    pub fn address(&self) -> &BindAddress {
        &self.address
    }

    /// Starts to listen. To be called within the runtime that will accept. The socket stays bound until both
    /// this value and the listener are dropped, so that a start that fails later can be tried again.
    pub fn listen(&self) -> io::Result<Listener> {
        net::listen(&self.socket, LISTEN_BACKLOG)?;
        let socket = self.socket.try_clone()?;
        Ok(match self.address {
            BindAddress::Tcp(_) => Listener::Tcp(TcpListener::from_std(socket.into())?),
            _ => Listener::Unix(UnixListener::from_std(socket.into())?),
        })
    }
}

fn open(family: AddressFamily) -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(net::socket_with(family, SocketType::STREAM, flags, None)?)
}

fn bind_tcp(address: &SocketAddr) -> io::Result<(OwnedFd, BindAddress)> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let socket = open(family)?;
    sockopt::set_socket_reuseaddr(&socket, true)?;
    net::bind(&socket, address)?;
    let chosen = SocketAddr::try_from(net::getsockname(&socket)?)?;
    Ok((socket, BindAddress::Tcp(chosen)))
}

fn bind_unix(address: &SocketAddrUnix) -> io::Result<(OwnedFd, BindAddress)> {
    let socket = open(AddressFamily::UNIX)?;
    net::bind(&socket, address)?;
    let chosen = SocketAddrUnix::try_from(net::getsockname(&socket)?)?;
    let name = chosen.abstract_name().unwrap_or_default();
    let name = String::from_utf8_lossy(name).into_owned();
    Ok((socket, BindAddress::Abstract(name)))
}

/// A socket that accepts connections.
#[derive(Debug)]
pub enum Listener {
    /// TCP.
    Tcp(TcpListener),
    /// Abstract Unix, for this process only.
    Unix(UnixListener),
}

impl Listener {
    /// Waits for the next connection. A shortage of descriptors or memory is logged once and waited out,
    /// because a node that stops accepting for good would look dead.
    pub async fn accept(&self) -> Stream {
        let mut delay_ms = ACCEPT_RETRY_MIN_MS;
        loop {
            match self.try_accept().await {
                Ok(Some(stream)) => return stream,
                Ok(None) => {}
                Err(error) => {
                    if delay_ms == ACCEPT_RETRY_MIN_MS {
                        warn!(%error, "cannot accept connections, trying again");
                    }
                    tokio::time::sleep(Duration::from_millis(delay_ms)).await;
                    delay_ms = (delay_ms * 2).min(ACCEPT_RETRY_MAX_MS);
                }
            }
        }
    }

    /// One connection; `None` if it is not to be served, or gone already.
    async fn try_accept(&self) -> io::Result<Option<Stream>> {
        let accepted = match self {
            Listener::Tcp(listener) => listener.accept().await.map(|(stream, _)| Stream::Tcp(stream)),
            Listener::Unix(listener) => listener.accept().await.map(|(stream, _)| Stream::Unix(stream)),
        };
        match accepted {
            Ok(stream) => Ok(admit(&stream).is_ok_and(|admitted| admitted).then_some(stream)),
            Err(error) if error.kind() == io::ErrorKind::ConnectionAborted => Ok(None),
            Err(error) => Err(error),
        }
    }
}

/// Prepares an accepted connection; false if the peer is another process on a Unix socket, which embedders
/// count on being kept out.
fn admit(stream: &Stream) -> io::Result<bool> {
    match stream {
        // A ROWS frame must not wait for the acknowledgement of the one before it.
        Stream::Tcp(stream) => stream.set_nodelay(true).map(|()| true),
        Stream::Unix(stream) => {
            let peer = stream.peer_cred()?.pid().and_then(|pid| u32::try_from(pid).ok());
            let own = peer == Some(std::process::id());
            if !own {
                debug!(?peer, "closed a connection from another process");
            }
            Ok(own)
        }
    }
}

#[cfg(test)]
#[path = "listen_test.rs"]
mod tests;
