/*
 * What ends, hangs or drains a process with the C library, and here is an error or nothing at all. The table in
 * docs/compatibility.md names these tests and those of other files.
 */
#include "checks.h"

#include <arpa/inet.h>
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/time.h>
#include <time.h>
#include <unistd.h>

enum { ROUNDS = 20, HANG_UPS = 3, WAIT_MS = 60000, LONG_NAME = 200 };

static void sleep_ms(long ms)
{
    struct timespec time = {ms / 1000, ms % 1000 * 1000000};
    nanosleep(&time, NULL);
}

static dqlite_node *bound_node(const char *data_dir, const char *at)
{
    dqlite_node *node = NULL;
    CHECK(dqlite_node_create(1, at, data_dir, &node), DQLITE_OK);
    CHECK(dqlite_node_set_bind_address(node, at), DQLITE_OK);
    return node;
}

/* ---- nodes ---- */

/* Both may bind: nobody listens yet. */
static void a_start_where_another_node_listens_is_refused_and_may_be_tried_again(void)
{
    dqlite_node *first = bound_node(directory("first"), address);
    dqlite_node *second = bound_node(directory("second"), address);
    CHECK(dqlite_node_start(first), DQLITE_OK);
    REFUSED(second, dqlite_node_start(second), DQLITE_ERROR);
    CHECK(dqlite_node_stop(first), DQLITE_OK);
    dqlite_node_destroy(first);
    CHECK(dqlite_node_start(second), DQLITE_OK);
    dqlite_node_destroy(second);
}

/* That nothing is left behind is checked by run_test. */
static void nodes_that_never_start_leave_nothing_behind(void)
{
    int round;
    for (round = 0; round < ROUNDS; round++) {
        dqlite_node *node = bound_node(directory("never"), address);
        CHECK(dqlite_node_set_bind_address(node, other_address), DQLITE_OK);
        CHECK(dqlite_node_set_bind_address(node, address), DQLITE_OK);
        dqlite_node_destroy(node);
        CHECK(dqlite_node_create(1, address, path("missing"), &node), DQLITE_ERROR);
        dqlite_node_destroy(node);
    }
}

static void a_node_that_was_not_created_refuses_everything(void)
{
    dqlite_node *node = NULL;
    dqlite_node_info info = {1, address};
    CHECK(dqlite_node_create(1, address, path("missing"), &node), DQLITE_ERROR);
    REFUSED(node, dqlite_node_start(node), DQLITE_MISUSE);
    REFUSED(node, dqlite_node_stop(node), DQLITE_MISUSE);
    REFUSED(node, dqlite_node_handover(node), DQLITE_MISUSE);
    REFUSED(node, dqlite_node_set_target_voters(node, 3), DQLITE_MISUSE);
    REFUSED(node, dqlite_node_recover(node, &info, -1), DQLITE_MISUSE);
    CHECK(dqlite_node_get_bind_address(node) == NULL, 1);
    dqlite_node_destroy(node);
}

static void write_file(const char *name, const char *text)
{
    FILE *file = fopen(name, "w");
    CHECK(file != NULL, 1);
    if (file != NULL) {
        fputs(text, file);
        fclose(file);
    }
}

static void a_recovery_that_fails_gives_the_directory_back(void)
{
    char name[4096];
    dqlite_node_info info = {1, address};
    dqlite_node *node = NULL, *other = NULL;
    snprintf(name, sizeof name, "%s/0000000000000001-0000000000000001", directory("damaged"));
    write_file(name, "this is no segment of a log");
    CHECK(dqlite_node_create(1, address, path("damaged"), &node), DQLITE_OK);
    CHECK(dqlite_node_set_auto_recovery(node, false), DQLITE_OK);
    REFUSED(node, dqlite_node_recover(node, &info, 1), DQLITE_ERROR);
    remove(name);
    CHECK(dqlite_node_create(1, address, path("damaged"), &other), DQLITE_OK);
    CHECK(dqlite_node_recover(other, &info, 1), DQLITE_OK);
    dqlite_node_destroy(other);
    dqlite_node_destroy(node);
}

static void foreign_files_with_long_names_are_left_alone(void)
{
    char name[4096 + LONG_NAME];
    dqlite_node *node;
    size_t length = (size_t)snprintf(name, sizeof name, "%s/", directory("foreign"));
    memset(name + length, 'x', LONG_NAME);
    name[length + LONG_NAME] = '\0';
    write_file(name, "mine");
    node = start_node(path("foreign"), address);
    CHECK(dqlite_node_stop(node), DQLITE_OK);
    dqlite_node_destroy(node);
    CHECK(access(name, F_OK), 0);
}

struct acceptor {
    int listener;
    atomic_int count;
};

/* Resets every connection as soon as it is there. */
static void *hang_up_at_once(void *arg)
{
    struct acceptor *acceptor = arg;
    struct linger at_once = {1, 0};
    int fd;
    while ((fd = accept(acceptor->listener, NULL, NULL)) >= 0) {
        setsockopt(fd, SOL_SOCKET, SO_LINGER, &at_once, sizeof at_once);
        close(fd);
        acceptor->count++;
    }
    return NULL;
}

static int listen_at(const char *at)
{
    struct sockaddr_in own;
    int one = 1, fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    memset(&own, 0, sizeof own);
    own.sin_family = AF_INET;
    own.sin_port = htons((uint16_t)atoi(strrchr(at, ':') + 1));
    own.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
    setsockopt(fd, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one);
    CHECK(bind(fd, (struct sockaddr *)&own, sizeof own), 0);
    CHECK(listen(fd, 8), 0);
    return fd;
}

/* The host has not touched SIGPIPE. The other voter is asked for its vote again and again. */
static void a_server_that_hangs_up_at_once_does_not_end_the_host(void)
{
    struct acceptor acceptor;
    dqlite_node_info infos[2] = {{1, address}, {2, other_address}};
    struct sigaction action;
    pthread_t thread;
    dqlite_node *node = bound_node(directory("hang-up"), address);
    int waited_ms;
    sigaction(SIGPIPE, NULL, &action);
    CHECK(action.sa_handler == SIG_DFL, 1);
    acceptor.listener = listen_at(other_address);
    acceptor.count = 0;
    CHECK(pthread_create(&thread, NULL, hang_up_at_once, &acceptor), 0);
    CHECK(dqlite_node_start(node), DQLITE_OK);
    CHECK(dqlite_node_stop(node), DQLITE_OK);
    dqlite_node_destroy(node);

    node = bound_node(path("hang-up"), address);
    CHECK(dqlite_node_recover(node, infos, 2), DQLITE_OK);
    CHECK(dqlite_node_set_connect_func(node, NULL, NULL), DQLITE_OK);
    CHECK(dqlite_node_set_network_latency_ms(node, 5), DQLITE_OK);
    CHECK(dqlite_node_start(node), DQLITE_OK);
    for (waited_ms = 0; acceptor.count < HANG_UPS && waited_ms < WAIT_MS; waited_ms += 10)
        sleep_ms(10);
    CHECK(acceptor.count >= HANG_UPS, 1);
    CHECK(dqlite_node_stop(node), DQLITE_OK);
    dqlite_node_destroy(node);
    shutdown(acceptor.listener, SHUT_RDWR);
    pthread_join(thread, NULL);
    close(acceptor.listener);
}

/* ---- clients ---- */

static void hang_up(void *arg, size_t count, const char *const *columns, const struct wire_value *values)
{
    (void)count;
    (void)columns;
    (void)values;
    shutdown(((struct wire_client *)arg)->fd, SHUT_RDWR);
}

static void a_client_that_leaves_in_the_middle_of_written_rows_leaves_no_lock(void)
{
    struct wire_client leaver, other;
    dqlite_node *node = start_node(directory("returning"), address);
    int waited_ms, result = WIRE_REFUSED;
    connect_client(&leaver, address);
    connect_client(&other, address);
    CHECK(wire_exec(&leaver, "CREATE TABLE t (n INTEGER, filler BLOB)"), WIRE_OK);
    CHECK(wire_query(&leaver,
                     "INSERT INTO t WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 10000) "
                     "SELECT i, zeroblob(1000) FROM n RETURNING n, filler",
                     hang_up, &leaver),
          WIRE_BROKEN);
    /* The lock is free once the node has noticed. */
    for (waited_ms = 0; result == WIRE_REFUSED && waited_ms < WAIT_MS; waited_ms += 10) {
        result = wire_exec(&other, "INSERT INTO t VALUES (-1, NULL)");
        sleep_ms(10);
    }
    CHECK(result, WIRE_OK);
    CHECK(query_integer(&other, "SELECT count(*) FROM t WHERE n = -1"), 1);
    wire_close(&leaver);
    wire_close(&other);
    CHECK(dqlite_node_stop(node), DQLITE_OK);
    dqlite_node_destroy(node);
}

struct kinds {
    int rows;
    int expected[3];
};

static void compare_kinds(void *arg, size_t count, const char *const *columns, const struct wire_value *values)
{
    struct kinds *kinds = arg;
    size_t i;
    (void)columns;
    kinds->rows++;
    for (i = 0; i < count && i < 3; i++)
        CHECK(values[i].kind, kinds->expected[i]);
}

static void values_that_do_not_fit_a_columns_declared_type_are_sent_as_what_they_are(void)
{
    static const char *const types[] = {"BOOLEAN", "DATE", "DATETIME", "TIMESTAMP"};
    struct wire_client client;
    dqlite_node *node = start_node(directory("types"), address);
    size_t i;
    connect_client(&client, address);
    for (i = 0; i < sizeof types / sizeof types[0]; i++) {
        struct kinds kinds = {0, {WIRE_FLOAT, WIRE_BLOB, WIRE_TEXT}};
        char sql[300];
        snprintf(sql, sizeof sql,
                 "DROP TABLE IF EXISTS t; CREATE TABLE t (f %s, b %s, t %s); "
                 "INSERT INTO t VALUES (1.5, x'ff00', 'x')",
                 types[i], types[i], types[i]);
        CHECK(wire_exec(&client, sql), WIRE_OK);
        CHECK(wire_query(&client, "SELECT * FROM t", compare_kinds, &kinds), WIRE_OK);
        CHECK(kinds.rows, 1);
    }
    wire_close(&client);
    dqlite_node_destroy(node);
}

/* Sends words, receives one answer and returns its type, or -1. */
static int exchange(struct wire_client *client, const uint64_t *words, size_t count)
{
    unsigned char answer[4096];
    ssize_t header, body = 0;
    CHECK(send(client->fd, words, count * 8, MSG_NOSIGNAL) == (ssize_t)(count * 8), 1);
    header = recv(client->fd, answer, 8, MSG_WAITALL);
    if (header != 8)
        return -1;
    body = (answer[0] | answer[1] << 8) * 8;
    if ((size_t)body > sizeof answer - 8 || recv(client->fd, answer + 8, (size_t)body, MSG_WAITALL) != body)
        return -1;
    return answer[4];
}

static void a_format_that_is_not_known_is_refused_once(void)
{
    static const uint64_t describe[] = {UINT64_C(1) | UINT64_C(18) << 32, 77};
    static const uint64_t cluster[] = {UINT64_C(1) | UINT64_C(16) << 32, 77};
    struct wire_client client;
    uint64_t leader = 0;
    dqlite_node *node = start_node(directory("formats"), address);
    connect_client(&client, address);
    CHECK(exchange(&client, describe, 2), 0);
    CHECK(exchange(&client, cluster, 2), 0);
    CHECK(wire_leader(&client, &leader), WIRE_OK);
    CHECK(leader == 1, 1);
    wire_close(&client);
    CHECK(dqlite_node_stop(node), DQLITE_OK);
    dqlite_node_destroy(node);
}

static void a_request_without_a_body_is_refused_and_the_next_one_answered(void)
{
    static const uint64_t empty[] = {UINT64_C(8) << 32};
    struct wire_client client;
    dqlite_node *node = start_node(directory("empty"), address);
    connect_client(&client, address);
    CHECK(exchange(&client, empty, 1), 0);
    CHECK(query_integer(&client, "SELECT 19"), 19);
    wire_close(&client);
    CHECK(dqlite_node_stop(node), DQLITE_OK);
    dqlite_node_destroy(node);
}

/* Bodies whose size does not fit 31 or 32 bits, and one that never comes. */
static void sizes_that_no_request_has_close_their_connection_only(void)
{
    static const uint64_t headers[] = {UINT64_C(8) << 32 | 0x10000001, UINT64_C(8) << 32 | 0x1fffffff,
                                       UINT64_C(8) << 32 | 0x20000000, UINT64_C(8) << 32 | 0xffffffff};
    struct wire_client client, good;
    char byte;
    size_t i;
    dqlite_node *node = start_node(directory("sizes"), address);
    connect_client(&good, address);
    for (i = 0; i < sizeof headers / sizeof headers[0]; i++) {
        CHECK(wire_connect(&client, address, WAIT_MS), WIRE_OK);
        CHECK(send(client.fd, &headers[i], 8, MSG_NOSIGNAL) == 8, 1);
        CHECK(recv(client.fd, &byte, 1, 0), 0);
        CHECK(query_integer(&good, "SELECT 17"), 17);
        wire_close(&client);
    }
    CHECK(wire_connect(&client, address, WAIT_MS), WIRE_OK);
    CHECK(send(client.fd, "\x02\0\0\0\x08\0\0", 8, MSG_NOSIGNAL) == 8, 1);
    CHECK(query_integer(&good, "SELECT 18"), 18);
    CHECK(dqlite_node_stop(node), DQLITE_OK);
    dqlite_node_destroy(node);
    wire_close(&client);
    wire_close(&good);
}

int main(int argc, char **argv)
{
    checks_begin(argc, argv);
    RUN(a_start_where_another_node_listens_is_refused_and_may_be_tried_again);
    RUN(nodes_that_never_start_leave_nothing_behind);
    RUN(a_node_that_was_not_created_refuses_everything);
    RUN(a_recovery_that_fails_gives_the_directory_back);
    RUN(foreign_files_with_long_names_are_left_alone);
    RUN(a_server_that_hangs_up_at_once_does_not_end_the_host);
    RUN(a_client_that_leaves_in_the_middle_of_written_rows_leaves_no_lock);
    RUN(values_that_do_not_fit_a_columns_declared_type_are_sent_as_what_they_are);
    RUN(a_format_that_is_not_known_is_refused_once);
    RUN(a_request_without_a_body_is_refused_and_the_next_one_answered);
    RUN(sizes_that_no_request_has_close_their_connection_only);
    return checks_end();
}
