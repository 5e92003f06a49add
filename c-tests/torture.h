/*
 * What the parts of the torture program share: torture.c counts, watches and compares, torture_handles.c lives the
 * lives of nodes and servers, torture_clients.c are the clients.
 */
#ifndef TORTURE_H
#define TORTURE_H

#include <dqlite.h>
#include <pthread.h>
#include <stdatomic.h>

#include "wire_client.h"

/* Every function of dqlite.h; torture.sh compares this list with symbols.txt. */
#define FUNCTIONS(X)                                                                                              \
    X(dqlite_generate_node_id) X(dqlite_version_number)                                                           \
    X(dqlite_node_create) X(dqlite_node_destroy) X(dqlite_node_errmsg) X(dqlite_node_set_bind_address)            \
    X(dqlite_node_get_bind_address) X(dqlite_node_set_connect_func) X(dqlite_node_set_network_latency)            \
    X(dqlite_node_set_network_latency_ms) X(dqlite_node_set_failure_domain) X(dqlite_node_set_snapshot_params)    \
    X(dqlite_node_set_snapshot_params_v2) X(dqlite_node_set_block_size) X(dqlite_node_set_target_voters)          \
    X(dqlite_node_set_target_standbys) X(dqlite_node_enable_role_management)                                      \
    X(dqlite_node_set_pool_thread_count) X(dqlite_node_set_auto_recovery)                                         \
    X(dqlite_node_set_snapshot_compression) X(dqlite_node_set_busy_timeout) X(dqlite_node_enable_disk_mode)       \
    X(dqlite_node_start) X(dqlite_node_stop) X(dqlite_node_handover) X(dqlite_node_recover)                       \
    X(dqlite_node_recover_ext) X(dqlite_node_describe_last_entry)                                                 \
    X(dqlite_server_create) X(dqlite_server_destroy) X(dqlite_server_set_address)                                 \
    X(dqlite_server_set_auto_bootstrap) X(dqlite_server_set_auto_join) X(dqlite_server_set_bind_address)          \
    X(dqlite_server_set_connect_func) X(dqlite_server_start) X(dqlite_server_get_id) X(dqlite_server_handover)    \
    X(dqlite_server_stop)                                                                                         \
    X(dqlite_vfs_init) X(dqlite_vfs_close) X(dqlite_vfs_poll) X(dqlite_vfs_apply) X(dqlite_vfs_abort)             \
    X(dqlite_vfs_snapshot) X(dqlite_vfs_restore) X(dqlite_vfs_num_pages) X(dqlite_vfs_shallow_snapshot)           \
    X(dqlite_vfs_enable_disk) X(dqlite_vfs_snapshot_disk) X(dqlite_vfs_restore_disk)

#define AS_NUMBER(name) F_##name,
enum function { FUNCTIONS(AS_NUMBER) F_COUNT };

/* Sets of codes that a call may return. */
enum { OK = 1 << DQLITE_OK, ERROR = 1 << DQLITE_ERROR, MISUSE = 1 << DQLITE_MISUSE, NOMEM = 1 << DQLITE_NOMEM };

/* A call that the watchdog sees and the table counts: CALL(dqlite_node_stop, (node)). */
#define CALL(name, arguments) (enter(F_##name), leave_with(F_##name, name arguments))
/* The same for a function that returns no code. */
#define CALL_VOID(name, arguments) (enter(F_##name), (void)(name arguments), leave(F_##name))

void enter(enum function function);
int leave_with(enum function function, int code);
void leave(enum function function);

/* What clients did; counted like the functions. */
#define DEEDS(X)                                                                                                  \
    X(rows_acknowledged) X(rows_refused) X(checks_of_rows) X(rows_found_again) X(servers_added)                  \
    X(answers_read) X(answers_cut_off) X(requests_cut_off) X(garbage_sent) X(random_requests)                    \
    X(transactions_left_open) X(nodes_started) X(servers_started) X(starts_with_another_on_the_directory)
#define AS_DEED(name) D_##name,
enum deed { DEEDS(AS_DEED) D_COUNT };
void did(enum deed deed, long count);

/* Says what is wrong, once for every occurrence; the program fails at its end. */
void complain(const char *format, ...) __attribute__((format(printf, 1, 2)));

/* A name for the watchdog, for what is no function of the API. NULL ends it. */
void busy_with(const char *what);

/* For a thread of the end: the watchdog tells it from the others. */
void be_watched(int member);

/* Random numbers of this thread. */
uint64_t any(void);
unsigned below(unsigned bound);
int chance(unsigned percent);
void sleep_ms(long ms);

/* How many times longer everything takes with the tool in use. */
extern int slowness;
extern atomic_int over;

/* ---- servers that store the same rows ---- */

enum { MEMBERS_MAX = 3, ADDRESS_SIZE = 64, ROWS_MAX = 1 << 16 };

struct group {
    const char *name;
    int members;
    char addresses[MEMBERS_MAX][ADDRESS_SIZE];
    uint64_t ids[MEMBERS_MAX]; /* known for nodes only */
    /* Whether rows that were acknowledged must be there for ever. */
    int keeps_rows;
    atomic_int next_row;
    atomic_uchar acknowledged[ROWS_MAX / 8];
};

/* ---- handles ---- */

struct slot {
    struct group *group;
    int member;
    int is_server;
    char directory[4096];
    /* Set-up calls, create, start and destroy: one thread at a time. */
    pthread_mutex_t owner;
    /* Texts that the library shows are valid until the next call for one. */
    pthread_mutex_t text;
    /* The handle, and how many threads use it at this moment. */
    pthread_mutex_t lock;
    pthread_cond_t unused;
    int users;
    dqlite_node *node;
    dqlite_server *server;
};

enum { GROUPS = 8, SLOTS = 12 };
extern struct group groups[GROUPS];
extern struct slot slots[SLOTS];

/* One life of the handle of a slot, if no other thread is at it. */
void live(struct slot *slot);
/* A call that any thread may make at any time. */
void pass_by(struct slot *slot);
void stop_from_outside(struct slot *slot);
/* Calls that need no handle. */
void call_without_handle(void);
/* Starts every group that keeps its rows, whole, and checks them. */
void check_all_rows(void);

/* Something a client does. */
void be_a_client(struct group *group);
/* Reads the rows of a group back, through whoever leads. Returns whether somebody did within the time. */
int check_rows(struct group *group, int timeout_ms);
/* Has the members join that are not there yet. */
void add_members(struct group *group);

#endif
