//! The files of a server: C's format, and what becomes of damage.

use super::*;
use tempfile::TempDir;

// As C 1.18.6 wrote them.
const C_INFO: &str = "v1\n127.0.0.1:19112\n17746577199845382994\n";
const C_STORE: &str = "v1\n127.0.0.1:19111\n3297041220608546238\nvoter\n\
                       127.0.0.1:19112\n17746577199845382994\nspare\n";

fn files() -> (TempDir, Files) {
    let directory = TempDir::new().unwrap();
    let files = Files::new(directory.path());
    (directory, files)
}

fn own() -> ServerInfo {
    ServerInfo { address: "127.0.0.1:19112".into(), id: 17_746_577_199_845_382_994 }
}

fn servers() -> Vec<Server> {
    let own = own();
    vec![
        Server { id: 3_297_041_220_608_546_238, address: "127.0.0.1:19111".into(), role: Role::Voter },
        Server { id: own.id, address: own.address, role: Role::Spare },
    ]
}

#[test]
fn files_are_those_of_c_to_the_byte() {
    let (directory, files) = files();
    files.write_server_info(&own()).unwrap();
    files.write_node_store(&servers()).unwrap();
    assert_eq!(fs::read_to_string(directory.path().join(SERVER_INFO)).unwrap(), C_INFO);
    assert_eq!(fs::read_to_string(directory.path().join(NODE_STORE)).unwrap(), C_STORE);
    assert_eq!(files.server_info().unwrap(), Some(own()));
    assert_eq!(files.node_store().unwrap(), Some(servers()));
}

#[test]
fn no_file_and_an_empty_one_say_nothing() {
    let (directory, files) = files();
    assert_eq!(files.server_info().unwrap(), None);
    fs::write(directory.path().join(SERVER_INFO), "").unwrap();
    fs::write(directory.path().join(NODE_STORE), "").unwrap();
    assert_eq!(files.server_info().unwrap(), None);
    assert_eq!(files.node_store().unwrap(), None);
}

/// The line that a read complains of.
fn line<T: std::fmt::Debug>(read: Result<Option<T>, FileError>) -> usize {
    match read.unwrap_err() {
        FileError::Content { line, .. } => line,
        other => panic!("{other}"),
    }
}

#[test]
fn a_file_that_was_cut_off_is_refused_unless_whole_servers_are_left() {
    let (directory, files) = files();
    for size in 1..C_INFO.len() {
        fs::write(directory.path().join(SERVER_INFO), &C_INFO[..size]).unwrap();
        let expected = C_INFO[..size].matches('\n').count() + 1;
        assert_eq!(line(files.server_info()), expected, "{size} bytes");
    }
    let mut whole = 0;
    for size in 1..C_STORE.len() {
        fs::write(directory.path().join(NODE_STORE), &C_STORE[..size]).unwrap();
        let lines = C_STORE[..size].matches('\n').count();
        if C_STORE[..size].ends_with('\n') && lines % 3 == 1 {
            assert_eq!(files.node_store().unwrap().unwrap(), servers()[..whole]);
            whole += 1;
        } else {
            assert_eq!(line(files.node_store()), lines + 1, "{size} bytes");
        }
    }
    assert_eq!(whole, 2);
}

#[test]
fn wrong_content_is_refused_with_file_and_line() {
    let (directory, files) = files();
    for (content, expected) in [
        ("blah", 1),
        ("v2\na:1\n1\n", 1),
        (" v1\na:1\n1\n", 1),
        ("v1\n\n1\n", 2),
        ("v1\na:1\n\n", 3),
        ("v1\na:1\n+1\n", 3),
        ("v1\na:1\n18446744073709551616\n", 3),
        ("v1\na:1\n1\n\n", 4),
        ("v1\na:1\n1\nx", 4),
    ] {
        fs::write(directory.path().join(SERVER_INFO), content).unwrap();
        assert_eq!(line(files.server_info()), expected, "{content:?}");
    }
    for (content, expected) in
        [("v1\na:1\n1\nVoter\n", 4), ("v1\na:1\n1\nvoter\nb:1\n2\n2\n", 7), ("v1\n\n1\nvoter\n", 2)]
    {
        fs::write(directory.path().join(NODE_STORE), content).unwrap();
        assert_eq!(line(files.node_store()), expected, "{content:?}");
    }
    fs::write(directory.path().join(SERVER_INFO), b"v1\n\xff\n1\n").unwrap();
    let path = directory.path().join(SERVER_INFO);
    let text = files.server_info().unwrap_err().to_string();
    assert_eq!(text, format!("{}:2: the line is not valid UTF-8", path.display()));
}

#[test]
fn a_file_larger_than_any_is_refused_before_it_is_read_whole() {
    let (directory, files) = files();
    let file = File::create(directory.path().join(NODE_STORE)).unwrap();
    file.set_len(1 << 40).unwrap();
    let text = files.node_store().unwrap_err().to_string();
    assert!(text.ends_with("the file is too large"), "{text}");
}

#[test]
fn what_other_servers_call_themselves_cannot_make_the_file_unreadable() {
    let (_directory, files) = files();
    let mut strange = servers();
    strange[0].address = "a:1\n7\nvoter".into();
    strange.push(Server { id: 9, address: String::new(), role: Role::Standby });
    files.write_node_store(&strange).unwrap();
    assert_eq!(files.node_store().unwrap().unwrap(), servers()[1..]);
}

#[test]
fn a_file_is_written_again_only_if_it_says_something_else() {
    let (directory, files) = files();
    files.write_node_store(&servers()).unwrap();
    // A directory in the way of the temporary file: whoever writes fails.
    fs::create_dir(directory.path().join("node-store-tmp")).unwrap();
    files.write_node_store(&servers()).unwrap();
    let error = files.write_node_store(&servers()[..1]).unwrap_err();
    assert!(error.to_string().contains("node-store: "), "{error}");
    assert_eq!(files.node_store().unwrap(), Some(servers()));
}
