//! The client against servers that answer as the test wants.

use super::*;
use crate::wire::failure;
use crate::wire::response::{self, ClusterFormat};
use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

fn deadline() -> Instant {
    Instant::now() + Duration::from_secs(30)
}

/// A server that gives these answers, one to each request, on as many connections as come.
async fn server_with(answer: fn(kind: u8, own: &str, out: &mut BytesMut)) -> String {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap().to_string();
    let own = address.clone();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            let own = own.clone();
            tokio::spawn(async move {
                let mut version = [0; 8];
                stream.read_exact(&mut version).await?;
                loop {
                    let mut header = [0; 8];
                    stream.read_exact(&mut header).await?;
                    let size = u32::from_le_bytes([header[0], header[1], header[2], header[3]]) as usize * 8;
                    stream.read_exact(&mut vec![0; size]).await?;
                    let mut out = BytesMut::new();
                    answer(header[4], &own, &mut out);
                    stream.write_all(&out).await?;
                }
                #[allow(unreachable_code)]
                std::io::Result::Ok(())
            });
        }
    });
    address
}

/// Leads, has one server, and takes any other.
fn leads(kind: u8, own: &str, out: &mut BytesMut) {
    match kind {
        0 => response::server(out, 7, own.as_bytes()),
        12 => response::empty(out),
        16 => {
            let entry = |id, address, role| response::ServerEntry { id, address, role };
            let strange: [(u64, &[u8], u64); 3] = [(7, own.as_bytes(), 0), (8, b"\xff", 0), (9, b"x:1", 3)];
            let entries = strange.map(|(id, address, role)| entry(id, address, role));
            response::servers(out, ClusterFormat::V1, entries);
        }
        other => panic!("request {other}"),
    }
}

fn knows_none(_: u8, _: &str, out: &mut BytesMut) {
    response::server(out, 0, b"");
}

fn refuses(kind: u8, own: &str, out: &mut BytesMut) {
    match kind {
        0 => response::server(out, 7, own.as_bytes()),
        12 => failure::DUPLICATE_SERVER_ADDRESS.encode(out),
        _ => failure::CHANGE_IN_PROGRESS.encode(out),
    }
}

#[tokio::test]
async fn the_leader_is_found_behind_servers_that_are_gone_or_know_none() {
    let gone = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap().to_string();
    let addresses = [gone, server_with(knows_none).await, server_with(leads).await];
    let mut leader = Leader::find(&Connect::Tcp, &addresses, deadline()).await.unwrap();
    let servers = leader.servers().await.unwrap();
    assert_eq!(servers, [Server { id: 7, address: addresses[2].clone(), role: Role::Voter }]);
    leader.add(8, "127.0.0.1:9").await.unwrap();
}

#[tokio::test]
async fn without_a_leader_the_error_tells_what_each_server_said() {
    let addresses = ["nowhere".to_owned(), server_with(knows_none).await];
    let error = Leader::find(&Connect::Tcp, &addresses, deadline()).await.err().unwrap();
    let text = error.to_string();
    assert!(text.starts_with("no leader found: nowhere: invalid address"), "{text}");
    assert!(text.ends_with(&format!("; {} knows none", addresses[1])), "{text}");
    assert!(error.is_temporary());
}

#[tokio::test]
async fn a_refusal_is_final_unless_the_leader_may_think_otherwise_soon() {
    let addresses = [server_with(refuses).await];
    let mut leader = Leader::find(&Connect::Tcp, &addresses, deadline()).await.unwrap();
    assert!(leader.servers().await.unwrap_err().is_temporary());
    let error = leader.add(8, "127.0.0.1:9").await.unwrap_err();
    assert!(!error.is_temporary());
    let expected = format!("the leader at {}: server address already in use (code 1)", addresses[0]);
    assert_eq!(error.to_string(), expected);
}

#[tokio::test(start_paused = true)]
async fn a_server_that_says_nothing_costs_the_others_little_time() {
    let silent = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let addresses = [silent.local_addr().unwrap().to_string()];
    let begin = Instant::now();
    let error = Leader::find(&Connect::Tcp, &addresses, deadline()).await.err().unwrap();
    assert!(error.to_string().ends_with(": no answer"), "{error}");
    assert_eq!(begin.elapsed().as_millis(), u128::from(LEADER_ANSWER_TIMEOUT_MS));
}
