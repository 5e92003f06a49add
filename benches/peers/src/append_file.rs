//! The log on disk of the peers, which bring none: one file, one thread, group commit.
//!
//! A record is a header of 24 bytes (checksum, size, term, index; little-endian) and the payload. The thread
//! takes everything that waits, writes it in one piece, calls fdatasync once and then tells everybody. The
//! file is filled with zeros and synced before anything is measured, and when its end is reached it begins
//! again at the front, like a log whose oldest segments are used again once a snapshot has them. So no sync
//! ever has to write file sizes or block maps, and nothing is prepared on the side: no log store of these
//! libraries can be cheaper on this disk.

use crate::gauge::Gauge;
use bytes::Bytes;
use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{Receiver, Sender, channel};
use tokio::sync::oneshot;

const FILE_SIZE: u64 = 64 << 20;
/// What one write takes at most, as that of our log does not exceed a segment.
const BATCH_SIZE_MAX: usize = 8 << 20;
const HEADER_SIZE: usize = 24;

pub struct Record {
    pub term: u64,
    pub index: u64,
    pub payload: Bytes,
    /// Not a vote, nor an entry of the library's own.
    pub is_command: bool,
}

struct Write {
    records: Vec<Record>,
    done: Box<dyn FnOnce() + Send>,
}

/// Where records are appended. Its thread ends with it.
#[derive(Clone)]
pub struct AppendFile(Sender<Write>);

impl AppendFile {
    pub fn create(directory: &Path, node: usize, gauge: Arc<Gauge>) -> io::Result<AppendFile> {
        let file = File::create_new(directory.join(format!("log-{node}")))?;
        let zeros = vec![0; 1 << 20];
        for offset in (0..FILE_SIZE).step_by(zeros.len()) {
            file.write_all_at(&zeros, offset)?;
        }
        file.sync_all()?;
        File::open(directory)?.sync_all()?;
        let (sender, writes) = channel();
        std::thread::Builder::new().name(format!("log-{node}")).spawn(move || {
            if let Err(error) = run(&file, &writes, &gauge) {
                // Nobody may go on after a failed sync, and there is nothing to measure any more.
                eprintln!("peers: the log of node {node} cannot be written: {error}");
                std::process::exit(1);
            }
        })?;
        Ok(AppendFile(sender))
    }

    /// Calls `done`, on the thread of the log, once these records and all before them are durable.
    pub fn append(&self, records: Vec<Record>, done: impl FnOnce() + Send + 'static) {
        // The thread lives as long as this sender, or the process ends.
        let _ = self.0.send(Write { records, done: Box::new(done) });
    }

    /// Ends once these records are durable.
    pub async fn append_and_wait(&self, records: Vec<Record>) {
        let (sender, receiver) = oneshot::channel();
        self.append(records, || {
            let _ = sender.send(());
        });
        let _ = receiver.await;
    }

    /// Ends once a term and a vote are durable, as a record that is no entry: index 0.
    pub async fn vote_and_wait(&self, term: u64, voted_for: u64) {
        let payload = Bytes::copy_from_slice(&voted_for.to_le_bytes());
        self.append_and_wait(vec![Record { term, index: 0, payload, is_command: false }]).await;
    }
}

fn run(file: &File, writes: &Receiver<Write>, gauge: &Gauge) -> io::Result<()> {
    let (mut bytes, mut offset) = (Vec::new(), 0);
    while let Ok(first) = writes.recv() {
        bytes.clear();
        let mut commands = 0;
        let mut waiting = Vec::new();
        let mut next = Some(first);
        while let Some(Write { records, done }) = next {
            commands += records.iter().filter(|record| record.is_command).count() as u64;
            records.iter().for_each(|record| encode(record, &mut bytes));
            waiting.push(done);
            next = if bytes.len() < BATCH_SIZE_MAX { writes.try_recv().ok() } else { None };
        }
        if offset + bytes.len() as u64 > FILE_SIZE {
            offset = 0;
        }
        file.write_all_at(&bytes, offset)?;
        file.sync_data()?;
        offset += bytes.len() as u64;
        gauge.synced(commands);
        waiting.into_iter().for_each(|done| done());
    }
    Ok(())
}

fn encode(record: &Record, bytes: &mut Vec<u8>) {
    let start = bytes.len();
    bytes.extend_from_slice(&[0; 4]);
    bytes.extend_from_slice(&(record.payload.len() as u32).to_le_bytes());
    bytes.extend_from_slice(&record.term.to_le_bytes());
    bytes.extend_from_slice(&record.index.to_le_bytes());
    debug_assert_eq!(bytes.len(), start + HEADER_SIZE);
    bytes.extend_from_slice(&record.payload);
    let checksum = crc32fast::hash(&bytes[start + 4..]);
    bytes[start..start + 4].copy_from_slice(&checksum.to_le_bytes());
}
