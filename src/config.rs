//! Every limit and default of the library, in one place. A number that bounds a queue, a buffer, a loop or a
//! retry lives here, with the reason for its value.

/// The C release whose API and behaviour we reproduce: 1.18.6.
pub const COMPATIBLE_VERSION: &str = "1.18.6";
/// [`COMPATIBLE_VERSION`] as `dqlite_version_number` reports it.
pub const COMPATIBLE_VERSION_NUMBER: i32 = 11806;

/// Page size of every database, in bytes. The command format could carry others; nothing public sets one.
pub const PAGE_SIZE: usize = 4096;

/// Committed WAL frames after which a database is checkpointed.
pub const CHECKPOINT_THRESHOLD_FRAMES: usize = 1000;

/// Longest database name in bytes, without its NUL: SQLite's path limit in the C library is 512 with it.
pub const DATABASE_NAME_MAX: usize = 511;

/// Speculative transactions of one database that may wait for their commit, by count and by bytes.
pub const PIPELINE_TRANSACTIONS_MAX: usize = 4096;
/// See [`PIPELINE_TRANSACTIONS_MAX`].
pub const PIPELINE_BYTES_MAX: usize = 64 << 20;

/// Largest client request body in bytes; a larger one closes the connection before it is read.
pub const REQUEST_SIZE_MAX: u64 = 512 << 20;
/// A ROWS frame is closed by the row that reaches this size, header included. Clients compare bytes: fixed.
pub const ROWS_FRAME_SIZE: usize = 4096;
/// Heartbeat timeout announced in WELCOME, in milliseconds. Nothing enforces it, as in C.
pub const CLIENT_HEARTBEAT_TIMEOUT_MS: u64 = 15_000;
/// Bytes a client may send ahead while its current request still runs.
pub const READ_AHEAD_MAX: usize = 64 << 10;

/// Default worker threads of the client runtime.
pub const CLIENT_THREADS_DEFAULT: u32 = 4;
/// Threads that may run statements which outgrew their budget, at the same time.
pub const LONG_STATEMENTS_MAX: usize = 1024;
/// Virtual-machine instructions between two calls of the progress handler.
pub const PROGRESS_OPCODES: i32 = 4000;
/// Time a statement may run on a client worker before the worker's other sessions are moved elsewhere.
pub const STATEMENT_BUDGET_US: u64 = 1000;

/// Election timeout and heartbeat interval when no network latency was set, in milliseconds.
pub const ELECTION_TIMEOUT_MS: u64 = 3000;
/// See [`ELECTION_TIMEOUT_MS`].
pub const HEARTBEAT_TIMEOUT_MS: u64 = 500;
/// Largest network latency the API accepts, in milliseconds: one hour.
pub const NETWORK_LATENCY_MAX_MS: u64 = 3_600_000;

/// Longest lease of a leader, in milliseconds; never more than a quarter of the election timeout either. Long
/// enough that one round of heartbeats serves many reads, short enough that failover need not wait for it.
pub const LEASE_MS_MAX: u64 = 150;
/// Short campaigns in a row after the leader's connection ended; then the usual timeouts apply again.
pub const HASTY_CAMPAIGNS_MAX: u8 = 4;
/// Entries in one AppendEntries message. C receivers since 1.18.6 close at a header of 4 MiB, 262 141
/// entries.
pub const APPEND_ENTRIES_MAX: usize = 4096;
/// Payload bytes in one AppendEntries message, unless its first entry alone is larger.
pub const APPEND_BYTES_MAX: usize = 1 << 20;
/// Bytes sent to one follower and not acknowledged, beyond which nothing new is sent to it.
pub const INFLIGHT_BYTES_MAX: usize = 8 << 20;
/// Messages sent to one follower and not acknowledged, beyond which nothing new is sent to it.
pub const INFLIGHT_MESSAGES_MAX: usize = 4096;
/// Time after which a snapshot that a follower has not confirmed is sent again, in milliseconds.
pub const INSTALL_SNAPSHOT_TIMEOUT_MS: u64 = 30_000;
/// Rounds in which a server may catch up before its promotion is given up.
pub const CATCH_UP_ROUNDS_MAX: u32 = 100;
/// Longest such round, in milliseconds.
pub const CATCH_UP_ROUND_MS_MAX: u64 = 50_000;

/// Entries after which a snapshot is taken.
pub const SNAPSHOT_THRESHOLD: u64 = 1024;
/// Entries kept in the log behind a snapshot.
pub const SNAPSHOT_TRAILING: u64 = 8192;

/// Size of an open segment in bytes, before rounding down to whole blocks.
pub const SEGMENT_SIZE: usize = 8 << 20;
/// Block size of segments when none was set.
pub const BLOCK_SIZE_DEFAULT: usize = 4096;
/// Most entries of one batch that a reader believes.
pub const BATCH_ENTRIES_MAX: u64 = 262_144;
/// Largest encoded configuration in a snapshot's metadata file.
pub const CONFIGURATION_SIZE_MAX: u64 = 1 << 20;
/// Bytes waiting for the disk before new proposals have to wait.
pub const DISK_QUEUE_BYTES_MAX: usize = 64 << 20;
/// Longest data directory path in bytes, as in C.
pub const DATA_DIR_PATH_MAX: usize = 894;

/// Node ids that bootstrap a new cluster of one: 1, and the id derived from the text "1" at time 0.
pub const BOOTSTRAP_IDS: [u64; 2] = [1, 0x2dc1_7185_8c31_55be];
