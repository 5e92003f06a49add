//! What the VFS promises to the rest of the node, one test per promise, through real SQLite statements.

#![allow(clippy::unwrap_used)] // the tools outside of test functions panic too

mod vfs_support;

use dqlite::config::PAGE_SIZE;
use dqlite::sqlite::Step;
use dqlite::vfs::{self, PageRef, Vfs, View};

use vfs_support::{Bench, assert_intact, assert_same_content, create_big, int, text, try_int};

const SQLITE_BUSY: i32 = 5;
const SQLITE_CANTOPEN: i32 = 14;
const SQLITE_BUSY_SNAPSHOT: i32 = 517;
const SQLITE_CONSTRAINT_UNIQUE: i32 = 2067;

// ---- visibility ----

#[test]
fn a_transaction_is_invisible_until_it_is_published() {
    let bench = Bench::new();
    let (writer, reader) = (bench.connect(), bench.connect());
    bench.write(&writer, "CREATE TABLE t(a)").unwrap();
    assert_eq!(int(&reader, "SELECT count(*) FROM sqlite_master"), 0);
    assert_eq!(int(&writer, "SELECT count(*) FROM sqlite_master"), 0);
    assert_eq!(bench.depth(), 1);
    bench.publish(1);
    assert_eq!(int(&reader, "SELECT count(*) FROM t"), 0);
}

#[test]
fn the_next_writer_builds_on_what_is_not_committed_yet() {
    let bench = Bench::new();
    let connections = [bench.connect(), bench.connect(), bench.connect()];
    bench.commit(&connections[0], "CREATE TABLE t(a INTEGER PRIMARY KEY, b TEXT UNIQUE)");
    bench.write(&connections[0], "INSERT INTO t VALUES(1, 'one')").unwrap();
    let conflict = bench.write(&connections[1], "INSERT INTO t VALUES(2, 'one')").unwrap_err();
    assert_eq!(conflict.code, SQLITE_CONSTRAINT_UNIQUE);
    bench.write(&connections[1], "INSERT INTO t VALUES(2, 'two')").unwrap();
    bench.write(&connections[2], "UPDATE t SET b = b || '!'").unwrap();
    assert_eq!(connections[2].changes(), 2);
    assert_eq!(bench.depth(), 3);
    let waiting: usize = bench.taken.borrow().iter().map(|transaction| transaction.pages.len()).sum();
    let pipeline = bench.database.pipeline();
    assert_eq!((pipeline.count, pipeline.bytes), (3, waiting * PAGE_SIZE));
    assert!(!bench.database.drained());
    connections[2].set_view(View::Speculative).unwrap();
    assert_eq!(int(&connections[2], "SELECT count(*) FROM t WHERE b LIKE '%!'"), 2);
    connections[2].set_view(View::Committed).unwrap();
    assert_eq!(int(&connections[2], "SELECT count(*) FROM t"), 0);
    bench.publish_all();
    assert!(bench.database.drained());
    assert_eq!(int(&connections[0], "SELECT count(*) FROM t WHERE b LIKE '%!'"), 2);
    assert_intact(&connections[0]);
}

#[test]
fn publishing_shows_exactly_the_prefix_that_is_committed() {
    let bench = Bench::new();
    let (writer, reader) = (bench.connect(), bench.connect());
    bench.commit(&writer, "CREATE TABLE t(a)");
    for i in 1..=5 {
        bench.write(&writer, &format!("INSERT INTO t VALUES({i})")).unwrap();
    }
    for published in 0..=5 {
        assert_eq!(int(&reader, "SELECT coalesce(max(a), 0) FROM t"), published);
        assert_eq!(int(&reader, "SELECT count(*) FROM t"), published);
        bench.publish(usize::from(published < 5));
    }
}

#[test]
fn an_open_reader_keeps_its_state_while_more_is_published() {
    let bench = Bench::new();
    let (writer, reader) = (bench.connect(), bench.connect());
    bench.commit(&writer, "CREATE TABLE t(a); INSERT INTO t VALUES(1)");
    reader.execute(b"BEGIN").unwrap();
    assert_eq!(int(&reader, "SELECT count(*) FROM t"), 1);
    bench.commit(&writer, "INSERT INTO t VALUES(2)");
    bench.commit(&writer, "INSERT INTO t VALUES(3)");
    assert_eq!(int(&reader, "SELECT count(*) FROM t"), 1);
    reader.execute(b"COMMIT").unwrap();
    assert_eq!(int(&reader, "SELECT count(*) FROM t"), 3);
}

#[test]
fn publishing_goes_on_while_another_write_transaction_is_open() {
    let bench = Bench::new();
    let (first, second, reader) = (bench.connect(), bench.connect(), bench.connect());
    bench.commit(&first, "CREATE TABLE t(a)");
    bench.write(&first, "INSERT INTO t VALUES(1)").unwrap();
    bench.write(&second, "PRAGMA cache_size = 5; BEGIN IMMEDIATE; INSERT INTO t VALUES(2)").unwrap();
    bench.write(&second, &create_big("big", 200)).unwrap();
    assert_eq!(bench.depth(), 1);
    bench.publish(1);
    assert_eq!(int(&reader, "SELECT max(a) FROM t"), 1);
    assert_eq!(int(&second, "SELECT max(a) FROM t"), 2);
    bench.write(&second, "COMMIT").unwrap();
    bench.publish_all();
    assert_eq!(int(&reader, "SELECT max(a) FROM t"), 2);
    assert_intact(&reader);
}

#[test]
fn a_transaction_is_published_only_in_its_turn() {
    let bench = Bench::new();
    let writer = bench.connect();
    bench.write(&writer, "CREATE TABLE t(a)").unwrap();
    bench.write(&writer, "INSERT INTO t VALUES(1)").unwrap();
    let (first, second) = (bench.taken.borrow()[0].id, bench.taken.borrow()[1].id);
    let refused = bench.database.publish_next(second).unwrap_err();
    assert_eq!(refused, vfs::Error::NotOldest { expected: Some(first), given: second });
    bench.publish_all();
    let refused = bench.database.publish_next(second).unwrap_err();
    assert_eq!(refused, vfs::Error::NotOldest { expected: None, given: second });
}

// ---- abort ----

#[test]
fn abort_removes_every_speculative_transaction_from_every_connection() {
    let bench = Bench::new();
    let (one, two, reader) = (bench.connect(), bench.connect(), bench.connect());
    bench.commit(&one, "CREATE TABLE t(a INTEGER PRIMARY KEY, b); INSERT INTO t VALUES(1, 'kept')");
    bench.write(&one, "INSERT INTO t VALUES(2, 'doomed')").unwrap();
    bench.write(&two, "CREATE TABLE doomed(a)").unwrap();
    bench.abort();
    for connection in [&one, &two, &reader] {
        assert_eq!(int(connection, "SELECT count(*) FROM t"), 1);
        connection.set_view(View::Speculative).unwrap();
        assert_eq!(int(connection, "SELECT count(*) FROM sqlite_master"), 1);
        connection.set_view(View::Committed).unwrap();
    }
    bench.commit(&two, "INSERT INTO t VALUES(3, 'after')");
    assert_eq!(int(&reader, "SELECT sum(a) FROM t"), 4);
    assert_intact(&reader);
}

#[test]
fn the_first_transaction_of_a_wal_can_be_aborted() {
    let bench = Bench::new();
    let (one, two) = (bench.connect(), bench.connect());
    bench.write(&one, "CREATE TABLE t(a)").unwrap();
    bench.abort();
    assert_eq!(int(&one, "SELECT count(*) FROM sqlite_master"), 0);
    bench.commit(&two, "CREATE TABLE t(a); INSERT INTO t VALUES(1)");
    assert!(bench.database.checkpoint());
    bench.write(&one, "INSERT INTO t VALUES(2)").unwrap();
    bench.abort();
    bench.commit(&two, "INSERT INTO t VALUES(3)");
    assert_eq!(int(&one, "SELECT sum(a) FROM t"), 4);
    assert_intact(&one);
}

#[test]
fn the_same_statement_again_after_an_abort_is_not_mistaken_for_the_aborted_one() {
    let bench = Bench::new();
    let (one, two, reader) = (bench.connect(), bench.connect(), bench.connect());
    bench.commit(&one, "CREATE TABLE t(a INTEGER PRIMARY KEY, b); INSERT INTO t VALUES(1, 0)");
    for round in 1..=20 {
        // The same page images as in the aborted run, on another connection: a cache that believed the header
        // of the aborted transaction would now answer from pages that hold something else.
        bench.write(&one, &format!("UPDATE t SET b = {round}")).unwrap();
        bench.write(&one, "UPDATE t SET b = -1").unwrap();
        bench.abort();
        bench.write(&two, &format!("UPDATE t SET b = {round}")).unwrap();
        one.set_view(View::Speculative).unwrap();
        assert_eq!(int(&one, "SELECT b FROM t"), round);
        one.set_view(View::Committed).unwrap();
        bench.write(&two, "UPDATE t SET b = b + 1000").unwrap();
        bench.publish_all();
        assert_eq!(int(&one, "SELECT b FROM t"), round + 1000);
        assert_eq!(int(&reader, "SELECT b FROM t"), round + 1000);
    }
    assert_intact(&one);
}

#[test]
fn abort_waits_for_the_open_writer() {
    let bench = Bench::new();
    let (one, two) = (bench.connect(), bench.connect());
    bench.commit(&one, "CREATE TABLE t(a)");
    bench.write(&one, "INSERT INTO t VALUES(1)").unwrap();
    bench.write(&two, "BEGIN IMMEDIATE; INSERT INTO t VALUES(2)").unwrap();
    assert_eq!(bench.database.abort(), Err(vfs::Error::Busy));
    bench.write(&two, "ROLLBACK").unwrap();
    bench.abort();
    for connection in [&one, &two] {
        assert_eq!(int(connection, "SELECT count(*) FROM t"), 0);
    }
    assert_intact(&two);
}

#[test]
fn abort_waits_for_a_statement_that_still_reads_speculative_state() {
    let bench = Bench::new();
    let (writer, reader) = (bench.connect(), bench.connect());
    bench.commit(&writer, "CREATE TABLE t(a); INSERT INTO t VALUES(1)");
    bench.write(&writer, "BEGIN IMMEDIATE; INSERT INTO t VALUES(2)").unwrap();
    let mut cursor = writer.prepare(b"SELECT a FROM t").unwrap().statement.unwrap();
    assert_eq!(cursor.step().unwrap(), Step::Row);
    writer.execute(b"COMMIT").unwrap();
    bench.take();
    let mut committed = reader.prepare(b"SELECT a FROM t").unwrap().statement.unwrap();
    assert_eq!(committed.step().unwrap(), Step::Row);
    assert_eq!(bench.database.abort(), Err(vfs::Error::Busy));
    assert_eq!(cursor.step().unwrap(), Step::Row);
    cursor.reset();
    bench.abort();
    assert_eq!(committed.step().unwrap(), Step::Done);
    assert_eq!(int(&writer, "SELECT count(*) FROM t"), 1);
}

// ---- spill, savepoints, rollback ----

#[test]
fn a_commit_after_a_spilled_savepoint_rollback_keeps_what_it_committed() {
    let bench = Bench::new();
    let (writer, reader) = (bench.connect(), bench.connect());
    bench.commit(&writer, "PRAGMA cache_size = 5; CREATE TABLE t(a)");
    bench.write(&writer, "BEGIN IMMEDIATE; INSERT INTO t VALUES('keep'); SAVEPOINT s").unwrap();
    bench.write(&writer, &create_big("big", 400)).unwrap();
    let spilled = bench.database.frame_count();
    assert!(spilled > 300, "only {spilled} frames: nothing was spilled");
    bench.write(&writer, "ROLLBACK TO s; COMMIT").unwrap();
    assert_eq!(bench.depth(), 1);
    assert!(bench.database.frame_count() < 20);
    assert_eq!(int(&reader, "SELECT count(*) FROM t"), 0);
    bench.publish(1);
    assert_eq!(int(&reader, "SELECT count(*) FROM t WHERE a = 'keep'"), 1);
    assert_intact(&bench.connect());
}

#[test]
fn a_rollback_after_a_spill_leaves_the_speculative_base_untouched() {
    let bench = Bench::new();
    let (one, two) = (bench.connect(), bench.connect());
    bench.commit(&one, "CREATE TABLE t(a)");
    bench.write(&one, "INSERT INTO t VALUES('base')").unwrap();
    let frames = bench.database.frame_count();
    bench.write(&two, "PRAGMA cache_size = 5; BEGIN IMMEDIATE").unwrap();
    bench.write(&two, &create_big("big", 400)).unwrap();
    assert!(bench.database.frame_count() > frames + 300);
    bench.write(&two, "ROLLBACK").unwrap();
    assert_eq!(bench.database.frame_count(), frames);
    assert_eq!(bench.depth(), 1);
    bench.publish(1);
    assert_eq!(int(&two, "SELECT count(*) FROM t WHERE a = 'base'"), 1);
    assert_intact(&two);
}

#[test]
fn of_two_images_of_a_page_in_one_transaction_the_later_one_counts_everywhere() {
    let (leader, follower) = (Bench::new(), Bench::new());
    let writer = leader.connect();
    leader
        .write(&writer, "PRAGMA cache_size = 5; BEGIN IMMEDIATE; CREATE TABLE t(a INTEGER PRIMARY KEY, b)")
        .unwrap();
    for round in 0..4 {
        for i in 0..60 {
            leader
                .write(&writer, &format!("REPLACE INTO t VALUES({i}, hex(randomblob({}))) ", 800 + round))
                .unwrap();
        }
    }
    leader.write(&writer, "COMMIT").unwrap();
    let pages = leader.last_taken().pages;
    let mut numbers: Vec<_> = pages.iter().map(|(number, _)| *number).collect();
    let all = numbers.len();
    numbers.sort_unstable();
    numbers.dedup();
    assert!(numbers.len() < all, "the transaction has no duplicate page: the test proves nothing");
    leader.publish_all();
    follower.database.append(&pages).unwrap();
    assert_same_content(&leader.database, &follower.database);
    assert_intact(&follower.connect());
    assert_intact(&writer);
}

#[test]
fn vacuum_shrinks_the_database_on_leader_and_follower() {
    let (leader, follower) = (Bench::new(), Bench::new());
    let (writer, reader) = (leader.connect(), leader.connect());
    leader.write(&writer, &create_big("big", 300)).unwrap();
    leader.write(&writer, "CREATE TABLE t(a); INSERT INTO t VALUES(1)").unwrap();
    leader.write(&writer, "DROP TABLE big").unwrap();
    leader.write(&writer, "VACUUM").unwrap();
    for transaction in leader.taken.borrow().iter() {
        follower.database.append(&transaction.pages).unwrap();
    }
    leader.publish_all();
    assert_eq!(leader.database.committed_size(), 2);
    assert_same_content(&leader.database, &follower.database);
    assert!(leader.database.checkpoint());
    assert!(follower.database.checkpoint());
    assert_same_content(&leader.database, &follower.database);
    assert_eq!(int(&reader, "SELECT sum(a) FROM t"), 1);
    assert_intact(&reader);
    assert_intact(&follower.connect());
}

// ---- checkpoints and the WAL-index ----

#[test]
fn a_checkpoint_happens_by_itself_once_enough_is_committed() {
    let bench = Bench::with_threshold(50);
    let writer = bench.connect();
    bench.commit(&writer, "CREATE TABLE t(a)");
    for i in 0..200 {
        bench.commit(&writer, &format!("INSERT INTO t VALUES({i})"));
        assert!(bench.database.frame_count() < 60);
    }
    assert!(bench.database.checkpoints() >= 3);
    assert_eq!(int(&writer, "SELECT count(*) FROM t"), 200);
    assert_intact(&writer);
}

#[test]
fn a_reader_holds_a_checkpoint_back_and_the_last_unlock_makes_up_for_it() {
    let bench = Bench::with_threshold(10);
    let (writer, reader) = (bench.connect(), bench.connect());
    bench.commit(&writer, "CREATE TABLE t(a); INSERT INTO t VALUES(0)");
    reader.execute(b"BEGIN").unwrap();
    assert_eq!(int(&reader, "SELECT count(*) FROM t"), 1);
    let before = bench.database.checkpoints();
    for i in 0..30 {
        bench.commit(&writer, &format!("INSERT INTO t VALUES({i})"));
    }
    assert_eq!(bench.database.checkpoints(), before);
    assert!(!bench.database.checkpoint());
    assert_eq!(int(&reader, "SELECT count(*) FROM t"), 1);
    reader.execute(b"COMMIT").unwrap();
    assert_eq!(bench.database.checkpoints(), before + 1);
    assert_eq!(bench.database.frame_count(), 0);
    assert_eq!(int(&reader, "SELECT count(*) FROM t"), 31);
}

#[test]
fn a_long_reader_delays_new_readers_only_for_a_moment_when_a_checkpoint_is_overdue() {
    let bench = Bench::with_threshold(1);
    let (writer, long, short) = (bench.connect(), bench.connect(), bench.connect());
    bench.commit(&writer, "CREATE TABLE t(a); INSERT INTO t VALUES(0)");
    long.execute(b"BEGIN").unwrap();
    assert_eq!(int(&long, "SELECT count(*) FROM t"), 1);
    for i in 1..=20 {
        bench.commit(&writer, &format!("INSERT INTO t VALUES({i})"));
        assert_eq!(int(&short, "SELECT count(*) FROM t"), i + 1);
    }
    let before = bench.database.checkpoints();
    long.execute(b"COMMIT").unwrap();
    assert_eq!(bench.database.checkpoints(), before + 1);
}

#[test]
fn a_checkpoint_needs_no_empty_pipeline() {
    let bench = Bench::new();
    let (one, two, reader) = (bench.connect(), bench.connect(), bench.connect());
    bench.commit(&one, "CREATE TABLE t(a INTEGER PRIMARY KEY, b)");
    for i in 0..10 {
        bench.commit(&one, &format!("INSERT INTO t VALUES({i}, 'committed')"));
    }
    for i in 10..15 {
        bench.write(&two, &format!("INSERT INTO t VALUES({i}, 'speculative')")).unwrap();
    }
    assert!(bench.database.checkpoint());
    assert_eq!(bench.database.checkpoints(), 1);
    assert_eq!(bench.database.pipeline().count, 5);
    assert_eq!(int(&reader, "SELECT count(*) FROM t"), 10);
    bench.publish(2);
    assert_eq!(int(&reader, "SELECT count(*) FROM t"), 12);
    bench.write(&one, "INSERT INTO t VALUES(15, 'later')").unwrap();
    assert!(bench.database.checkpoint());
    bench.publish(1);
    assert_eq!(int(&reader, "SELECT count(*) FROM t"), 13);
    bench.abort();
    assert_eq!(int(&two, "SELECT count(*) FROM t"), 13);
    bench.commit(&two, "INSERT INTO t VALUES(99, 'end')");
    assert_eq!(int(&one, "SELECT max(a) FROM t"), 99);
    assert_intact(&reader);
}

#[test]
fn a_checkpoint_carries_speculative_frames_of_several_index_regions_over() {
    let bench = Bench::new();
    let (writer, reader) = (bench.connect(), bench.connect());
    bench.commit(&writer, "CREATE TABLE t(a); INSERT INTO t VALUES(1)");
    bench.commit(&writer, &create_big("committed", 2000));
    bench.write(&writer, &create_big("speculative", 9000)).unwrap();
    bench.write(&writer, "INSERT INTO t VALUES(2)").unwrap();
    assert!(bench.database.checkpoint());
    assert_eq!(bench.database.checkpoints(), 1);
    assert!(bench.database.frame_count() > 4062 + 4096);
    assert_eq!(int(&reader, "SELECT count(*) FROM committed"), 2000);
    assert!(try_int(&reader, "SELECT count(*) FROM speculative").is_err());
    bench.publish(1);
    assert_eq!(int(&reader, "SELECT count(*) FROM speculative"), 9000);
    assert_eq!(int(&reader, "SELECT count(*) FROM t"), 1);
    bench.publish(1);
    assert_eq!(int(&bench.connect(), "SELECT count(*) FROM t"), 2);
    assert_intact(&bench.connect());
}

#[test]
fn a_wal_of_many_index_regions_opens_from_any_side() {
    let bench = Bench::new();
    let (writer, pinned) = (bench.connect(), bench.connect());
    bench.commit(&writer, "CREATE TABLE t(a); INSERT INTO t VALUES(1)");
    pinned.execute(b"BEGIN").unwrap();
    assert_eq!(int(&pinned, "SELECT count(*) FROM t"), 1);
    bench.commit(&writer, &create_big("one", 9000));
    bench.commit(&writer, &create_big("two", 9000));
    bench.commit(&writer, "INSERT INTO t VALUES(2)");
    assert!(bench.database.index_regions() >= 5);
    let fresh = bench.connect();
    assert_eq!(int(&fresh, "SELECT count(*) FROM one") + int(&fresh, "SELECT count(*) FROM two"), 18_000);
    assert_eq!(int(&pinned, "SELECT count(*) FROM t"), 1);
    assert!(!bench.database.checkpoint());
    pinned.execute(b"COMMIT").unwrap();
    assert!(bench.database.checkpoint());
    assert_eq!(bench.database.frame_count(), 0);
    assert_eq!(int(&pinned, "SELECT count(*) FROM t"), 2);
    assert_intact(&fresh);
}

#[test]
fn pages_around_the_pending_byte_keep_their_content() {
    const PENDING: u32 = 0x4000_0000 / PAGE_SIZE as u32 + 1;
    let (leader, follower) = (Bench::new(), Bench::new());
    let writer = leader.connect();
    leader.commit(&writer, "CREATE TABLE t(a INTEGER PRIMARY KEY, b)");
    // Pretend the database is large: SQLite allocates pages behind the declared size and never reads the
    // others.
    for size in [PENDING - 2, 5 * (PENDING - 1) - 2] {
        let mut image = leader.database.capture();
        let mut page1 = *image.pages[0];
        page1[28..32].copy_from_slice(&size.to_be_bytes());
        image.pages[0] = PageRef::new(page1);
        image.pages.resize(size as usize, PageRef::new([0; PAGE_SIZE]));
        follower.database.restore(image.clone()).unwrap();
        leader.database.restore(image).unwrap();
        let base = i64::from(size);
        for i in 0..6 {
            leader.write(&writer, &format!("INSERT INTO t VALUES({base} + {i}, zeroblob(4000))")).unwrap();
            follower.database.append(&leader.last_taken().pages).unwrap();
            leader.publish_all();
        }
        assert!(leader.database.checkpoint() && follower.database.checkpoint());
        assert!(leader.database.committed_size() > size + 4);
        let reader = follower.connect();
        assert_eq!(
            int(&reader, &format!("SELECT count(*) FROM t WHERE a >= {base} AND length(b) = 4000")),
            6
        );
        let (one, other) = (leader.database.capture(), follower.database.capture());
        assert_eq!(one.pages.len(), other.pages.len());
        assert!(one.pages.iter().zip(&other.pages).skip(size as usize - 2).all(|(a, b)| a == b));
    }
    // Not by way of SQL: the size is pretended, so `integrity_check` would find the missing pages.
    assert!(follower.database.capture().pages[PENDING as usize - 1].iter().all(|byte| *byte == 0));
}

// ---- locks and views ----

#[test]
fn a_read_transaction_may_start_to_write_while_nothing_is_speculative() {
    let bench = Bench::new();
    let (one, two) = (bench.connect(), bench.connect());
    bench.commit(&one, "CREATE TABLE t(a); INSERT INTO t VALUES(1)");
    one.execute(b"BEGIN").unwrap();
    assert_eq!(int(&one, "SELECT count(*) FROM t"), 1);
    assert_eq!(one.execute(b"INSERT INTO t VALUES(2)").unwrap_err().code, SQLITE_BUSY);
    one.grant_permit();
    one.execute(b"INSERT INTO t VALUES(2)").unwrap();
    assert_eq!(one.view(), View::Speculative);
    one.execute(b"COMMIT").unwrap();
    assert_eq!(one.view(), View::Committed);
    bench.take();
    assert_eq!(int(&one, "SELECT count(*) FROM t"), 1);
    assert_eq!(one.execute(b"INSERT INTO t VALUES(3)").unwrap_err().code, SQLITE_BUSY);
    bench.publish(1);
    assert_eq!(int(&two, "SELECT count(*) FROM t"), 2);
}

#[test]
fn a_read_transaction_cannot_start_to_write_on_a_speculative_base() {
    let bench = Bench::new();
    let (one, two) = (bench.connect(), bench.connect());
    bench.commit(&one, "CREATE TABLE t(a); INSERT INTO t VALUES(1)");
    one.execute(b"BEGIN").unwrap();
    assert_eq!(int(&one, "SELECT count(*) FROM t"), 1);
    bench.write(&two, "INSERT INTO t VALUES(2)").unwrap();
    one.grant_permit();
    assert_eq!(one.execute(b"INSERT INTO t VALUES(3)").unwrap_err().code, SQLITE_BUSY);
    assert_eq!(int(&one, "SELECT count(*) FROM t"), 1);
    bench.publish(1);
    let stale = one.execute(b"INSERT INTO t VALUES(3)").unwrap_err();
    assert_eq!(stale.code, SQLITE_BUSY_SNAPSHOT);
    one.execute(b"ROLLBACK").unwrap();
    one.revoke_permit();
    assert_eq!(one.view(), View::Committed);
    assert_eq!(int(&one, "SELECT count(*) FROM t"), 2);
}

#[test]
fn a_reader_is_never_given_the_write_lock() {
    let bench = Bench::new();
    let reader = bench.connect();
    bench.commit(&bench.connect(), "CREATE TABLE t(a)");
    for sql in ["INSERT INTO t VALUES(1)", "BEGIN IMMEDIATE", "CREATE TABLE u(a)", "VACUUM", "ANALYZE"] {
        assert_eq!(reader.execute(sql.as_bytes()).unwrap_err().primary_code(), SQLITE_BUSY, "{sql}");
    }
    assert_eq!(reader.view(), View::Committed);
    assert!(bench.database.take_transaction().is_none());
    assert_eq!(int(&reader, "SELECT count(*) FROM t"), 0);
}

#[test]
fn only_one_connection_writes_at_a_time() {
    let bench = Bench::new();
    let (one, two) = (bench.connect(), bench.connect());
    bench.commit(&one, "CREATE TABLE t(a)");
    bench.write(&one, "BEGIN IMMEDIATE").unwrap();
    assert_eq!(bench.write(&two, "INSERT INTO t VALUES(1)").unwrap_err().code, SQLITE_BUSY);
    assert_eq!(bench.database.append(&bench.database_page()), Err(vfs::Error::Busy));
    bench.write(&one, "COMMIT").unwrap();
    assert_eq!(bench.depth(), 0, "an empty transaction replicates nothing");
    bench.write(&two, "INSERT INTO t VALUES(1)").unwrap();
    assert_eq!(bench.database.append(&bench.database_page()), Err(vfs::Error::Busy));
}

#[test]
fn the_view_does_not_change_inside_a_transaction() {
    let bench = Bench::new();
    let connection = bench.connect();
    connection.execute(b"BEGIN").unwrap();
    assert_eq!(int(&connection, "SELECT count(*) FROM sqlite_master"), 0);
    assert_eq!(connection.set_view(View::Speculative), Err(vfs::Error::InTransaction));
    connection.execute(b"COMMIT").unwrap();
    connection.set_view(View::Speculative).unwrap();
}

#[test]
fn closing_a_connection_rolls_its_transaction_back_and_frees_the_lock() {
    let bench = Bench::new();
    let (one, two) = (bench.connect(), bench.connect());
    bench.commit(&one, "CREATE TABLE t(a)");
    bench.write(&one, "PRAGMA cache_size = 5; BEGIN IMMEDIATE; INSERT INTO t VALUES(1)").unwrap();
    bench.write(&one, &create_big("big", 100)).unwrap();
    drop(one);
    bench.commit(&two, "INSERT INTO t VALUES(2)");
    assert_eq!(int(&two, "SELECT sum(a) FROM t"), 2);
    assert_intact(&two);
}

#[test]
fn temporary_tables_and_databases_replicate_nothing() {
    let bench = Bench::new();
    let connection = bench.connect();
    bench
        .write(&connection, "PRAGMA temp_store = FILE; PRAGMA cache_size = 5; CREATE TEMP TABLE s(a)")
        .unwrap();
    bench.write(&connection, &create_big("temp.big", 300)).unwrap();
    bench
        .write(&connection, "ATTACH '' AS other; CREATE TABLE other.t(a); INSERT INTO other.t VALUES(1)")
        .unwrap();
    assert_eq!(bench.depth(), 0);
    assert_eq!(int(&connection, "SELECT count(*) FROM temp.big"), 300);
    bench
        .write(&connection, "BEGIN; INSERT INTO s VALUES(1); INSERT INTO other.t VALUES(2); COMMIT")
        .unwrap();
    assert_eq!(bench.depth(), 0);
    bench.commit(&connection, "CREATE TABLE t(a); INSERT INTO t SELECT a FROM other.t");
    assert_eq!(int(&bench.connect(), "SELECT sum(a) FROM t"), 3);
    assert_intact(&connection);
}

// ---- delete_database ----

const DELETE: &str = "BEGIN IMMEDIATE; PRAGMA delete_database; COMMIT";

#[test]
fn delete_database_replicates_one_page_and_leaves_an_empty_database() {
    let (leader, follower) = (Bench::new(), Bench::new());
    let (writer, reader) = (leader.connect(), leader.connect());
    leader.commit(&writer, "CREATE TABLE t(a); INSERT INTO t VALUES(1); PRAGMA user_version = 7");
    assert!(!leader.database.is_deleted());
    leader.write(&writer, DELETE).unwrap();
    assert_eq!(int(&reader, "SELECT count(*) FROM t"), 1);
    let pages = leader.last_taken().pages;
    assert_eq!(pages.iter().map(|(number, _)| *number).collect::<Vec<_>>(), [1]);
    follower.database.append(&pages).unwrap();
    leader.publish_all();
    for bench in [&leader, &follower] {
        assert!(bench.database.is_deleted());
        assert_eq!(bench.database.committed_size(), 1);
    }
    assert_same_content(&leader.database, &follower.database);
    assert_eq!(int(&reader, "SELECT count(*) FROM sqlite_master"), 0);
    assert_eq!(int(&reader, "PRAGMA user_version"), 0);
    assert_intact(&reader);
    assert!(leader.database.checkpoint());
    assert!(leader.database.is_deleted());
    leader.write(&reader, "CREATE TABLE again(a); INSERT INTO again VALUES(2)").unwrap();
    for transaction in leader.taken.borrow().iter() {
        follower.database.append(&transaction.pages).unwrap();
    }
    leader.publish_all();
    assert!(!leader.database.is_deleted());
    assert_same_content(&leader.database, &follower.database);
    assert_eq!(int(&writer, "SELECT a FROM again"), 2);
    assert_intact(&writer);
}

#[test]
fn delete_database_takes_other_changes_of_its_transaction_with_it() {
    let bench = Bench::new();
    let (writer, reader) = (bench.connect(), bench.connect());
    bench.commit(&writer, "CREATE TABLE t(a)");
    bench.write(&writer, "BEGIN IMMEDIATE; INSERT INTO t VALUES(1); PRAGMA delete_database").unwrap();
    bench.write(&writer, "INSERT INTO t VALUES(2); COMMIT").unwrap();
    assert_eq!(bench.last_taken().pages.len(), 1);
    bench.publish_all();
    assert!(bench.database.is_deleted());
    assert_eq!(int(&reader, "SELECT count(*) FROM sqlite_master"), 0);
    assert_eq!(int(&writer, "SELECT count(*) FROM sqlite_master"), 0);
    bench.commit(&writer, "CREATE TABLE u(a)");
    assert_intact(&reader);
}

#[test]
fn delete_database_can_be_rolled_back_and_aborted() {
    let bench = Bench::new();
    let (writer, other) = (bench.connect(), bench.connect());
    bench.commit(&writer, "CREATE TABLE t(a); INSERT INTO t VALUES(1)");
    bench.write(&writer, "BEGIN IMMEDIATE; PRAGMA delete_database; ROLLBACK").unwrap();
    assert_eq!(bench.depth(), 0);
    bench.write(&other, "INSERT INTO t VALUES(2)").unwrap();
    bench.write(&writer, DELETE).unwrap();
    assert_eq!(bench.depth(), 2);
    bench.publish(1);
    bench.abort();
    assert!(!bench.database.is_deleted());
    assert_eq!(int(&writer, "SELECT sum(a) FROM t"), 3);
    bench.write(&writer, "BEGIN IMMEDIATE; PRAGMA delete_database").unwrap();
    drop(writer);
    bench.commit(&other, "INSERT INTO t VALUES(3)");
    assert_eq!(int(&other, "SELECT sum(a) FROM t"), 6);
    assert_intact(&other);
}

#[test]
fn delete_database_refuses_the_wrong_moment_in_the_words_of_the_c_library() {
    let bench = Bench::new();
    let writer = bench.connect();
    bench.commit(&writer, "CREATE TABLE t(a)");
    let error = bench.write(&writer, "PRAGMA delete_database").unwrap_err();
    assert_eq!(
        (error.code, error.message.as_str()),
        (1, "PRAGMA delete_database must be run in a write transaction. Use BEGIN IMMEDIATE to start one.")
    );
    bench.write(&writer, "PRAGMA cache_size = 5; BEGIN IMMEDIATE").unwrap();
    bench.write(&writer, &create_big("big", 100)).unwrap();
    let error = bench.write(&writer, "PRAGMA delete_database").unwrap_err();
    assert_eq!(
        (error.code, error.message.as_str()),
        (1, "PRAGMA delete_database must be the only statement run in the transaction.")
    );
    bench.write(&writer, "COMMIT").unwrap();
    bench.publish_all();
    assert!(!bench.database.is_deleted());
}

// ---- followers, capture, restore ----

#[test]
fn a_follower_has_the_leaders_bytes_and_can_take_over() {
    let (leader, follower) = (Bench::with_threshold(40), Bench::with_threshold(70));
    let (writer, reader) = (leader.connect(), follower.connect());
    let mut total = 0;
    leader.write(&writer, "CREATE TABLE t(a INTEGER PRIMARY KEY, b); CREATE INDEX i ON t(b)").unwrap();
    for round in 0..100 {
        leader.write(&writer, &format!("INSERT INTO t(b) VALUES({round}), (hex(randomblob(300)))")).unwrap();
        total += 2;
        for transaction in leader.taken.borrow().iter() {
            follower.database.append(&transaction.pages).unwrap();
        }
        leader.publish_all();
        assert_eq!(int(&reader, "SELECT count(*) FROM t"), total);
    }
    assert_same_content(&leader.database, &follower.database);
    assert!(follower.database.checkpoints() > 1 && leader.database.checkpoints() > 1);
    follower.write(&reader, "INSERT INTO t(b) VALUES('new leader')").unwrap();
    follower.write(&reader, "UPDATE t SET b = b || '!' WHERE a % 3 = 0").unwrap();
    for transaction in follower.taken.borrow().iter() {
        leader.database.append(&transaction.pages).unwrap();
    }
    follower.publish_all();
    assert_same_content(&leader.database, &follower.database);
    assert_intact(&reader);
    assert_intact(&writer);
}

#[test]
fn appending_after_an_abort_finds_no_leftovers() {
    let (leader, follower) = (Bench::new(), Bench::new());
    let (writer, doomed) = (leader.connect(), follower.connect());
    leader.write(&writer, "CREATE TABLE t(a)").unwrap();
    leader.write(&writer, &create_big("big", 1500)).unwrap();
    leader.write(&writer, "INSERT INTO t VALUES(1)").unwrap();
    let transactions: Vec<_> = leader.taken.borrow().iter().map(|t| t.pages.clone()).collect();
    leader.publish_all();
    follower.database.append(&transactions[0]).unwrap();
    follower.write(&doomed, &create_big("doomed", 6000)).unwrap();
    follower.abort();
    follower.database.append(&transactions[1]).unwrap();
    follower.write(&doomed, "INSERT INTO t VALUES('doomed')").unwrap();
    follower.abort();
    follower.database.append(&transactions[2]).unwrap();
    assert_same_content(&leader.database, &follower.database);
    assert_eq!(int(&doomed, "SELECT count(*) FROM big") + int(&doomed, "SELECT sum(a) FROM t"), 1501);
    assert_intact(&doomed);
}

#[test]
fn an_empty_or_impossible_append_changes_nothing() {
    let bench = Bench::new();
    bench.database.append(&[]).unwrap();
    let page = bench.database.capture().pages.remove(0);
    assert_eq!(bench.database.append(&[(1, PageRef::clone(&page)), (0, page)]), Err(vfs::Error::PageZero));
    assert_eq!(bench.database.frame_count(), 0);
    assert_eq!(int(&bench.connect(), "SELECT count(*) FROM sqlite_master"), 0);
}

#[test]
fn an_image_is_the_committed_state_of_its_moment() {
    let bench = Bench::new();
    let writer = bench.connect();
    bench.commit(&writer, "CREATE TABLE t(a); INSERT INTO t VALUES(1)");
    assert!(bench.database.checkpoint());
    bench.commit(&writer, "INSERT INTO t VALUES(2)");
    bench.write(&writer, "INSERT INTO t VALUES(4)").unwrap();
    let image = bench.database.capture();
    bench.publish_all();
    bench.commit(&writer, "INSERT INTO t VALUES(8)");
    assert!(bench.database.checkpoint());
    bench.commit(&writer, "DELETE FROM t");
    let copy = Bench::new();
    copy.database.restore(image).unwrap();
    let connection = copy.connect();
    assert_eq!(int(&connection, "SELECT sum(a) FROM t"), 3);
    assert_intact(&connection);
}

#[test]
fn restoring_replaces_everything_under_open_connections() {
    let (source, target) = (Bench::new(), Bench::new());
    source.commit(&source.connect(), "CREATE TABLE u(a); INSERT INTO u VALUES('restored')");
    let (one, two) = (target.connect(), target.connect());
    target.commit(&one, "CREATE TABLE t(a, b); INSERT INTO t VALUES('old', 1)");
    target.write(&one, "INSERT INTO t VALUES('doomed', 1)").unwrap();
    one.execute(b"BEGIN").unwrap();
    assert_eq!(text(&one, "SELECT a FROM t"), "old");
    assert_eq!(target.database.restore(source.database.capture()), Err(vfs::Error::Busy));
    one.execute(b"COMMIT").unwrap();
    target.database.restore(source.database.capture()).unwrap();
    target.taken.borrow_mut().clear();
    assert!(target.database.drained());
    // Both schemas carry the same cookie: a connection that believed it would look for the wrong table.
    for connection in [&one, &two] {
        assert_eq!(text(connection, "SELECT a FROM u"), "restored");
        assert_intact(connection);
    }
    target.commit(&two, "INSERT INTO u VALUES('after')");
    assert_eq!(int(&one, "SELECT count(*) FROM u"), 2);
}

#[test]
fn an_image_that_is_no_wal_database_is_refused() {
    let bench = Bench::new();
    let mut image = bench.database.capture();
    let mut page = *image.pages[0];
    page[18] = 1;
    image.pages[0] = PageRef::new(page);
    assert_eq!(bench.database.restore(image.clone()), Err(vfs::Error::BadImage));
    image.pages.clear();
    assert_eq!(bench.database.restore(image), Err(vfs::Error::BadImage));
}

// ---- names and lifetimes ----

#[test]
fn every_name_is_just_a_name() {
    let vfs = Vfs::register(1000).unwrap();
    let long = "x".repeat(dqlite::config::DATABASE_NAME_MAX);
    let names = [":memory:", "", "file:x?mode=memory", "./y", "a/b", "x-wal", "x", "-journal", long.as_str()];
    for (i, name) in names.iter().enumerate() {
        let database = vfs.create_database(name).unwrap();
        assert_eq!(database.name(), name.as_bytes());
        let connection = vfs.connect(name).unwrap();
        connection.set_view(View::Speculative).unwrap();
        connection.execute(format!("CREATE TABLE t AS SELECT {i} a").as_bytes()).unwrap();
        let transaction = database.take_transaction().unwrap();
        database.publish_next(transaction.id).unwrap();
    }
    for (i, name) in names.iter().enumerate() {
        assert_eq!(int(&vfs.connect(name).unwrap(), "SELECT a FROM t"), i as i64, "{name}");
    }
    let order: Vec<_> = vfs.databases().iter().map(|d| d.name().to_vec()).collect();
    assert_eq!(order, names.map(|name| name.as_bytes().to_vec()));
    assert_eq!(vfs.create_database("x").unwrap_err(), vfs::Error::Exists);
    assert_eq!(vfs.create_database("a\0b").unwrap_err(), vfs::Error::BadName);
    assert_eq!(vfs.create_database(format!("{long}x")).unwrap_err(), vfs::Error::BadName);
    assert_eq!(vfs.fault(), None);
}

#[test]
fn a_database_that_was_not_created_cannot_be_opened() {
    let vfs = Vfs::register(1000).unwrap();
    assert_eq!(open_code(&vfs, "missing.db"), SQLITE_CANTOPEN);
    vfs.create_database("gone.db").unwrap();
    assert!(vfs.remove_database("gone.db").is_some());
    assert!(vfs.database("gone.db").is_none());
    assert_eq!(open_code(&vfs, "gone.db"), SQLITE_CANTOPEN);
}

fn open_code(vfs: &Vfs, name: &str) -> i32 {
    match vfs.connect(name) {
        Err(vfs::Error::Sqlite(error)) => error.primary_code(),
        other => panic!("{name}: {other:?}"),
    }
}

#[test]
fn a_connection_outlives_its_vfs_and_its_database() {
    let bench = Bench::new();
    let connection = bench.connect();
    bench.commit(&connection, "CREATE TABLE t(a); INSERT INTO t VALUES(1)");
    let mut statement = connection.prepare(b"SELECT a FROM t").unwrap().statement.unwrap();
    statement.step().unwrap();
    bench.vfs.remove_database("test.db");
    drop(bench);
    assert_eq!(int(&connection, "SELECT sum(a) FROM t"), 1);
    drop(connection);
    assert_eq!(statement.value(0).unwrap(), dqlite::sqlite::Value::Integer(1));
}

impl Bench {
    /// A transaction that is fine, for calls that must be refused for another reason.
    fn database_page(&self) -> Vec<(vfs::PageNumber, PageRef)> {
        vec![(1, self.database.capture().pages.remove(0))]
    }
}
