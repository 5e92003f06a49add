use super::*;
use crate::config::CHECKPOINT_THRESHOLD_FRAMES;
use crate::db::Verdict;
use crate::db::query::Fill;
use crate::db::status::Status;
use crate::vfs::Vfs;
use bytes::BytesMut;

/// A database and, in place of the Raft thread, a test that decides when a transaction is committed.
struct World {
    registry: Arc<Registry>,
    requests: mpsc::Sender<Request>,
    proposed: mpsc::Receiver<Request>,
}

impl World {
    fn new() -> World {
        let status = Arc::new(Status::default());
        status.begin_leading();
        status.publish(true, u64::MAX);
        let vfs = Arc::new(Vfs::register(CHECKPOINT_THRESHOLD_FRAMES).unwrap());
        let (requests, proposed) = mpsc::channel(8);
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
