/* Many clients of several databases at once. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>

#include "members.h"
#include "scenarios.h"

enum { REQUESTS = 200, ROWS_AT_FIRST = 1000, WORKERS_MAX = 80 };

struct worker {
    pthread_t thread;
    const struct member *member;
    char database[16];
    long requests;
};

static void connect_worker(const struct worker *worker, struct wire_client *client)
{
    CHECK(wire_connect(client, worker->member->address, PATIENCE_MS), WIRE_OK);
    CHECK(wire_open(client, worker->database), WIRE_OK);
}

/* Each statement adds a number and its opposite. */
static void *write_pairs(void *arg)
{
    const struct worker *worker = arg;
    struct wire_client client;
    long request;
    connect_worker(worker, &client);
    for (request = 0; request < worker->requests; request++) {
        CHECK(wire_exec(&client, "INSERT INTO t SELECT n FROM (SELECT 1 AS n UNION ALL SELECT -1)"), WIRE_OK);
        CHECK((long long)client.row_count, 2);
    }
    CHECK_TEXT(client.error, ""); /* says what was refused */
    wire_close(&client);
    return NULL;
}

struct totals {
    int64_t rows;
    int64_t sum;
};

static void take_totals(void *arg, size_t count, const char *const *columns, const struct wire_value *values)
{
    struct totals *totals = arg;
    (void)columns;
    totals->rows = count > 1 ? values[0].integer : -1;
    totals->sum = count > 1 ? values[1].integer : -1;
}

/* Sees whole statements only, and never less than before. */
static void *read_totals(void *arg)
{
    const struct worker *worker = arg;
    struct wire_client client;
    uint32_t select = 0;
    int64_t rows_before = ROWS_AT_FIRST;
    long request;
    connect_worker(worker, &client);
    CHECK(wire_prepare(&client, "SELECT count(*), sum(n) FROM t", &select), WIRE_OK);
    for (request = 0; request < worker->requests; request++) {
        struct totals totals = {-1, -1};
        CHECK(wire_query_prepared(&client, select, 0, NULL, take_totals, &totals), WIRE_OK);
        CHECK(totals.sum, 0);
        CHECK(totals.rows >= rows_before, 1);
        rows_before = totals.rows;
    }
    wire_close(&client);
    return NULL;
}

static const char *database_name(char name[16], int database)
{
    snprintf(name, 16, "stress-%d", database);
    return name;
}

/* So many of each for every database. Nobody waits for an open transaction, so nobody may be told that a database is
 * locked; in C a writer may be, in spite of its busy timeout. */
static void run_load(int databases, int writers, int readers)
{
    struct worker workers[WORKERS_MAX];
    const char *requests_text = getenv("STRESS_REQUESTS");
    const long requests = requests_text != NULL ? atol(requests_text) : REQUESTS;
    struct member member;
    char name[64];
    int database, number, count = 0;
    snprintf(name, sizeof name, "stress-%d-%d-%d", databases, writers, readers);
    start_members(&member, 1, name, NULL);
    CHECK(dqlite_node_set_busy_timeout(member.node, 200 * (unsigned)writers), DQLITE_OK);
    for (database = 0; database < databases; database++) {
        connect_to_leader(&member, database_name(name, database));
        exec(&member, "CREATE TABLE t (n INT)");
        exec(&member, "WITH RECURSIVE pairs(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM pairs WHERE i < 1000) "
                      "INSERT INTO t SELECT CASE WHEN i % 2 THEN i ELSE 1 - i END FROM pairs");
    }
    for (database = 0; database < databases; database++) {
        for (number = 0; number < writers + readers && count < WORKERS_MAX; number++, count++) {
            struct worker *worker = &workers[count];
            worker->member = &member;
            worker->requests = requests;
            database_name(worker->database, database);
            CHECK(pthread_create(&worker->thread, NULL, number < writers ? write_pairs : read_totals, worker), 0);
        }
    }
    while (count > 0)
        pthread_join(workers[--count].thread, NULL);
    for (database = 0; database < databases; database++) {
        connect_to_leader(&member, database_name(name, database));
        CHECK(query_integer(&member.client, "SELECT count(*) FROM t"), ROWS_AT_FIRST + 2 * requests * writers);
    }
    stop_members(&member, 1);
}

static void readers_and_writers_of_one_database_never_fail(void)
{
    run_load(1, 4, 16);
}

static void readers_and_writers_of_four_databases_never_fail(void)
{
    run_load(4, 4, 16);
}

const struct scenario stress_scenarios[] = {
    SCENARIO(readers_and_writers_of_one_database_never_fail),
    SCENARIO(readers_and_writers_of_four_databases_never_fail),
    SCENARIOS_END,
};
