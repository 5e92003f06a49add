/*
 * The API of C releases 1.0 to 1.18.6, declared again after our header: a difference in any type is a compile error.
 * Every function is also called through its address being taken, so a missing one is a link error.
 */
#include <dqlite.h>

#include <stddef.h>

typedef dqlite_node *N;
typedef dqlite_server *S;
typedef sqlite3_vfs *V;
typedef const char *T;

/* 1.0 to 1.11 */
int dqlite_version_number(void);
int dqlite_node_create(dqlite_node_id, T, T, dqlite_node **);
void dqlite_node_destroy(N);
int dqlite_node_set_bind_address(N, T);
T dqlite_node_get_bind_address(N);
int dqlite_node_set_connect_func(N, int (*)(void *, const char *, int *), void *);
int dqlite_node_set_network_latency(N, unsigned long long);
int dqlite_node_set_network_latency_ms(N, unsigned);
int dqlite_node_set_failure_domain(N, unsigned long long);
int dqlite_node_set_snapshot_params(N, unsigned, unsigned);
int dqlite_node_start(N);
int dqlite_node_stop(N);
int dqlite_node_recover(N, dqlite_node_info[], int);
int dqlite_node_recover_ext(N, dqlite_node_info_ext[], int);
T dqlite_node_errmsg(N);
dqlite_node_id dqlite_generate_node_id(T);
int dqlite_vfs_init(V, T);
void dqlite_vfs_close(V);
int dqlite_vfs_poll(V, T, dqlite_vfs_frame **, unsigned *);
int dqlite_vfs_apply(V, T, unsigned, unsigned long *, void *);
int dqlite_vfs_abort(V, T);
int dqlite_vfs_snapshot(V, T, void **, size_t *);
int dqlite_vfs_restore(V, T, const void *, size_t);
int dqlite_vfs_num_pages(V, T, unsigned *);
int dqlite_vfs_shallow_snapshot(V, T, struct dqlite_buffer[], unsigned);

/* 1.13 to 1.18.6 */
int dqlite_node_enable_disk_mode(N);
int dqlite_vfs_enable_disk(V);
int dqlite_vfs_snapshot_disk(V, T, struct dqlite_buffer[], unsigned);
int dqlite_vfs_restore_disk(V, T, const void *, size_t, size_t);
int dqlite_node_set_block_size(N, size_t);
int dqlite_node_set_target_voters(N, int);
int dqlite_node_set_target_standbys(N, int);
int dqlite_node_enable_role_management(N);
int dqlite_node_handover(N);
int dqlite_node_set_auto_recovery(N, bool);
int dqlite_node_set_snapshot_compression(N, bool);
int dqlite_node_set_pool_thread_count(N, unsigned);
int dqlite_node_describe_last_entry(N, uint64_t *, uint64_t *);
int dqlite_node_set_snapshot_params_v2(N, unsigned, unsigned, int);
int dqlite_node_set_busy_timeout(N, unsigned);
int dqlite_server_create(T, dqlite_server **);
int dqlite_server_set_address(S, T);
int dqlite_server_set_auto_bootstrap(S, bool);
int dqlite_server_set_auto_join(S, const char *const *, unsigned);
int dqlite_server_set_bind_address(S, T);
int dqlite_server_set_connect_func(S, dqlite_connect_func, void *);
int dqlite_server_start(S);
dqlite_node_id dqlite_server_get_id(S);
int dqlite_server_handover(S);
int dqlite_server_stop(S);
void dqlite_server_destroy(S);
extern const char *dqlite_version_string;

/* Layouts, checked at compile time: an array of a negative size is an error. */
#define CHECK(name, condition) typedef char check_##name[(condition) ? 1 : -1]
CHECK(id_size, sizeof(dqlite_node_id) == 8);
CHECK(info_size, sizeof(struct dqlite_node_info) == 16);
CHECK(info_address, offsetof(struct dqlite_node_info, address) == 8);
CHECK(ext_size, sizeof(struct dqlite_node_info_ext) == 32 && sizeof(dqlite_node_info_ext) == DQLITE_NODE_INFO_EXT_SZ_ORIG);
CHECK(ext_id, offsetof(dqlite_node_info_ext, id) == 8);
CHECK(ext_address, offsetof(dqlite_node_info_ext, address) == 16);
CHECK(ext_role, offsetof(dqlite_node_info_ext, dqlite_role) == 24);
CHECK(frame_size, sizeof(dqlite_vfs_frame) == 16 && offsetof(dqlite_vfs_frame, data) == 8);
CHECK(buffer_size, sizeof(struct dqlite_buffer) == 16 && offsetof(struct dqlite_buffer, len) == 8);
CHECK(codes, DQLITE_OK == 0 && DQLITE_ERROR == 1 && DQLITE_MISUSE == 2 && DQLITE_NOMEM == 3);
CHECK(strategies, DQLITE_SNAPSHOT_TRAILING_STATIC == 0 && DQLITE_SNAPSHOT_TRAILING_DYNAMIC == 1);
CHECK(not_leader, SQLITE_IOERR_NOT_LEADER == 10250 && SQLITE_IOERR_LEADERSHIP_LOST == 10506);
CHECK(version, DQLITE_VERSION_NUMBER == 11806);

#ifndef DQLITE_EXPERIMENTAL
#error "experimental: DQLITE_EXPERIMENTAL is not defined"
#endif
#ifndef DQLITE_VISIBLE_TO_TESTS
#error "visible_to_tests: DQLITE_VISIBLE_TO_TESTS is not defined"
#endif

typedef void (*function)(void);
#define F(name) (function) dqlite_##name

static const function functions[] = {
    F(version_number), F(node_create), F(node_destroy), F(node_set_bind_address), F(node_get_bind_address),
    F(node_set_connect_func), F(node_set_network_latency), F(node_set_network_latency_ms),
    F(node_set_failure_domain), F(node_set_snapshot_params), F(node_start), F(node_stop), F(node_recover),
    F(node_recover_ext), F(node_errmsg), F(generate_node_id), F(vfs_init), F(vfs_close), F(vfs_poll), F(vfs_apply),
    F(vfs_abort), F(vfs_snapshot), F(vfs_restore), F(vfs_num_pages), F(vfs_shallow_snapshot),
    F(node_enable_disk_mode), F(vfs_enable_disk), F(vfs_snapshot_disk), F(vfs_restore_disk), F(node_set_block_size),
    F(node_set_target_voters), F(node_set_target_standbys), F(node_enable_role_management), F(node_handover),
    F(node_set_auto_recovery), F(node_set_snapshot_compression), F(node_set_pool_thread_count),
    F(node_describe_last_entry), F(node_set_snapshot_params_v2), F(node_set_busy_timeout), F(server_create),
    F(server_set_address), F(server_set_auto_bootstrap), F(server_set_auto_join), F(server_set_bind_address),
    F(server_set_connect_func), F(server_start), F(server_get_id), F(server_handover), F(server_stop),
    F(server_destroy),
};

/* Functions that C has withdrawn: they refuse, and look at nothing. */
static int withdrawn(void)
{
    dqlite_vfs_close(NULL);
    return dqlite_vfs_init(NULL, "x") == DQLITE_ERROR && dqlite_vfs_poll(NULL, "x", NULL, NULL) == DQLITE_ERROR
           && dqlite_vfs_apply(NULL, "x", 1, NULL, NULL) == DQLITE_ERROR && dqlite_vfs_abort(NULL, "x") == DQLITE_ERROR
           && dqlite_vfs_snapshot(NULL, "x", NULL, NULL) == DQLITE_ERROR
           && dqlite_vfs_restore(NULL, "x", NULL, 1) == DQLITE_ERROR
           && dqlite_vfs_num_pages(NULL, "x", NULL) == DQLITE_ERROR
           && dqlite_vfs_shallow_snapshot(NULL, "x", NULL, 1) == DQLITE_ERROR
           && dqlite_vfs_enable_disk(NULL) == DQLITE_ERROR
           && dqlite_vfs_snapshot_disk(NULL, "x", NULL, 1) == DQLITE_ERROR
           && dqlite_vfs_restore_disk(NULL, "x", NULL, 1, 1) == DQLITE_ERROR;
}

int main(void)
{
    size_t i;
    for (i = 0; i < sizeof functions / sizeof functions[0]; i++) {
        if (functions[i] == NULL)
            return 1;
    }
    return !withdrawn() || dqlite_version_string == NULL;
}
