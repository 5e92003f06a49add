use super::*;
use crate::config::CHECKPOINT_THRESHOLD_FRAMES;
use crate::db::Verdict;
use crate::db::query::Fill;
use crate::db::status::Status;
use crate::vfs::Vfs;
use bytes::BytesMut;
use std::future::Future;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};

/// A database and, in place of the Raft thread, a test that decides when a transaction is committed.
struct World {
    registry: Arc<Registry>,
    requests: mpsc::UnboundedSender<Request>,
    proposed: mpsc::UnboundedReceiver<Request>,
}

impl World {
    fn new() -> World {
        let status = Arc::new(Status::default());
        status.begin_leading();
        status.publish(true, u64::MAX);
        let vfs = Arc::new(Vfs::register(CHECKPOINT_THRESHOLD_FRAMES).unwrap());
        let (requests, proposed) = mpsc::unbounded_channel();
        World { registry: Arc::new(Registry::new(vfs, status)), requests, proposed }
    }

    fn open(&self) -> DatabaseConnection {
        let watch: ClientWatch = Arc::new(|| Verdict::Waiting);
        DatabaseConnection::open(&self.registry, &self.requests, &"test.db".into(), watch).unwrap()
    }

    /// Commits the oldest transaction.
    async fn commit(&mut self) {
        let Some(Request::Propose(proposal)) = self.proposed.recv().await else { panic!() };
        proposal.database.publish(proposal.transaction).unwrap();
        // Of several transactions of a request the last one is waited for.
        let _ = proposal.done.send(Ok(()));
    }

    async fn exec(&mut self, connection: &mut DatabaseConnection, sql: &'static str) {
        let (done, ()) = tokio::join!(connection.exec_sql(sql.into(), Params::none()), self.commit());
        done.unwrap();
    }
}

/// The frames of an answer.
async fn rows(connection: &mut DatabaseConnection, sql: &str) -> BytesMut {
    let mut query = connection.query_sql(sql.as_bytes(), Params::none()).await.unwrap();
    let mut out = BytesMut::new();
    assert!(matches!(query.fill(&mut out), Fill::Done));
    connection.end_query(query).await.unwrap();
    out
}

#[tokio::test]
async fn who_has_just_written_reads_nothing_that_others_have_not_committed() {
    let mut world = World::new();
    let (mut one, mut other) = (world.open(), world.open());
    world.exec(&mut one, "CREATE TABLE t (n INTEGER)").await;
    let (before, schema) = (rows(&mut one, COUNT).await, rows(&mut one, TABLES).await);
    world.exec(&mut one, "INSERT INTO t VALUES (1)").await;
    let counted = rows(&mut one, COUNT).await;
    assert_ne!(before, counted, "it reads its own");
    world.exec(&mut one, "UPDATE t SET n = 2").await;

    let pending = "INSERT INTO t VALUES (3); CREATE TABLE more (n INTEGER)";
    let insert = other.exec_sql(pending.into(), Params::none());
    tokio::pin!(insert);
    assert!(waits(insert.as_mut()).await, "it waits for its commit");
    assert_eq!(rows(&mut one, COUNT).await, counted);
    assert_eq!(rows(&mut one, TABLES).await, schema);
    let refused = one.prepare(b"SELECT * FROM more", false).await;
    assert!(refused.is_err(), "a table that may never be is in the schema");

    let ((), ()) = (world.commit().await, world.commit().await);
    insert.await.unwrap();
    assert_ne!(rows(&mut one, COUNT).await, counted);
    one.prepare(b"SELECT * FROM more", false).await.unwrap();
}

const COUNT: &str = "SELECT count(*) FROM t";
const TABLES: &str = "SELECT name FROM sqlite_schema";

/// Whether a future that is polled now has more to wait for.
async fn waits<F: Future + Unpin>(future: F) -> bool {
    tokio::time::timeout(std::time::Duration::ZERO, future).await.is_err()
}

/// A leader without a Raft thread: the test takes what sessions ask.
struct Leader {
    registry: Arc<Registry>,
    requests: mpsc::UnboundedSender<Request>,
    queue: mpsc::UnboundedReceiver<Request>,
}

impl Leader {
    fn new() -> Leader {
        sqlite::initialize().unwrap();
        let vfs = Arc::new(Vfs::register(1000).unwrap());
        let registry = Arc::new(Registry::new(vfs, Arc::<Status>::default()));
        registry.status.begin_leading();
        registry.status.publish(true, u64::MAX);
        let (requests, queue) = mpsc::unbounded_channel();
        Leader { registry, requests, queue }
    }

    fn with_table() -> Leader {
        let mut leader = Leader::new();
        let mut session = leader.session();
        let mut created = pin!(exec(&mut session, "CREATE TABLE t(a UNIQUE)"));
        assert!(poll(created.as_mut()).is_pending());
        assert_eq!(leader.commit(), 1);
        assert!(poll(created).is_ready());
        leader
    }

    fn session(&self) -> DatabaseConnection {
        let name = Bytes::from_static(b"test.db");
        let watch = Arc::new(|| Verdict::Waiting);
        DatabaseConnection::open(&self.registry, &self.requests, &name, watch).unwrap()
    }

    fn database(&self) -> Arc<Database> {
        self.registry.get(b"test.db").unwrap()
    }

    /// Commits what was proposed, and says how much it was.
    fn commit(&mut self) -> usize {
        let mut count = 0;
        while let Ok(Request::Propose(proposal)) = self.queue.try_recv() {
            proposal.database.publish(proposal.transaction).unwrap();
            let _ = proposal.done.send(Ok(()));
            count += 1;
        }
        count
    }
}

fn exec<'a>(
    session: &'a mut DatabaseConnection,
    sql: &str,
) -> impl Future<Output = Result<ExecResult, Failure>> + 'a {
    session.exec_sql(Bytes::copy_from_slice(sql.as_bytes()), Params::none())
}

fn poll<T>(future: Pin<&mut impl Future<Output = T>>) -> Poll<T> {
    future.poll(&mut Context::from_waker(Waker::noop()))
}

/// A transaction that is in the pipeline and in no log would be the oldest one for ever: nothing behind
/// it could be published.
#[test]
fn what_a_session_executed_is_proposed_even_if_its_client_leaves_at_once() {
    let mut leader = Leader::new();
    // More than a queue of any sensible length would take.
    for number in 0..2000 {
        let mut session = leader.session();
        let sql = format!("CREATE TABLE IF NOT EXISTS t(a); INSERT INTO t VALUES ({number})");
        assert!(poll(pin!(exec(&mut session, &sql))).is_pending());
    }
    assert_eq!(leader.commit(), 2001);
    assert!(leader.database().vfs.drained());
}

#[test]
fn an_error_on_a_base_that_is_dropped_is_not_what_the_client_is_told() {
    let mut leader = Leader::with_table();
    let (mut first, mut second) = (leader.session(), leader.session());
    let mut inserted = pin!(exec(&mut first, "INSERT INTO t VALUES (1)"));
    assert!(poll(inserted.as_mut()).is_pending());
    let mut again = pin!(exec(&mut second, "INSERT INTO t VALUES (1)"));
    assert!(poll(again.as_mut()).is_pending(), "the error depends on what is not committed");
    let Ok(Request::Propose(lost)) = leader.queue.try_recv() else { panic!("nothing was proposed") };
    leader.database().void_speculation();
    lost.done.send(Err(Refused::LeadershipLost)).unwrap();
    let answer = |polled: Poll<Result<ExecResult, Failure>>| match polled {
        Poll::Ready(Err(failure)) => failure.code,
        other => panic!("{other:?}"),
    };
    assert_eq!(answer(poll(inserted)), failure::CODE_LEADERSHIP_LOST);
    assert_eq!(answer(poll(again)), failure::CODE_NOT_LEADER);
}

#[test]
fn an_error_is_told_once_its_base_is_committed() {
    let mut leader = Leader::with_table();
    let (mut first, mut second) = (leader.session(), leader.session());
    let mut inserted = pin!(exec(&mut first, "INSERT INTO t VALUES (1)"));
    assert!(poll(inserted.as_mut()).is_pending());
    let mut again = pin!(exec(&mut second, "INSERT INTO t VALUES (1)"));
    assert!(poll(again.as_mut()).is_pending());
    assert_eq!(leader.commit(), 1);
    let Poll::Ready(Err(failure)) = poll(again) else { panic!("it is decided") };
    assert_eq!(failure.text, "UNIQUE constraint failed: t.a");
}
