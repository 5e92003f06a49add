use super::*;
use crate::raft::{Configuration, Role, Server};
use crate::store::crash_fs::{CrashFs, Files, Model, Random, files};
use crate::store::directory::{Directory, write_closed};
use crate::store::fs::Disk;
use crate::store::metadata::Metadata;
use crate::store::segment::encode_batch;
use crate::store::snapshot::{Compression, SnapshotContent, Target};
use std::fs;
use std::io::Write;
use std::sync::Arc;

/// A data directory built file by file.
struct Built(tempfile::TempDir);

struct Content(&'static [u8]);

impl SnapshotContent for Content {
    fn size(&self) -> u64 {
        self.0.len() as u64
    }
    fn write_to(&self, out: &mut dyn Write) -> io::Result<()> {
        out.write_all(self.0)
    }
}

fn entry(index: u64) -> Entry {
    entry_of(1, index)
}

fn entry_of(term: u64, index: u64) -> Entry {
    let kind = if index == 1 { EntryKind::Change } else { EntryKind::Command };
    Entry {
        term: Term(term),
        kind,
        payload: Bytes::copy_from_slice(&[index, term].map(u64::to_le_bytes).concat()),
    }
}

impl Built {
    fn new() -> Built {
        let dir = tempfile::tempdir().unwrap();
        Metadata::default().write(&Disk, dir.path(), Term(9), None).unwrap();
        Built(dir)
    }

    fn path(&self) -> &Path {
        self.0.path()
    }

    fn closed(self, first: u64, last: u64) -> Built {
        self.closed_of(1, first, last)
    }

    fn closed_of(self, term: u64, first: u64, last: u64) -> Built {
        let entries: Vec<_> = (first..=last).map(|index| entry_of(term, index)).collect();
        write_closed(&Disk, self.path(), Index(first), &entries).unwrap();
        self
    }

    /// One batch per entry, then `tail`.
    fn open(self, counter: u64, range: std::ops::RangeInclusive<u64>, tail: &[u8]) -> Built {
        let mut bytes = FORMAT.to_le_bytes().to_vec();
        range.for_each(|index| encode_batch(&mut bytes, &[entry(index)]));
        bytes.extend(tail);
        fs::write(self.path().join(OpenName(counter).to_string()), bytes).unwrap();
        self
    }

    /// An open segment in which only the format was written.
    fn unused(self, counter: u64) -> Built {
        let bytes = [&FORMAT.to_le_bytes()[..], ZEROS].concat();
        fs::write(self.path().join(OpenName(counter).to_string()), bytes).unwrap();
        self
    }

    fn snapshot(self, term: u64, index: u64, timestamp_ms: u64) -> Built {
        let server = Server { id: ServerId(1), address: "1".into(), role: Role::Voter };
        let name = SnapshotName { term: Term(term), index: Index(index), timestamp_ms };
        let point = SnapshotPoint {
            index: name.index,
            term: name.term,
            configuration: Configuration { servers: vec![server] },
            configuration_index: Index(1),
        };
        let (names, cancelled) = Default::default();
        let fs: Arc<dyn Fs> = Arc::new(Disk);
        let target = Target { fs: &fs, dir: self.path(), name, names: &names, cancelled: &cancelled };
        target.write(&point, &Content(b"databases"), Compression::Lz4).unwrap();
        self
    }

    fn load(&self) -> Result<Loaded, Error> {
        Directory::open(self.path()).unwrap().lock().unwrap().load(AutoRecovery::On)
    }

    fn of(files: &Files) -> Built {
        let dir = tempfile::tempdir().unwrap();
        files.iter().for_each(|(name, content)| fs::write(dir.path().join(name), &content[..]).unwrap());
        Built(dir)
    }

    /// What is loaded, without a change of this directory, and what crashes while loading can leave.
    fn load_with_crashes(&self, recovery: AutoRecovery) -> (Loaded, Vec<(String, Files)>) {
        let crash_fs = CrashFs::new(Model::new(&files(self.path())));
        let crashed = Arc::new(parking_lot::Mutex::new(Vec::new()));
        let (taken, mut random) = (Arc::clone(&crashed), Random(1));
        crash_fs.before_each(move |operation, model| {
            let crashes = model.crashes(&mut random, false);
            taken
                .lock()
                .extend(crashes.into_iter().map(|fates| (operation.to_owned(), model.after_crash(&fates))));
        });
        let directory = Directory::open_on(Arc::new(crash_fs.clone()), self.path()).unwrap();
        let loaded = directory.lock().unwrap().load(recovery).unwrap();
        (loaded, std::mem::take(&mut *crashed.lock()))
    }

    /// First and last index after loading, twice: loading must not change what is loaded.
    fn range(&self) -> (u64, u64) {
        let range = |loaded: Loaded| (loaded.first_index.0, loaded.next_index().0 - 1);
        let first = range(self.load().unwrap());
        assert_eq!(range(self.load().unwrap()), first, "second start");
        first
    }

    fn refusal(&self) -> String {
        let before = self.files();
        let text = self.load().unwrap_err().to_string();
        assert_eq!(self.files(), before, "a refused directory is left alone");
        text.strip_prefix("raft_start(): io: ").unwrap().to_owned()
    }

    fn files(&self) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(self.path())
            .unwrap()
            .map(|entry| entry.unwrap().file_name().into_string().unwrap())
            .filter(|name| !name.starts_with("metadata") && name != "dqlite-lock")
            .collect();
        names.sort();
        names
    }

    fn damage(self, name: &str, offset: usize) -> Built {
        let path = self.path().join(name);
        let mut bytes = fs::read(&path).unwrap();
        bytes[offset] ^= 0x55;
        fs::write(path, bytes).unwrap();
        self
    }
}

const ZEROS: &[u8] = &[0; 64];

#[test]
fn an_empty_directory_is_an_empty_log() {
    assert_eq!(Built::new().range(), (1, 0));
}

#[test]
fn open_segments_continue_the_closed_ones_in_the_order_of_their_counters() {
    let dir = Built::new().closed(1, 3).open(10, 7..=9, ZEROS).open(9, 4..=6, &[]).unused(11);
    let loaded = dir.load().unwrap();
    assert_eq!(loaded.entries, (1..=9).map(entry).collect::<Vec<_>>());
    assert_eq!(
        dir.files(),
        [
            "0000000000000001-0000000000000003",
            "0000000000000004-0000000000000006",
            "0000000000000007-0000000000000009"
        ]
    );
    assert_eq!(dir.range(), (1, 9));
}

#[test]
fn a_torn_write_is_dropped_from_the_last_open_segment_only() {
    let last = Built::new().closed(1, 3).open(1, 4..=5, &[1; 40]).unused(2);
    assert!(
        last.load().unwrap().notes[0].starts_with("dropped a torn write at the end of open segment open-1")
    );
    assert_eq!(last.range(), (1, 5));
    let middle = Built::new().closed(1, 3).open(1, 4..=5, &[1; 40]).open(2, 6..=7, ZEROS);
    assert!(middle.refusal().contains("its last batch is damaged, but open-2 continues the log"));
}

#[test]
fn an_open_segment_may_end_anywhere_inside_its_last_batch() {
    let built = Built::new().closed(1, 3).open(1, 4..=5, &[]);
    let whole = fs::read(built.path().join("open-1")).unwrap();
    let batch = (whole.len() - 8) / 2;
    for len in 0..=whole.len() {
        let dir = Built::new().closed(1, 3);
        fs::write(dir.path().join("open-1"), &whole[..len]).unwrap();
        let expected = 3 + (len.max(8) - 8) / batch;
        assert_eq!(dir.range(), (1, expected as u64), "{len} bytes");
    }
}

#[test]
fn a_hole_in_the_log_is_refused() {
    let text = Built::new().closed(1, 3).closed(5, 6).refusal();
    assert_eq!(
        text,
        "unexpected closed segment 0000000000000005-0000000000000006: first index should have been 4"
    );
    let text = Built::new().closed(2, 3).refusal();
    assert!(text.ends_with("first index should have been 1"), "{text}");
}

#[test]
fn of_two_closed_segments_with_one_first_index_the_shorter_is_valid() {
    let dir = Built::new().closed(1, 3).closed(4, 9).closed(4, 6).open(1, 7..=8, ZEROS);
    let loaded = dir.load().unwrap();
    assert_eq!(loaded.entries, (1..=8).map(entry).collect::<Vec<_>>());
    assert_eq!(
        loaded.notes,
        ["removed closed segment 0000000000000004-0000000000000009: it was truncated to \
          0000000000000004-0000000000000006"]
    );
    assert_eq!(dir.range(), (1, 8));
}

#[test]
fn segments_behind_a_truncated_one_are_not_guessed_about() {
    let text = Built::new().closed(1, 3).closed(4, 9).closed(4, 6).closed(10, 12).refusal();
    assert!(text.contains("both start at index 4, and 0000000000000010-0000000000000012 follows"), "{text}");
}

#[test]
fn the_first_entry_of_a_log_without_snapshot_is_a_configuration() {
    let dir = Built::new();
    write_closed(&Disk, dir.path(), Index(1), &[entry(2)]).unwrap();
    assert_eq!(dir.refusal(), "the first entry of the log is not a configuration");
}

#[test]
fn the_newest_snapshot_is_that_of_the_highest_term_then_index_then_time() {
    let dir = Built::new().closed(1, 9).snapshot(1, 8, 5).snapshot(1, 7, 900).snapshot(1, 8, 30);
    let loaded = dir.load().unwrap();
    let snapshot = loaded.snapshot.unwrap();
    assert_eq!((snapshot.point.index, snapshot.point.term), (Index(8), Term(1)));
    assert_eq!(snapshot.content, &b"databases"[..]);
    assert_eq!(loaded.entries.len(), 9);
}

#[test]
fn the_log_behind_a_snapshot_is_the_part_without_gaps() {
    for (dir, expected) in [
        // Everything, contiguous.
        (Built::new().closed(3, 5).closed(6, 9).snapshot(1, 6, 1), (3, 9)),
        // A gap below the snapshot: what is before it does not count.
        (Built::new().closed(1, 3).closed(6, 9).snapshot(1, 6, 1), (6, 9)),
        // Entries begin right behind the snapshot.
        (Built::new().closed(7, 9).snapshot(1, 6, 1), (7, 9)),
        // The log ends before the snapshot: it begins anew.
        (Built::new().closed(1, 3).snapshot(1, 6, 1), (7, 6)),
        (Built::new().closed(1, 3).unused(1).snapshot(1, 6, 1), (7, 6)),
        (Built::new().snapshot(1, 6, 1), (7, 6)),
        // Only open segments.
        (Built::new().open(1, 7..=8, ZEROS).snapshot(1, 6, 1), (7, 8)),
        // The snapshot's index is in an open segment.
        (Built::new().closed(1, 3).open(1, 4..=7, ZEROS).snapshot(1, 6, 1), (1, 7)),
    ] {
        assert_eq!(dir.range(), expected, "{:?}", dir.files());
    }
}

/// The C library counts one segment too many among those that do not belong to the log.
#[test]
fn what_does_not_belong_to_the_log_behind_a_snapshot_is_removed() {
    let dir = Built::new().closed(1, 4).closed(4, 9).closed(10, 12).snapshot(1, 9, 1);
    let text = "removed closed segment 0000000000000001-0000000000000004: the log behind it begins anew";
    assert_eq!(dir.load().unwrap().notes, [text]);
    let log = ["0000000000000004-0000000000000009", "0000000000000010-0000000000000012"];
    assert_eq!(dir.files(), [&log[..], &["snapshot-1-9-1", "snapshot-1-9-1.meta"]].concat());
    assert_eq!(dir.range(), (4, 12));
}

#[test]
fn a_log_that_does_not_reach_its_snapshot_is_refused() {
    let text = Built::new().closed(8, 9).snapshot(1, 6, 1).refusal();
    assert_eq!(text, "closed segment 0000000000000008-0000000000000009 is past last snapshot snapshot-1-6-1");
    let text = Built::new().closed(1, 3).open(1, 4..=5, ZEROS).snapshot(1, 6, 1).refusal();
    assert_eq!(text, "last entry on disk has index 5, which is behind last snapshot's index 6");
}

#[test]
fn a_log_that_a_snapshot_took_the_place_of_is_dropped() {
    let old = || Built::new().closed_of(1, 1, 3);
    for (dir, shows) in [
        (old().snapshot(2, 6, 1), "it ends at index 3"),
        (old().closed(4, 5).unused(1).snapshot(2, 6, 1), "it ends at index 5"),
        (old().closed(4, 6).snapshot(2, 6, 1), "its entry 6 has term 1"),
        (old().closed(4, 9).snapshot(2, 6, 1), "its entry 6 has term 1"),
        (old().closed(4, 9).closed(10, 12).snapshot(2, 6, 1), "its entry 6 has term 1"),
        (old().closed(4, 9).open(3, 10..=12, ZEROS).unused(4).snapshot(2, 6, 1), "its entry 6 has term 1"),
        // What is left when the C library is cut off, which removes from the first one on.
        (Built::new().closed(7, 9).snapshot(2, 6, 1), "its entry 7 has term 1"),
        (Built::new().open(1, 7..=9, ZEROS).snapshot(2, 6, 1), "its entry 7 has term 1"),
    ] {
        let (loaded, crashed) = dir.load_with_crashes(AutoRecovery::Off);
        let note = format!("dropped the log before snapshot snapshot-2-6-1, which took its place: {shows}");
        assert_eq!(loaded.notes, [note]);
        assert_eq!((loaded.first_index, loaded.entries.len()), (Index(7), 0));
        for (operation, files) in crashed {
            assert_eq!(Built::of(&files).range(), (7, 6), "{shows}, before {operation}");
        }
        // Nothing may stay: what is appended next would continue it.
        assert_eq!(dir.range(), (7, 6));
        assert_eq!(dir.files(), ["snapshot-2-6-1", "snapshot-2-6-1.meta"]);
    }
}

#[test]
fn a_log_that_has_the_last_entry_of_the_snapshot_stays() {
    let forced = Built::new().snapshot(2, 6, 1);
    let entry = Entry { kind: EntryKind::Change, ..entry(7) };
    write_closed(&Disk, forced.path(), Index(7), &[entry]).unwrap();
    assert_eq!(forced.range(), (7, 7), "a forced configuration");
    assert_eq!(Built::new().closed_of(1, 1, 5).closed_of(2, 6, 9).snapshot(2, 6, 1).range(), (1, 9));
    assert_eq!(Built::new().closed_of(3, 7, 9).snapshot(2, 6, 1).range(), (7, 9));
}

#[test]
fn an_open_segment_that_contradicts_the_snapshot_is_refused() {
    let text = Built::new().closed(1, 3).open(1, 4..=7, ZEROS).snapshot(2, 6, 1).refusal();
    assert!(text.starts_with("entry 6 has term 1, but snapshot snapshot-2-6-1"), "{text}");
}

#[test]
fn damage_before_the_last_closed_segment_is_never_set_aside() {
    let dir = Built::new().closed(1, 3).closed(4, 6).damage("0000000000000001-0000000000000003", 60);
    assert_eq!(
        dir.refusal(),
        "load closed segment 0000000000000001-0000000000000003: entries batch 1 starting at byte 8: header \
         checksum mismatch"
    );
}

#[test]
fn a_closed_segment_set_aside_takes_the_open_ones_with_it() {
    let name = "0000000000000004-0000000000000006";
    let dir = Built::new().closed(1, 3).closed(4, 6).open(1, 7..=8, ZEROS).damage(name, 30);
    assert_eq!(dir.range(), (1, 3));
    let aside: Vec<_> =
        dir.files().into_iter().filter_map(|name| Some(name.split_once("-")?.1.to_owned())).collect();
    assert!(aside.iter().any(|rest| rest.ends_with(name)), "{aside:?}");
    assert!(aside.iter().any(|rest| rest.ends_with("-open-1")), "{aside:?}");
}

#[test]
fn nothing_is_set_aside_if_the_rest_cannot_be_loaded_either() {
    let dir = Built::new().closed(4, 6).snapshot(1, 6, 1).open(1, 7..=8, ZEROS).damage("open-1", 0);
    // Without open-1 the log loads; with the snapshot damaged as well it does not.
    let dir = dir.damage("snapshot-1-6-1.meta", 40);
    assert_eq!(dir.refusal(), "read snapshot-1-6-1.meta: checksum mismatch");
}

#[test]
fn an_open_segment_of_another_format_is_set_aside_with_all_later_ones() {
    let dir = Built::new().closed(1, 3).open(1, 4..=5, ZEROS).open(2, 6..=7, ZEROS).open(3, 8..=9, ZEROS);
    let dir = dir.damage("open-2", 0);
    assert_eq!(dir.range(), (1, 5));
    assert_eq!(dir.files().iter().filter(|name| name.starts_with("corrupt-")).count(), 2);
}

#[test]
fn a_repair_cut_off_anywhere_is_completed_by_the_next_start() {
    let open = || {
        Built::new().closed(1, 3).open(1, 4..=5, ZEROS).open(2, 6..=7, &[]).open(3, 8..=9, ZEROS).unused(4)
    };
    for (dir, last) in [
        (open(), 9),
        // From the damaged one on they are set aside, the others are closed.
        (open().damage("open-2", 0), 5),
        (open().damage("0000000000000001-0000000000000003", 30), 0),
        (Built::new().closed(1, 3).closed(4, 9).closed(4, 6).open(1, 7..=8, ZEROS), 8),
    ] {
        let (_, crashed) = dir.load_with_crashes(AutoRecovery::On);
        assert!(crashed.len() >= 10, "{} crashes", crashed.len());
        for (operation, files) in crashed {
            assert_eq!(Built::of(&files).load().unwrap().next_index(), Index(last + 1), "before {operation}");
        }
    }
}
