//! The client's side of a connection: connects, says which protocol it speaks, then sends one request after
//! the other and takes the answer to each. Owned by the task that asks.
//!
//! Everything ends at the deadline of the caller. After an error other than [`CallError::Refused`] the
//! connection cannot be used any more.

use std::io;

use bytes::BytesMut;
use rustix::io::Errno;
use tokio::time::{Instant, timeout_at};

use super::connect::{Connect, ConnectError};
use super::framed::{Fill, Frame, ReadBuffer};
use super::stream::Stream;
use crate::config::ANSWER_SIZE_MAX;
use crate::wire::frame::TooLarge;
use crate::wire::handshake::Protocol;
use crate::wire::request::{EncodeError, Request};
use crate::wire::response::{ClusterFormat, Response, ResponseError};

/// A connection on which this side asks.
pub struct Caller {
    stream: Stream,
    received: ReadBuffer,
    deadline: Instant,
}

/// Why there is no answer.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// There is no connection.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The connection failed.
    #[error(transparent)]
    Io(#[from] io::Error),
    /// The other side closed the connection.
    #[error("the connection was closed")]
    Closed,
    /// Nothing came before the deadline.
    #[error("no answer")]
    Timeout,
    /// The request cannot be sent.
    #[error(transparent)]
    Request(#[from] EncodeError),
    /// The answer is larger than any that is expected.
    #[error("answer too large: {0}")]
    TooLarge(#[from] TooLarge),
    /// The answer cannot be read.
    #[error(transparent)]
    Response(#[from] ResponseError),
    /// The answer is one to something else.
    #[error("the answer does not belong to the request")]
    Unexpected,
    /// The other side refused.
    #[error("{message} (code {code})")]
    Refused {
        /// The code of the failure.
        code: u64,
        /// Its text.
        message: String,
    },
}

impl CallError {
    /// Whether this process lacks what it takes to ask, so that nothing was learned of the other side.
    pub fn is_own_shortage(&self) -> bool {
        let (CallError::Io(error) | CallError::Connect(ConnectError::Io(error))) = self else { return false };
        matches!(
            Errno::from_io_error(error),
            Some(Errno::MFILE | Errno::NFILE | Errno::NOMEM | Errno::NOBUFS | Errno::ADDRNOTAVAIL)
        )
    }
}

impl Caller {
    /// Connects. Everything that is asked later has the same deadline.
    pub async fn connect(connect: &Connect, address: &str, deadline: Instant) -> Result<Caller, CallError> {
        let connected = timeout_at(deadline, connect.connect(address)).await;
        let stream = connected.map_err(|_| CallError::Timeout)??;
        let caller = Caller { stream, received: ReadBuffer::new(), deadline };
        let version = Protocol::Current.encode();
        timeout_at(deadline, caller.stream.write_all(&version)).await.map_err(|_| CallError::Timeout)??;
        Ok(caller)
    }

    /// Asks, and waits for an answer of one frame. Servers are expected with their roles.
    pub async fn call(&mut self, request: &Request) -> Result<Response, CallError> {
        let mut out = BytesMut::new();
        request.encode(&mut out)?;
        let answered = timeout_at(self.deadline, async {
            self.stream.write_all(&out).await?;
            self.next_frame().await
        });
        let Frame { header, body } = answered.await.map_err(|_| CallError::Timeout)??;
        match Response::decode(header, body, ClusterFormat::V1)? {
            Response::Failure { code, message } => {
                Err(CallError::Refused { code, message: String::from_utf8_lossy(&message).into_owned() })
            }
            response => Ok(response),
        }
    }

    async fn next_frame(&mut self) -> Result<Frame, CallError> {
        loop {
            if let Some(size) = self.received.peek_header().map(|header| header.body_size())
                && size > ANSWER_SIZE_MAX
            {
                return Err(TooLarge { size, limit: ANSWER_SIZE_MAX }.into());
            }
            if let Some(frame) = self.received.next_frame()? {
                return Ok(frame);
            }
            self.stream.readable().await?;
            match self.received.try_fill(&self.stream) {
                Ok(Fill::Eof | Fill::EofInFrame) => return Err(CallError::Closed),
                Ok(Fill::Bytes | Fill::Full) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                Err(error) => return Err(error.into()),
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    use tokio::net::TcpListener;

    use super::*;
    use crate::config::ANSWER_SIZE_MAX;
    use crate::wire::{failure, response};

    const DESCRIBE: Request = Request::Describe { format: 0 };

    fn deadline() -> Instant {
        Instant::now() + Duration::from_secs(30)
    }

    /// Calls a server that takes the version and one DESCRIBE and answers with these bytes, in two pieces.
    async fn answered_with(answer: &[u8]) -> Result<Response, CallError> {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let ask = async {
            let mut caller = Caller::connect(&Connect::Tcp, &address, deadline()).await?;
            caller.call(&DESCRIBE).await
        };
        let serve = async {
            let (mut stream, _) = listener.accept().await.unwrap();
            let mut asked = [0; 24];
            stream.read_exact(&mut asked).await.unwrap();
            assert_eq!(asked[..8], Protocol::Current.encode());
            let mut expected = BytesMut::new();
            DESCRIBE.encode(&mut expected).unwrap();
            assert_eq!(asked[8..], expected);
            let (first, second) = answer.split_at(answer.len() / 2 + 1);
            stream.write_all(first).await.unwrap();
            tokio::task::yield_now().await;
            // A caller that has seen enough is gone.
            let _ = stream.write_all(second).await;
        };
        tokio::join!(ask, serve).0
    }

    #[tokio::test]
    async fn an_answer_is_put_together_from_its_pieces() {
        let mut out = BytesMut::new();
        response::metadata(&mut out, 7, 9);
        let answer = answered_with(&out).await.unwrap();
        assert!(matches!(answer, Response::Metadata { failure_domain: 7, weight: 9 }), "{answer:?}");
    }

    #[tokio::test]
    async fn a_failure_is_an_error_with_its_code_and_text() {
        let mut out = BytesMut::new();
        failure::NOT_LEADER.encode(&mut out);
        let error = answered_with(&out).await.unwrap_err();
        assert_eq!(error.to_string(), "not leader (code 10250)");
    }

    #[tokio::test]
    async fn an_answer_that_is_cut_off_or_absurd_is_an_error() {
        let mut out = BytesMut::new();
        response::metadata(&mut out, 7, 9);
        assert!(matches!(answered_with(&out[..20]).await, Err(CallError::Closed)));
        out[4] = 99;
        assert!(matches!(answered_with(&out).await, Err(CallError::Response(_))));
        let words = u32::try_from(ANSWER_SIZE_MAX / 8 + 1).unwrap().to_le_bytes();
        let header = [&words[..], &[10, 0, 0, 0]].concat();
        assert!(matches!(answered_with(&header).await, Err(CallError::TooLarge(_))));
    }

    #[tokio::test(start_paused = true)]
    async fn who_takes_the_connection_and_says_nothing_is_given_up_at_the_deadline() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let mut caller = Caller::connect(&Connect::Tcp, &address, deadline()).await.unwrap();
        assert!(matches!(caller.call(&DESCRIBE).await, Err(CallError::Timeout)));
    }

    #[test]
    fn a_lack_of_descriptors_says_nothing_about_the_other_side() {
        let io = |errno: Errno| CallError::Connect(ConnectError::Io(errno.into()));
        assert!(io(Errno::MFILE).is_own_shortage());
        assert!(!io(Errno::CONNREFUSED).is_own_shortage());
        assert!(!CallError::Timeout.is_own_shortage());
    }
}
