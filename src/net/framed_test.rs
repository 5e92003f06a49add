use std::time::Duration;

use tokio::io::AsyncWriteExt;
use tokio::net::{TcpListener, TcpStream};

use super::*;
use crate::wire::request::Request;

/// Waits for bytes of the next frame.
async fn fill(buffer: &mut ReadBuffer, stream: &Stream) -> io::Result<Fill> {
    loop {
        stream.readable().await?;
        match buffer.try_fill(stream) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            other => return other,
        }
    }
}

/// Waits for bytes as a session does while a request runs.
async fn fill_ahead(buffer: &mut ReadBuffer, stream: &Stream) -> io::Result<Fill> {
    loop {
        match buffer.try_fill_ahead(stream) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => stream.readable().await?,
            other => return other,
        }
    }
}

/// The two ends of a loopback connection: the peer's and ours.
async fn connection() -> (TcpStream, Stream) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let peer = TcpStream::connect(listener.local_addr().unwrap()).await.unwrap();
    peer.set_nodelay(true).unwrap();
    let (ours, _) = listener.accept().await.unwrap();
    (peer, Stream::Tcp(ours))
}

fn run(test: impl Future<Output = ()>) {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    runtime.block_on(async { tokio::time::timeout(Duration::from_secs(60), test).await.unwrap() });
}

fn request(request: Request) -> Vec<u8> {
    let mut out = BytesMut::new();
    request.encode(&mut out).unwrap();
    out.to_vec()
}

fn three_requests() -> Vec<u8> {
    let dump = Request::Dump { name: "a name of more than one word".into() };
    [request(Request::Leader), request(dump), request(Request::Interrupt { db: 0 })].concat()
}

async fn next_frame(buffer: &mut ReadBuffer, stream: &Stream) -> Frame {
    loop {
        if let Some(frame) = buffer.next_frame().unwrap() {
            return frame;
        }
        assert_eq!(fill(buffer, stream).await.unwrap(), Fill::Bytes);
    }
}

async fn read_three(buffer: &mut ReadBuffer, stream: &Stream) {
    for kind in [0, 15, 10] {
        let frame = next_frame(buffer, stream).await;
        assert_eq!(frame.header.kind, kind);
        assert_eq!(frame.body.len() as u64, frame.header.body_size());
    }
}

#[test]
fn a_connection_sent_byte_by_byte_is_understood() {
    run(async {
        let (mut peer, stream) = connection().await;
        let sender = tokio::spawn(async move {
            for byte in [&1u64.to_le_bytes()[..], &three_requests()].concat() {
                peer.write_all(&[byte]).await.unwrap();
                tokio::task::yield_now().await;
            }
        });
        let mut buffer = ReadBuffer::new();
        let version = loop {
            match buffer.next_version() {
                Some(version) => break version,
                None => assert_eq!(fill(&mut buffer, &stream).await.unwrap(), Fill::Bytes),
            }
        };
        assert_eq!(version, [1, 0, 0, 0, 0, 0, 0, 0]);
        read_three(&mut buffer, &stream).await;
        sender.await.unwrap();
        assert_eq!(fill(&mut buffer, &stream).await.unwrap(), Fill::Eof);
    });
}

#[test]
fn requests_sent_in_one_piece_come_out_one_by_one() {
    run(async {
        let (mut peer, stream) = connection().await;
        peer.write_all(&[&1u64.to_le_bytes()[..], &three_requests()].concat()).await.unwrap();
        let mut buffer = ReadBuffer::new();
        assert_eq!(fill(&mut buffer, &stream).await.unwrap(), Fill::Bytes);
        assert!(buffer.next_version().is_some());
        read_three(&mut buffer, &stream).await;
        assert_eq!(buffer.peek_header(), None);
    });
}

#[test]
fn an_interrupt_is_seen_while_the_request_before_it_runs() {
    run(async {
        let (mut peer, stream) = connection().await;
        peer.write_all(&request(Request::Leader)).await.unwrap();
        let mut buffer = ReadBuffer::new();
        let running = next_frame(&mut buffer, &stream).await;
        peer.write_all(&request(Request::Interrupt { db: 0 })).await.unwrap();
        while buffer.peek_header().is_none() {
            assert_eq!(fill_ahead(&mut buffer, &stream).await.unwrap(), Fill::Bytes);
        }
        assert_eq!(buffer.peek_header().unwrap().kind, 10);
        assert_eq!(running.header.kind, 0);
    });
}

#[test]
fn the_end_of_the_stream_inside_a_frame_is_told_from_the_end_between_frames() {
    let sent = three_requests();
    run(async move {
        for end in 0..=sent.len() {
            let (mut peer, stream) = connection().await;
            peer.write_all(&sent[..end]).await.unwrap();
            drop(peer);
            let mut buffer = ReadBuffer::new();
            let fill = loop {
                match fill_ahead(&mut buffer, &stream).await.unwrap() {
                    Fill::Bytes => {}
                    fill => break fill,
                }
            };
            let between = [0, 16, 16 + 40, 16 + 40 + 16].contains(&end);
            assert_eq!(fill, if between { Fill::Eof } else { Fill::EofInFrame }, "{end} bytes");
        }
    });
}

#[test]
fn a_huge_announced_body_takes_no_memory_until_it_arrives() {
    run(async {
        let (mut peer, stream) = connection().await;
        let header = Header { words: (256 << 20) / 8, kind: 8, schema: 0, extra: 0 };
        peer.write_all(&header.encode()).await.unwrap();
        let mut buffer = ReadBuffer::new();
        for sent in 1..=64 {
            peer.write_all(&[7; 100]).await.unwrap();
            while buffer.bytes.len() < HEADER_SIZE + sent * 100 {
                assert_eq!(buffer.next_frame(), Ok(None));
                assert_eq!(fill(&mut buffer, &stream).await.unwrap(), Fill::Bytes);
            }
            let limit = 2 * buffer.bytes.len() + 2 * READ_SIZE;
            assert!(buffer.bytes.capacity() <= limit, "{} bytes allocated", buffer.bytes.capacity());
        }
    });
}

#[test]
fn a_large_body_arrives_whole_and_its_memory_leaves_with_it() {
    run(async {
        let (mut peer, stream) = connection().await;
        let size = 3 << 20;
        let header = Header { words: size / 8, kind: 8, schema: 0, extra: 0 };
        let body: Vec<u8> = (0..size).map(|n| (n % 251) as u8).collect();
        let sent = [&header.encode()[..], &body, &request(Request::Leader)].concat();
        let sender = tokio::spawn(async move {
            peer.write_all(&sent).await.unwrap();
            peer
        });
        let mut buffer = ReadBuffer::new();
        assert_eq!(next_frame(&mut buffer, &stream).await.body, body);
        assert_eq!(next_frame(&mut buffer, &stream).await.header.kind, 0);
        buffer.bytes.reserve(READ_SIZE);
        assert!(buffer.bytes.capacity() <= 4 * READ_SIZE, "{} bytes kept", buffer.bytes.capacity());
        drop(sender.await.unwrap());
    });
}

#[test]
fn a_body_above_the_limit_is_refused_by_its_header_alone() {
    run(async {
        let (mut peer, stream) = connection().await;
        let header = Header { words: 0x1000_0001, kind: 8, schema: 0, extra: 0 };
        peer.write_all(&header.encode()).await.unwrap();
        let mut buffer = ReadBuffer::new();
        assert_eq!(fill(&mut buffer, &stream).await.unwrap(), Fill::Bytes);
        assert!(buffer.next_frame().is_err());
    });
}

#[test]
fn reading_ahead_stops_at_its_limit_and_goes_on_when_the_frame_is_taken() {
    run(async {
        let (mut peer, stream) = connection().await;
        let header = Header { words: 2 * READ_AHEAD_MAX as u32 / 8, kind: 8, schema: 0, extra: 0 };
        let sent = [&header.encode()[..], &vec![0; 2 * READ_AHEAD_MAX]].concat();
        let sender = tokio::spawn(async move {
            peer.write_all(&sent).await.unwrap();
            peer
        });
        let mut buffer = ReadBuffer::new();
        while fill_ahead(&mut buffer, &stream).await.unwrap() != Fill::Full {}
        assert_eq!(buffer.bytes.len(), READ_AHEAD_MAX);
        assert_eq!(next_frame(&mut buffer, &stream).await.body.len(), 2 * READ_AHEAD_MAX);
        drop(sender.await.unwrap());
    });
}

#[test]
fn small_requests_one_after_another_reuse_one_allocation() {
    run(async {
        let (mut peer, stream) = connection().await;
        let mut buffer = ReadBuffer::new();
        let mut addresses = std::collections::BTreeSet::new();
        for _ in 0..200 {
            peer.write_all(&request(Request::Leader)).await.unwrap();
            let frame = next_frame(&mut buffer, &stream).await;
            addresses.insert(frame.body.as_ptr() as usize / READ_SIZE);
        }
        assert!(addresses.len() <= 2, "{} allocations", addresses.len());
    });
}
