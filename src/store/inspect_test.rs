use super::*;
use crate::raft::{Role, Server, ServerId};
use crate::store::Directory;

fn names(path: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        fs::read_dir(path).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

#[test]
fn an_inspection_changes_nothing_and_creates_no_lock() {
    let dir = tempfile::tempdir().unwrap();
    for (name, content) in
        [("tmp-x", &b"x"[..]), ("open-1", &[0; 16]), ("metadata1", b"short"), ("mine", b"")]
    {
        fs::write(dir.path().join(name), content).unwrap();
    }
    let before = names(dir.path());
    let found = Inspection::of(dir.path()).unwrap();
    assert_eq!(names(dir.path()), before);
    assert!(!found.has_lock_file && found.is_new());
    let kinds: Vec<FileKind> = found.files.iter().map(|file| file.kind).collect();
    let unused = FileKind::OpenSegment { entries: Some(0), is_torn: false };
    assert_eq!(kinds, [FileKind::Metadata, FileKind::Foreign, unused, FileKind::Unfinished]);
}

#[test]
fn a_directory_in_use_is_not_inspected() {
    let dir = tempfile::tempdir().unwrap();
    let lock = Directory::open(dir.path()).unwrap().lock().unwrap();
    assert_eq!(Inspection::of(dir.path()).unwrap_err(), Error::Locked);
    drop(lock);
    assert!(Inspection::of(dir.path()).unwrap().has_lock_file);
}

#[test]
fn the_configuration_in_force_is_told() {
    let dir = tempfile::tempdir().unwrap();
    let server = |id| Server { id: ServerId(id), address: format!("a:{id}"), role: Role::Voter };
    let configuration = |id| Configuration { servers: vec![server(id)] };
    let mut directory = Directory::open(dir.path()).unwrap().lock().unwrap();
    directory.bootstrap(&configuration(1)).unwrap();
    directory.recover(&configuration(2), AutoRecovery::On).unwrap();
    drop(directory);
    let contents = Inspection::of(dir.path()).unwrap().contents.unwrap();
    assert_eq!(contents.configuration, Some((Index(2), configuration(2))));
    assert!(!contents.is_lossy());
}
