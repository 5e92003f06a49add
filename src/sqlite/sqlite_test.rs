use std::ffi::CString;
use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use super::*;

/// A connection to an ordinary database file, through SQLite's own VFS.
fn connection() -> (tempfile::TempDir, Connection) {
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("test.db");
    std::fs::write(&path, b"").unwrap();
    let file = CString::new(path.to_str().unwrap()).unwrap();
    let connection = Connection::open(&file, c"unix", None).unwrap();
    (directory, connection)
}

fn prepare(connection: &Connection, sql: &str) -> Statement {
    connection.prepare(sql.as_bytes()).unwrap().statement.unwrap()
}

fn first(connection: &Connection, sql: &str) -> i64 {
    let mut statement = prepare(connection, sql);
    assert_eq!(statement.step().unwrap(), Step::Row);
    match statement.value(0).unwrap() {
        Value::Integer(value) => value,
        other => panic!("{other:?}"),
    }
}

#[test]
fn this_process_has_a_sqlite_that_is_new_enough_and_has_mutexes() {
    initialize().unwrap();
    assert_eq!(threading(), Threading::PerConnection);
    assert!(version_number() >= VERSION_NUMBER_MIN as u32);
}

#[test]
fn a_file_that_does_not_exist_gives_sqlites_own_error() {
    let error = Connection::open(c"/nonexistent/x.db", c"unix", None).unwrap_err();
    assert_eq!(error.primary_code(), ffi::SQLITE_CANTOPEN);
    assert_eq!(error.message, "unable to open database file");
    let error = Connection::open(c"x.db", c"no such vfs", None).unwrap_err();
    assert_eq!((error.code, error.message.as_str()), (ffi::SQLITE_ERROR, "no such vfs: no such vfs"));
}

#[test]
fn the_tail_starts_right_after_the_first_statement() {
    let (_directory, connection) = connection();
    let sql = b"SELECT 1; SELECT 2";
    assert_eq!(connection.prepare(sql).unwrap().tail_offset, 9);
    assert_eq!(connection.prepare(&sql[9..]).unwrap().tail_offset, 9);
    let nothing = connection.prepare(b" -- only a comment").unwrap();
    assert!(nothing.statement.is_none());
    assert_eq!(nothing.tail_offset, 18);
    assert!(connection.prepare(b"").unwrap().statement.is_none());
    let with_nul = connection.prepare(b"SELECT 1\0 garbage").unwrap();
    assert!(with_nul.statement.is_some());
    assert_eq!(with_nul.tail_offset, 8);
}

#[test]
fn every_kind_of_value_goes_in_and_comes_out() {
    let (_directory, connection) = connection();
    let mut statement = prepare(&connection, "SELECT ?, ?, ?, ?, ?, ?, ?");
    let values = [
        Value::Null,
        Value::Integer(i64::MIN),
        Value::Real(-0.5),
        Value::Text(b"t\xffx"),
        Value::Blob(b"\0b"),
        Value::Text(b""),
        Value::Blob(b""),
    ];
    assert_eq!(statement.parameter_count(), values.len());
    for _ in 0..2 {
        for (i, value) in values.iter().enumerate() {
            statement.bind(i + 1, *value).unwrap();
        }
        assert_eq!(statement.step().unwrap(), Step::Row);
        assert_eq!(statement.column_count(), values.len());
        for (i, value) in values.iter().enumerate() {
            assert_eq!(statement.value(i).unwrap(), *value);
        }
        assert_eq!(statement.value(99).unwrap(), Value::Null);
        assert_eq!(statement.step().unwrap(), Step::Done);
        statement.reset();
    }
    assert_eq!(statement.bind(8, Value::Null).unwrap_err().code, ffi::SQLITE_RANGE);
    assert_eq!(statement.bind(0, Value::Null).unwrap_err().code, ffi::SQLITE_RANGE);
    statement.clear_bindings();
    statement.step().unwrap();
    assert_eq!(statement.value(1).unwrap(), Value::Null);
}

#[test]
fn columns_have_names_and_declared_types() {
    let (_directory, connection) = connection();
    connection.execute(b"CREATE TABLE t(a DATETIME, b)").unwrap();
    let statement = prepare(&connection, "SELECT a, b AS other, 1 FROM t");
    let names: Vec<_> = (0..3).map(|i| statement.column_name(i)).collect();
    assert_eq!(names, [&b"a"[..], b"other", b"1"]);
    let types: Vec<_> = (0..3).map(|i| statement.column_decltype(i)).collect();
    assert_eq!(types, [Some(b"DATETIME".to_vec()), None, None]);
}

#[test]
fn errors_carry_the_extended_code_and_the_text() {
    let (_directory, connection) = connection();
    connection.execute(b"CREATE TABLE t(a UNIQUE, b REFERENCES t(a)); INSERT INTO t VALUES(1, 1)").unwrap();
    let error = connection.execute(b"INSERT INTO t VALUES(1, 1)").unwrap_err();
    assert_eq!(error.code, ffi::SQLITE_CONSTRAINT_UNIQUE);
    assert_eq!(error.message, "UNIQUE constraint failed: t.a");
    assert_eq!(connection.last_error(), error);
    let error = connection.execute(b"INSERT INTO t VALUES(2, 7)").unwrap_err();
    assert_eq!(error.code, ffi::SQLITE_CONSTRAINT_FOREIGNKEY, "foreign keys must be on");
    let error = connection.prepare(b"SELEC").unwrap_err();
    assert_eq!((error.code, error.message.as_str()), (ffi::SQLITE_ERROR, "near \"SELEC\": syntax error"));
}

#[test]
fn transactions_changes_and_row_ids_are_reported() {
    let (_directory, connection) = connection();
    connection.execute(b"CREATE TABLE t(a INTEGER PRIMARY KEY)").unwrap();
    assert!(connection.autocommit());
    assert_eq!(connection.transaction_state(), TransactionState::None);
    connection.execute(b"BEGIN; SELECT * FROM t").unwrap();
    assert!(!connection.autocommit());
    assert_eq!(connection.transaction_state(), TransactionState::Read);
    connection.execute(b"INSERT INTO t VALUES(5), (9)").unwrap();
    assert_eq!(connection.transaction_state(), TransactionState::Write);
    assert_eq!((connection.changes(), connection.last_insert_rowid()), (2, 9));
    connection.execute(b"COMMIT").unwrap();
    assert_eq!(connection.transaction_state(), TransactionState::None);
}

#[test]
fn statements_that_may_write_are_told_from_those_that_only_read() {
    let (_directory, connection) = connection();
    connection.execute(b"CREATE TABLE t(a)").unwrap();
    for sql in ["SELECT * FROM t", "BEGIN", "COMMIT", "PRAGMA user_version", "PRAGMA table_info(t)"] {
        assert!(!prepare(&connection, sql).writes(), "{sql}");
    }
    for sql in
        ["INSERT INTO t VALUES(1)", "BEGIN IMMEDIATE", "VACUUM", "PRAGMA optimize", "pragma OPTIMIZE(2)"]
    {
        assert!(prepare(&connection, sql).writes(), "{sql}");
    }
}

#[test]
fn what_replication_depends_on_cannot_be_changed() {
    let (directory, connection) = connection();
    let outside = directory.path().join("outside.db");
    let denied = [
        format!("ATTACH '{}' AS x", outside.display()),
        "ATTACH ':memory:' AS x".into(),
        "ATTACH 'a' || 'b' AS x".into(),
        "ATTACH ? AS x".into(),
        format!("VACUUM INTO '{}'", outside.display()),
        "PRAGMA journal_mode = DELETE".into(),
        "PRAGMA main.Journal_Mode(OFF)".into(),
        "PRAGMA page_size = 8192".into(),
        "PRAGMA wal_autocheckpoint = 10".into(),
        "PRAGMA synchronous = FULL".into(),
        "PRAGMA wal_checkpoint".into(),
        "PRAGMA wal_checkpoint(TRUNCATE)".into(),
        "PRAGMA busy_timeout".into(),
        "PRAGMA read_uncommitted".into(),
        "PRAGMA locking_mode".into(),
        "PRAGMA locking_mode = EXCLUSIVE".into(),
    ];
    for sql in &denied {
        assert_eq!(connection.execute(sql.as_bytes()).unwrap_err().code, ffi::SQLITE_AUTH, "{sql}");
    }
    assert!(!outside.exists());
    for sql in ["PRAGMA journal_mode", "PRAGMA page_size", "PRAGMA synchronous", "PRAGMA wal_autocheckpoint"]
    {
        connection.execute(sql.as_bytes()).unwrap();
    }
    connection.execute(b"ATTACH '' AS x; CREATE TABLE x.t(a); DETACH x; VACUUM").unwrap();
    assert_eq!(first(&connection, "PRAGMA synchronous"), 0);
}

#[test]
fn an_interrupt_ends_the_running_statement_and_is_harmless_later() {
    let (_directory, connection) = connection();
    let interrupt = connection.interrupt_handle();
    let calls = Arc::new(AtomicU32::new(0));
    let (from_hook, counted) = (interrupt.clone(), Arc::clone(&calls));
    connection.set_progress_hook(100, move || {
        if counted.fetch_add(1, Ordering::Relaxed) == 5 {
            from_hook.interrupt();
        }
        false
    });
    let endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n";
    assert_eq!(prepare(&connection, endless).step().unwrap_err().code, ffi::SQLITE_INTERRUPT);
    assert!(calls.load(Ordering::Relaxed) >= 6);
    connection.clear_progress_hook();
    assert_eq!(first(&connection, "SELECT 7"), 7);
    drop(connection);
    interrupt.interrupt();
}

#[test]
fn the_progress_hook_interrupts_and_its_panic_reaches_the_caller() {
    let (_directory, connection) = connection();
    let endless = "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n) SELECT count(*) FROM n";
    connection.set_progress_hook(100, || true);
    assert_eq!(prepare(&connection, endless).step().unwrap_err().code, ffi::SQLITE_INTERRUPT);
    connection.set_progress_hook(100, || panic!("from the hook"));
    let mut statement = prepare(&connection, endless);
    let payload = std::panic::catch_unwind(std::panic::AssertUnwindSafe(|| statement.step())).unwrap_err();
    assert_eq!(*payload.downcast_ref::<&str>().unwrap(), "from the hook");
    connection.clear_progress_hook();
    statement.reset();
    assert_eq!(first(&connection, "SELECT 7"), 7);
}

#[test]
fn a_statement_keeps_its_connection_open_and_moves_between_threads() {
    let (_directory, connection) = connection();
    connection.execute(b"CREATE TABLE t(a); INSERT INTO t VALUES(1), (2)").unwrap();
    let mut statement = prepare(&connection, "SELECT a FROM t");
    assert_eq!(statement.step().unwrap(), Step::Row);
    drop(connection);
    let second = std::thread::spawn(move || {
        assert_eq!(statement.step().unwrap(), Step::Row);
        matches!(statement.value(0).unwrap(), Value::Integer(2))
    });
    assert!(second.join().unwrap());
}
