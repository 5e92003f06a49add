//! A connected stream socket, TCP or Unix. Owned by the task that serves it; all calls are on `&self`, so
//! that one task can write an answer and watch for incoming bytes at the same time.
//!
//! Writes never raise SIGPIPE: we are a library, and the host may not ignore it. The standard library's
//! writes do raise it on Unix sockets, hence `send` with MSG_NOSIGNAL.

use std::io::{self, IoSlice};
use std::os::fd::AsFd;
use std::time::Duration;

use bytes::BufMut;
use rustix::net::{SendAncillaryBuffer, SendFlags, sockopt};
use tokio::io::Interest;
use tokio::net::{TcpStream, UnixStream};

use crate::config::{PEER_DEAD_AFTER_MS, PEER_KEEPALIVE_IDLE_MS, PEER_KEEPALIVE_INTERVAL_MS};

/// A connected stream socket.
#[derive(Debug)]
pub enum Stream {
    /// Over TCP.
    Tcp(TcpStream),
    /// Over a Unix socket.
    Unix(UnixStream),
}

/// A connection on its way from one runtime to another.
#[derive(Debug)]
pub enum Detached {
    /// Over TCP.
    Tcp(std::net::TcpStream),
    /// Over a Unix socket.
    Unix(std::os::unix::net::UnixStream),
}

impl Detached {
    /// The connection, in the runtime of the caller.
    pub fn attach(self) -> io::Result<Stream> {
        match self {
            Detached::Tcp(stream) => TcpStream::from_std(stream).map(Stream::Tcp),
            Detached::Unix(stream) => UnixStream::from_std(stream).map(Stream::Unix),
        }
    }
}

impl Stream {
    /// The same connection, for another runtime. It stays open when this one is dropped.
    pub fn detach(&self) -> io::Result<Detached> {
        let own = match self {
            Stream::Tcp(stream) => stream.as_fd(),
            Stream::Unix(stream) => stream.as_fd(),
        };
        let same = own.try_clone_to_owned()?;
        Ok(match self {
            Stream::Tcp(_) => Detached::Tcp(same.into()),
            Stream::Unix(_) => Detached::Unix(same.into()),
        })
    }

    /// Waits until there is something to read, the end of the stream included. May wake up for nothing.
    pub async fn readable(&self) -> io::Result<()> {
        match self {
            Stream::Tcp(stream) => stream.readable().await,
            Stream::Unix(stream) => stream.readable().await,
        }
    }

    /// Appends what has arrived to `buffer`, as far as it has room, without waiting; 0 is the end of the
    /// stream.
    pub fn try_read<B: BufMut>(&self, buffer: &mut B) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => stream.try_read_buf(buffer),
            Stream::Unix(stream) => stream.try_read_buf(buffer),
        }
    }

    /// The same; if that was all there was, the stream counts as unreadable until more arrives, which spares
    /// the call that would only find that out. For a stream on which more is not to be expected at once: a
    /// busy client has sent its next request by the time of that call, and is then served without a wait.
    pub fn try_read_all<B: BufMut>(&self, buffer: &mut B) -> io::Result<usize> {
        let room = buffer.chunk_mut().len();
        let mut read = None;
        let read_once = || {
            let size = self.try_read(buffer)?;
            read = Some(size);
            if (1..room).contains(&size) { Err(io::ErrorKind::WouldBlock.into()) } else { Ok(size) }
        };
        let outcome = match self {
            Stream::Tcp(stream) => stream.try_io(Interest::READABLE, read_once),
            Stream::Unix(stream) => stream.try_io(Interest::READABLE, read_once),
        };
        read.map_or(outcome, Ok)
    }

    /// Writes the beginning of `pieces`, as much as the socket takes, and waits until that is something. If
    /// this is cancelled, nothing was written.
    pub async fn write_some(&self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => stream.async_io(Interest::WRITABLE, || send_pieces(stream, pieces)).await,
            Stream::Unix(stream) => stream.async_io(Interest::WRITABLE, || send_pieces(stream, pieces)).await,
        }
    }

    /// Writes the beginning of `pieces`, as much as the socket takes at once. From any thread.
    pub fn write_now(&self, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Stream::Tcp(stream) => send_pieces(stream, pieces),
            Stream::Unix(stream) => send_pieces(stream, pieces),
        }
    }

    /// Makes a connection whose other host has vanished fail within [`PEER_DEAD_AFTER_MS`], if it is one over
    /// TCP: while something is unacknowledged as well as in silence.
    pub fn notice_dead_host(&self) -> io::Result<()> {
        let Stream::Tcp(stream) = self else { return Ok(()) };
        let (idle, interval, dead) = (PEER_KEEPALIVE_IDLE_MS, PEER_KEEPALIVE_INTERVAL_MS, PEER_DEAD_AFTER_MS);
        sockopt::set_tcp_keepidle(stream, Duration::from_millis(idle))?;
        sockopt::set_tcp_keepintvl(stream, Duration::from_millis(interval))?;
        sockopt::set_tcp_keepcnt(stream, ((dead - idle) / interval) as u32)?;
        sockopt::set_tcp_user_timeout(stream, dead as u32)?;
        Ok(sockopt::set_socket_keepalive(stream, true)?)
    }

    /// Writes everything. If this is cancelled, some of it may have been written.
    pub async fn write_all(&self, mut bytes: &[u8]) -> io::Result<()> {
        while !bytes.is_empty() {
            let sent = match self {
                Stream::Tcp(stream) => stream.async_io(Interest::WRITABLE, || send(stream, bytes)).await?,
                Stream::Unix(stream) => stream.async_io(Interest::WRITABLE, || send(stream, bytes)).await?,
            };
            bytes = bytes.get(sent..).unwrap_or_default();
        }
        Ok(())
    }
}

fn send_pieces(socket: impl AsFd, pieces: &[IoSlice<'_>]) -> io::Result<usize> {
    let mut nothing = SendAncillaryBuffer::default();
    Ok(rustix::net::sendmsg(socket, pieces, &mut nothing, SendFlags::NOSIGNAL)?)
}

fn send(socket: impl AsFd, bytes: &[u8]) -> io::Result<usize> {
    Ok(rustix::net::send(socket, bytes, SendFlags::NOSIGNAL)?)
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::io::Write;
    use std::os::unix::net::UnixStream as Other;
    use std::time::Duration;

    /// Long enough for anything that must happen.
    const PATIENCE: Duration = Duration::from_secs(20);

    fn pair() -> (Stream, Other) {
        let (own, other) = Other::pair().unwrap();
        own.set_nonblocking(true).unwrap();
        (Detached::Unix(own).attach().unwrap(), other)
    }

    async fn read(stream: &Stream) -> Vec<u8> {
        let mut bytes = Vec::with_capacity(64);
        tokio::time::timeout(PATIENCE, stream.readable()).await.expect("it is readable").unwrap();
        stream.try_read_all(&mut (&mut bytes).limit(64)).unwrap();
        bytes
    }

    #[tokio::test]
    async fn a_read_that_took_all_leaves_the_stream_unreadable_until_more_arrives() {
        let (stream, mut other) = pair();
        for piece in ["one", "two"] {
            other.write_all(piece.as_bytes()).unwrap();
            assert_eq!(read(&stream).await, piece.as_bytes());
            let more = tokio::time::timeout(Duration::ZERO, stream.readable()).await;
            assert!(more.is_err(), "a call that finds nothing would follow");
        }
        other.write_all(b"last").unwrap();
        drop(other);
        assert_eq!(read(&stream).await, b"last");
        assert_eq!(read(&stream).await, b"", "the end is not missed");
    }

    #[tokio::test]
    async fn a_detached_connection_outlives_the_one_that_it_was_detached_from() {
        let (stream, mut other) = pair();
        let detached = stream.detach().unwrap();
        drop(stream);
        other.write_all(b"still here").unwrap();
        assert_eq!(read(&detached.attach().unwrap()).await, b"still here");
    }
}
