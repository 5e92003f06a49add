use super::*;
use crate::db::{Database, Status};
use crate::sqlite::{self, Step, Value};
use crate::vfs::{Vfs, VfsConnection, View};

/// The databases of one node.
struct Node {
    registry: Arc<Registry>,
    fsm: Fsm,
}

fn restore(fsm: &Fsm, content: Bytes) -> Result<(), Error> {
    fsm.replace(&Snapshot::read_from(&mut &content[..]).unwrap())
}

/// A connection as sessions have one.
struct Session {
    sqlite: Option<VfsConnection>,
    database: Arc<Database>,
    registry: Arc<Registry>,
}

impl Drop for Session {
    fn drop(&mut self) {
        self.sqlite = None;
        self.registry.close(&self.database);
    }
}

impl Session {
    fn sqlite(&self) -> &VfsConnection {
        self.sqlite.as_ref().unwrap()
    }

    fn execute(&self, sql: &str) {
        self.sqlite().execute(sql.as_bytes()).unwrap();
    }

    /// Executes, and leaves what it wrote in the speculative view.
    fn execute_speculatively(&self, sql: &str) {
        self.sqlite().set_view(View::Speculative).unwrap();
        self.execute(sql);
        self.sqlite().set_view(View::Committed).unwrap();
        while let Some(transaction) = self.database.vfs.take_transaction() {
            self.database.note_proposed(transaction.id);
        }
    }

    fn value(&self, sql: &str) -> i64 {
        let mut statement = self.sqlite().prepare(sql.as_bytes()).unwrap().statement.unwrap();
        assert_eq!(statement.step().unwrap(), Step::Row);
        let Value::Integer(value) = statement.value(0).unwrap() else { panic!("not an integer: {sql}") };
        value
    }

    fn sum(&self) -> i64 {
        self.value("SELECT sum(a) FROM t")
    }
}

impl Node {
    fn new() -> Node {
        sqlite::initialize().unwrap();
        let vfs = Arc::new(Vfs::register(1000).unwrap());
        let registry = Arc::new(Registry::new(vfs, Arc::<Status>::default()));
        Node { fsm: Fsm::new(registry.clone()), registry }
    }

    fn open(&self, name: &'static str) -> Session {
        let database = self.registry.open(&Bytes::from(name)).unwrap();
        let sqlite = Some(self.registry.vfs().connect(name).unwrap());
        Session { sqlite, database, registry: self.registry.clone() }
    }

    /// As a leader alone in its cluster commits.
    fn commit(&self, name: &'static str, sql: &str) {
        let session = self.open(name);
        session.sqlite().set_view(View::Speculative).unwrap();
        session.execute(sql);
        session.sqlite().set_view(View::Committed).unwrap();
        while let Some(transaction) = session.database.vfs.take_transaction() {
            session.database.note_proposed(transaction.id);
            session.database.publish(transaction.id).unwrap();
        }
    }

    fn with_number(&self, name: &'static str, number: i64) {
        self.commit(name, &format!("CREATE TABLE t(a); INSERT INTO t VALUES({number})"));
    }

    fn content(&self) -> Bytes {
        let mut content = Vec::new();
        self.fsm.capture().write_to(&mut content).unwrap();
        content.into()
    }

    fn names(&self) -> Vec<Bytes> {
        self.registry.all().iter().map(|database| database.name.clone()).collect()
    }
}

/// A snapshot with two databases, of which one also has a second table.
fn snapshot() -> Bytes {
    let leader = Node::new();
    leader.with_number("one", 1);
    leader.with_number("two", 2);
    leader.commit("two", "CREATE TABLE more(b)");
    leader.content()
}

#[test]
fn a_restore_makes_the_databases_exactly_those_of_the_snapshot() {
    let node = Node::new();
    node.with_number("other", 30);
    node.with_number("two", 20);
    let content = snapshot();
    restore(&node.fsm, content.clone()).unwrap();
    let mut names = node.names();
    names.sort();
    assert_eq!(names, ["one", "two"]);
    assert_eq!((node.open("one").sum(), node.open("two").sum()), (1, 2));
    assert_eq!(node.open("two").value("SELECT count(*) FROM more"), 0);
    // And once more, over itself; then the log goes on.
    restore(&node.fsm, content).unwrap();
    node.commit("one", "INSERT INTO t VALUES(100)");
    assert_eq!(node.open("one").sum(), 101);
    let empty = Node::new();
    restore(&node.fsm, empty.content()).unwrap();
    assert_eq!(node.names(), [] as [&str; 0]);
}

#[test]
fn databases_keep_nothing_of_the_entry_that_they_came_from() {
    let node = Node::new();
    restore(&node.fsm, snapshot()).unwrap();
    let pages = node.registry.get(b"one").unwrap().vfs.capture().pages;
    let entry = command::encode_frames(b"three", &[(1, pages[0].clone())]);
    node.fsm.apply(entry.clone()).unwrap();
    assert_eq!(node.names().len(), 3);
    assert!(entry.is_unique(), "a database that an entry created holds that entry in memory");
}

#[test]
fn sessions_that_are_open_find_the_new_content() {
    let node = Node::new();
    node.with_number("two", 20);
    let session = node.open("two");
    let mut statement = session.sqlite().prepare(b"SELECT sum(a) FROM t").unwrap().statement.unwrap();
    assert_eq!(session.sum(), 20);
    restore(&node.fsm, snapshot()).unwrap();
    assert_eq!(session.sum(), 2);
    assert_eq!(statement.step().unwrap(), Step::Row);
    assert_eq!(statement.value(0).unwrap(), Value::Integer(2));
    drop(statement);
    assert_eq!(session.value("SELECT count(*) FROM more"), 0);
    assert!(Arc::ptr_eq(&session.database, &node.registry.get(b"two").unwrap()), "the same database");
}

#[test]
fn a_session_on_a_database_that_is_not_in_the_snapshot_finds_it_empty_and_the_last_one_removes_it() {
    let node = Node::new();
    node.with_number("other", 30);
    let (first, second) = (node.open("other"), node.open("other"));
    assert_eq!(first.sum(), 30);
    restore(&node.fsm, snapshot()).unwrap();
    assert_eq!(first.value("SELECT count(*) FROM sqlite_schema"), 0);
    assert_eq!(node.fsm.capture().databases.len(), 2, "the next snapshot does not have it");
    drop(first);
    assert!(node.registry.get(b"other").is_some());
    drop(second);
    assert!(node.registry.get(b"other").is_none());
    node.with_number("other", 31);
    assert_eq!(node.open("other").sum(), 31);
}

#[test]
fn a_reader_makes_all_databases_busy_and_nothing_changes_until_it_ends() {
    // One that would be replaced, and one that would be deleted.
    for name in ["two", "other"] {
        let node = Node::new();
        node.with_number("one", 10);
        node.with_number("two", 20);
        node.with_number("other", 30);
        node.commit("other", "DELETE FROM t");
        node.commit("other", "INSERT INTO t VALUES(30)");
        let before = node.content();
        let leader = Node::new();
        leader.with_number("one", 1);
        leader.with_number("two", 2);
        leader.with_number("new", 3);
        let reader = node.open(name);
        reader.execute("BEGIN");
        let seen = reader.sum();
        let busy = restore(&node.fsm, leader.content()).unwrap_err();
        assert!(matches!(&busy, Error::Busy { database } if database == name), "{busy}");
        assert_eq!(node.content(), before, "nothing was replaced, and nothing created");
        assert!(node.registry.get(b"new").is_none());
        assert_eq!(reader.sum(), seen);
        reader.execute("COMMIT");
        restore(&node.fsm, leader.content()).unwrap();
        assert_eq!(node.open("new").sum(), 3);
        assert_eq!(node.content().len(), leader.content().len());
    }
}

#[test]
fn a_writer_of_an_earlier_leadership_makes_a_database_busy_until_it_rolls_back() {
    let node = Node::new();
    node.with_number("two", 20);
    let writer = node.open("two");
    writer.sqlite().set_view(View::Speculative).unwrap();
    writer.execute("BEGIN IMMEDIATE; INSERT INTO t VALUES(5)");
    assert!(matches!(restore(&node.fsm, snapshot()), Err(Error::Busy { database }) if database == "two"));
    drop(writer);
    restore(&node.fsm, snapshot()).unwrap();
    assert_eq!(node.open("two").sum(), 2);
}

#[test]
fn what_was_speculative_is_void_after_a_restore() {
    let node = Node::new();
    node.with_number("two", 20);
    let session = node.open("two");
    session.execute_speculatively("INSERT INTO t VALUES(5)");
    let void_count = session.database.void_count();
    assert!(!session.database.vfs.drained());
    restore(&node.fsm, snapshot()).unwrap();
    assert!(session.database.vfs.drained());
    let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
    let waited = runtime.block_on(session.database.wait_published(void_count, |_| true));
    assert_eq!(waited, Err(crate::db::Refused::NotLeader));
    // Whoever comes next waits for nothing that will never be published.
    let (now, proposed) = (session.database.void_count(), session.database.proposed());
    let waited = runtime.block_on(session.database.wait_published(now, |published| published >= proposed));
    assert_eq!(waited, Ok(()));
    assert_eq!(session.sum(), 2);
}

#[test]
fn an_image_captured_before_keeps_its_pages() {
    let node = Node::new();
    node.with_number("two", 20);
    let (captured, before) = (node.fsm.capture(), node.content());
    restore(&node.fsm, snapshot()).unwrap();
    let mut written = Vec::new();
    captured.write_to(&mut written).unwrap();
    assert_eq!(written, before);
}

#[test]
fn a_snapshot_with_anything_wrong_in_it_changes_nothing() {
    let node = Node::new();
    node.with_number("one", 10);
    let before = node.content();
    let good = snapshot();
    let mut no_database = good.to_vec();
    // The first page of the second database is not one of SQLite.
    let second = no_database.windows(16).rposition(|bytes| bytes == b"SQLite format 3\0").unwrap();
    no_database[second] = b'X';
    let long =
        [&[1, 0, 0, 0, 0, 0, 0, 0, 2, 0, 0, 0, 0, 0, 0, 0][..], &[b'x'; 1023], &[0], &good[24..]].concat();
    for bad in [good.slice(..good.len() - 1), Bytes::from(no_database), Bytes::from(long)] {
        let read = Snapshot::read_from(&mut &bad[..]).map_err(drop);
        read.and_then(|snapshot| node.fsm.replace(&snapshot).map_err(drop)).unwrap_err();
        assert_eq!(node.content(), before);
        assert_eq!(node.names(), ["one"]);
    }
}
