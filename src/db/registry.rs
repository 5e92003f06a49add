//! The databases of a node by name, and what every session and the Raft thread share about each.
//!
//! **Identity.** A name stands for one [`Database`] as long as any session has it open; whatever changes its
//! content, deletion and restore included, changes it in place. Were it exchanged for another one, a session
//! of an earlier leadership could lead again and write into pages that nobody replicates. SQLite notices by
//! itself: its page cache by the WAL-index header, which a restore makes unlike every earlier one, its parsed
//! schema by the history count of the VFS. What must not go on is refused by locks: a transaction that is
//! open, for reading or writing, makes the restore wait. What a session computed and still waits for is void
//! through [`Database::void_count`].

use super::lane::Lane;
use super::{Refused, status::Status, turns::Turns};
use crate::vfs::{self, Replacement, TransactionId, Vfs};
use bytes::Bytes;
use parking_lot::Mutex;
use std::collections::HashMap;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use tokio::sync::Notify;

/// One database.
pub struct Database {
    /// Its name: an opaque key, as the client gave it.
    pub name: Bytes,
    /// Pages, WAL and WAL-index.
    pub vfs: Arc<vfs::Database>,
    /// Who may write.
    pub lane: Arc<Lane>,
    /// Number of the newest transaction handed to Raft. Written by the holder of the lane.
    proposed: AtomicU64,
    /// Number of the newest transaction published. Written by the Raft thread.
    published: AtomicU64,
    /// Counts the times when everything speculative became void: whoever waits for a transaction learns that
    /// it will never be published here. Changed with `doomed` locked.
    void_count: AtomicU64,
    /// What is speculative is void and could not be dropped: a session held the write lock.
    doomed: Mutex<bool>,
    progress: Notify,
}

impl Database {
    fn new(name: Bytes, vfs: Arc<vfs::Database>) -> Database {
        Database {
            name,
            vfs,
            lane: Arc::default(),
            proposed: AtomicU64::new(0),
            published: AtomicU64::new(0),
            void_count: AtomicU64::new(0),
            doomed: Mutex::new(false),
            progress: Notify::new(),
        }
    }

    /// Number of the newest transaction handed to Raft: what a statement on the speculative view builds on.
    pub fn proposed(&self) -> u64 {
        self.proposed.load(Ordering::Acquire)
    }

    /// The holder of the lane hands this transaction to Raft.
    pub fn note_proposed(&self, transaction: TransactionId) {
        self.proposed.store(transaction.number(), Ordering::Release);
    }

    /// Changes whenever what is speculative becomes void.
    pub fn void_count(&self) -> u64 {
        self.void_count.load(Ordering::Acquire)
    }

    /// Makes the oldest speculative transaction visible to readers. Called by the Raft thread, in log order.
    pub fn publish(&self, transaction: TransactionId) -> Result<(), vfs::Error> {
        self.vfs.publish_next(transaction)?;
        self.published.store(transaction.number(), Ordering::Release);
        self.progress.notify_waiters();
        Ok(())
    }

    /// Everything speculative is void. Called by the Raft thread. If a session holds the write lock just now,
    /// that session drops it when it leaves the lane, or the next one that enters.
    pub fn void_speculation(&self) {
        let mut doomed = self.doomed.lock();
        self.void_count.fetch_add(1, Ordering::AcqRel);
        *doomed = !self.drop_speculation();
        drop(doomed);
        self.progress.notify_waiters();
    }

    /// The holder of the lane begins to write. Returns [`Database::void_count`] as of that moment: what it
    /// executes is void if the count changes before the Raft thread has it.
    pub fn begin_writing(&self) -> Result<u64, Refused> {
        let mut doomed = self.doomed.lock();
        if *doomed {
            *doomed = !self.drop_speculation();
        }
        if *doomed { Err(Refused::NotLeader) } else { Ok(self.void_count()) }
    }

    /// The holder of the lane is about to leave it. If everything speculative became void since it began, so
    /// did what it executed; nobody else has written since.
    pub fn end_writing(&self, void_count: u64) {
        let mut doomed = self.doomed.lock();
        if self.void_count() != void_count {
            *doomed = !self.drop_speculation();
        }
    }

    /// False while a write transaction is open.
    fn drop_speculation(&self) -> bool {
        let dropped = self.vfs.abort().is_ok();
        if dropped {
            self.published.store(self.proposed(), Ordering::Release);
        }
        dropped
    }

    /// What sessions computed on the content before a restore is void, and was dropped with it.
    fn note_replaced(&self) {
        let mut doomed = self.doomed.lock();
        *doomed = false;
        self.void_count.fetch_add(1, Ordering::AcqRel);
        self.published.store(self.proposed(), Ordering::Release);
        drop(doomed);
        self.progress.notify_waiters();
    }

    /// Waits until `done` holds for the newest published transaction. Fails when transactions that existed at
    /// `void_count` have become void: what was computed from them never happened.
    pub async fn wait_published(
        &self,
        void_count: u64,
        mut done: impl FnMut(u64) -> bool,
    ) -> Result<(), Refused> {
        loop {
            let progress = self.progress.notified();
            tokio::pin!(progress);
            // Registered before the check, so that no notification between check and wait is missed.
            progress.as_mut().enable();
            if self.void_count() != void_count {
                return Err(Refused::NotLeader);
            }
            if done(self.published.load(Ordering::Acquire)) {
                return Ok(());
            }
            progress.await;
        }
    }
}

/// All databases of a node.
pub struct Registry {
    vfs: Arc<Vfs>,
    databases: Mutex<HashMap<Bytes, Entry>>,
    /// What sessions need to know about the node.
    pub status: Arc<Status>,
    /// Of long statements.
    pub turns: Turns,
}

struct Entry {
    database: Arc<Database>,
    /// Sessions that have it open.
    sessions: usize,
}

impl Registry {
    /// No databases: those that a failed start left in the VFS are dropped.
    pub fn new(vfs: Arc<Vfs>, status: Arc<Status>) -> Registry {
        for left in vfs.databases() {
            vfs.remove_database(left.name());
        }
        Registry { vfs, databases: Mutex::default(), status, turns: Turns::default() }
    }

    /// The VFS that all of them live in.
    pub fn vfs(&self) -> &Vfs {
        &self.vfs
    }

    /// A database that exists.
    pub fn get(&self, name: &[u8]) -> Option<Arc<Database>> {
        self.databases.lock().get(name).map(|e| e.database.clone())
    }

    /// For a session: the database is created if needed and cannot disappear before [`Registry::close`].
    pub fn open(&self, name: &Bytes) -> Result<Arc<Database>, vfs::Error> {
        let mut databases = self.databases.lock();
        let entry = Registry::entry(&self.vfs, &mut databases, name)?;
        entry.sessions += 1;
        Ok(entry.database.clone())
    }

    /// A session is done with a database. The last one out removes it if `PRAGMA delete_database` emptied it.
    pub fn close(&self, database: &Database) {
        let mut databases = self.databases.lock();
        let Some(entry) = databases.get_mut(&database.name) else { return };
        entry.sessions -= 1;
        if entry.sessions == 0 && database.vfs.is_deleted() && database.vfs.pipeline().count == 0 {
            self.vfs.remove_database(&database.name);
            databases.remove(&database.name);
        }
    }

    /// For the Raft thread: runs `apply` on the database, created if needed, which cannot disappear
    /// meanwhile.
    pub fn with_database<T>(
        &self,
        name: &Bytes,
        apply: impl FnOnce(&Database) -> T,
    ) -> Result<T, vfs::Error> {
        let mut databases = self.databases.lock();
        Registry::entry(&self.vfs, &mut databases, name).map(|entry| apply(&entry.database))
    }

    /// Makes these the only databases, in one step: all of them or, on failure, none; the error names the
    /// database in the way. Sessions keep what they have open. A database without an image is removed, or,
    /// while a session has it open, deleted for the last session to remove: a session must never work on a
    /// database that has another one of its name beside it.
    pub fn restore(&self, images: &[(Bytes, vfs::Image)]) -> Result<(), (Bytes, vfs::Error)> {
        let mut databases = self.databases.lock();
        let mut created = Vec::new();
        let restored = self.restore_locked(&mut databases, images, &mut created);
        if restored.is_err() {
            // An empty database would be in the next snapshot.
            for name in &created {
                self.vfs.remove_database(name);
                databases.remove(name);
            }
        }
        restored
    }

    fn restore_locked(
        &self,
        databases: &mut HashMap<Bytes, Entry>,
        images: &[(Bytes, vfs::Image)],
        created: &mut Vec<Bytes>,
    ) -> Result<(), (Bytes, vfs::Error)> {
        for (name, _) in images.iter().filter(|(name, _)| !databases.contains_key(name)).collect::<Vec<_>>() {
            Registry::entry(&self.vfs, databases, name).map_err(|error| (name.clone(), error))?;
            created.push(name.clone());
        }
        let images: HashMap<_, _> = images.iter().map(|(name, image)| (name, image)).collect();
        let replacement = |name| match images.get(name) {
            Some(image) => Replacement::Image((*image).clone()),
            None => Replacement::Deleted,
        };
        let all: Vec<Arc<Database>> = databases.values().map(|entry| entry.database.clone()).collect();
        let changes: Vec<_> = all.iter().map(|d| (&*d.vfs, replacement(&d.name))).collect();
        vfs::replace_all(&changes).map_err(|(position, error)| (all[position].name.clone(), error))?;
        for database in all {
            database.note_replaced();
            let is_used = databases.get(&database.name).is_some_and(|entry| entry.sessions > 0);
            if !is_used && !images.contains_key(&database.name) {
                self.vfs.remove_database(&database.name);
                databases.remove(&database.name);
            }
        }
        Ok(())
    }

    /// All databases in order of creation.
    pub fn all(&self) -> Vec<Arc<Database>> {
        let databases = self.databases.lock();
        let in_order = self.vfs.databases().into_iter();
        in_order.filter_map(|d| databases.get(d.name()).map(|e| e.database.clone())).collect()
    }

    fn entry<'a>(
        vfs: &Vfs,
        databases: &'a mut HashMap<Bytes, Entry>,
        name: &Bytes,
    ) -> Result<&'a mut Entry, vfs::Error> {
        if !databases.contains_key(name) {
            // Of its own: it came as a part of a request, of an entry of the log, or of a whole snapshot.
            let name = Bytes::copy_from_slice(name);
            let database = Arc::new(Database::new(name.clone(), vfs.create_database(&name)?));
            databases.insert(name, Entry { database, sessions: 0 });
        }
        Ok(databases.get_mut(name).expect("it was inserted above if it was absent"))
    }
}
