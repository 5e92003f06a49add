//! A host that put SQLite in single-thread mode before us, as go-dqlite's package initialiser does. In a
//! process of its own, because the mode cannot be changed once SQLite is initialised.

#![allow(clippy::unwrap_used)] // the tools outside of test functions panic too

mod vfs_support;

use dqlite::sqlite::{self, Threading};
use dqlite::vfs::View;
use rusqlite::ffi;

use vfs_support::{Bench, assert_intact, int};

#[test]
fn all_statements_of_the_process_run_one_after_the_other() {
    // SAFETY: nobody has used SQLite in this process; the option takes no further argument.
    assert_eq!(unsafe { ffi::sqlite3_config(ffi::SQLITE_CONFIG_SINGLETHREAD) }, ffi::SQLITE_OK);
    // SAFETY: as above.
    assert_eq!(unsafe { ffi::sqlite3_initialize() }, ffi::SQLITE_OK);
    sqlite::initialize().unwrap();
    assert_eq!(sqlite::threading(), Threading::OneAtATime);

    let bench = Bench::with_threshold(50);
    let writer = bench.connect();
    bench.commit(&writer, "CREATE TABLE t(a)");
    let readers: Vec<_> = (0..3).map(|_| bench.connect()).collect();
    let database = std::sync::Arc::clone(&bench.database);
    std::thread::scope(|scope| {
        for reader in &readers {
            scope.spawn(|| {
                let mut last = 0;
                while last < 200 {
                    let count = int(reader, "SELECT count(*) FROM t");
                    assert!(count >= last);
                    last = count;
                }
            });
        }
        scope.spawn(move || {
            for i in 0..200 {
                writer.set_view(View::Speculative).unwrap();
                writer.execute(format!("INSERT INTO t VALUES({i})").as_bytes()).unwrap();
                database.publish_next(database.take_transaction().unwrap().id).unwrap();
            }
        });
    });
    assert_intact(&readers[0]);
}
