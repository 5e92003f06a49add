/*
 * A node's life in good and in wrong orders: return codes and texts.
 *
 *     lifecycle DIRECTORY ADDRESS OTHER_ADDRESS
 */
#include <dirent.h>
#include <stdio.h>
#include <string.h>
#include <sys/stat.h>

#include "checks.h"

static int failing_calls;

static int connect_never(void *arg, const char *to, int *fd)
{
    (void)to;
    (void)fd;
    if (arg != NULL)
        ++*(int *)arg;
    return 1;
}

/* ---- create ---- */

static void null_arguments_are_misuse(void)
{
    dqlite_node *node = NULL;
    dqlite_node_destroy(NULL);
    CHECK_TEXT(dqlite_node_errmsg(NULL), "node is NULL");
    CHECK(dqlite_node_create(1, address, base, NULL), DQLITE_MISUSE);
    CHECK(dqlite_node_start(NULL), DQLITE_MISUSE);
    CHECK(dqlite_node_stop(NULL), DQLITE_MISUSE);
    CHECK(dqlite_node_handover(NULL), DQLITE_MISUSE);
    CHECK(dqlite_node_set_bind_address(NULL, address), DQLITE_MISUSE);
    CHECK(dqlite_node_set_busy_timeout(NULL, 1), DQLITE_MISUSE);
    CHECK(dqlite_node_get_bind_address(NULL) == NULL, 1);
    CHECK(dqlite_node_create(1, NULL, base, &node), DQLITE_MISUSE);
    CHECK_TEXT(dqlite_node_errmsg(node), "address is NULL");
    dqlite_node_destroy(node);
    CHECK(dqlite_node_create(1, address, NULL, &node), DQLITE_MISUSE);
    CHECK_TEXT(dqlite_node_errmsg(node), "data_dir is NULL");
    dqlite_node_destroy(node);
    CHECK(dqlite_generate_node_id(NULL) == 0, 1);
    CHECK(dqlite_generate_node_id("127.0.0.1:1") != dqlite_generate_node_id("127.0.0.1:1"), 1);
}

static void create_fails(const char *data_dir, const char *text)
{
    dqlite_node *node = NULL;
    CHECK(dqlite_node_create(1, address, data_dir, &node), DQLITE_ERROR);
    CHECK(node != NULL, 1);
    CHECK_TEXT(dqlite_node_errmsg(node), text);
    /* The object refuses everything else and can be destroyed. */
    CHECK(dqlite_node_start(node), DQLITE_MISUSE);
    CHECK(dqlite_node_set_bind_address(node, address), DQLITE_MISUSE);
    dqlite_node_destroy(node);
}

static void create_says_what_is_wrong_with_the_directory(void)
{
    char text[8192], name[1000];
    FILE *file;
    snprintf(text, sizeof text, "raft_init(): io: directory '%s' does not exist", path("missing"));
    create_fails(path("missing"), text);

    file = fopen(path("file"), "w");
    CHECK(file != NULL, 1);
    if (file != NULL)
        fclose(file);
    snprintf(text, sizeof text, "raft_init(): io: path '%s' is not a directory", path("file"));
    create_fails(path("file"), text);

    directory("read-only");
    chmod(path("read-only"), 0555);
    snprintf(text, sizeof text, "raft_init(): io: directory '%s' is not writable", path("read-only"));
    create_fails(path("read-only"), text);

    memset(name, 'x', sizeof name - 1);
    name[sizeof name - 1] = '\0';
    create_fails(name, "raft_uv_init(): directory path too long");
}

static void create_refuses_metadata_of_an_unknown_format(void)
{
    unsigned char bytes[32] = {9};
    char file_path[4200];
    FILE *file;
    snprintf(file_path, sizeof file_path, "%s/metadata1", directory("bad-metadata"));
    file = fopen(file_path, "wb");
    CHECK(file != NULL && fwrite(bytes, sizeof bytes, 1, file) == 1, 1);
    if (file != NULL)
        fclose(file);
    create_fails(path("bad-metadata"), "raft_init(): io: decode content of metadata1: bad format version 9");
}

/* ---- setters ---- */

static void setters_check_their_arguments(void)
{
    dqlite_node *node = NULL;
    CHECK(dqlite_node_create(1, address, directory("setters"), &node), DQLITE_OK);
    CHECK_TEXT(dqlite_node_errmsg(node), "");
    CHECK(dqlite_node_get_bind_address(node) == NULL, 1);

    CHECK(dqlite_node_set_network_latency_ms(node, 1), DQLITE_OK);
    CHECK(dqlite_node_set_network_latency_ms(node, 3600000), DQLITE_OK);
    REFUSED(node, dqlite_node_set_network_latency_ms(node, 0), DQLITE_MISUSE);
    REFUSED(node, dqlite_node_set_network_latency_ms(node, 3600001), DQLITE_MISUSE);
    CHECK(dqlite_node_set_network_latency(node, 1000000), DQLITE_OK);
    CHECK(dqlite_node_set_network_latency(node, 3600000000000ULL), DQLITE_OK);
    REFUSED(node, dqlite_node_set_network_latency(node, 999999), DQLITE_MISUSE);
    REFUSED(node, dqlite_node_set_network_latency(node, 3600000000001ULL), DQLITE_MISUSE);
    REFUSED(node, dqlite_node_set_network_latency(node, ~0ULL), DQLITE_MISUSE);

    CHECK(dqlite_node_set_snapshot_params(node, 1024, 8192), DQLITE_OK);
    CHECK(dqlite_node_set_snapshot_params(node, 0, 4), DQLITE_OK);
    REFUSED(node, dqlite_node_set_snapshot_params(node, 1, 3), DQLITE_MISUSE);
    REFUSED(node, dqlite_node_set_snapshot_params(node, 8, 7), DQLITE_MISUSE);
    CHECK(dqlite_node_set_snapshot_params_v2(node, 4, 4, DQLITE_SNAPSHOT_TRAILING_DYNAMIC), DQLITE_OK);
    REFUSED(node, dqlite_node_set_snapshot_params_v2(node, 4, 4, 2), DQLITE_MISUSE);
    REFUSED(node, dqlite_node_set_snapshot_params_v2(node, 4, 4, -1), DQLITE_MISUSE);

    CHECK(dqlite_node_set_block_size(node, 512), DQLITE_OK);
    CHECK(dqlite_node_set_block_size(node, 256 * 1024), DQLITE_OK);
    CHECK(dqlite_node_set_block_size(node, 4096), DQLITE_OK);
    REFUSED(node, dqlite_node_set_block_size(node, 0), DQLITE_ERROR);
    REFUSED(node, dqlite_node_set_block_size(node, 256), DQLITE_ERROR);
    REFUSED(node, dqlite_node_set_block_size(node, 4097), DQLITE_ERROR);
    REFUSED(node, dqlite_node_set_block_size(node, 512 * 1024), DQLITE_ERROR);

    CHECK(dqlite_node_set_connect_func(node, connect_never, NULL), DQLITE_OK);
    CHECK(dqlite_node_set_connect_func(node, NULL, NULL), DQLITE_OK);
    CHECK(dqlite_node_set_failure_domain(node, ~0ULL), DQLITE_OK);
    CHECK(dqlite_node_set_target_voters(node, -1), DQLITE_OK);
    CHECK(dqlite_node_set_target_standbys(node, 2), DQLITE_OK);
    CHECK(dqlite_node_enable_role_management(node), DQLITE_OK);
    CHECK(dqlite_node_set_pool_thread_count(node, 2), DQLITE_OK);
    CHECK(dqlite_node_set_auto_recovery(node, false), DQLITE_OK);
    CHECK(dqlite_node_set_snapshot_compression(node, true), DQLITE_OK);
    CHECK(dqlite_node_set_busy_timeout(node, 100), DQLITE_OK);
    CHECK(dqlite_node_enable_disk_mode(node), DQLITE_OK);
    dqlite_node_destroy(node);
}

static void bind_address_is_parsed_and_given_back(void)
{
    static const char *const wrong[] = {"", "localhost", ":9000", "127.0.0.1:abc", "[::1]", "256.0.0.1:1"};
    dqlite_node *node = NULL;
    size_t i;
    CHECK(dqlite_node_create(1, address, directory("bind"), &node), DQLITE_OK);
    for (i = 0; i < sizeof wrong / sizeof wrong[0]; i++)
        REFUSED(node, dqlite_node_set_bind_address(node, wrong[i]), DQLITE_ERROR);
    REFUSED(node, dqlite_node_set_bind_address(node, NULL), DQLITE_MISUSE);
    CHECK(dqlite_node_get_bind_address(node) == NULL, 1);
    CHECK(dqlite_node_set_bind_address(node, address), DQLITE_OK);
    CHECK_TEXT(dqlite_node_get_bind_address(node), address);
    CHECK(dqlite_node_set_bind_address(node, "@dqlite-lifecycle-test"), DQLITE_OK);
    CHECK_TEXT(dqlite_node_get_bind_address(node), "@dqlite-lifecycle-test");
    /* Never started: destroy releases the socket, so the same name can be bound again. */
    dqlite_node_destroy(node);
    CHECK(dqlite_node_create(1, address, directory("bind"), &node), DQLITE_OK);
    CHECK(dqlite_node_set_bind_address(node, "@dqlite-lifecycle-test"), DQLITE_OK);
    dqlite_node_destroy(node);
}

/* ---- start and stop ---- */

static void wrong_orders_are_refused(void)
{
    dqlite_node *node = NULL;
    CHECK(dqlite_node_create(1, address, directory("orders"), &node), DQLITE_OK);
    REFUSED(node, dqlite_node_stop(node), DQLITE_MISUSE);
    REFUSED(node, dqlite_node_handover(node), DQLITE_MISUSE);
    REFUSED(node, dqlite_node_start(node), DQLITE_MISUSE); /* no bind address */
    CHECK(dqlite_node_set_bind_address(node, address), DQLITE_OK);
    CHECK(dqlite_node_start(node), DQLITE_OK);

    CHECK(dqlite_node_start(node), DQLITE_ERROR);
    CHECK_TEXT(dqlite_node_errmsg(node), "couldn't lock the raft directory");
    CHECK(dqlite_node_handover(node), DQLITE_ERROR);
    CHECK_TEXT(dqlite_node_errmsg(node),
               "this server keeps its role of a voter: it is the only server of its cluster");

    CHECK(dqlite_node_stop(node), DQLITE_OK);
    REFUSED(node, dqlite_node_stop(node), DQLITE_MISUSE);
    REFUSED(node, dqlite_node_handover(node), DQLITE_MISUSE);
    REFUSED(node, dqlite_node_start(node), DQLITE_MISUSE); /* an object is for one start */
    dqlite_node_destroy(node);
}

static void setters_while_the_node_runs(void)
{
    dqlite_node *node = NULL;
    CHECK(dqlite_node_create(1, address, directory("setters-running"), &node), DQLITE_OK);
    CHECK(dqlite_node_set_bind_address(node, address), DQLITE_OK);
    /* The last one counts; a single node needs none of them. */
    CHECK(dqlite_node_set_connect_func(node, connect_never, NULL), DQLITE_OK);
    CHECK(dqlite_node_set_connect_func(node, connect_never, &failing_calls), DQLITE_OK);
    CHECK(dqlite_node_start(node), DQLITE_OK);

    REFUSED(node, dqlite_node_set_bind_address(node, other_address), DQLITE_MISUSE);
    CHECK_TEXT(dqlite_node_get_bind_address(node), address);
    REFUSED(node, dqlite_node_set_connect_func(node, connect_never, NULL), DQLITE_MISUSE);
    REFUSED(node, dqlite_node_set_connect_func(node, NULL, NULL), DQLITE_MISUSE);
    REFUSED(node, dqlite_node_set_network_latency(node, 10000000), DQLITE_MISUSE);
    REFUSED(node, dqlite_node_set_network_latency_ms(node, 10), DQLITE_MISUSE);
    REFUSED(node, dqlite_node_set_snapshot_params(node, 1024, 8192), DQLITE_MISUSE);
    REFUSED(node, dqlite_node_set_snapshot_params_v2(node, 4, 4, DQLITE_SNAPSHOT_TRAILING_STATIC), DQLITE_MISUSE);
    REFUSED(node, dqlite_node_set_block_size(node, 4096), DQLITE_MISUSE);
    REFUSED(node, dqlite_node_set_block_size(node, 4097), DQLITE_MISUSE); /* that it runs comes first */
    REFUSED(node, dqlite_node_enable_disk_mode(node), DQLITE_MISUSE);
    CHECK(dqlite_node_set_failure_domain(node, 7), DQLITE_OK);
    CHECK(dqlite_node_set_target_voters(node, 5), DQLITE_OK);
    CHECK(dqlite_node_set_target_standbys(node, 0), DQLITE_OK);
    CHECK(dqlite_node_enable_role_management(node), DQLITE_OK);
    CHECK(dqlite_node_set_pool_thread_count(node, 1), DQLITE_OK);
    CHECK(dqlite_node_set_auto_recovery(node, true), DQLITE_OK);
    CHECK(dqlite_node_set_snapshot_compression(node, false), DQLITE_OK);
    CHECK(dqlite_node_set_busy_timeout(node, 50), DQLITE_OK);

    CHECK(dqlite_node_stop(node), DQLITE_OK);
    /* Without use, but accepted: C hosts that set before each start do not check which life it is. */
    CHECK(dqlite_node_set_network_latency_ms(node, 10), DQLITE_OK);
    CHECK(dqlite_node_set_connect_func(node, NULL, NULL), DQLITE_OK);
    CHECK(dqlite_node_set_snapshot_params(node, 1024, 8192), DQLITE_OK);
    CHECK(dqlite_node_set_block_size(node, 4096), DQLITE_OK);
    CHECK(failing_calls, 0);
    dqlite_node_destroy(node);
}

static void a_failed_start_leaves_the_node_as_it_was(void)
{
    dqlite_node *node = NULL;
    char file_path[4200];
    unsigned char nonsense[64];
    FILE *file;
    memset(nonsense, 7, sizeof nonsense);
    snprintf(file_path, sizeof file_path, "%s/0000000000000001-0000000000000001", directory("bad-segment"));
    file = fopen(file_path, "wb");
    CHECK(file != NULL && fwrite(nonsense, sizeof nonsense, 1, file) == 1, 1);
    if (file != NULL)
        fclose(file);
    CHECK(dqlite_node_create(2, address, path("bad-segment"), &node), DQLITE_OK);
    CHECK(dqlite_node_set_bind_address(node, address), DQLITE_OK);
    CHECK(dqlite_node_set_auto_recovery(node, false), DQLITE_OK);
    CHECK(dqlite_node_start(node), DQLITE_ERROR);
    CHECK(strncmp(dqlite_node_errmsg(node), "raft_start(): io: ", 18), 0);
    CHECK(dqlite_node_stop(node), DQLITE_MISUSE);
    CHECK(remove(file_path), 0);
    CHECK(dqlite_node_start(node), DQLITE_OK);
    CHECK(dqlite_node_stop(node), DQLITE_OK);
    dqlite_node_destroy(node);
}

static void a_locked_directory_refuses_and_can_be_tried_again(void)
{
    dqlite_node *holder = NULL, *second = NULL;
    CHECK(dqlite_node_create(1, address, directory("locked"), &holder), DQLITE_OK);
    CHECK(dqlite_node_set_bind_address(holder, address), DQLITE_OK);
    CHECK(dqlite_node_start(holder), DQLITE_OK);
    CHECK(dqlite_node_create(1, other_address, path("locked"), &second), DQLITE_OK);
    CHECK(dqlite_node_set_bind_address(second, other_address), DQLITE_OK);
    CHECK(dqlite_node_start(second), DQLITE_ERROR);
    CHECK_TEXT(dqlite_node_errmsg(second), "couldn't lock the raft directory");
    CHECK(dqlite_node_stop(holder), DQLITE_OK);
    CHECK(dqlite_node_start(second), DQLITE_OK);
    CHECK(dqlite_node_stop(second), DQLITE_OK);
    dqlite_node_destroy(second);
    dqlite_node_destroy(holder);
}

static int64_t rows_of_t(struct wire_client *client)
{
    return query_integer(client, "SELECT count(*) FROM t");
}

static dqlite_node *serve(const char *data_dir, struct wire_client *client)
{
    dqlite_node *node = start_node(data_dir, address);
    connect_client(client, address);
    return node;
}

static void data_survives_stop_and_destroy_without_stop(void)
{
    struct wire_client client;
    dqlite_node *node = serve(directory("data"), &client);
    uint64_t leader = 0;
    CHECK(wire_leader(&client, &leader), WIRE_OK);
    CHECK(leader == 1, 1);
    CHECK(wire_exec(&client, "CREATE TABLE t (a INTEGER PRIMARY KEY, b TEXT)"), WIRE_OK);
    CHECK(wire_exec(&client, "INSERT INTO t (b) VALUES ('one'), ('two')"), WIRE_OK);
    CHECK(client.row_count == 2 && client.last_id == 2, 1);
    CHECK(wire_exec(&client, "INSERT INTO nosuch VALUES (1)"), WIRE_REFUSED);
    CHECK_TEXT(client.error, "no such table: nosuch");
    CHECK(dqlite_node_stop(node), DQLITE_OK);
    CHECK(wire_exec(&client, "INSERT INTO t (b) VALUES ('late')"), WIRE_BROKEN);
    wire_close(&client);
    dqlite_node_destroy(node);

    node = serve(path("data"), &client);
    CHECK(rows_of_t(&client), 2);
    CHECK(wire_exec(&client, "INSERT INTO t (b) VALUES ('three')"), WIRE_OK);
    dqlite_node_destroy(node); /* still running: destroy stops it */
    wire_close(&client);

    node = serve(path("data"), &client);
    CHECK(rows_of_t(&client), 3);
    wire_close(&client);
    CHECK(dqlite_node_stop(node), DQLITE_OK);
    dqlite_node_destroy(node);
}

static void stop_closes_clients_in_the_middle_of_a_transaction(void)
{
    struct wire_client client;
    dqlite_node *node = serve(path("data"), &client);
    CHECK(wire_exec(&client, "BEGIN IMMEDIATE"), WIRE_OK);
    CHECK(wire_exec(&client, "DELETE FROM t"), WIRE_OK);
    CHECK(dqlite_node_stop(node), DQLITE_OK);
    wire_close(&client);
    dqlite_node_destroy(node);
    node = serve(path("data"), &client);
    CHECK(rows_of_t(&client), 3);
    wire_close(&client);
    dqlite_node_destroy(node);
}

/* Of the threads of this process those that serve clients, by their names. */
static int count_client_threads(void)
{
    DIR *tasks = opendir("/proc/self/task");
    struct dirent *entry;
    int count = 0;
    while (tasks != NULL && (entry = readdir(tasks)) != NULL) {
        char file_path[300], name[32] = "";
        FILE *file;
        snprintf(file_path, sizeof file_path, "/proc/self/task/%s/comm", entry->d_name);
        file = fopen(file_path, "r");
        if (file == NULL)
            continue;
        if (fgets(name, sizeof name, file) != NULL)
            count += strncmp(name, "dqlite/client-", 14) == 0;
        fclose(file);
    }
    if (tasks != NULL)
        closedir(tasks);
    return count;
}

static void as_many_threads_serve_clients_as_were_asked_for(void)
{
    static const struct {
        unsigned asked;
        int threads;
    } cases[] = {{0, 1}, {2, 2}, {7, 7}};
    dqlite_node *node = start_node(directory("workers"), address);
    int by_default = count_client_threads();
    size_t i;
    CHECK(by_default >= 1 && by_default <= 4, 1); /* as many as there are processors for this process */
    dqlite_node_destroy(node);
    for (i = 0; i < sizeof cases / sizeof cases[0]; i++) {
        CHECK(dqlite_node_create(1, address, path("workers"), &node), DQLITE_OK);
        CHECK(dqlite_node_set_bind_address(node, address), DQLITE_OK);
        CHECK(dqlite_node_set_pool_thread_count(node, cases[i].asked), DQLITE_OK);
        CHECK(dqlite_node_start(node), DQLITE_OK);
        CHECK(count_client_threads(), cases[i].threads);
        dqlite_node_destroy(node);
    }
}

static void seventeen(sqlite3_context *context, int count, sqlite3_value **values)
{
    (void)count;
    (void)values;
    sqlite3_result_int(context, 17);
}

static int add_seventeen(sqlite3 *connection, const char **error, const void *api)
{
    (void)error;
    (void)api;
    return sqlite3_create_function(connection, "seventeen", 0, SQLITE_UTF8, NULL, seventeen, NULL, NULL);
}

static void sql_functions_of_the_host_are_there_for_clients(void)
{
    struct wire_client client;
    dqlite_node *node;
    CHECK(sqlite3_auto_extension((void (*)(void))add_seventeen), SQLITE_OK);
    node = serve(directory("functions"), &client);
    CHECK(wire_exec(&client, "CREATE TABLE t (a INTEGER)"), WIRE_OK);
    CHECK(wire_exec(&client, "INSERT INTO t VALUES (seventeen())"), WIRE_OK);
    CHECK(query_integer(&client, "SELECT a + seventeen() FROM t"), 34);
    wire_close(&client);
    dqlite_node_destroy(node);
    CHECK(sqlite3_cancel_auto_extension((void (*)(void))add_seventeen), 1);
}

/* ---- recovery ---- */

static void recover_checks_its_arguments(void)
{
    dqlite_node *node = NULL;
    dqlite_node_info infos[2] = {{1, "127.0.0.1:1"}, {2, "127.0.0.1:2"}};
    dqlite_node_info_ext ext[2] = {{sizeof ext[0], 1, 0, 0}, {sizeof ext[0], 2, 0, 1}};
    uint64_t index, term;
    ext[0].address = (uint64_t)(uintptr_t) "127.0.0.1:1";
    ext[1].address = (uint64_t)(uintptr_t) "127.0.0.1:2";
    CHECK(dqlite_node_create(1, address, directory("recover"), &node), DQLITE_OK);
    REFUSED(node, dqlite_node_recover(node, infos, 0), DQLITE_MISUSE);
    REFUSED(node, dqlite_node_recover(node, infos, -1), DQLITE_NOMEM);
    REFUSED(node, dqlite_node_recover(node, NULL, 2), DQLITE_MISUSE);
    infos[1].id = 1;
    REFUSED(node, dqlite_node_recover(node, infos, 2), DQLITE_MISUSE);
    infos[1].id = 0;
    REFUSED(node, dqlite_node_recover(node, infos, 2), DQLITE_MISUSE);
    infos[1].id = 2;
    infos[1].address = infos[0].address;
    REFUSED(node, dqlite_node_recover(node, infos, 2), DQLITE_MISUSE);
    infos[1].address = NULL;
    REFUSED(node, dqlite_node_recover(node, infos, 2), DQLITE_MISUSE);
    ext[1].size = 31;
    REFUSED(node, dqlite_node_recover_ext(node, ext, 2), DQLITE_MISUSE);
    ext[1].size = 36;
    REFUSED(node, dqlite_node_recover_ext(node, ext, 2), DQLITE_MISUSE);
    REFUSED(node, dqlite_node_describe_last_entry(node, NULL, &term), DQLITE_MISUSE);
    REFUSED(node, dqlite_node_describe_last_entry(node, &index, NULL), DQLITE_MISUSE);
    dqlite_node_destroy(node);

    CHECK(dqlite_node_recover(NULL, infos, 1), DQLITE_MISUSE);
    CHECK(dqlite_node_recover_ext(NULL, ext, 1), DQLITE_MISUSE);
    CHECK(dqlite_node_describe_last_entry(NULL, &index, &term), DQLITE_MISUSE);
    CHECK(dqlite_node_create(1, address, path("missing-for-recover"), &node), DQLITE_ERROR);
    REFUSED(node, dqlite_node_recover(node, infos, 1), DQLITE_MISUSE);
    REFUSED(node, dqlite_node_describe_last_entry(node, &index, &term), DQLITE_MISUSE);
    dqlite_node_destroy(node);
}

static void expect_last_entry(dqlite_node *node, uint64_t expected_index, uint64_t expected_term)
{
    uint64_t index = 99, term = 99;
    CHECK(dqlite_node_describe_last_entry(node, &index, &term), DQLITE_OK);
    CHECK(index == expected_index, 1);
    CHECK(term == expected_term, 1);
}

static void a_new_directory_is_recovered_and_started(void)
{
    dqlite_node *node = NULL;
    struct wire_client client;
    dqlite_node_info info = {1, NULL};
    info.address = address;
    CHECK(dqlite_node_create(1, address, directory("recover-new"), &node), DQLITE_OK);
    expect_last_entry(node, 0, 0);
    CHECK(dqlite_node_recover(node, &info, 1), DQLITE_OK);
    expect_last_entry(node, 1, 1);
    CHECK(dqlite_node_set_bind_address(node, address), DQLITE_OK);
    CHECK(dqlite_node_start(node), DQLITE_OK); /* the same object */
    connect_client(&client, address);
    CHECK(wire_exec(&client, "CREATE TABLE t (a INTEGER)"), WIRE_OK);
    wire_close(&client);
    CHECK(dqlite_node_stop(node), DQLITE_OK);
    dqlite_node_destroy(node);
}

static void a_directory_in_use_is_not_recovered(void)
{
    dqlite_node *node = NULL, *other = NULL;
    dqlite_node_info info = {1, NULL};
    uint64_t index, term;
    info.address = address;
    node = start_node(directory("recover-used"), address);
    REFUSED(node, dqlite_node_recover(node, &info, 1), DQLITE_ERROR);
    REFUSED(node, dqlite_node_describe_last_entry(node, &index, &term), DQLITE_MISUSE);
    CHECK(dqlite_node_create(2, other_address, path("recover-used"), &other), DQLITE_OK);
    CHECK(dqlite_node_recover(other, &info, 1), DQLITE_ERROR);
    CHECK_TEXT(dqlite_node_errmsg(other), "couldn't lock the raft directory");
    REFUSED(other, dqlite_node_describe_last_entry(other, &index, &term), DQLITE_ERROR);
    CHECK(dqlite_node_stop(node), DQLITE_OK);
    REFUSED(node, dqlite_node_describe_last_entry(node, &index, &term), DQLITE_MISUSE);
    CHECK(dqlite_node_recover(other, &info, 1), DQLITE_OK);
    dqlite_node_destroy(other);
    dqlite_node_destroy(node);
}

/* Server 2 is gone: without recovery server 1 of the two could never lead again. */
static void a_server_left_alone_leads_again_with_its_rows(void)
{
    struct wire_client client;
    dqlite_node *node = serve(directory("recover-rows"), &client);
    dqlite_node_info_ext both[2] = {{sizeof both[0], 1, 0, 0}, {sizeof both[0], 2, 0, 0}};
    uint64_t index, term, later_index, later_term;
    both[0].address = (uint64_t)(uintptr_t)address;
    both[1].address = (uint64_t)(uintptr_t)other_address;
    CHECK(wire_exec(&client, "CREATE TABLE t (a INTEGER)"), WIRE_OK);
    CHECK(wire_exec(&client, "INSERT INTO t VALUES (1), (2)"), WIRE_OK);
    wire_close(&client);
    dqlite_node_destroy(node);

    CHECK(dqlite_node_create(1, address, path("recover-rows"), &node), DQLITE_OK);
    CHECK(dqlite_node_describe_last_entry(node, &index, &term), DQLITE_OK);
    CHECK(dqlite_node_recover_ext(node, both, 2), DQLITE_OK);
    CHECK(dqlite_node_recover_ext(node, both, 1), DQLITE_OK); /* each call appends one entry in a later term */
    CHECK(dqlite_node_describe_last_entry(node, &later_index, &later_term), DQLITE_OK);
    CHECK(later_index == index + 2 && later_term > term, 1);
    dqlite_node_destroy(node);

    node = serve(path("recover-rows"), &client);
    CHECK(rows_of_t(&client), 2);
    CHECK(wire_exec(&client, "INSERT INTO t VALUES (3)"), WIRE_OK);
    wire_close(&client);
    dqlite_node_destroy(node);
    node = serve(path("recover-rows"), &client);
    CHECK(rows_of_t(&client), 3);
    wire_close(&client);
    dqlite_node_destroy(node);
}

static void damage_is_told_as_recovery_would_meet_it(void)
{
    dqlite_node *node = NULL;
    char file_path[4200];
    uint64_t index, term;
    dqlite_node_info info = {1, NULL};
    FILE *file;
    info.address = address;
    snprintf(file_path, sizeof file_path, "%s/0000000000000002-0000000000000002", directory("recover-damaged"));
    file = fopen(file_path, "wb");
    CHECK(file != NULL, 1);
    if (file != NULL)
        fclose(file);
    CHECK(dqlite_node_create(1, address, path("recover-damaged"), &node), DQLITE_OK);
    REFUSED(node, dqlite_node_describe_last_entry(node, &index, &term), DQLITE_ERROR);
    CHECK(dqlite_node_recover(node, &info, 1), DQLITE_ERROR);
    CHECK(strncmp(dqlite_node_errmsg(node), "raft_recover(): ", 16), 0);
    dqlite_node_destroy(node);
}

int main(int argc, char **argv)
{
    checks_begin(argc, argv);
    RUN(null_arguments_are_misuse);
    RUN(create_says_what_is_wrong_with_the_directory);
    RUN(create_refuses_metadata_of_an_unknown_format);
    RUN(setters_check_their_arguments);
    RUN(bind_address_is_parsed_and_given_back);
    RUN(wrong_orders_are_refused);
    RUN(setters_while_the_node_runs);
    RUN(a_failed_start_leaves_the_node_as_it_was);
    RUN(a_locked_directory_refuses_and_can_be_tried_again);
    RUN(data_survives_stop_and_destroy_without_stop);
    RUN(stop_closes_clients_in_the_middle_of_a_transaction);
    RUN(as_many_threads_serve_clients_as_were_asked_for);
    RUN(sql_functions_of_the_host_are_there_for_clients);
    RUN(recover_checks_its_arguments);
    RUN(a_new_directory_is_recovered_and_started);
    RUN(a_directory_in_use_is_not_recovered);
    RUN(a_server_left_alone_leads_again_with_its_rows);
    RUN(damage_is_told_as_recovery_would_meet_it);
    return checks_end();
}
