use super::*;
use crate::store::fs::Disk;
use std::fs;

const GOLDEN: [u8; 32] = [
    1, 0, 0, 0, 0, 0, 0, 0, // format
    2, 0, 0, 0, 0, 0, 0, 0, // version
    7, 0, 0, 0, 0, 0, 0, 0, // term
    1, 0, 0, 0, 0, 0, 0, 0, // voted for
];

fn read(dir: &Path) -> Result<Metadata, Error> {
    Metadata::read(&Disk, dir)
}

fn dir_with(files: &[(&str, &[u8])]) -> tempfile::TempDir {
    let dir = tempfile::tempdir().unwrap();
    for (name, content) in files {
        fs::write(dir.path().join(name), content).unwrap();
    }
    dir
}

fn patched(offset: usize, value: u8) -> Vec<u8> {
    let mut bytes = GOLDEN.to_vec();
    bytes[offset] = value;
    bytes
}

#[test]
fn the_bytes_are_those_of_the_c_library() {
    let metadata = Metadata { version: 2, term: Term(7), voted_for: Some(ServerId(1)) };
    assert_eq!(metadata.encode(), GOLDEN);
    assert_eq!(Metadata::decode("metadata2", GOLDEN.to_vec()), Ok(Some(metadata)));
}

#[test]
fn every_prefix_counts_as_absent() {
    for len in 0..SIZE {
        assert_eq!(Metadata::decode("metadata1", GOLDEN[..len].to_vec()), Ok(None), "{len} bytes");
    }
}

#[test]
fn a_new_directory_is_at_term_zero() {
    let dir = dir_with(&[]);
    assert_eq!(read(dir.path()), Ok(Metadata::default()));
}

#[test]
fn the_higher_version_wins_wherever_it_is() {
    let newer = patched(8, 9);
    for (first, second) in [(&newer[..], &GOLDEN[..]), (&GOLDEN[..], &newer[..])] {
        let dir = dir_with(&[("metadata1", first), ("metadata2", second)]);
        assert_eq!(read(dir.path()).unwrap().version, 9);
    }
}

#[test]
fn damaged_files_are_refused_in_the_words_of_the_c_library() {
    for (files, text) in [
        (vec![("metadata1", patched(0, 2))], "decode content of metadata1: bad format version 2"),
        (vec![("metadata2", patched(8, 0))], "decode content of metadata2: version is set to zero"),
        (vec![("metadata1", [&GOLDEN[..], &[0; 8]].concat())], "metadata1 has size 40 instead of 32"),
        (
            vec![("metadata1", GOLDEN.to_vec()), ("metadata2", GOLDEN.to_vec())],
            "metadata1 and metadata2 are both at version 2",
        ),
    ] {
        let files: Vec<_> = files.iter().map(|(name, bytes)| (*name, &bytes[..])).collect();
        let dir = dir_with(&files);
        assert_eq!(read(dir.path()).unwrap_err().to_string(), format!("raft_init(): io: {text}"));
    }
}

#[test]
fn a_short_file_counts_as_absent_if_a_crash_can_have_left_it() {
    let (short, first) = (&GOLDEN[..16], patched(8, 1));
    for (files, version) in [
        (vec![("metadata1", short)], Some(0)),
        (vec![("metadata1", short), ("metadata2", short)], Some(0)),
        (vec![("metadata1", &first[..]), ("metadata2", short)], Some(1)),
        (vec![("metadata1", &patched(8, 3)[..]), ("metadata2", short)], None),
        (vec![("metadata1", short), ("metadata2", &GOLDEN)], None),
    ] {
        let dir = dir_with(&files);
        let found = read(dir.path());
        assert_eq!(found.as_ref().ok().map(|metadata| metadata.version), version, "{found:?}");
        if let Ok(mut metadata) = found {
            metadata.write(&Disk, dir.path(), Term(8), None).unwrap();
            assert_eq!(read(dir.path()), Ok(metadata));
        }
    }
}

#[test]
fn writes_alternate_and_leave_the_file_in_force_alone() {
    let dir = dir_with(&[]);
    let mut metadata = Metadata::default();
    let mut previous: Option<(String, Vec<u8>)> = None;
    for version in 1..=5u64 {
        let voted_for = (version % 2 == 0).then_some(ServerId(version));
        metadata.write(&Disk, dir.path(), Term(version + 10), voted_for).unwrap();
        let name = if version % 2 == 1 { "metadata1" } else { "metadata2" };
        let written = fs::read(dir.path().join(name)).unwrap();
        assert_eq!(written.len(), SIZE);
        if let Some((name, bytes)) = previous {
            assert_eq!(fs::read(dir.path().join(name)).unwrap(), bytes);
        }
        assert_eq!(read(dir.path()), Ok(metadata));
        assert_eq!(
            (metadata.version, metadata.term, metadata.voted_for),
            (version, Term(version + 10), voted_for)
        );
        previous = Some((name.into(), written));
    }
}
