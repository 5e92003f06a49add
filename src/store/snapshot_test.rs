use super::*;
use crate::raft::{Role, Server, ServerId, Term};
use crate::store::fs::Disk;
use std::fs;

struct Content(Vec<u8>, u64);

impl SnapshotContent for Content {
    fn size(&self) -> u64 {
        self.1
    }
    fn write_to(&self, out: &mut dyn Write) -> io::Result<()> {
        self.0.chunks(1000).try_for_each(|piece| out.write_all(piece))
    }
}

fn content(len: usize) -> Content {
    let bytes = (0..len).map(|i| (i / 7 % 251) as u8).collect();
    Content(bytes, len as u64)
}

const NAME: SnapshotName = SnapshotName { term: Term(1), index: Index(448), timestamp_ms: 2_902_600 };

fn point() -> SnapshotPoint {
    let server = Server { id: ServerId(1), address: "127.0.0.1:22013".into(), role: Role::Voter };
    SnapshotPoint {
        index: NAME.index,
        term: NAME.term,
        configuration: Configuration { servers: vec![server] },
        configuration_index: Index(1),
    }
}

/// The `.meta` file of fixture v1_18_6-snapshot-lz4, whose configuration has zeros as padding.
fn golden_meta() -> Vec<u8> {
    let mut out = vec![1, 0, 0, 0, 0, 0, 0, 0, 0xca, 0xc0, 0x1b, 0x83, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0];
    out.extend([40, 0, 0, 0, 0, 0, 0, 0]);
    out.extend(point().configuration.encode());
    out
}

fn write(dir: &Path, content: &Content, compression: Compression) -> Result<(), String> {
    let (fs, cancelled): (Arc<dyn Fs>, _) = (Arc::new(Disk), Arc::default());
    let target = Target { fs: &fs, dir, name: NAME, names: &Default::default(), cancelled: &cancelled };
    target.write(&point(), content, compression).map_err(|e| e.to_string())
}

/// All of the content of a file.
fn decode_content(stored: Vec<u8>) -> Result<Vec<u8>, String> {
    let (size, file) = (stored.len() as u64, Arc::new(stored));
    let read = || {
        let content = StoredContent::of("file".into(), file, size)?;
        let mut bytes = Vec::new();
        content.open()?.read_to_end(&mut bytes)?;
        assert_eq!(bytes.len() as u64, content.size());
        io::Result::Ok(bytes)
    };
    read().map_err(|e| e.to_string())
}

fn written(compression: Compression, content: &Content) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    write(dir.path(), content, compression).unwrap();
    dir
}

#[test]
fn the_metadata_is_that_of_the_c_library() {
    assert_eq!(encode_meta(&point()), golden_meta());
    assert_eq!(decode_meta(NAME, golden_meta().into()), Ok(point()));
    let longer = [golden_meta(), vec![1, 2, 3]].concat();
    assert_eq!(decode_meta(NAME, longer.into()), Ok(point()));
}

#[test]
fn every_prefix_and_every_flipped_byte_of_the_metadata_is_an_error() {
    let golden = golden_meta();
    for len in 0..golden.len() {
        assert!(decode_meta(NAME, Bytes::copy_from_slice(&golden[..len])).is_err(), "{len} bytes");
    }
    for byte in 0..golden.len() {
        let mut bytes = golden.clone();
        bytes[byte] ^= 0x10;
        assert!(decode_meta(NAME, bytes.into()).is_err(), "byte {byte}");
    }
}

#[test]
fn content_is_read_back_with_and_without_compression() {
    for compression in [Compression::Lz4, Compression::Off] {
        for len in [0, 8, 65_536, 65_537, 3_000_000] {
            let content = content(len);
            let dir = written(compression, &content);
            let found = open(&Disk, dir.path(), NAME).unwrap();
            assert_eq!(found.point, point());
            assert_eq!(found.content.size(), len as u64);
            let mut bytes = Vec::new();
            found.content.open().unwrap().read_to_end(&mut bytes).unwrap();
            assert!(bytes == content.0, "{len} bytes, {compression:?}");
            let names: Vec<_> = fs::read_dir(dir.path()).unwrap().collect();
            assert_eq!(names.len(), 2, "no temporary file stays");
        }
    }
}

#[test]
fn the_frame_has_the_settings_of_the_c_library() {
    let dir = written(Compression::Lz4, &content(200_000));
    let frame = fs::read(dir.path().join(NAME.to_string())).unwrap();
    assert_eq!(frame[..6], [0x04, 0x22, 0x4d, 0x18, 0x4c, 0x40]);
    assert_eq!(frame[6..14], 200_000u64.to_le_bytes());
}

#[test]
fn every_prefix_and_every_flipped_byte_of_a_frame_is_an_error() {
    let dir = written(Compression::Lz4, &content(2000));
    let frame = fs::read(dir.path().join(NAME.to_string())).unwrap();
    for len in LZ4_MAGIC.len()..frame.len() {
        assert!(decode_content(frame[..len].to_vec()).is_err(), "{len} bytes");
    }
    for byte in LZ4_MAGIC.len()..frame.len() {
        let mut bytes = frame.clone();
        bytes[byte] ^= 0x10;
        assert!(decode_content(bytes).is_err(), "byte {byte}");
    }
}

#[test]
fn a_frame_that_announces_more_than_it_can_hold_allocates_nothing() {
    let dir = written(Compression::Lz4, &content(2000));
    let mut frame = fs::read(dir.path().join(NAME.to_string())).unwrap();
    frame[6..14].copy_from_slice(&u64::MAX.to_le_bytes());
    assert!(decode_content(frame).unwrap_err().contains("more than it can hold"));
}

#[test]
fn a_frame_that_does_not_announce_its_size_is_counted() {
    let plain = content(300_000).0;
    let mut encoder = FrameEncoder::with_frame_info(FrameInfo::new().content_checksum(true), Vec::new());
    encoder.write_all(&plain).unwrap();
    let frame = encoder.finish().unwrap();
    assert!(decode_content(frame.clone()).unwrap() == plain);
    assert!(decode_content(frame[..frame.len() - 1].to_vec()).is_err());
}

#[test]
fn a_snapshot_stays_readable_when_its_name_is_taken_away() {
    for compression in [Compression::Lz4, Compression::Off] {
        let content = content(300_000);
        let dir = written(compression, &content);
        let found = open(&Disk, dir.path(), NAME).unwrap().content;
        let mut begun = found.open().unwrap();
        begun.read_exact(&mut [0; 1000]).unwrap();
        fs::remove_file(dir.path().join(NAME.to_string())).unwrap();
        for (mut reader, from) in [(begun, 1000), (found.open().unwrap(), 0)] {
            let mut bytes = Vec::new();
            reader.read_to_end(&mut bytes).unwrap();
            assert!(bytes == content.0[from..], "{compression:?}");
        }
    }
}

#[test]
fn content_of_another_size_than_announced_fails_and_leaves_nothing() {
    for compression in [Compression::Lz4, Compression::Off] {
        let dir = tempfile::tempdir().unwrap();
        let mut content = content(2000);
        content.1 = 2001;
        let error = write(dir.path(), &content, compression).unwrap_err();
        assert!(error.contains("snapshot-1-448-2902600"), "{error}");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }
}
