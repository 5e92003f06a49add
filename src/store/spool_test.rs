use super::*;
use crate::raft::Term;
use crate::store::fs::Disk;
use crate::store::metadata::Metadata;
use crate::store::test_fs::{TestFs, begin};
use crate::store::{AutoRecovery, Directory, Options, Store};

fn start(fs: Arc<dyn Fs>) -> (tempfile::TempDir, Store) {
    let dir = tempfile::tempdir().unwrap();
    Metadata::default().write(&Disk, dir.path(), Term(9), None).unwrap();
    let mut directory = Directory::open_on(fs, dir.path()).unwrap().lock().unwrap();
    let loaded = directory.load(AutoRecovery::Off).unwrap();
    let options = Options { segment_size: 4096 };
    let store = Store::start(directory, &loaded, options, Box::new(|_| {})).unwrap();
    (dir, store)
}

fn received(dir: &Path) -> Vec<String> {
    let names =
        std::fs::read_dir(dir).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap());
    names.filter(|name| name.starts_with("tmp-received")).collect()
}

#[test]
fn what_was_received_is_read_back_and_goes_with_its_last_owner() {
    let (dir, store) = start(Arc::new(Disk));
    for compression in [Compression::Lz4, Compression::Off] {
        let content: Vec<u8> = (0..300_000).map(|at| (at / 9 % 251) as u8).collect();
        let mut spool = begin(&store.spools(), content.len() as u64, compression).unwrap();
        content.chunks(70_000).for_each(|piece| spool.write(piece).unwrap());
        let spooled = spool.finish().unwrap();
        assert_eq!((spooled.size(), received(dir.path()).len()), (300_000, 1));
        let mut bytes = Vec::new();
        spooled.open().unwrap().read_to_end(&mut bytes).unwrap();
        assert!(bytes == content);
        drop(spooled);
        drop(begin(&store.spools(), 1, compression).unwrap());
    }
    store.stop().unwrap();
    assert_eq!(received(dir.path()), [] as [&str; 0]);
}

#[test]
fn there_is_one_at_a_time_until_it_is_gone() {
    let (dir, store) = start(Arc::new(Disk));
    let spools = store.spools();
    let mut first = spools.begin(8, Compression::Off).unwrap();
    let refused = || spools.begin(8, Compression::Off).err().map(|e| e.kind());
    assert_eq!(refused(), Some(io::ErrorKind::WouldBlock));
    first.write(&[1; 8]).unwrap();
    let first = first.finish().unwrap();
    assert_eq!(refused(), Some(io::ErrorKind::WouldBlock), "it is not installed yet");
    drop(first);
    let second = begin(&spools, 8, Compression::Off).unwrap();
    assert_eq!(received(dir.path()).len(), 1);
    // The last owner may outlive the store.
    store.stop().unwrap();
    drop(second);
    assert_eq!(received(dir.path()), [] as [&str; 0]);
    drop(begin(&spools, 8, Compression::Off).unwrap());
}

#[test]
fn fewer_or_more_bytes_than_announced_are_no_content() {
    let (dir, store) = start(Arc::new(Disk));
    for (announced, written) in [(8, 7), (8, 9), (8, 0)] {
        for compression in [Compression::Lz4, Compression::Off] {
            let mut spool = begin(&store.spools(), announced, compression).unwrap();
            spool.write(&vec![1; written]).unwrap();
            assert!(spool.finish().is_err(), "{written} of {announced}");
        }
    }
    store.stop().unwrap();
    assert_eq!(received(dir.path()), [] as [&str; 0]);
}

#[test]
fn a_full_disk_is_told_and_leaves_no_file() {
    for failing in ["create tmp-received", "write tmp-received", "sync tmp-received"] {
        let fs = TestFs::new();
        let (dir, store) = start(Arc::new(fs.clone()));
        fs.fail(failing);
        let receive = || {
            let mut spool = store.spools().begin(8 << 20, Compression::Off)?;
            spool.write(&vec![1; 8 << 20])?;
            spool.finish().map(drop)
        };
        let error = receive().unwrap_err();
        assert!(error.to_string().contains("tmp-received"), "{error}");
        fs.fail("nothing");
        drop(begin(&store.spools(), 8, Compression::Off).unwrap());
        store.stop().unwrap();
        assert_eq!(received(dir.path()), [] as [&str; 0], "{failing}");
    }
}

#[test]
fn space_is_left_for_the_log() {
    let fs = TestFs::new();
    let (_dir, store) = start(Arc::new(fs.clone()));
    fs.set_space(crate::config::SNAPSHOT_SPACE_LEFT - 1);
    let small = |spools: &Spools| {
        let mut spool = begin(spools, 1 << 20, Compression::Off)?;
        spool.write(&vec![1; 1 << 20])?;
        spool.finish()
    };
    small(&store.spools()).unwrap();
    let mut large = begin(&store.spools(), 1 << 30, Compression::Off).unwrap();
    let error = (0..1024).find_map(|_| large.write(&vec![1; 1 << 20]).err()).unwrap();
    assert_eq!(error.kind(), io::ErrorKind::StorageFull);
    drop(large);
    fs.set_space(crate::config::SNAPSHOT_SPACE_LEFT);
    let mut large = begin(&store.spools(), 16 << 20, Compression::Off).unwrap();
    (0..16).for_each(|_| large.write(&vec![1; 1 << 20]).unwrap());
    large.finish().unwrap();
}
