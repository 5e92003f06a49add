use std::os::fd::AsFd;
use std::os::linux::net::SocketAddrExt;
use std::process::Command;

use bytes::BytesMut;
use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::*;

const CHILD: &str = "DQLITE_TEST_CHILD";

fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(Duration::from_secs(60), test).await.unwrap() });
}

fn bind(address: &str) -> BoundSocket {
    BoundSocket::bind(&address.parse().unwrap()).unwrap()
}

/// Runs the test of this name in a process of its own, with `argument` in the environment.
fn run_in_child(test: &str, argument: &str) {
    let output = Command::new(std::env::current_exe().unwrap())
        .args([&format!("net::listen::tests::{test}"), "--exact", "--nocapture"])
        .env(CHILD, argument)
        .output()
        .unwrap();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    assert!(String::from_utf8_lossy(&output.stdout).contains("1 passed"), "no test of this name: {test}");
}

fn tcp_address(socket: &BoundSocket) -> SocketAddr {
    match socket.address() {
        BindAddress::Tcp(address) => *address,
        other => panic!("{other} is not a TCP address"),
    }
}

fn connect_abstract(name: &str) -> std::os::unix::net::UnixStream {
    let address = std::os::unix::net::SocketAddr::from_abstract_name(name).unwrap();
    std::os::unix::net::UnixStream::connect_addr(&address).unwrap()
}

async fn exchange_bytes(peer: &mut (impl AsyncReadExt + AsyncWriteExt + Unpin), ours: &Stream) {
    peer.write_all(b"ping").await.unwrap();
    let mut received = BytesMut::new();
    while received.len() < 4 {
        ours.readable().await.unwrap();
        let _ = ours.try_read(&mut received);
    }
    assert_eq!(received, &b"ping"[..]);
    ours.write_all(b"pong").await.unwrap();
    let mut answer = [0; 4];
    peer.read_exact(&mut answer).await.unwrap();
    assert_eq!(answer, *b"pong");
}

#[test]
fn a_tcp_listener_serves_both_address_families_without_delay() {
    run(async {
        for address in ["127.0.0.1:0", "[::1]:0"] {
            let socket = bind(address);
            let address = tcp_address(&socket);
            assert_ne!(address.port(), 0);
            let listener = socket.listen().unwrap();
            let mut peer = TcpStream::connect(address).await.unwrap();
            let ours = listener.accept().await;
            let Stream::Tcp(socket) = &ours else { panic!("not TCP") };
            assert!(socket.nodelay().unwrap());
            exchange_bytes(&mut peer, &ours).await;
        }
    });
}

#[test]
fn a_bound_socket_refuses_connections_until_it_listens() {
    run(async {
        let socket = bind("127.0.0.1:0");
        let address = tcp_address(&socket);
        assert!(TcpStream::connect(address).await.is_err());
        let _listener = socket.listen().unwrap();
        assert!(TcpStream::connect(address).await.is_ok());
    });
}

#[test]
fn the_second_of_two_sockets_on_one_address_fails_to_listen() {
    run(async {
        let first = bind("127.0.0.1:0");
        let second = bind(&first.address().to_string());
        let _listener = first.listen().unwrap();
        assert_eq!(second.listen().unwrap_err().kind(), io::ErrorKind::AddrInUse);
    });
}

#[test]
fn an_address_that_is_listened_on_cannot_be_bound() {
    run(async {
        let socket = bind("127.0.0.1:0");
        let address = socket.address().clone();
        let _listener = socket.listen().unwrap();
        assert_eq!(BoundSocket::bind(&address).unwrap_err().kind(), io::ErrorKind::AddrInUse);
    });
}

#[test]
fn sockets_are_not_inherited_by_child_processes() {
    for address in ["127.0.0.1:0", "@"] {
        let socket = bind(address);
        let flags = rustix::io::fcntl_getfd(socket.socket.as_fd()).unwrap();
        assert!(flags.contains(rustix::io::FdFlags::CLOEXEC), "{address}");
    }
}

#[test]
fn an_abstract_socket_serves_this_process() {
    run(async {
        let name = format!("dqlite-test-{}", std::process::id());
        let socket = bind(&format!("@{name}"));
        assert_eq!(socket.address(), &BindAddress::Abstract(name.clone()));
        let listener = socket.listen().unwrap();
        let peer = connect_abstract(&name);
        peer.set_nonblocking(true).unwrap();
        let mut peer = tokio::net::UnixStream::from_std(peer).unwrap();
        exchange_bytes(&mut peer, &listener.accept().await).await;
    });
}

#[test]
fn the_longest_abstract_name_can_be_bound() {
    let name = format!("{:x<107}", std::process::id());
    assert_eq!(bind(&format!("@{name}")).address(), &BindAddress::Abstract(name));
}

#[test]
fn the_kernel_chooses_the_name_of_an_unnamed_socket() {
    let (a, b) = (bind("@"), bind("@"));
    for socket in [&a, &b] {
        let BindAddress::Abstract(name) = socket.address() else { panic!("not abstract") };
        assert_eq!(name.len(), 5, "{name}");
        assert!(name.bytes().all(|b| b.is_ascii_hexdigit()), "{name}");
    }
    assert_ne!(a.address(), b.address());
}

#[test]
fn another_process_is_kept_out_of_an_abstract_socket() {
    use std::io::Read;
    if let Ok(name) = std::env::var(CHILD) {
        let mut received = Vec::new();
        let end = connect_abstract(&name).read_to_end(&mut received);
        assert!(received.is_empty() && end.is_ok_and(|n| n == 0), "the stranger was served");
        return;
    }
    run(async {
        let socket = bind("@");
        let BindAddress::Abstract(name) = socket.address().clone() else { panic!("not abstract") };
        let listener = socket.listen().unwrap();
        let child_name = name.clone();
        let child = tokio::task::spawn_blocking(move || {
            run_in_child("another_process_is_kept_out_of_an_abstract_socket", &child_name);
        });
        tokio::select! {
            _ = listener.accept() => panic!("the stranger was accepted"),
            child = child => child.unwrap(),
        }
        let _peer = connect_abstract(&name);
        listener.accept().await;
    });
}

#[test]
fn accepting_goes_on_when_descriptors_are_available_again() {
    if std::env::var(CHILD).is_err() {
        // The limit is the whole process's.
        return run_in_child("accepting_goes_on_when_descriptors_are_available_again", "yes");
    }
    run(async {
        let socket = bind("127.0.0.1:0");
        let address = tcp_address(&socket);
        let listener = socket.listen().unwrap();
        let _peer = TcpStream::connect(address).await.unwrap();
        let before = getrlimit(Resource::Nofile);
        setrlimit(Resource::Nofile, Rlimit { current: Some(3), ..before }).unwrap();
        let accept = listener.accept();
        tokio::pin!(accept);
        let early = tokio::time::timeout(Duration::from_millis(200), &mut accept).await;
        assert!(early.is_err(), "accepted without a descriptor");
        setrlimit(Resource::Nofile, before).unwrap();
        accept.await;
    });
}

#[test]
fn a_write_to_a_vanished_peer_is_an_error() {
    run(async {
        let (near, far) = tokio::net::UnixStream::pair().unwrap();
        drop(far);
        let error = Stream::Unix(near).write_all(b"lost").await.unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);
    });
}
