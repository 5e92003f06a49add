/* One client of one node: requests with many statements, prepared ones, rows in several messages. */
#include <stdlib.h>
#include <string.h>

#include "members.h"
#include "scenarios.h"

enum { STATEMENTS = 10000, ROWS = 256 };

static void ten_thousand_statements_in_one_request_all_run(void)
{
    static const char nothing_new[] = "CREATE TABLE IF NOT EXISTS t (n INT);", last[] = "INSERT INTO t VALUES (42);";
    const size_t size = sizeof nothing_new - 1;
    char *sql = malloc(STATEMENTS * size + sizeof last);
    struct member member;
    int number;
    for (number = 0; sql != NULL && number < STATEMENTS; number++)
        memcpy(sql + (size_t)number * size, nothing_new, size);
    CHECK(sql != NULL, 1);
    memcpy(sql + STATEMENTS * size, last, sizeof last);
    start_members(&member, 1, "statements", NULL);
    connect_to_leader(&member, "test");
    CHECK(wire_exec(&member.client, sql), WIRE_OK);
    CHECK(query_integer(&member.client, "SELECT sum(n) FROM t"), 42);
    stop_members(&member, 1);
    free(sql);
}

/* Counts the rows whose column has the next number. */
static void expect_next(void *arg, size_t count, const char *const *columns, const struct wire_value *values)
{
    int64_t *next = arg;
    *next += count == 1 && strcmp(columns[0], "n") == 0 && values[0].kind == WIRE_INTEGER && values[0].integer == *next;
}

static uint32_t prepare(struct wire_client *client, const char *sql)
{
    uint32_t statement = 0;
    CHECK(wire_prepare(client, sql, &statement), WIRE_OK);
    return statement;
}

static void a_transaction_of_prepared_statements_is_read_back_row_by_row(void)
{
    struct member member;
    struct wire_client *client = &member.client;
    uint32_t insert, select;
    int64_t number, next = 0;
    start_members(&member, 1, "prepared", NULL);
    connect_to_leader(&member, "test");
    CHECK(wire_exec_prepared(client, prepare(client, "CREATE TABLE t (n INT)"), 0, NULL), WIRE_OK);
    CHECK(wire_exec_prepared(client, prepare(client, "BEGIN"), 0, NULL), WIRE_OK);
    insert = prepare(client, "INSERT INTO t VALUES (?)");
    for (number = 0; number < ROWS; number++) {
        CHECK(wire_exec_prepared(client, insert, 1, &number), WIRE_OK);
        CHECK((long long)client->last_id, number + 1);
        CHECK((long long)client->row_count, 1);
    }
    CHECK(wire_exec_prepared(client, prepare(client, "COMMIT"), 0, NULL), WIRE_OK);
    select = prepare(client, "SELECT n FROM t ORDER BY n");
    CHECK(wire_query_prepared(client, select, 0, NULL, expect_next, &next), WIRE_OK);
    CHECK(next, ROWS);
    next = 0;
    CHECK(wire_query(client, "SELECT n FROM t ORDER BY n", expect_next, &next), WIRE_OK);
    CHECK(next, ROWS);
    stop_members(&member, 1);
}

const struct scenario client_scenarios[] = {
    SCENARIO(ten_thousand_statements_in_one_request_all_run),
    SCENARIO(a_transaction_of_prepared_statements_is_read_back_row_by_row),
    SCENARIOS_END,
};
