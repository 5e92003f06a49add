use std::fs::File;
use std::net::TcpListener;
use std::sync::{Mutex, mpsc};

use rustix::net::{SocketFlags, listen, socketpair};

use super::*;
use crate::net::listen::BoundSocket;

/// Returns what it was given, once.
struct Returns(Mutex<Option<io::Result<OwnedFd>>>);

impl Connector for Returns {
    fn connect(&self, address: &str) -> io::Result<OwnedFd> {
        assert_eq!(address, "some where");
        self.0.lock().unwrap().take().expect("called once")
    }
}

async fn custom(result: io::Result<OwnedFd>) -> Result<Stream, ConnectError> {
    Connect::Custom(Arc::new(Returns(Mutex::new(Some(result))))).connect("some where").await
}

fn pair(kind: SocketType) -> (OwnedFd, OwnedFd) {
    socketpair(AddressFamily::UNIX, kind, SocketFlags::empty(), None).unwrap()
}

#[tokio::test]
async fn numeric_addresses_are_reached_without_delays_by_the_kernel() {
    for address in ["127.0.0.1:0", "[::1]:0"] {
        let listener = TcpListener::bind(address).unwrap();
        let address = listener.local_addr().unwrap().to_string();
        let Stream::Tcp(stream) = Connect::Tcp.connect(&address).await.unwrap() else { panic!("{address}") };
        assert!(stream.nodelay().unwrap());
    }
}

#[tokio::test]
async fn names_and_unix_addresses_are_refused() {
    let connect = async |address: &str| Connect::Tcp.connect(address).await.unwrap_err();
    assert!(matches!(connect("localhost:9001").await, ConnectError::Address(_)));
    assert!(matches!(connect("@name").await, ConnectError::NotTcp(_)));
}

#[tokio::test]
async fn a_port_without_listener_refuses_at_once() {
    let bound = BoundSocket::bind(&"127.0.0.1:0".parse().unwrap()).unwrap();
    let error = Connect::Tcp.connect(&bound.address().to_string()).await.unwrap_err();
    assert!(matches!(error, ConnectError::Io(error) if error.kind() == io::ErrorKind::ConnectionRefused));
}

#[tokio::test(start_paused = true)]
async fn a_host_that_does_not_answer_is_given_up_in_time() {
    // With its short queue full, the kernel answers nobody.
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    listen(&listener, 0).unwrap();
    let address = listener.local_addr().unwrap();
    let _first = std::net::TcpStream::connect(address).unwrap();
    let error = Connect::Tcp.connect(&address.to_string()).await.unwrap_err();
    assert!(matches!(error, ConnectError::Timeout), "{error}");
}

#[tokio::test]
async fn the_embedder_may_return_a_blocking_tcp_or_unix_socket() {
    let (ours, _theirs) = pair(SocketType::STREAM);
    assert!(matches!(custom(Ok(ours)).await, Ok(Stream::Unix(_))));

    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let ours = std::net::TcpStream::connect(listener.local_addr().unwrap()).unwrap();
    let Ok(Stream::Tcp(stream)) = custom(Ok(ours.into())).await else { panic!() };
    assert!(stream.nodelay().unwrap());
    assert!(rustix::fs::fcntl_getfl(&stream).unwrap().contains(rustix::fs::OFlags::NONBLOCK));
}

#[tokio::test]
async fn anything_else_from_the_embedder_is_a_failure() {
    let refused = async |fd: OwnedFd| custom(Ok(fd)).await.unwrap_err().to_string();
    let null = File::open("/dev/null").unwrap();
    assert_eq!(refused(null.into()).await, "the connect function returned something else than a socket");
    let datagrams = pair(SocketType::DGRAM).0;
    assert_eq!(refused(datagrams).await, "the connect function returned a socket that is no stream");
    let idle = rustix::net::socket(AddressFamily::INET, SocketType::STREAM, None).unwrap();
    assert_eq!(refused(idle).await, "the connect function returned a socket that is not connected");

    assert!(matches!(custom(Err(io::ErrorKind::Other.into())).await, Err(ConnectError::Io(_))));
    let connect = Connect::Custom(Arc::new(Returns(Mutex::new(None))));
    assert!(matches!(connect.connect("some where").await, Err(ConnectError::NoReturn)));
}

/// Tells of a call for "slow" and waits in it; panics for "bad".
struct Slow {
    called: mpsc::Sender<()>,
    go_on: Mutex<mpsc::Receiver<()>>,
}

impl Connector for Slow {
    fn connect(&self, address: &str) -> io::Result<OwnedFd> {
        match address {
            "slow" => {
                self.called.send(()).unwrap();
                self.go_on.lock().unwrap().recv().unwrap();
            }
            "bad" => panic!("of the embedder"),
            _ => {}
        }
        Err(io::ErrorKind::NotFound.into())
    }
}

#[tokio::test]
async fn a_connect_function_that_does_not_return_is_not_called_again_for_the_same_address() {
    let (called, first_call) = mpsc::channel();
    let (go_on, wait) = mpsc::channel();
    let connect = Connect::Custom(Arc::new(Slow { called, go_on: Mutex::new(wait) })).one_at_a_time();
    let error = async |address| connect.connect(address).await.unwrap_err().to_string();
    let earlier = "an earlier call of the connect function has not returned";
    let slow = tokio::spawn({
        let connect = connect.clone();
        async move { connect.connect("slow").await.unwrap_err().to_string() }
    });
    tokio::task::spawn_blocking(move || first_call.recv().unwrap()).await.unwrap();
    assert_eq!(error("slow").await, earlier);
    assert_ne!(error("other").await, earlier);
    go_on.send(()).unwrap();
    assert_ne!(slow.await.unwrap(), earlier);
    for _ in 0..2 {
        assert_eq!(error("bad").await, "the connect function did not return");
    }
}
