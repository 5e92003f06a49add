//! What executing costs without anything around it, for `make bench`: one-row inserts through the replicating
//! VFS up to the publishing of each transaction, as a session and the Raft thread make them but without log,
//! sockets and other threads, beside plain SQLite in WAL mode with `synchronous=OFF`.
//!
//! ```text
//! execute DIRECTORY
//! ```
//!
//! The same work for both, in turns of a thousand inserts each. Counted is the processor time of the one
//! thread that does it. Prints lines of a name, inserts for a second of processor time and the 99th
//! percentile in microseconds (which is one of a wall clock).

use std::error::Error;
use std::path::Path;
use std::time::Instant;

use dqlite::config::CHECKPOINT_THRESHOLD_FRAMES;
use dqlite::sqlite::Statement;
use dqlite::vfs::{Vfs, VfsConnection, View};
use rustix::time::{ClockId, clock_gettime};

const TURNS: usize = 60;
const INSERTS: usize = 1000;
const SCHEMA: &str = "CREATE TABLE rows (id INTEGER PRIMARY KEY AUTOINCREMENT, client INTEGER, value)";
const INSERT: &str = "INSERT INTO rows (client, value) VALUES (1, printf('%.*c', 100, 'x'))";

type Outcome<T> = Result<T, Box<dyn Error>>;

/// What one side has done.
#[derive(Default)]
struct Account {
    name: &'static str,
    cpu_us: Vec<f64>,
    samples_us: Vec<f64>,
}

impl Account {
    fn turn(&mut self, mut insert: impl FnMut() -> Outcome<()>) -> Outcome<()> {
        let begin = cpu_us();
        for _ in 0..INSERTS {
            let since = Instant::now();
            insert()?;
            self.samples_us.push(since.elapsed().as_secs_f64() * 1e6);
        }
        self.cpu_us.push((cpu_us() - begin) / INSERTS as f64);
        Ok(())
    }

    fn print(&mut self) {
        self.cpu_us.sort_by(f64::total_cmp);
        self.samples_us.sort_by(f64::total_cmp);
        let median_us = self.cpu_us[self.cpu_us.len() / 2];
        let p99_us = self.samples_us[self.samples_us.len() * 99 / 100];
        println!("{} {:.1} {p99_us:.1}", self.name, 1e6 / median_us);
    }
}

fn cpu_us() -> f64 {
    let time = clock_gettime(ClockId::ThreadCPUTime);
    time.tv_sec as f64 * 1e6 + time.tv_nsec as f64 / 1e3
}

/// One transaction, as `db::connection` and `node::driver` make it.
fn speculate_and_publish(session: &VfsConnection, statement: &mut Statement) -> Outcome<()> {
    session.set_view(View::Speculative)?;
    statement.step()?;
    statement.reset();
    let transaction = session.database().take_transaction().ok_or("nothing was written")?;
    session.revoke_permit();
    Ok(session.database().publish_next(transaction.id)?)
}

fn main() -> Outcome<()> {
    let arguments: Vec<String> = std::env::args().collect();
    let [_, directory] = &arguments[..] else { return Err("usage: execute DIRECTORY".into()) };
    let directory = Path::new(directory).join("execute.d");
    std::fs::create_dir_all(&directory)?;
    let plain = rusqlite::Connection::open(directory.join("plain.db"))?;
    plain.pragma_update(None, "journal_mode", "WAL")?;
    plain.pragma_update(None, "synchronous", "OFF")?;
    plain.execute_batch(SCHEMA)?;
    let mut plain_insert = plain.prepare(INSERT)?;

    let vfs = Vfs::register(CHECKPOINT_THRESHOLD_FRAMES)?;
    vfs.create_database("bench")?;
    let session = vfs.connect("bench")?;
    let prepare = |sql: &str| -> Outcome<Statement> {
        Ok(session.prepare(sql.as_bytes())?.statement.ok_or("there is no statement")?)
    };
    speculate_and_publish(&session, &mut prepare(SCHEMA)?)?;
    let mut insert = prepare(INSERT)?;

    let mut plain_account = Account { name: "execute-sqlite-off", ..Account::default() };
    let mut account = Account { name: "execute-speculative", ..Account::default() };
    for _ in 0..TURNS {
        plain_account.turn(|| Ok(plain_insert.execute([]).map(drop)?))?;
        account.turn(|| speculate_and_publish(&session, &mut insert))?;
    }
    plain_account.print();
    account.print();
    drop(plain_insert);
    drop(plain);
    Ok(std::fs::remove_dir_all(&directory)?)
}
