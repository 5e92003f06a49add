/*
 * Several threads, several nodes: calls at the same time, stop under load, clients that vanish.
 *
 *     threads DIRECTORY ADDRESS OTHER_ADDRESS
 *
 * With SQLITE_SINGLE_THREAD=1 in its environment the program first does what go-dqlite may do, and worse: it switches
 * SQLite's mutexes off and initialises it before the library can object.
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <time.h>

#include "checks.h"

enum { WRITERS = 4, LIVES = 8, ROWS_BEFORE_STOP = 40, SQLITE_BUSY_CODE = 5, LEAVING_CLIENTS = 12 };

static void sleep_ms(long ms)
{
    struct timespec time = {ms / 1000, ms % 1000 * 1000000};
    nanosleep(&time, NULL);
}

static pthread_t run_thread(void *(*function)(void *), void *arg)
{
    pthread_t thread;
    if (pthread_create(&thread, NULL, function, arg) != 0) {
        perror("pthread_create");
        exit(2);
    }
    return thread;
}

/* ---- writers ---- */

struct writer {
    const char *at;
    int number;
    atomic_int acknowledged;
    pthread_t thread;
};

/* Inserts one row after the other until the node closes the connection. */
static void *write_until_closed(void *arg)
{
    struct writer *writer = arg;
    struct wire_client client;
    int position, result = WIRE_OK;
    connect_client(&client, writer->at);
    for (position = 1; result != WIRE_BROKEN; position++) {
        char sql[128];
        snprintf(sql, sizeof sql, "INSERT INTO w VALUES (%d, %d)", writer->number, position);
        while ((result = wire_exec(&client, sql)) == WIRE_REFUSED && client.code == SQLITE_BUSY_CODE)
            sleep_ms(1);
        CHECK(result == WIRE_OK || result == WIRE_BROKEN, 1);
        if (result != WIRE_OK)
            break;
        writer->acknowledged++;
    }
    wire_close(&client);
    return NULL;
}

static void make_table(const char *at)
{
    struct wire_client client;
    connect_client(&client, at);
    CHECK(wire_exec(&client, "CREATE TABLE IF NOT EXISTS w (writer INT, position INT)"), WIRE_OK);
    CHECK(wire_exec(&client, "DELETE FROM w"), WIRE_OK);
    wire_close(&client);
}

static void start_writers(struct writer *writers, const char *at)
{
    int i, acknowledged = 0;
    make_table(at);
    for (i = 0; i < WRITERS; i++) {
        writers[i].at = at;
        writers[i].number = i;
        writers[i].acknowledged = 0;
        writers[i].thread = run_thread(write_until_closed, &writers[i]);
    }
    while (acknowledged < ROWS_BEFORE_STOP) {
        sleep_ms(1);
        for (acknowledged = 0, i = 0; i < WRITERS; i++)
            acknowledged += writers[i].acknowledged;
    }
}

static void join_writers(struct writer *writers)
{
    int i;
    for (i = 0; i < WRITERS; i++)
        pthread_join(writers[i].thread, NULL);
}

/* What was acknowledged is there, and at most the one row more whose answer was cut off. */
static void check_rows(struct writer *writers, const char *at)
{
    struct wire_client client;
    int i;
    connect_client(&client, at);
    for (i = 0; i < WRITERS; i++) {
        char sql[128];
        int64_t surplus;
        snprintf(sql, sizeof sql, "SELECT count(*) FROM w WHERE writer = %d", i);
        surplus = query_integer(&client, sql) - writers[i].acknowledged;
        CHECK(surplus == 0 || surplus == 1, 1);
        snprintf(sql, sizeof sql, "SELECT max(position) - count(DISTINCT position) FROM w WHERE writer = %d", i);
        CHECK(query_integer(&client, sql), 0);
    }
    wire_close(&client);
}

/* ---- tests ---- */

struct stopper {
    dqlite_node *node;
    pthread_barrier_t *barrier;
    int code;
};

static void *stop_at_the_barrier(void *arg)
{
    struct stopper *stopper = arg;
    pthread_barrier_wait(stopper->barrier);
    stopper->code = dqlite_node_stop(stopper->node);
    return NULL;
}

static void of_two_stops_at_once_one_stops_and_the_other_is_misuse(void)
{
    int life;
    for (life = 0; life < LIVES; life++) {
        struct writer writers[WRITERS];
        struct stopper one, other;
        pthread_barrier_t barrier;
        pthread_t thread;
        dqlite_node *node = start_node(directory("stops"), address);
        start_writers(writers, address);
        pthread_barrier_init(&barrier, NULL, 2);
        one.node = other.node = node;
        one.barrier = other.barrier = &barrier;
        thread = run_thread(stop_at_the_barrier, &one);
        stop_at_the_barrier(&other);
        pthread_join(thread, NULL);
        pthread_barrier_destroy(&barrier);
        CHECK(one.code == DQLITE_OK || other.code == DQLITE_OK, 1);
        CHECK(one.code + other.code, DQLITE_MISUSE);
        join_writers(writers);
        dqlite_node_destroy(node);
    }
}

static void acknowledged_rows_survive_a_stop_under_load(void)
{
    int life;
    for (life = 0; life < LIVES; life++) {
        struct writer writers[WRITERS];
        dqlite_node *node = start_node(directory("load"), address);
        start_writers(writers, address);
        if (life % 2 == 0)
            CHECK(dqlite_node_stop(node), DQLITE_OK);
        dqlite_node_destroy(node);
        join_writers(writers);
        node = start_node(path("load"), address);
        check_rows(writers, address);
        dqlite_node_destroy(node);
    }
}

static int count_vfses(void)
{
    sqlite3_vfs *vfs;
    int count = 0;
    for (vfs = sqlite3_vfs_find(NULL); vfs != NULL; vfs = vfs->pNext)
        count += strncmp(vfs->zName, "dqlite-", 7) == 0;
    return count;
}

static void two_nodes_in_one_process_know_nothing_of_each_other(void)
{
    struct writer writers[WRITERS], others[WRITERS];
    dqlite_node *node = start_node(directory("one"), address);
    dqlite_node *other = start_node(directory("other"), other_address);
    int before;
    CHECK(count_vfses(), 2);
    CHECK(strncmp(sqlite3_vfs_find(NULL)->zName, "dqlite-", 7) != 0, 1); /* none of them is the default */
    start_writers(writers, address);
    start_writers(others, other_address);
    CHECK(dqlite_node_stop(node), DQLITE_OK);
    join_writers(writers);
    dqlite_node_destroy(node);
    CHECK(count_vfses(), 1);
    before = others[0].acknowledged;
    while (others[0].acknowledged < before + ROWS_BEFORE_STOP)
        sleep_ms(1);
    CHECK(dqlite_node_stop(other), DQLITE_OK);
    join_writers(others);
    dqlite_node_destroy(other);

    node = start_node(path("one"), address);
    other = start_node(path("other"), other_address);
    check_rows(writers, address);
    check_rows(others, other_address);
    dqlite_node_destroy(other);
    dqlite_node_destroy(node);
}

static void leave(void *arg, size_t count, const char *const *columns, const struct wire_value *values)
{
    (void)count;
    (void)columns;
    (void)values;
    shutdown(((struct wire_client *)arg)->fd, SHUT_RDWR);
}

/* The host has not touched SIGPIPE, so a careless write would end it here. */
static void clients_that_leave_in_the_middle_of_an_answer_do_no_harm(void)
{
    struct wire_client clients[LEAVING_CLIENTS], client;
    dqlite_node *node = start_node(directory("leaving"), address);
    int i;
    for (i = 0; i < LEAVING_CLIENTS; i++) {
        connect_client(&clients[i], address);
        CHECK(wire_query(&clients[i],
                         "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 100000) "
                         "SELECT i, zeroblob(1000) FROM n",
                         leave, &clients[i]),
              WIRE_BROKEN);
        if (i % 2 == 0)
            wire_close(&clients[i]);
    }
    connect_client(&client, address);
    CHECK(query_integer(&client, "SELECT 17"), 17);
    wire_close(&client);
    CHECK(dqlite_node_stop(node), DQLITE_OK);
    dqlite_node_destroy(node);
    for (i = 1; i < LEAVING_CLIENTS; i += 2)
        wire_close(&clients[i]);
}

struct caller {
    dqlite_node *node;
    const char *at;
    atomic_int done;
};

static void *call_while_it_lives(void *arg)
{
    struct caller *caller = arg;
    unsigned round;
    for (round = 0; !caller->done; round++) {
        CHECK(dqlite_node_set_busy_timeout(caller->node, round), DQLITE_OK);
        CHECK(dqlite_node_set_failure_domain(caller->node, round), DQLITE_OK);
        CHECK_TEXT(dqlite_node_get_bind_address(caller->node), caller->at);
    }
    return NULL;
}

static void calls_from_other_threads_are_answered_during_start_and_stop(void)
{
    int life;
    for (life = 0; life < LIVES; life++) {
        dqlite_node *node = NULL;
        struct caller caller;
        pthread_t thread;
        CHECK(dqlite_node_create(1, address, directory("calls"), &node), DQLITE_OK);
        CHECK(dqlite_node_set_bind_address(node, address), DQLITE_OK);
        caller.node = node;
        caller.at = address;
        caller.done = 0;
        thread = run_thread(call_while_it_lives, &caller);
        CHECK(dqlite_node_start(node), DQLITE_OK);
        CHECK(dqlite_node_stop(node), DQLITE_OK);
        caller.done = 1;
        pthread_join(thread, NULL);
        dqlite_node_destroy(node);
    }
}

struct leaver {
    dqlite_node *node;
    int code;
};

static void *hand_over(void *arg)
{
    struct leaver *leaver = arg;
    leaver->code = dqlite_node_handover(leaver->node);
    return NULL;
}

/* The leader promotes a server that was only added, and leaves. */
static void a_server_is_promoted_and_takes_over_from_one_that_stops(void)
{
    struct wire_client client;
    struct leaver leaver;
    dqlite_node *node = NULL, *other = NULL;
    pthread_t thread;
    uint64_t leader = 0;
    CHECK(dqlite_node_create(1, address, directory("leaves"), &node), DQLITE_OK);
    CHECK(dqlite_node_set_bind_address(node, address), DQLITE_OK);
    CHECK(dqlite_node_enable_role_management(node), DQLITE_OK);
    CHECK(dqlite_node_start(node), DQLITE_OK);
    CHECK(dqlite_node_create(2, other_address, directory("stays"), &other), DQLITE_OK);
    CHECK(dqlite_node_set_bind_address(other, other_address), DQLITE_OK);
    CHECK(dqlite_node_start(other), DQLITE_OK);
    REFUSED(other, dqlite_node_handover(other), DQLITE_ERROR); /* in no cluster yet */

    connect_client(&client, address);
    CHECK(wire_add(&client, 2, other_address), WIRE_OK);
    wire_close(&client);
    /* Only a voter tells who leads. */
    CHECK(wire_connect(&client, other_address, 60000), WIRE_OK);
    CHECK(wire_wait_for_leader(&client, 60000), WIRE_OK);

    /* Leadership goes to the other one; the role cannot, for that one is a voter, too. */
    REFUSED(node, dqlite_node_handover(node), DQLITE_ERROR);
    CHECK(wire_leader(&client, &leader), WIRE_OK);
    CHECK(leader == 2, 1);
    CHECK(wire_open(&client, "test"), WIRE_OK);
    CHECK(wire_exec(&client, "CREATE TABLE t (n INT)"), WIRE_OK);
    wire_close(&client);

    leaver.node = node;
    thread = run_thread(hand_over, &leaver);
    CHECK(dqlite_node_stop(node), DQLITE_OK);
    pthread_join(thread, NULL);
    CHECK(leaver.code == DQLITE_ERROR || leaver.code == DQLITE_MISUSE, 1);
    CHECK(dqlite_node_stop(other), DQLITE_OK);
    dqlite_node_destroy(node);
    dqlite_node_destroy(other);
}

int main(int argc, char **argv)
{
    const char *single = getenv("SQLITE_SINGLE_THREAD");
    if (single != NULL && strcmp(single, "1") == 0
        && (sqlite3_config(SQLITE_CONFIG_SINGLETHREAD) != SQLITE_OK || sqlite3_initialize() != SQLITE_OK)) {
        fprintf(stderr, "SQLite refuses to run without mutexes\n");
        return 2;
    }
    checks_begin(argc, argv);
    RUN(of_two_stops_at_once_one_stops_and_the_other_is_misuse);
    RUN(acknowledged_rows_survive_a_stop_under_load);
    RUN(two_nodes_in_one_process_know_nothing_of_each_other);
    RUN(clients_that_leave_in_the_middle_of_an_answer_do_no_harm);
    RUN(calls_from_other_threads_are_answered_during_start_and_stop);
    RUN(a_server_is_promoted_and_takes_over_from_one_that_stops);
    return checks_end();
}
