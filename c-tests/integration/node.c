/* A node that is stopped while it is at work, and one that recovery left out of its cluster. */
#include <poll.h>
#include <pthread.h>
#include <semaphore.h>

#include "members.h"
#include "scenarios.h"

enum { CLIENTS = 12, BUSY_TIMEOUT_MS = 10000, TIME_TO_LEAD_MS = 2000 };

static void be_patient(dqlite_node *node)
{
    CHECK(dqlite_node_set_busy_timeout(node, BUSY_TIMEOUT_MS), DQLITE_OK);
}

/* ---- stop ---- */

/* The clients read the first part of an answer that has no end, and nothing more until the node is stopped. */
static void stop_ends_queries_that_never_would(void)
{
    struct wire_client clients[CLIENTS];
    dqlite_node *node = start_node(directory("endless"), address);
    int number, done, result;
    be_patient(node);
    for (number = 0; number < CLIENTS; number++) {
        struct wire_client *client = &clients[number];
        connect_client(client, address);
        CHECK(wire_send_query(client, "WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers) "
                                      "SELECT n FROM numbers"),
              WIRE_OK);
        CHECK(wire_receive_rows(client, NULL, NULL, &done), WIRE_OK);
        CHECK(done, 0);
    }
    CHECK(dqlite_node_stop(node), DQLITE_OK);
    for (number = 0; number < CLIENTS; number++) {
        /* What was on its way; then, in C, the end at once, where our node first says why. */
        do
            result = wire_receive_rows(&clients[number], NULL, NULL, &done);
        while (result == WIRE_OK && !done);
        if (result == WIRE_REFUSED) {
            CHECK_TEXT(clients[number].error, "interrupted");
            result = wire_receive_rows(&clients[number], NULL, NULL, &done);
        }
        CHECK(result, WIRE_BROKEN);
        wire_close(&clients[number]);
    }
    dqlite_node_destroy(node);
}

static sem_t entered, released;

/* A function of the host in SQL: it returns when this program lets it. */
static void hold(sqlite3_context *context, int count, sqlite3_value **values)
{
    (void)count;
    sem_post(&entered);
    sem_wait(&released);
    sqlite3_result_value(context, values[0]);
}

static int add_functions(sqlite3 *connection, char **error, const struct sqlite3_api_routines *routines)
{
    (void)error;
    (void)routines;
    return sqlite3_create_function_v2(connection, "hold", 1, SQLITE_UTF8, NULL, hold, NULL, NULL, NULL);
}

static void *stop(void *node)
{
    CHECK(dqlite_node_stop(node), DQLITE_OK);
    return NULL;
}

/* Whether the node closes the connection while this process waits for it. */
static int is_closed(struct wire_client *client)
{
    struct pollfd connection = {.fd = client->fd, .events = POLLIN};
    return poll(&connection, 1, PATIENCE_MS) == 1 && wire_receive_result(client) == WIRE_BROKEN;
}

/* The first writer is inside a function of the host, where nothing can interrupt it; the others wait for their turn,
 * which does not come any more. C closes no connection before the first one is done, and then ends the process with a
 * failed assertion. */
static void stop_turns_away_the_writers_in_line(void)
{
    struct wire_client clients[CLIENTS];
    dqlite_node *node;
    pthread_t thread;
    int number, others = -1;
    sem_init(&entered, 0, 0);
    sem_init(&released, 0, 0);
    CHECK(sqlite3_auto_extension((void (*)(void))add_functions), SQLITE_OK);
    node = start_node(directory("line"), address);
    be_patient(node);
    for (number = 0; number < CLIENTS; number++)
        connect_client(&clients[number], address);
    CHECK(wire_exec(&clients[0], "CREATE TABLE t (n INT)"), WIRE_OK);
    for (number = 0; number < CLIENTS; number++) {
        CHECK(wire_send_exec(&clients[number], "INSERT INTO t VALUES (hold(1))"), WIRE_OK);
        if (number == 0)
            sem_wait(&entered);
    }
    CHECK(pthread_create(&thread, NULL, stop, node), 0);
    for (number = 1; number < CLIENTS && is_closed(&clients[number]); number++)
        ;
    CHECK(number, CLIENTS);
    /* One would do, if the others are gone. */
    for (number = 0; number < CLIENTS; number++)
        sem_post(&released);
    pthread_join(thread, NULL);
    sem_getvalue(&entered, &others);
    CHECK(others, 0);
    for (number = 0; number < CLIENTS; number++)
        wire_close(&clients[number]);
    dqlite_node_destroy(node);

    node = start_node(path("line"), address);
    connect_client(&clients[0], address);
    CHECK(query_integer(&clients[0], "SELECT count(*) FROM t") <= 1, 1);
    wire_close(&clients[0]);
    dqlite_node_destroy(node);
    sqlite3_reset_auto_extension();
    sem_destroy(&entered);
    sem_destroy(&released);
}

/* ---- recovery ---- */

/* The configuration forced upon the log names two servers, none of which is this one. */
static void a_server_that_recovery_left_out_starts_and_knows_no_leader(void)
{
    dqlite_node_info_ext infos[2] = {{sizeof infos[0], 0, 0, WIRE_VOTER}, {sizeof infos[0], 0, 0, WIRE_SPARE}};
    struct member member;
    uint64_t leader = 99;
    start_members(&member, 1, "left-out", NULL);
    connect_to_leader(&member, "test");
    exec(&member, "CREATE TABLE t (n INT)");
    stop_member(&member);

    infos[0].address = (uint64_t)(uintptr_t)address;
    infos[1].address = (uint64_t)(uintptr_t)other_address;
    infos[0].id = dqlite_generate_node_id(address);
    infos[1].id = dqlite_generate_node_id(other_address);
    create_member(&member);
    CHECK(dqlite_node_recover_ext(member.node, infos, 2), DQLITE_OK);
    start_member(&member);
    /* A voter that is alone would lead by then. */
    sleep_ms(TIME_TO_LEAD_MS);
    CHECK(wire_leader(&member.client, &leader), WIRE_OK);
    CHECK((long long)leader, 0);
    stop_member(&member);
}

const struct scenario node_scenarios[] = {
    SCENARIO(stop_ends_queries_that_never_would),
    SCENARIO(stop_turns_away_the_writers_in_line),
    SCENARIO(a_server_that_recovery_left_out_starts_and_knows_no_leader),
    SCENARIOS_END,
};
