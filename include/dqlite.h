/*
 * dqlite: SQLite, replicated by Raft, as a library inside your program.
 *
 * A node is one server of a cluster. It has an id, an address, and a data directory, in which a log and snapshots keep the
 * databases; the databases themselves are in memory. A cluster may be one node, or three, five and more, of which a majority
 * has to run. SQL does not go through this header: clients connect to the addresses of the nodes and speak dqlite's protocol,
 * go-dqlite and the Python packages for instance. All writes and reads go to the node that leads.
 *
 * A program with one node, from the beginning to the end:
 *
 *     #include <dqlite.h>
 *     #include <stdio.h>
 *
 *     int main(void)
 *     {
 *         dqlite_node *node;
 *         int rc = dqlite_node_create(1, "127.0.0.1:9001", "/tmp/myapp", &node);
 *         if (rc == DQLITE_OK)
 *             rc = dqlite_node_set_bind_address(node, "127.0.0.1:9001");
 *         if (rc == DQLITE_OK)
 *             rc = dqlite_node_start(node);
 *         if (rc == DQLITE_OK) {
 *             getchar();
 *             dqlite_node_handover(node);
 *             rc = dqlite_node_stop(node);
 *         }
 *         if (rc != DQLITE_OK)
 *             fprintf(stderr, "dqlite: %s\n", dqlite_node_errmsg(node));
 *         dqlite_node_destroy(node);
 *         return rc;
 *     }
 *
 *     mkdir -p /tmp/myapp && cc myapp.c $(pkg-config --cflags --libs dqlite) -o myapp && ./myapp
 *
 * The life of a node:
 *
 *     create --> setters --> set_bind_address --> start --> runs --> handover --> stop --> destroy
 *
 * start may be repeated if it failed; after a stop, create another node for the next start. recover, recover_ext and
 * describe_last_entry are for nodes that do not run. The node with id 1 founds the cluster. Each further one is created with
 * an id of its own (dqlite_generate_node_id) and an empty directory; once it runs, a client asks the leader to add it and to
 * give it a role: voter, stand-by (gets the log, does not vote) or spare (neither). dqlite_node_enable_role_management gives
 * roles without a client.
 *
 * A dqlite_server does the founding and the adding, and remembers who is in the cluster (experimental, as in C):
 *
 *     const char *others[] = {"10.0.0.1:9001"};
 *     dqlite_server *server;
 *     dqlite_server_create("/var/lib/myapp", &server);
 *     dqlite_server_set_address(server, "10.0.0.2:9001");
 *     dqlite_server_set_auto_join(server, others, 1);
 *     dqlite_server_start(server);
 *
 * The first one calls dqlite_server_set_auto_bootstrap(server, true) instead of set_auto_join. To end: handover, stop, destroy.
 *
 * Rules for all functions:
 * - Those of type int return DQLITE_OK or another of the codes below, and dqlite_node_errmsg has the reason. A call that is
 *   refused has changed nothing, unless its comment says so.
 * - NULL for a handle or for a required argument is DQLITE_MISUSE. Only destroy accepts NULL. Nothing aborts the process.
 * - Texts are UTF-8 (paths: any bytes), end with a NUL, are copied during the call, and remain the caller's.
 * - Texts that are returned remain the library's. Never free them.
 * - A setter called while the node runs is DQLITE_MISUSE, unless its comment says "in every state". Where no state is given, a
 *   setter may be called from create on, and again, without effect, after a stop.
 * - Any thread may call, but start, setters and stop of one node follow each other in an order that the program has to see
 *   to. Nothing may be called on a handle while it is destroyed, or later.
 * - "Since" is the release of the C library that brought a function; this library has all of them.
 *
 * What the library does to the process: it uses the SQLite of the process, which it switches to its serialized threading mode
 * when the first node is created, unless the program has initialised SQLite before, and registers a VFS named dqlite-N for each
 * node. It starts threads with dqlite_node_start and ends them with dqlite_node_stop. It touches no signal and raises no
 * SIGPIPE. Log lines go to standard error if LIBDQLITE_TRACE is set in the environment when a node starts: 1 debug, 2 info,
 * 3 warnings, 4 and 5 errors, anything else everything. An internal error stops the node, not the process, unless
 * DQLITE_ABORT_ON_PANIC is 1.
 *
 * This file is generated from src/ffi. To change it: make fix.
 */
#ifndef DQLITE_H
#define DQLITE_H

#include <sqlite3.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

/*
 * The version of the C API in this file. dqlite_version_number() has the same form, and tells that of the library that is
 * loaded.
 */
#define DQLITE_VERSION_MAJOR 1
#define DQLITE_VERSION_MINOR 18
#define DQLITE_VERSION_RELEASE 6
#define DQLITE_VERSION_NUMBER \
    (DQLITE_VERSION_MAJOR * 10000 + DQLITE_VERSION_MINOR * 100 + DQLITE_VERSION_RELEASE)

/* Before every function: exported from the library. Define it before the inclusion to put something else there. */
#ifndef DQLITE_API
#define DQLITE_API __attribute__((visibility("default")))
#endif

/* Before functions whose form may still change. Expands to nothing. */
#ifndef DQLITE_EXPERIMENTAL
#define DQLITE_EXPERIMENTAL
#endif

/* As DQLITE_API. No function here has it; programs written for the C library may. */
#ifndef DQLITE_VISIBLE_TO_TESTS
#define DQLITE_VISIBLE_TO_TESTS DQLITE_API
#endif

/* Codes that functions of type int return. DQLITE_OK has a name since 1.18.2. */
enum {
    DQLITE_OK = 0,     /* success */
    DQLITE_ERROR = 1,  /* it failed for a reason outside the call, such as a file or an address */
    DQLITE_MISUSE = 2, /* a wrong argument, or not in this state: a mistake of the program */
    DQLITE_NOMEM = 3   /* only a negative number of servers, see dqlite_node_recover_ext */
};

/* For dqlite_node_set_snapshot_params_v2. Since 1.18.2. */
enum {
    /* Keep snapshot_trailing entries behind a snapshot. */
    DQLITE_SNAPSHOT_TRAILING_STATIC = 0,
    /* Keep as many as are as large as the snapshot, at least snapshot_threshold and at most snapshot_trailing. */
    DQLITE_SNAPSHOT_TRAILING_DYNAMIC = 1
};

/*
 * Extended SQLite result codes that clients of a node may see; no function here returns them. In this header since 1.18.2.
 * NOT_LEADER (10250): another node leads, nothing was done, ask that one. LEADERSHIP_LOST (10506): leadership ended before the
 * outcome was known, so a write may have happened or not.
 */
#ifndef SQLITE_IOERR_NOT_LEADER
#define SQLITE_IOERR_NOT_LEADER (SQLITE_IOERR | (40 << 8))
#endif
#ifndef SQLITE_IOERR_LEADERSHIP_LOST
#define SQLITE_IOERR_LEADERSHIP_LOST (SQLITE_IOERR | (41 << 8))
#endif

/* Size in bytes of the first published form of dqlite_node_info_ext, and of this one. */
#define DQLITE_NODE_INFO_EXT_SZ_ORIG 32U

/**
 * A node: one server of a dqlite cluster, running inside this process. From dqlite_node_create to
 * dqlite_node_destroy; a process may have several, each with a directory and an address of its own.
 */
typedef struct dqlite_node dqlite_node;

/**
 * A server: a node that founds or joins its cluster by itself and remembers the others in files of its own.
 * From dqlite_server_create to dqlite_server_destroy; unlike a node it may be started again after a stop.
 *
 * Functions return DQLITE_OK; DQLITE_ERROR, whose reason is a log line; or DQLITE_MISUSE for NULL. All of
 * them may be called from any thread. Since 1.15.1.
 */
typedef struct dqlite_server dqlite_server;

/**
 * Identifies a server in its cluster: a number of 64 bits, chosen once for each data directory and never 0.
 * Make one with dqlite_generate_node_id; 1 and 3297041220608546238 found a cluster, see dqlite_node_create.
 */
typedef unsigned long long dqlite_node_id;

/**
 * A function of the host program that connects to another server.
 *
 * It gets the `arg` given when it was set, and the address of a server as the cluster knows it, valid during
 * the call. On success it stores a connected stream socket, TCP or Unix, blocking or not, in `*fd`, and
 * returns 0; from then on the library owns the descriptor and closes it. Any other value is a failure, and
 * the library tries again later; then `*fd` remains the host's.
 *
 * It runs on threads of the library, where it may block, perhaps on several at once and for the same
 * address. A stop waits for calls under way to return. It must not stop or destroy the node that calls it.
 * NULL where one is set means plain TCP to a numeric IPv4 or IPv6 address, with 2 seconds for each attempt.
 */
typedef int (*dqlite_connect_func)(void *arg, const char *address, int *fd);

/**
 * A server of a cluster, as dqlite_node_recover takes it. The caller owns it and its text; both are read
 * during the call only. Since 1.1.0.
 */
typedef struct dqlite_node_info {
    /**
     * Identity of the server, not 0, and not that of another one in the list.
     */
    dqlite_node_id id;
    /**
     * Where other servers reach it, such as "10.0.0.1:9001"; not NULL, and not that of another one in the
     * list.
     */
    const char *address;
} dqlite_node_info;

/**
 * A server of a cluster with its role, as dqlite_node_recover_ext takes it. The caller owns it and its text;
 * both are read during the call only. Elements of an array may be longer than this structure, if `size` says
 * so and what follows is zero. Since 1.9.0.
 */
typedef struct dqlite_node_info_ext {
    /**
     * Size of this element in bytes: sizeof(dqlite_node_info_ext). At least 32, and a multiple of 8.
     */
    uint64_t size;
    /**
     * Identity of the server, not 0, and not that of another one in the list.
     */
    uint64_t id;
    /**
     * Where other servers reach it: a const char pointer converted by (uint64_t)(uintptr_t).
     */
    uint64_t address;
    /**
     * 0 voter, 1 stand-by (gets the log, does not vote), 2 spare (neither). Anything else is DQLITE_MISUSE.
     */
    uint64_t dqlite_role;
} dqlite_node_info_ext;

/**
 * A page of a transaction. Belongs to functions of 1.6.0 to 1.18.1 that refuse to work here.
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
 * A piece of memory. Belongs to functions of 1.10.0 to 1.18.1 that refuse to work here.
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
 * Makes an id for a new server from its address and the current time, in nanoseconds.
 *
 * Any thread may call it, without a node. Two calls give two different ids, save for a chance of one in
 * 2^64. Returns 0, which is no id, if `address` is NULL. Since 1.4.0.
 */
DQLITE_API
dqlite_node_id dqlite_generate_node_id(const char *address);

/**
 * The version of the C API that this library has, in the form of DQLITE_VERSION_NUMBER: 11806 for 1.18.6.
 *
 * Compare it with DQLITE_VERSION_NUMBER to find a library that is older than the header. Any thread may call
 * it, without a node. Since 1.8.0.
 */
DQLITE_API
int dqlite_version_number(void);

/**
 * Creates a node: checks the data directory, removes unfinished files from it unless another node uses it,
 * and reads its metadata. No thread and no socket until later calls.
 *
 * `id` is the server's identity and `address` where the other servers and the clients reach it: both belong
 * to the data directory and must be the same at every start. `data_dir` is an existing directory that this
 * user may write, for this node alone, its path at most 894 bytes. All three are copied.
 *
 * An id of 1 or 3297041220608546238 (that of dqlite_server) makes the first start on an empty directory
 * found a cluster, with this server as its only voter. With every other id it waits to be added to a cluster
 * by a client of that cluster's leader.
 *
 * Stores a handle in `*n`, which belongs to the caller until dqlite_node_destroy. On failure a handle is
 * stored, too: dqlite_node_errmsg has the reason, every other call on it is DQLITE_MISUSE, and it must be
 * destroyed.
 *
 * DQLITE_OK; DQLITE_ERROR if the directory is missing, unusable or has damaged metadata, or if SQLite cannot
 * be used; DQLITE_MISUSE for NULL, and without a handle only if `n` is NULL. Since 1.0.0.
 */
DQLITE_API
int dqlite_node_create(dqlite_node_id id,
                       const char *address,
                       const char *data_dir,
                       struct dqlite_node **n);

/**
 * Destroys a node and everything that it holds. A running node is stopped first, as by dqlite_node_stop;
 * what that would have returned is lost. NULL is allowed.
 *
 * Required after every dqlite_node_create that stored a handle, also a failed one. In every state, from one
 * thread, while no other call on this node is under way. The handle, and every text that came from it, is
 * invalid afterwards. Since 1.0.0.
 */
DQLITE_API
void dqlite_node_destroy(struct dqlite_node *n);

/**
 * The reason of the last failed call on this node, in English; "" if none failed, "node is NULL" if `n` is
 * NULL. Never NULL for a handle from dqlite_node_create.
 *
 * A call that succeeds does not clear it, so ask only after a failure. In every state, from any thread; but
 * calls that fail on several threads replace each other's reason. The text belongs to the node and is valid
 * until the next call of this function on it, or until the node is destroyed. Since 1.2.0.
 */
DQLITE_API
const char *dqlite_node_errmsg(struct dqlite_node *n);

/**
 * Binds the node to the address on which it will listen. Required once before dqlite_node_start; of several
 * calls the last one counts.
 *
 * "10.0.0.1:9001" or "[2001:db8::1]:9001": numbers, no names; without a port 8080, and port 0 lets the
 * kernel choose. Or "@name" for an abstract Unix socket that only this process can reach, at most 107 bytes
 * after the @; "@" lets the kernel choose the name. The address is taken at once, clients can connect after
 * dqlite_node_start.
 *
 * DQLITE_OK; DQLITE_ERROR for a text that is no address, or one that cannot be bound; DQLITE_MISUSE for
 * NULL, or once the node was started. Since 1.0.0; C 1.11.1 knew no IPv6.
 */
DQLITE_API
int dqlite_node_set_bind_address(struct dqlite_node *n,
                                 const char *address);

/**
 * The address given to dqlite_node_set_bind_address, word for word, but with the chosen name for "@"; NULL
 * if none was given. (A port that the kernel chose is not told.)
 *
 * In every state, from any thread. The text belongs to the node and is valid until the next call of this
 * function on it, or until the node is destroyed. Since 1.0.0.
 */
DQLITE_API
const char *dqlite_node_get_bind_address(struct dqlite_node *n);

/**
 * Uses `f` to connect to other servers, for instance through TLS; NULL restores plain TCP. See
 * dqlite_connect_func.
 *
 * `f` and what `arg` points to must stay usable until dqlite_node_stop or dqlite_node_destroy has returned.
 * `arg` may be NULL; the library never looks at it. DQLITE_OK; DQLITE_MISUSE while the node runs. Since
 * 1.0.0.
 */
DQLITE_API
int dqlite_node_set_connect_func(struct dqlite_node *n,
                                 dqlite_connect_func f,
                                 void *arg);

/**
 * As dqlite_node_set_network_latency_ms, but in nanoseconds, 1 000 000 to 3 600 000 000 000, rounded down to
 * milliseconds. Deprecated. Since 1.0.0.
 */
DQLITE_API
int dqlite_node_set_network_latency(struct dqlite_node *n,
                                    unsigned long long nanoseconds);

/**
 * Tells how long a message takes to another server, 1 to 3 600 000 milliseconds.
 *
 * Heartbeats are sent every 1.5 times this value, rounded down to milliseconds, and who hears no leader for
 * 15 to 30 times this value starts an election. Without this call: 500 ms and 3000 ms. Give all servers of a
 * cluster the same value. DQLITE_OK; DQLITE_MISUSE for another value, or while the node runs. Since 1.9.0.
 */
DQLITE_API
int dqlite_node_set_network_latency_ms(struct dqlite_node *n,
                                       unsigned int milliseconds);

/**
 * Tells in which failure domain (rack, availability zone) the server is: any number, 0 without this call.
 * Role management, and clients that assign roles, use it to spread the voters. Not stored: set it after
 * every create.
 *
 * In every state, from any thread. DQLITE_OK. Since 1.5.0.
 */
DQLITE_API
int dqlite_node_set_failure_domain(struct dqlite_node *n,
                                   unsigned long long code);

/**
 * As dqlite_node_set_snapshot_params_v2 with DQLITE_SNAPSHOT_TRAILING_STATIC. Deprecated. Since 1.8.0.
 */
DQLITE_API
int dqlite_node_set_snapshot_params(struct dqlite_node *n,
                                    unsigned int snapshot_threshold,
                                    unsigned int snapshot_trailing);

/**
 * Sets after how many log entries a snapshot of all databases is taken (`snapshot_threshold`, default 1024)
 * and how many entries are kept in the log behind it for servers that lag (`snapshot_trailing`, default
 * 8192). One transaction is one entry.
 *
 * `snapshot_trailing` must be at least 4 and at least `snapshot_threshold`. `trailing_strategy` is
 * DQLITE_SNAPSHOT_TRAILING_STATIC, the default, or DQLITE_SNAPSHOT_TRAILING_DYNAMIC. It decides what is kept
 * ready; files of the log are always removed by `snapshot_trailing`.
 *
 * DQLITE_OK; DQLITE_MISUSE, and nothing is changed, for other values or while the node runs. Since 1.18.2.
 */
DQLITE_API
int dqlite_node_set_snapshot_params_v2(struct dqlite_node *n,
                                       unsigned int snapshot_threshold,
                                       unsigned int snapshot_trailing,
                                       int trailing_strategy);

/**
 * Accepted for programs that tune the C library's direct I/O, and without effect here. `size` is a power of
 * two from 512 to 262144 bytes. DQLITE_OK; DQLITE_ERROR for another size; DQLITE_MISUSE while the node runs.
 * Since 1.15.0.
 */
DQLITE_API
int dqlite_node_set_block_size(struct dqlite_node *n,
                               size_t size);

/**
 * Sets how many voters role management aims at (default 3; below 1 counts as 1, since the leader remains
 * one). An odd number is best. Has no effect without dqlite_node_enable_role_management.
 *
 * In every state, from any thread; counts from the next second on. DQLITE_OK. Since 1.15.0.
 */
DQLITE_API
int dqlite_node_set_target_voters(struct dqlite_node *n,
                                  int voters);

/**
 * Sets how many stand-bys role management aims at (default 0; below 0 counts as 0). Has no effect without
 * dqlite_node_enable_role_management.
 *
 * In every state, from any thread; counts from the next second on. DQLITE_OK. Since 1.15.0.
 */
DQLITE_API
int dqlite_node_set_target_standbys(struct dqlite_node *n,
                                    int standbys);

/**
 * Lets the node, while it leads, give the servers of the cluster their roles. Off by default; ends with
 * dqlite_node_handover, after which it may be called again.
 *
 * Every second it asks all servers whether they are there. One that does not answer within 5 seconds becomes
 * a spare. Then it promotes and demotes servers, one after the other, until the targets are met: first those
 * of other failure domains, then those of less weight (see dqlite_node_set_failure_domain; clients set
 * weights), then stand-bys before spares. Nothing is changed while less than a majority of the voters
 * answers.
 *
 * Enable it on all nodes of a cluster, with the same targets, and on none if a client assigns the roles, as
 * go-dqlite's app package does. In every state, from any thread. DQLITE_OK. Since 1.15.0.
 */
DQLITE_API
int dqlite_node_enable_role_management(struct dqlite_node *n);

/**
 * Sets how many threads serve clients, SQL included: 1 to 512; 0 counts as 1. The default is one for each
 * processor, at most 4. Statements that take long get threads of their own. In every state; counts from
 * dqlite_node_start. DQLITE_OK. Since 1.16.5.
 */
DQLITE_API
int dqlite_node_set_pool_thread_count(struct dqlite_node *n,
                                      unsigned int thread_count);

/**
 * Lets dqlite_node_start set a damaged end of the log aside, in files named corrupt-..., and go on with what
 * is before it (default true). With false such a log is refused with DQLITE_ERROR. The incomplete last write
 * that a power cut leaves is dropped in both cases, and damage elsewhere refused.
 *
 * In every state; counts at dqlite_node_start, dqlite_node_recover_ext and dqlite_node_describe_last_entry.
 * DQLITE_OK. Since 1.16.0.
 */
DQLITE_API
int dqlite_node_set_auto_recovery(struct dqlite_node *n,
                                  bool enabled);

/**
 * Compresses snapshots on disk, as LZ4 frames (default true). Snapshots are read whatever this says. C
 * releases from 1.18.3 on read only those that are as their own setting says: leave it alone where they may
 * have to.
 *
 * In every state, from any thread; counts from the next snapshot on. DQLITE_OK. Since 1.16.2.
 */
DQLITE_API
int dqlite_node_set_snapshot_compression(struct dqlite_node *n,
                                         bool enabled);

/**
 * Sets how many milliseconds a statement that writes waits for the open transaction of another connection to
 * the same database, before its client gets SQLITE_BUSY (default 0). That another statement just runs is
 * waited for in any case, and so are transactions whose clients go on at once, for up to 100 milliseconds:
 * with 0, who meets a transaction whose client has paused for 5 is refused.
 *
 * In every state, from any thread; counts from the next statement on. DQLITE_OK. Since 1.18.2.
 */
DQLITE_API
int dqlite_node_set_busy_timeout(struct dqlite_node *n,
                                 unsigned int msecs);

/**
 * Accepted for programs written for 1.13 to 1.18.2, and without effect: databases are in memory, and durable
 * through log and snapshots. DQLITE_OK; DQLITE_MISUSE while the node runs. Since 1.13.0, gone in C from
 * 1.18.3 on.
 */
DQLITE_API
int dqlite_node_enable_disk_mode(struct dqlite_node *n);

/**
 * Starts the node: locks and loads the data directory, starts its threads, listens. With LIBDQLITE_TRACE in
 * the environment log lines go to standard error from here on.
 *
 * Returns when clients can connect, which is before the cluster has a leader; it takes as long as reading
 * the newest snapshot and the log. A node can be started once: create another one to start again. A start
 * that fails leaves the node as it was, so that it may be tried again.
 *
 * DQLITE_OK. DQLITE_ERROR if another node uses the directory, which is also the answer if this one runs
 * already ("couldn't lock the raft directory"), if files are damaged ("raft_start(): io: ...", with the name
 * of the file; `dqlite check` tells what to do), or if the address cannot be listened on. DQLITE_MISUSE
 * without a bind address, or after dqlite_node_stop. Since 1.0.0.
 */
DQLITE_API
int dqlite_node_start(struct dqlite_node *n);

/**
 * Stops the node: interrupts statements, closes its connections, completes its files, ends its threads,
 * frees the directory for another node. Transactions that are open are rolled back; a write whose answer was
 * not sent may have happened or not.
 *
 * Call dqlite_node_handover first to leave leadership to another server at once. Any thread may call it,
 * also while dqlite_node_handover blocks; of several calls at once one stops the node. It waits for calls of
 * the connect function.
 *
 * DQLITE_OK; DQLITE_ERROR, with the reason, if the node had stopped taking part by itself before (a disk
 * that failed, an internal error): it is stopped then, and what was acknowledged is safe. DQLITE_MISUSE if
 * it does not run. Since 1.0.0.
 */
DQLITE_API
int dqlite_node_stop(struct dqlite_node *n);

/**
 * Gives up what the node does for its cluster, before dqlite_node_stop: leadership goes to another voter,
 * and its own role to a server that has less, whereupon it is a spare. Ends role management on this node.
 *
 * Blocks for at most 16 seconds. Any thread may call it; dqlite_node_stop ends it. DQLITE_OK means that
 * everything was given up, or that there was nothing. DQLITE_ERROR means that something was not, and
 * dqlite_node_errmsg says what and why; in a cluster of voters only, for instance, leadership goes to
 * another one and the role stays. Stopping is allowed all the same. DQLITE_MISUSE if the node does not run.
 * Since 1.15.0.
 */
DQLITE_API
int dqlite_node_handover(struct dqlite_node *n);

/**
 * As dqlite_node_recover_ext, where all servers become voters. Deprecated. Since 1.1.0.
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
 * It appends the configuration to the log, in a new term; calling it again appends again. The same node may
 * be started afterwards. The program `dqlite recover` does the same and chooses the directory.
 *
 * `infos` are `n_info` elements, which follow each other by their `size`. DQLITE_OK; DQLITE_ERROR if the
 * directory is in use or cannot be loaded ("raft_recover(): ..."); DQLITE_MISUSE for a list that is empty,
 * or has an id, address, role or size that cannot be; DQLITE_NOMEM for a negative `n_info`. Since 1.9.0.
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
 * dqlite_node_set_auto_recovery off, damage is DQLITE_ERROR, as is a directory that is in use. DQLITE_MISUSE
 * for NULL, or once the node was started; on failure nothing is stored. Since 1.17.0.
 */
DQLITE_API
int dqlite_node_describe_last_entry(struct dqlite_node *n,
                                    uint64_t *last_entry_index,
                                    uint64_t *last_entry_term);

/**
 * Creates a server that keeps its files in the existing directory `path`, which is copied. Nothing is read
 * or written yet. Stores a handle in `*server`, which belongs to the caller until dqlite_server_destroy.
 *
 * There is no text to ask for after a failure: set LIBDQLITE_TRACE=4 in the environment to see the reasons
 * on standard error. They are shown from the first dqlite_server_start on. DQLITE_OK; DQLITE_MISUSE for
 * NULL, without a handle. Since 1.15.1.
 */
DQLITE_API DQLITE_EXPERIMENTAL
int dqlite_server_create(const char *path,
                         struct dqlite_server **server);

/**
 * Destroys a server. One that runs is stopped first. NULL is allowed. In every state, while no other call on
 * this server is under way. Since 1.15.1.
 */
DQLITE_API DQLITE_EXPERIMENTAL
void dqlite_server_destroy(struct dqlite_server *server);

/**
 * Sets the address at which the other servers reach this one, in the form of dqlite_node_set_bind_address.
 * Required before the first start; later starts keep the address of the first one.
 *
 * This and the other settings may be changed at any time and count from the next start on. Values are
 * checked there. Since 1.15.1.
 */
DQLITE_API DQLITE_EXPERIMENTAL
int dqlite_server_set_address(struct dqlite_server *server,
                              const char *address);

/**
 * Lets the first start found a new cluster, of which this server is the only voter (default false). Later
 * starts come back to it, whatever this says. Not together with dqlite_server_set_auto_join. Since 1.15.1.
 */
DQLITE_API DQLITE_EXPERIMENTAL
int dqlite_server_set_auto_bootstrap(struct dqlite_server *server,
                                     bool on);

/**
 * Lets the first start join the cluster of the servers with these `n` addresses, as a spare: nothing
 * promotes it by itself. At least one of them should be a voter: others do not know who leads. Further calls
 * add to the list. Later starts try these servers too. The array and its texts are copied; `addrs` may be
 * NULL if `n` is 0. Since 1.15.1.
 */
DQLITE_API DQLITE_EXPERIMENTAL
int dqlite_server_set_auto_join(struct dqlite_server *server,
                                const char *const *addrs,
                                unsigned int n);

/**
 * Sets the address to listen on, if it is another one than that of dqlite_server_set_address; its form is
 * that of dqlite_node_set_bind_address. Since 1.15.1.
 */
DQLITE_API DQLITE_EXPERIMENTAL
int dqlite_server_set_bind_address(struct dqlite_server *server,
                                   const char *addr);

/**
 * Uses `f` to connect to the servers, this one included; NULL restores plain TCP. `f` and what `arg` points
 * to must stay usable until the server was stopped. See dqlite_connect_func. Since 1.15.1.
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
 * Since 1.15.1.
 */
DQLITE_API DQLITE_EXPERIMENTAL
int dqlite_server_start(struct dqlite_server *server);

/**
 * The id of the server, known from the first start on; 0 before, and for NULL. Any thread may call it. Since
 * 1.15.1.
 */
DQLITE_API DQLITE_EXPERIMENTAL
dqlite_node_id dqlite_server_get_id(struct dqlite_server *server);

/**
 * Hands over as dqlite_node_handover does, within 16 seconds. DQLITE_ERROR if the server does not run, or if
 * something was not given up. Any thread may call it. Since 1.15.1.
 */
DQLITE_API DQLITE_EXPERIMENTAL
int dqlite_server_handover(struct dqlite_server *server);

/**
 * Stops the server, as dqlite_node_stop does. DQLITE_ERROR if it does not run, or had stopped by itself
 * because its disk failed. Any thread may call it; of several calls at once one stops it. Since 1.15.1.
 */
DQLITE_API DQLITE_EXPERIMENTAL
int dqlite_server_stop(struct dqlite_server *server);

/**
 * Returns DQLITE_ERROR and looks at no argument. Here so that programs built for 1.6.0 to 1.18.1 load; C
 * withdrew it in 1.18.2.
 */
DQLITE_API
int dqlite_vfs_init(sqlite3_vfs *vfs,
                    const char *name);

/**
 * Does nothing. Here so that programs built for 1.6.0 to 1.18.1 load; C withdrew it in 1.18.2.
 */
DQLITE_API void dqlite_vfs_close(sqlite3_vfs *vfs);

/**
 * Returns DQLITE_ERROR and looks at no argument. Here so that programs built for 1.6.0 to 1.18.1 load; C
 * withdrew it in 1.18.2.
 */
DQLITE_API
int dqlite_vfs_poll(sqlite3_vfs *vfs,
                    const char *filename,
                    struct dqlite_vfs_frame **frames,
                    unsigned int *n);

/**
 * Returns DQLITE_ERROR and looks at no argument. Here so that programs built for 1.6.0 to 1.18.1 load; C
 * withdrew it in 1.18.2.
 */
DQLITE_API
int dqlite_vfs_apply(sqlite3_vfs *vfs,
                     const char *filename,
                     unsigned int n,
                     unsigned long *page_numbers,
                     void *frames);

/**
 * Returns DQLITE_ERROR and looks at no argument. Here so that programs built for 1.6.0 to 1.18.1 load; C
 * withdrew it in 1.18.2.
 */
DQLITE_API
int dqlite_vfs_abort(sqlite3_vfs *vfs,
                     const char *filename);

/**
 * Returns DQLITE_ERROR and looks at no argument. Here so that programs built for 1.6.0 to 1.18.1 load; C
 * withdrew it in 1.18.2.
 */
DQLITE_API
int dqlite_vfs_snapshot(sqlite3_vfs *vfs,
                        const char *filename,
                        void **data,
                        size_t *n);

/**
 * Returns DQLITE_ERROR and looks at no argument. Here so that programs built for 1.6.0 to 1.18.1 load; C
 * withdrew it in 1.18.2.
 */
DQLITE_API
int dqlite_vfs_restore(sqlite3_vfs *vfs,
                       const char *filename,
                       const void *data,
                       size_t n);

/**
 * Returns DQLITE_ERROR and looks at no argument. Here so that programs built for 1.10.0 to 1.18.1 load; C
 * withdrew it in 1.18.2.
 */
DQLITE_API
int dqlite_vfs_num_pages(sqlite3_vfs *vfs,
                         const char *filename,
                         unsigned int *n);

/**
 * Returns DQLITE_ERROR and looks at no argument. Here so that programs built for 1.10.0 to 1.18.1 load; C
 * withdrew it in 1.18.2.
 */
DQLITE_API
int dqlite_vfs_shallow_snapshot(sqlite3_vfs *vfs,
                                const char *filename,
                                struct dqlite_buffer *bufs,
                                unsigned int n);

/**
 * Returns DQLITE_ERROR and looks at no argument. Here so that programs built for 1.13.0 to 1.18.1 load; C
 * withdrew it in 1.18.2.
 */
DQLITE_API
int dqlite_vfs_enable_disk(sqlite3_vfs *vfs);

/**
 * Returns DQLITE_ERROR and looks at no argument. Here so that programs built for 1.13.0 to 1.18.1 load; C
 * withdrew it in 1.18.2.
 */
DQLITE_API
int dqlite_vfs_snapshot_disk(sqlite3_vfs *vfs,
                             const char *filename,
                             struct dqlite_buffer *bufs,
                             unsigned int n);

/**
 * Returns DQLITE_ERROR and looks at no argument. Here so that programs built for 1.13.0 to 1.18.1 load; C
 * withdrew it in 1.18.2.
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

/**
 * The version as text: that of the C API, then "@" and that of this library, as in "1.18.6@rust-0.1.0". A constant. Since
 * 1.18.3.
 */
DQLITE_API extern const char *dqlite_version_string;

#ifdef __cplusplus
}
#endif

#endif /* DQLITE_H */
