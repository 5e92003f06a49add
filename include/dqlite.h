/*
 * dqlite: SQLite, replicated by Raft, as a library inside your program.
 *
 * A program creates a node, tells it where to listen, and starts it:
 *
 *     dqlite_node *node;
 *     int rc = dqlite_node_create(1, "127.0.0.1:9001", "/var/lib/myapp", &node);
 *     if (rc == DQLITE_OK)
 *         rc = dqlite_node_set_bind_address(node, "127.0.0.1:9001");
 *     if (rc == DQLITE_OK)
 *         rc = dqlite_node_start(node);
 *     if (rc != DQLITE_OK)
 *         fprintf(stderr, "dqlite: %s\n", dqlite_node_errmsg(node));
 *     ...
 *     dqlite_node_stop(node);
 *     dqlite_node_destroy(node);
 *
 * SQL reaches the node through a client that speaks dqlite's protocol on that address, for instance go-dqlite.
 *
 * Rules for all functions:
 * - They return DQLITE_OK or one of the codes below; dqlite_node_errmsg has the reason.
 * - NULL for a handle or for a required argument is DQLITE_MISUSE. Only destroy accepts NULL.
 * - Texts are UTF-8, end with a NUL and are copied during the call.
 * - A setting made while the node runs is DQLITE_MISUSE, unless its comment allows it at any time.
 * - Setters are called from one thread at a time; stop and handover from any thread.
 *
 * The library uses the SQLite of the process and switches SQLite to its serialized threading mode when the first node
 * is created, unless the program has initialised SQLite before.
 *
 * This file is generated from src/ffi. To change it: make fix.
 */
#ifndef DQLITE_H
#define DQLITE_H

#include <sqlite3.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/* The version of the C API in this file. dqlite_version_number() has the same form. */
#define DQLITE_VERSION_MAJOR 1
#define DQLITE_VERSION_MINOR 18
#define DQLITE_VERSION_RELEASE 6
#define DQLITE_VERSION_NUMBER \
    (DQLITE_VERSION_MAJOR * 10000 + DQLITE_VERSION_MINOR * 100 + DQLITE_VERSION_RELEASE)

/* Exported from the library. Define it before the inclusion to override. */
#ifndef DQLITE_API
#define DQLITE_API __attribute__((visibility("default")))
#endif

/* Marks functions whose form may still change. */
#ifndef DQLITE_EXPERIMENTAL
#define DQLITE_EXPERIMENTAL
#endif

#ifndef DQLITE_VISIBLE_TO_TESTS
#define DQLITE_VISIBLE_TO_TESTS DQLITE_API
#endif

/* Codes that functions return. */
enum {
    DQLITE_OK = 0,     /* success */
    DQLITE_ERROR = 1,  /* it failed; dqlite_node_errmsg says why */
    DQLITE_MISUSE = 2, /* a wrong argument, or not in this state */
    DQLITE_NOMEM = 3   /* out of memory */
};

/* For dqlite_node_set_snapshot_params_v2. */
enum {
    /* Always keep snapshot_trailing entries. */
    DQLITE_SNAPSHOT_TRAILING_STATIC = 0,
    /* Keep entries up to the size of the snapshot, between snapshot_threshold and snapshot_trailing. */
    DQLITE_SNAPSHOT_TRAILING_DYNAMIC = 1
};

/* Extended SQLite result codes that clients of a node may see. */
#ifndef SQLITE_IOERR_NOT_LEADER
#define SQLITE_IOERR_NOT_LEADER (SQLITE_IOERR | (40 << 8))
#endif
#ifndef SQLITE_IOERR_LEADERSHIP_LOST
#define SQLITE_IOERR_LEADERSHIP_LOST (SQLITE_IOERR | (41 << 8))
#endif

/* Size of the first published form of dqlite_node_info_ext. */
#define DQLITE_NODE_INFO_EXT_SZ_ORIG 32U

/**
 * A node: one server of a dqlite cluster, running inside this process.
 */
typedef struct dqlite_node dqlite_node;

/**
 * A server: a node that starts or joins its cluster by itself and remembers the others in files of its own.
 */
typedef struct dqlite_server dqlite_server;

/**
 * Identifies a server in its cluster; never 0.
 */
typedef unsigned long long dqlite_node_id;

/**
 * A function of the host program that connects to another server.
 *
 * It gets the `arg` given when it was set and the server's address, valid during the call. It stores a
 * connected stream socket in `*fd`, which from then on belongs to the library, and returns 0; or it returns
 * another value. It runs on threads of the library, where it may block, perhaps on several at once.
 */
typedef int (*dqlite_connect_func)(void *arg, const char *address, int *fd);

/**
 * A server of a cluster, as dqlite_node_recover takes it.
 */
typedef struct dqlite_node_info {
    /**
     * Identity of the server.
     */
    dqlite_node_id id;
    /**
     * Where other servers reach it, such as "10.0.0.1:9001".
     */
    const char *address;
} dqlite_node_info;

/**
 * A server of a cluster with its role, as dqlite_node_recover_ext takes it.
 */
typedef struct dqlite_node_info_ext {
    /**
     * Size of this structure in bytes: sizeof(dqlite_node_info_ext).
     */
    uint64_t size;
    /**
     * Identity of the server.
     */
    uint64_t id;
    /**
     * The address, a const char pointer converted to an integer.
     */
    uint64_t address;
    /**
     * 0 voter, 1 stand-by, 2 spare.
     */
    uint64_t dqlite_role;
} dqlite_node_info_ext;

/**
 * A page of a transaction. Belongs to functions that were withdrawn in 1.18.2.
 */
typedef struct dqlite_vfs_frame {
    /**
     * Number of the page in the database, from 1.
     */
    unsigned long page_number;
    /**
     * Content of the page.
     */
    void *data;
} dqlite_vfs_frame;

/**
 * A piece of memory. Belongs to functions that were withdrawn in 1.18.2.
 */
typedef struct dqlite_buffer {
    /**
     * First byte.
     */
    void *base;
    /**
     * Number of bytes.
     */
    size_t len;
} dqlite_buffer;

#ifdef __cplusplus
extern "C" {
#endif // __cplusplus

/**
 * Makes an id for a new server from its address and the current time.
 *
 * Two calls give two different ids, save for a chance of one in 2^64. Returns 0 if `address` is NULL.
 */
DQLITE_API
dqlite_node_id dqlite_generate_node_id(const char *address);

/**
 * The version of the C library whose API this library implements, as DQLITE_VERSION_NUMBER: 1.18.6 is 11806.
 */
DQLITE_API
int dqlite_version_number(void);

/**
 * Creates a node. The node does nothing until dqlite_node_start.
 *
 * `id` identifies the server in its cluster; with id 1 and an empty directory the node starts a new cluster
 * of its own. `address` is where the other servers and the clients reach it. `data_dir` is an existing
 * directory that belongs to this node alone.
 *
 * On failure a handle is stored in `*n` all the same: dqlite_node_errmsg has the reason, and it must be
 * destroyed.
 */
DQLITE_API
int dqlite_node_create(dqlite_node_id id,
                       const char *address,
                       const char *data_dir,
                       struct dqlite_node **n);

/**
 * Destroys a node and everything that it holds. A running node is stopped first. NULL is allowed.
 *
 * Must be called also when dqlite_node_create failed.
 */
DQLITE_API void dqlite_node_destroy(struct dqlite_node *n);

/**
 * The reason of the last failed call on this node; "" if none failed, "node is NULL" if `n` is NULL.
 *
 * The text is never cleared by a call that succeeds, so ask only after a failure. The pointer is valid until
 * the next call of this function, or until the node is destroyed.
 */
DQLITE_API
const char *dqlite_node_errmsg(struct dqlite_node *n);

/**
 * Binds the node to the address on which it will listen. Required before dqlite_node_start.
 *
 * "10.0.0.1:9001" or "[2001:db8::1]:9001" (numbers, no names), or "@name" for an abstract Unix socket that
 * only this process can reach; "@" lets the kernel choose the name.
 */
DQLITE_API
int dqlite_node_set_bind_address(struct dqlite_node *n,
                                 const char *address);

/**
 * The address given to dqlite_node_set_bind_address, with the chosen name for "@"; NULL if none was given.
 *
 * The pointer is valid until the next call of this function, or until the node is destroyed.
 */
DQLITE_API
const char *dqlite_node_get_bind_address(struct dqlite_node *n);

/**
 * Uses `f` to connect to other servers, for instance through TLS; NULL restores plain TCP.
 */
DQLITE_API
int dqlite_node_set_connect_func(struct dqlite_node *n,
                                 dqlite_connect_func f,
                                 void *arg);

/**
 * As dqlite_node_set_network_latency_ms, in nanoseconds (1 000 000 to 3 600 000 000 000). Deprecated.
 */
DQLITE_API
int dqlite_node_set_network_latency(struct dqlite_node *n,
                                    unsigned long long nanoseconds);

/**
 * Tells how long a message takes to another server, 1 to 3 600 000 milliseconds.
 *
 * Elections start after 15 times this value without a leader, heartbeats are sent every 1.5 times. Without
 * this call: 3000 ms and 500 ms. All servers of a cluster should have the same value.
 */
DQLITE_API
int dqlite_node_set_network_latency_ms(struct dqlite_node *n,
                                       unsigned int milliseconds);

/**
 * Tells in which failure domain (rack, availability zone) the server is. Role management and clients that
 * assign roles use it to spread the voters. Allowed at any time.
 */
DQLITE_API
int dqlite_node_set_failure_domain(struct dqlite_node *n,
                                   unsigned long long code);

/**
 * As dqlite_node_set_snapshot_params_v2 with DQLITE_SNAPSHOT_TRAILING_STATIC. Deprecated.
 */
DQLITE_API
int dqlite_node_set_snapshot_params(struct dqlite_node *n,
                                    unsigned int snapshot_threshold,
                                    unsigned int snapshot_trailing);

/**
 * Sets after how many log entries a snapshot is taken (`snapshot_threshold`, default 1024) and how many
 * entries are kept in the log behind it for servers that lag (`snapshot_trailing`, default 8192).
 *
 * `snapshot_trailing` must be at least 4 and at least `snapshot_threshold`. `trailing_strategy` is
 * DQLITE_SNAPSHOT_TRAILING_STATIC or DQLITE_SNAPSHOT_TRAILING_DYNAMIC.
 */
DQLITE_API
int dqlite_node_set_snapshot_params_v2(struct dqlite_node *n,
                                       unsigned int snapshot_threshold,
                                       unsigned int snapshot_trailing,
                                       int trailing_strategy);

/**
 * Sets the unit of writes to the log: a power of two from 512 to 262144 bytes. Any other value is
 * DQLITE_ERROR.
 */
DQLITE_API int dqlite_node_set_block_size(struct dqlite_node *n, size_t size);

/**
 * Sets how many voters role management aims at (default 3; the leader remains one in any case). Allowed at
 * any time.
 */
DQLITE_API
int dqlite_node_set_target_voters(struct dqlite_node *n,
                                  int voters);

/**
 * Sets how many stand-bys role management aims at (default 0). Allowed at any time.
 */
DQLITE_API int dqlite_node_set_target_standbys(struct dqlite_node *n, int standbys);

/**
 * Lets the node, while it leads, give the servers of the cluster their roles. Allowed at any time; ends with
 * dqlite_node_handover. Off by default.
 *
 * Every second it asks all servers whether they are there. One that does not answer becomes a spare. Then
 * it promotes and demotes servers, one after the other, until the targets are met: first those of other
 * failure domains, then those of less weight (see dqlite_node_set_failure_domain; clients set weights), then
 * stand-bys before spares. Nothing is changed while less than a majority of the voters answers.
 *
 * All nodes of a cluster should have the same targets, and no client, such as go-dqlite's app package,
 * should aim at others.
 */
DQLITE_API
int dqlite_node_enable_role_management(struct dqlite_node *n);

/**
 * Sets how many threads serve clients (default 4). Effective at start.
 */
DQLITE_API int dqlite_node_set_pool_thread_count(struct dqlite_node *n, unsigned int thread_count);

/**
 * Lets start repair a damaged end of the log by cutting it off (default true). Effective at start.
 */
DQLITE_API int dqlite_node_set_auto_recovery(struct dqlite_node *n, bool enabled);

/**
 * Compresses snapshots on disk (default true). Effective at the next snapshot.
 */
DQLITE_API int dqlite_node_set_snapshot_compression(struct dqlite_node *n, bool enabled);

/**
 * Sets how long a write waits for another connection's transaction before it fails with SQLITE_BUSY (default
 * 0). Allowed at any time.
 */
DQLITE_API
int dqlite_node_set_busy_timeout(struct dqlite_node *n,
                                 unsigned int msecs);

/**
 * Accepted and without effect: databases are always in memory, and durable through the log.
 */
DQLITE_API int dqlite_node_enable_disk_mode(struct dqlite_node *n);

/**
 * Starts the node: locks and loads the data directory, starts its threads, listens.
 *
 * Returns when clients can connect. A node can be started once; create another one to start again.
 */
DQLITE_API int dqlite_node_start(struct dqlite_node *n);

/**
 * Stops the node: closes its connections, completes its files, ends its threads.
 *
 * Any thread may call it. Call dqlite_node_handover first to hand leadership to another server.
 */
DQLITE_API int dqlite_node_stop(struct dqlite_node *n);

/**
 * Gives up what the node does for its cluster, before dqlite_node_stop: leadership goes to another voter,
 * and its own role to a server that has less, whereupon it is a spare.
 *
 * Blocks for at most 16 seconds. DQLITE_OK means that everything was given up, or that there was nothing.
 * DQLITE_ERROR means that something was not, and dqlite_node_errmsg says what and why; in a cluster of
 * voters only, for instance, leadership goes to another one and the role stays. Stopping is allowed all the
 * same. DQLITE_MISUSE if the node does not run. Any thread may call it; dqlite_node_stop ends it.
 */
DQLITE_API
int dqlite_node_handover(struct dqlite_node *n);

/**
 * As dqlite_node_recover_ext, where all servers become voters. Deprecated.
 */
DQLITE_API
int dqlite_node_recover(struct dqlite_node *n,
                        struct dqlite_node_info *infos,
                        int n_info);

/**
 * Replaces the cluster's configuration, for a cluster that has lost too many servers to elect a leader. The
 * node must not run; id and address that it was created with do not matter.
 *
 * 1. Stop every server. Of the data directories that are left choose the one with the latest last entry, see
 *    dqlite_node_describe_last_entry; what only others have is lost.
 * 2. Call this function on it with the servers that the cluster shall have, at least one of them a voter.
 * 3. Every other server of that list starts with a copy of this directory, or is left out of the list,
 *    started with an empty directory and added later. A server that keeps its old directory may bring back
 *    what was given up.
 *
 * It appends the configuration to the log, in a new term. DQLITE_ERROR if the directory is in use or cannot
 * be loaded, DQLITE_MISUSE for a list that is not one. Calling it again appends again. The program
 * `dqlite recover` does the same and chooses the directory.
 */
DQLITE_API
int dqlite_node_recover_ext(struct dqlite_node *n,
                            struct dqlite_node_info_ext *infos,
                            int n_info);

/**
 * Tells index and term of the last entry in the log of a node that was not started; 0 and 0 for an empty
 * log.
 *
 * Of several data directories the one with the highest term, then the highest index, is the one to recover
 * from. (If the C library forced a configuration upon one of them, which it does in term 1, that one is the
 * newer.) Nothing is changed. Of a damaged log it tells what a start would keep; with
 * dqlite_node_set_auto_recovery off, damage is DQLITE_ERROR, as is a directory that is in use.
 */
DQLITE_API
int dqlite_node_describe_last_entry(struct dqlite_node *n,
                                    uint64_t *last_entry_index,
                                    uint64_t *last_entry_term);

/**
 * Creates a server that keeps its files in the existing directory `path`. Nothing is read or written yet.
 *
 * There is no text to ask for after a failure: set LIBDQLITE_TRACE=4 in the environment to see the reasons
 * on standard error. They are shown from the first dqlite_server_start on.
 */
DQLITE_API DQLITE_EXPERIMENTAL
int dqlite_server_create(const char *path,
                         struct dqlite_server **server);

/**
 * Destroys a server. One that runs is stopped first. NULL is allowed.
 */
DQLITE_API DQLITE_EXPERIMENTAL void dqlite_server_destroy(struct dqlite_server *server);

/**
 * Sets the address at which the other servers reach this one. Required before the first start; later starts
 * keep the address of the first one.
 *
 * This and the other settings may be changed at any time and count from the next start on.
 */
DQLITE_API DQLITE_EXPERIMENTAL
int dqlite_server_set_address(struct dqlite_server *server,
                              const char *address);

/**
 * Lets the first start found a new cluster, of which this server is the only voter.
 */
DQLITE_API DQLITE_EXPERIMENTAL
int dqlite_server_set_auto_bootstrap(struct dqlite_server *server,
                                     bool on);

/**
 * Lets the first start join the cluster of the servers with these `n` addresses, as a spare: nothing
 * promotes it by itself. At least one of them should be a voter: others do not know who leads. Further calls
 * add to the list. Later starts try these servers too.
 */
DQLITE_API DQLITE_EXPERIMENTAL
int dqlite_server_set_auto_join(struct dqlite_server *server,
                                const char *const *addrs,
                                unsigned int n);

/**
 * Sets the address to listen on, if it is another one than that of dqlite_server_set_address.
 */
DQLITE_API DQLITE_EXPERIMENTAL
int dqlite_server_set_bind_address(struct dqlite_server *server,
                                   const char *addr);

/**
 * Uses `f` to connect to the servers, this one included; NULL restores plain TCP.
 */
DQLITE_API DQLITE_EXPERIMENTAL
int dqlite_server_set_connect_func(struct dqlite_server *server,
                                   dqlite_connect_func f,
                                   void *arg);

/**
 * Starts the server and has it in its cluster: founds one, joins one, or comes back to the one of its files.
 *
 * Tries for at most 10 seconds to reach the leader, beside the time to load its data and that of connect
 * functions that do not return. On DQLITE_ERROR nothing runs, and starting may be tried again; it keeps the
 * id. A server that runs is refused, as is one that shall both found and join, or has damaged files. From
 * then on it notes every 30 seconds in `path` who is in the cluster. It may be started again after a stop.
 */
DQLITE_API DQLITE_EXPERIMENTAL
int dqlite_server_start(struct dqlite_server *server);

/**
 * The id of the server, known from the first start on; 0 before.
 */
DQLITE_API DQLITE_EXPERIMENTAL dqlite_node_id dqlite_server_get_id(struct dqlite_server *server);

/**
 * Hands over as dqlite_node_handover does. DQLITE_ERROR if the server does not run.
 */
DQLITE_API DQLITE_EXPERIMENTAL int dqlite_server_handover(struct dqlite_server *server);

/**
 * Stops the server. DQLITE_ERROR if it does not run. Any thread may call it.
 */
DQLITE_API DQLITE_EXPERIMENTAL int dqlite_server_stop(struct dqlite_server *server);

/**
 * Withdrawn in 1.18.2; kept so that older programs load. Returns DQLITE_ERROR.
 */
DQLITE_API int dqlite_vfs_init(sqlite3_vfs *vfs, const char *name);

/**
 * Withdrawn in 1.18.2; does nothing.
 */
DQLITE_API void dqlite_vfs_close(sqlite3_vfs *vfs);

/**
 * Withdrawn in 1.18.2; returns DQLITE_ERROR.
 */
DQLITE_API
int dqlite_vfs_poll(sqlite3_vfs *vfs,
                    const char *filename,
                    struct dqlite_vfs_frame **frames,
                    unsigned int *n);

/**
 * Withdrawn in 1.18.2; returns DQLITE_ERROR.
 */
DQLITE_API
int dqlite_vfs_apply(sqlite3_vfs *vfs,
                     const char *filename,
                     unsigned int n,
                     unsigned long *page_numbers,
                     void *frames);

/**
 * Withdrawn in 1.18.2; returns DQLITE_ERROR.
 */
DQLITE_API int dqlite_vfs_abort(sqlite3_vfs *vfs, const char *filename);

/**
 * Withdrawn in 1.18.2; returns DQLITE_ERROR.
 */
DQLITE_API int dqlite_vfs_snapshot(sqlite3_vfs *vfs, const char *filename, void **data, size_t *n);

/**
 * Withdrawn in 1.18.2; returns DQLITE_ERROR.
 */
DQLITE_API
int dqlite_vfs_restore(sqlite3_vfs *vfs,
                       const char *filename,
                       const void *data,
                       size_t n);

/**
 * Withdrawn in 1.18.2; returns DQLITE_ERROR.
 */
DQLITE_API int dqlite_vfs_num_pages(sqlite3_vfs *vfs, const char *filename, unsigned int *n);

/**
 * Withdrawn in 1.18.2; returns DQLITE_ERROR.
 */
DQLITE_API
int dqlite_vfs_shallow_snapshot(sqlite3_vfs *vfs,
                                const char *filename,
                                struct dqlite_buffer *bufs,
                                unsigned int n);

/**
 * Withdrawn in 1.18.2; returns DQLITE_ERROR.
 */
DQLITE_API int dqlite_vfs_enable_disk(sqlite3_vfs *vfs);

/**
 * Withdrawn in 1.18.2; returns DQLITE_ERROR.
 */
DQLITE_API
int dqlite_vfs_snapshot_disk(sqlite3_vfs *vfs,
                             const char *filename,
                             struct dqlite_buffer *bufs,
                             unsigned int n);

/**
 * Withdrawn in 1.18.2; returns DQLITE_ERROR.
 */
DQLITE_API
int dqlite_vfs_restore_disk(sqlite3_vfs *vfs,
                            const char *filename,
                            const void *data,
                            size_t main_size,
                            size_t wal_size);

#ifdef __cplusplus
}  // extern "C"
#endif  // __cplusplus

#ifdef __cplusplus
extern "C" {
#endif

/** The version as text: that of the C API, then "@" and that of this library, as in "1.18.6@rust-0.1.0". */
DQLITE_API extern const char *dqlite_version_string;

#ifdef __cplusplus
}
#endif

#endif /* DQLITE_H */
