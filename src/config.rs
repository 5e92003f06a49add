//! Every limit and default of the library, in one place. A number that bounds a queue, a buffer, a loop or a
//! retry lives here, with the reason for its value.

/// The C release whose API and behaviour we reproduce: 1.18.6.
pub const COMPATIBLE_VERSION: &str = "1.18.6";
/// [`COMPATIBLE_VERSION`] as `dqlite_version_number` reports it.
pub const COMPATIBLE_VERSION_NUMBER: i32 = 11806;

/// Page size of every database, in bytes. The command format could carry others; nothing public sets one.
pub const PAGE_SIZE: usize = 4096;

/// Committed WAL frames after which a database is checkpointed.
pub const CHECKPOINT_THRESHOLD_FRAMES: u32 = 1000;

/// Multiple of the threshold at which new readers are held back so that a checkpoint can happen: readers that
/// overlap without a gap would otherwise let the WAL grow forever.
pub const CHECKPOINT_OVERDUE_FACTOR: u32 = 4;
/// Longest time new readers are held back; older ones that are not done by then are long, and it was in vain.
pub const CHECKPOINT_GATE_MS: u64 = 5;
/// Time from the start of one attempt to the next.
pub const CHECKPOINT_GATE_PERIOD_MS: u64 = 100;

/// Longest database name in bytes, without its NUL: SQLite's path limit in the C library is 512 with it.
pub const DATABASE_NAME_MAX: usize = 511;

/// Speculative transactions of one database that may wait for their commit, by count and by bytes.
pub const PIPELINE_TRANSACTIONS_MAX: usize = 4096;
/// See [`PIPELINE_TRANSACTIONS_MAX`].
pub const PIPELINE_BYTES_MAX: usize = 64 << 20;

/// Time after which a client that has sent nothing in its open transaction counts as pausing, in
/// milliseconds: longer than a client needs for its next request, on another host and on a busy processor.
pub const TRANSACTION_PAUSE_MS: u64 = 5;
/// Time for which a writer without a busy timeout waits for transactions of others that do not pause, in
/// milliseconds. Enough for fifty to a hundred of them, and too short for anybody to take it for a hang.
pub const LANE_PATIENCE_MS: u64 = 100;

/// Largest client request body in bytes; a larger one closes the connection before it is read.
pub const REQUEST_SIZE_MAX: u64 = 512 << 20;
/// A ROWS frame is closed by the row that reaches this size, header included. Clients compare bytes: fixed.
pub const ROWS_FRAME_SIZE: usize = 4096;
/// Heartbeat timeout announced in WELCOME, in milliseconds. Nothing enforces it, as in C.
pub const CLIENT_HEARTBEAT_TIMEOUT_MS: u64 = 15_000;
/// Bytes a client may send ahead while its current request still runs.
pub const READ_AHEAD_MAX: usize = 64 << 10;
/// Bytes that a connection reads at least at once, and the memory that an idle one keeps.
pub const READ_SIZE: usize = 4096;
/// Connections that the kernel keeps for us until we accept them.
pub const LISTEN_BACKLOG: i32 = 128;
/// First and longest delay before accepting again after a shortage of descriptors or memory, in milliseconds.
pub const ACCEPT_RETRY_MIN_MS: u64 = 10;
/// See [`ACCEPT_RETRY_MIN_MS`].
pub const ACCEPT_RETRY_MAX_MS: u64 = 1000;

/// Default worker threads of the client runtime, on machines with so many processors; with fewer, as many as
/// there are: a thread that waits for another one's processor holds up all sessions that are its turn.
pub const CLIENT_THREADS_DEFAULT: u32 = 4;
/// Requests that a session serves before others that have one have their turn. A client that asks at once
/// again finds session and processor warm: with one request for each turn, readers get 10 to 20 % less done.
pub const REQUESTS_IN_A_ROW_MAX: u32 = 6;
/// Time for which a session waits awake for a request, in microseconds: a client that is awake itself has
/// asked again by then, also on a slow machine.
pub const AWAKE_US: u64 = 100;
/// Longest median time from one request to the next for which that is tried, in microseconds: beyond it there
/// is not enough to gain.
pub const QUICK_REQUESTS_US: u64 = 400;
/// Windows of requests after which waiting awake is compared with sleeping again.
pub const AWAKE_WINDOWS: u32 = 64;
/// Windows asleep before it is tried, and the most after trials that failed.
pub const AWAKE_TRIAL_WINDOWS_MIN: u32 = 4;
/// See [`AWAKE_TRIAL_WINDOWS_MIN`].
pub const AWAKE_TRIAL_WINDOWS_MAX: u32 = 1024;
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
/// Memory for entries of the log that are applied and on disk. Twice the above, so that a follower whose
/// window is full, or that has to be sent its window again, still gets everything from memory.
pub const LOG_MEMORY_BYTES: usize = 16 << 20;
/// Attempts in a row to read entries back from the disk after which a follower gets the snapshot instead, if
/// that contains them. Every attempt waits twice as long as the one before, at most 16 heartbeats.
pub const READ_BACK_ATTEMPTS_MAX: u32 = 4;
/// Time for which a segment that was read for a follower stays in memory for its next message, in
/// milliseconds.
pub const READ_BACK_KEEP_MS: u64 = 1000;
/// Messages sent to one follower and not acknowledged, beyond which nothing new is sent to it.
pub const INFLIGHT_MESSAGES_MAX: usize = 4096;
/// Time after which a snapshot that a follower has not confirmed is sent again, in milliseconds.
pub const INSTALL_SNAPSHOT_TIMEOUT_MS: u64 = 30_000;
/// Rounds in which a server may catch up before its promotion is given up.
pub const CATCH_UP_ROUNDS_MAX: u32 = 100;
/// Longest such round, in milliseconds.
pub const CATCH_UP_ROUND_MS_MAX: u64 = 50_000;

/// Largest header of a message between servers, as in C.
pub const RAFT_HEADER_SIZE_MAX: usize = 4 << 20;
/// Largest payload of AppendEntries accepted from another server, as in C.
pub const APPEND_PAYLOAD_SIZE_MAX: u64 = 500 << 20;
/// Largest snapshot accepted from another server. C refuses those above 500 MiB, and then cannot catch up.
pub const SNAPSHOT_PAYLOAD_SIZE_MAX: u64 = 64 << 30;
/// Bytes of a snapshot that are read from the disk or the socket before they go on to the other.
pub const SNAPSHOT_PIECE_SIZE: usize = 256 << 10;
/// Time for which a snapshot may wait for the one that is being received or installed, in milliseconds. Then
/// its connection is closed, and its server sends it again. Longer than [`SNAPSHOT_SILENCE_MS`], so that a
/// server which stopped in the middle is in nobody's way.
pub const SNAPSHOT_WAIT_MS: u64 = 15_000;
/// Time between two looks whether it may begin, in milliseconds.
pub const SNAPSHOT_WAIT_STEP_MS: u64 = 50;
/// Time for which nothing may arrive in the middle of a snapshot, in milliseconds: it holds up all others.
pub const SNAPSHOT_SILENCE_MS: u64 = 10_000;
/// Space that snapshots leave free, in bytes: the log needs it more than they do.
pub const SNAPSHOT_SPACE_LEFT: u64 = 2 * SEGMENT_SIZE as u64;
/// Time between two looks whether there is space for a snapshot that found none, in milliseconds.
pub const SNAPSHOT_SPACE_CHECK_MS: u64 = 1000;
/// Bytes read at once from another server, and the memory that an idle connection from one keeps.
pub const PEER_READ_SIZE: usize = 16 << 10;
/// Bytes of messages that may wait for one peer; another one is dropped, since Raft sends it again.
pub const PEER_QUEUE_BYTES_MAX: usize = 16 << 20;
/// Messages that may wait for one peer.
pub const PEER_QUEUE_MESSAGES_MAX: usize = 8192;
/// Peers with a queue. The one that was longest not sent to makes room: addresses of strangers are not
/// proven.
pub const PEERS_MAX: usize = 256;
/// Pieces of messages given to the kernel at once; it takes at most 1024.
pub const PEER_WRITE_PIECES: usize = 256;
/// Longest time to connect to a peer, in milliseconds. C waits for the kernel, some two minutes.
pub const PEER_CONNECT_TIMEOUT_MS: u64 = 2000;
/// First and longest time between two attempts to connect to a peer, in milliseconds. C always waits 1000.
pub const PEER_RECONNECT_MIN_MS: u64 = 20;
/// See [`PEER_RECONNECT_MIN_MS`].
pub const PEER_RECONNECT_MAX_MS: u64 = 1000;
/// Time since the last message to a peer for which a broken connection is made again unasked, in
/// milliseconds.
pub const PEER_RECENT_MS: u64 = 5000;
/// Silence after which the kernel asks whether the host of a peer is still there, in milliseconds.
pub const PEER_KEEPALIVE_IDLE_MS: u64 = 5000;
/// Time between such questions, in milliseconds.
pub const PEER_KEEPALIVE_INTERVAL_MS: u64 = 1000;
/// Time for which a peer may acknowledge nothing, neither data nor such a question, in milliseconds.
pub const PEER_DEAD_AFTER_MS: u64 = 10_000;

/// Longest time that another server has for connection and answer when it is asked something as by a client,
/// in milliseconds. As in C; there connecting comes on top.
pub const SERVER_ANSWER_TIMEOUT_MS: u64 = 5000;
/// Largest answer expected then: [`CONFIGURATION_SIZE_MAX`] with the longer entries of the client protocol.
pub const ANSWER_SIZE_MAX: u64 = 4 << 20;
/// Servers that are asked at the same time whether they are there.
pub const POLLED_SERVERS_MAX: usize = 16;
/// Time between two rounds of role management, in milliseconds, as in C.
pub const ROLE_MANAGEMENT_PERIOD_MS: u64 = 1000;
/// Longest time for a handover, in milliseconds: an election timeout for leadership, an answer of everybody,
/// and some time for the successor to catch up. Hosts hand over while they are being shut down, and are
/// killed if that takes long.
pub const HANDOVER_TIMEOUT_MS: u64 = 15_000;
/// Longest time that a caller waits for a handover, in milliseconds: more than it may take, for the case that
/// no thread is free to run it.
pub const HANDOVER_WAIT_MS: u64 = 16_000;
/// Time between two attempts to have the leader change a role at a handover, in milliseconds.
pub const HANDOVER_RETRY_MS: u64 = 50;

/// Longest time for a `dqlite_server` to reach the leader of its cluster, to be added to it and to learn who
/// is in it, in milliseconds. C has 5 seconds, but gives up when it meets no leader, so that servers which
/// start together all fail: an election takes up to twice [`ELECTION_TIMEOUT_MS`].
pub const SERVER_JOIN_TIMEOUT_MS: u64 = 10_000;
/// Longest time of that for one server to say who leads, in milliseconds: one that is switched off must not
/// use up what the next ones need.
pub const LEADER_ANSWER_TIMEOUT_MS: u64 = 1500;
/// Time between two attempts to join, in milliseconds: the cluster may be about to elect its leader.
pub const SERVER_JOIN_RETRY_MS: u64 = 50;
/// Time between two looks of a `dqlite_server` at who is in its cluster, in milliseconds, as in C.
pub const SERVER_REFRESH_PERIOD_MS: u64 = 30_000;
/// Largest file of a `dqlite_server`: as many servers as an answer of [`ANSWER_SIZE_MAX`] can list.
pub const SERVER_FILE_SIZE_MAX: u64 = 4 << 20;

/// Entries after which a snapshot is taken.
pub const SNAPSHOT_THRESHOLD: u64 = 1024;
/// Entries kept in the log behind a snapshot.
pub const SNAPSHOT_TRAILING: u64 = 8192;

/// Size of an open segment in bytes.
pub const SEGMENT_SIZE: usize = 8 << 20;
/// Smallest size that can be set: a page with its frame does not fit in less.
pub const SEGMENT_SIZE_MIN: usize = 8 << 10;
/// Most entries of one batch that a reader believes.
pub const BATCH_ENTRIES_MAX: u64 = 262_144;
/// Largest encoded configuration in a snapshot's metadata file.
pub const CONFIGURATION_SIZE_MAX: u64 = 1 << 20;
/// Zero-filled open segments kept ready behind the one in use, as in C.
pub const SPARE_SEGMENTS: usize = 2;
/// Bytes of a spare segment that are filled before it looks again whether somebody waits for it.
pub const SPARE_FILL_BYTES: usize = 1 << 20;
/// The same while one client at a time appends. One in a hundred of its writes waits for such a piece.
pub const SPARE_FILL_ALONE_BYTES: usize = 128 << 10;
/// Bytes of zeros that are made durable ahead of an append into a spare that was handed out unfilled.
pub const FILL_AHEAD_BYTES: usize = 128 << 10;
/// Bytes of a snapshot that may wait for the disk at a time, so that its final sync does not hold up the
/// log's. Measured beside 500 MB on a fast disk, the worst sync of the log takes 270 ms without this and 30
/// to 60 ms with it; one in a hundred takes 20 to 40 ms with 8 MiB, 12 to 20 ms with 4 MiB, no less with 1.
pub const SNAPSHOT_SYNC_BYTES: usize = 4 << 20;
/// Snapshots kept, as in C: the newest, and the one before in case the newest turns out to be unreadable.
pub const SNAPSHOTS_KEPT: usize = 2;
/// By how much forcing a configuration upon a log, or giving lost metadata a new term, raises the term. Far
/// more than elections do: no server can have written or voted in the new term. It shows in decimal, too.
pub const FORCED_TERM_STEP: u64 = 1_000_000;
/// Bytes waiting for the disk before new proposals have to wait.
pub const DISK_QUEUE_BYTES_MAX: usize = 64 << 20;
/// Time between two attempts to do what a full disk refused, in milliseconds. Writes resume within two
/// seconds of the space being back: two spare segments, then the refusal ends.
pub const DISK_FULL_RETRY_MS: u64 = 250;
/// Longest data directory path in bytes, as in C.
pub const DATA_DIR_PATH_MAX: usize = 894;

/// Node ids that bootstrap a new cluster of one: 1, and the id derived from the text "1" at time 0.
pub const BOOTSTRAP_IDS: [u64; 2] = [1, 0x2dc1_7185_8c31_55be];

/// Time between two looks at the client's socket while its statement runs beyond its budget.
pub const CLIENT_CHECK_INTERVAL_MS: u64 = 50;
/// ROWS frames are collected up to this size before they are written to the socket.
pub const ROWS_CHUNK_SIZE: usize = 64 << 10;
/// Rows of a statement that writes are held back until its commit, up to this size; then they are sent
/// before.
pub const HELD_ROWS_SIZE_MAX: usize = 16 << 20;
/// Pages of a DUMP written to the socket at once.
pub const DUMP_CHUNK_PAGES: usize = 64;
/// Reads on their way to the Raft thread, those of sessions that have gone away included; others wait.
pub const READS_WAITING_MAX: usize = 1024;
/// Time between two checks that other sessions are run by somebody while a long statement occupies a worker.
pub const HAND_OVER_INTERVAL_MS: u64 = 5;
/// Time a long statement computes before threads that wait for its processor may go first, in microseconds.
pub const LONG_YIELD_US: u64 = 200;
/// Time a long statement computes before the next one that waits does.
pub const LONG_TURN_MS: u64 = 20;

/// Time between two attempts to change a database whose write lock a session has not given back yet.
pub const APPLY_RETRY_MS: u64 = 2;
/// Messages of other servers that wait for the Raft thread; then their connections wait.
pub const INBOUND_MESSAGES_MAX: usize = 64;
/// Changes of the cluster that wait for the Raft thread.
pub const ORDERS_MAX: usize = 16;

/// Pages that one transaction may write: its entry has to fit in one message to a C server, which takes 500
/// MiB.
pub const TRANSACTION_PAGES_MAX: u32 = 127_000;
