/* What a server has after a restart, after it joined, and when it is the only one left. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "members.h"
#include "scenarios.h"

enum { HUGE_VALUE = 20000000 };

/* Each row takes nine frames of SQLite's log. A checkpoint is due at 1000 frames, and again at as many more. */
#define INSERT_ROW "INSERT INTO t VALUES (?, randomblob(30000))"

static void rows_before_and_after_checkpoints_survive_a_restart(void)
{
    static const int64_t counts[] = {0, 1, 40, 130, 260};
    struct member member;
    int64_t rows = 0;
    size_t step;
    start_members(&member, 1, "restart", NULL);
    connect_to_leader(&member, "test");
    exec(&member, "CREATE TABLE t (n INT, v BLOB)");
    for (step = 0; step < sizeof counts / sizeof counts[0]; step++) {
        uint32_t insert = 0;
        CHECK(wire_prepare(&member.client, INSERT_ROW, &insert), WIRE_OK);
        for (; rows < counts[step]; rows++)
            CHECK(wire_exec_prepared(&member.client, insert, 1, &rows), WIRE_OK);
        stop_member(&member);
        start_member(&member);
        connect_to_leader(&member, "test");
        CHECK(query_integer(&member.client, "SELECT count(DISTINCT n) FROM t"), rows);
    }
    stop_members(&member, 1);
}

/* In turns as a request that returns no rows, and as two kinds of queries, which then have none. */
static void insert_in_turns(struct wire_client *client, int64_t rows)
{
    uint32_t insert = 0;
    int64_t row;
    CHECK(wire_prepare(client, INSERT_ROW, &insert), WIRE_OK);
    for (row = 0; row < rows; row++) {
        char sql[64];
        snprintf(sql, sizeof sql, "INSERT INTO t VALUES (%lld, NULL)", (long long)row);
        if (row % 3 == 0)
            CHECK(wire_exec_prepared(client, insert, 1, &row), WIRE_OK);
        else if (row % 3 == 1)
            CHECK(wire_query_prepared(client, insert, 1, &row, NULL, NULL), WIRE_OK);
        else
            CHECK(wire_query(client, sql, NULL, NULL), WIRE_OK);
        CHECK((long long)client->row_count, row % 3 == 0);
    }
}

/* Stops the member, expects its last entry between these two, and starts it again. */
static void expect_last_index(struct member *member, int64_t least, int64_t most)
{
    uint64_t index = 0, term = 0;
    stop_member(member);
    create_member(member);
    CHECK(dqlite_node_describe_last_entry(member->node, &index, &term), DQLITE_OK);
    CHECK((int64_t)index >= least, 1);
    CHECK((int64_t)index <= most, 1);
    /* C stays in term 1, also when a server that is left alone begins to lead. */
    CHECK(term >= 1, 1);
    start_member(member);
}

static void the_founder_gives_way(int64_t rows)
{
    /* Barriers, checkpoints and changes of the configuration are entries of their own, this many at most. */
    static const int64_t others = 16;
    struct member members[2];
    char name[64];
    snprintf(name, sizeof name, "way-%lld", (long long)rows);
    start_members(members, 2, name, NULL);
    connect_to_leader(&members[0], "test");
    exec(&members[0], "CREATE TABLE t (n INT, v BLOB)");
    insert_in_turns(&members[0].client, rows);
    add_voter(&members[0], &members[1]);
    CHECK(wire_remove(&members[0].client, 1), WIRE_OK);
    connect_to_leader(&members[1], "test");
    /* The configuration, the table, the rows. */
    expect_last_index(&members[0], rows + 2, rows + 2 + others);
    CHECK(query_integer(&members[1].client, "SELECT count(DISTINCT n) FROM t"), rows);
    exec(&members[1], "INSERT INTO t VALUES (5000, NULL)");
    expect_last_index(&members[1], rows + 3, rows + 3 + others);
    connect_to_leader(&members[1], "test");
    CHECK(query_integer(&members[1].client, "SELECT count(DISTINCT n) FROM t"), rows + 1);
    stop_members(members, 2);
}

static void a_server_that_joined_has_every_row_when_the_founder_is_removed(void)
{
    the_founder_gives_way(0);
    the_founder_gives_way(40);
    the_founder_gives_way(200);
}

static void last_entries_are_told_of_a_founder_and_of_a_server_in_no_cluster(void)
{
    struct member members[2];
    int number;
    start_members(members, 2, "entries", NULL);
    wait_until_leads(&members[0]);
    for (number = 0; number < 2; number++) {
        /* The configuration that the founder began with; nothing. */
        const uint64_t expected = number == 0;
        uint64_t index = 99, term = 99;
        stop_member(&members[number]);
        create_member(&members[number]);
        CHECK(dqlite_node_describe_last_entry(members[number].node, &index, &term), DQLITE_OK);
        CHECK(index == expected, 1);
        CHECK(term == expected, 1);
        start_member(&members[number]);
    }
    stop_members(members, 2);
}

/* A statement with a value of this many letters in its text. */
static char *huge_insert(size_t letters)
{
    static const char head[] = "INSERT OR REPLACE INTO t (key, value) VALUES ('one', '", tail[] = "')";
    char *sql = malloc(sizeof head + letters + sizeof tail);
    CHECK(sql != NULL, 1);
    memcpy(sql, head, sizeof head - 1);
    memset(sql + sizeof head - 1, 'a', letters);
    memcpy(sql + sizeof head - 1 + letters, tail, sizeof tail);
    return sql;
}

/* Such a row takes thousands of pages, and each transaction more than one region of the index of SQLite's log. */
static void a_row_of_20_megabytes_is_replaced_and_rolled_back(void)
{
    struct member member;
    struct wire_client *client = &member.client;
    char *sql = huge_insert(HUGE_VALUE);
    uint32_t insert = 0;
    int round;
    start_members(&member, 1, "huge", NULL);
    connect_to_leader(&member, "test");
    exec(&member, "CREATE TABLE t (key TEXT UNIQUE, value TEXT)");
    CHECK(wire_prepare(client, sql, &insert), WIRE_OK);
    free(sql);
    exec(&member, "BEGIN IMMEDIATE");
    for (round = 0; round < 2; round++)
        CHECK(wire_exec_prepared(client, insert, 0, NULL), WIRE_OK);
    CHECK(query_integer(client, "SELECT length(value) FROM t"), HUGE_VALUE);
    exec(&member, "ROLLBACK");
    CHECK(query_integer(client, "SELECT count(*) FROM t"), 0);
    for (round = 0; round < 2; round++)
        CHECK(wire_exec_prepared(client, insert, 0, NULL), WIRE_OK);
    CHECK(query_integer(client, "SELECT sum(length(value)) FROM t"), HUGE_VALUE);
    CHECK(query_integer(client, "SELECT count(*) FROM pragma_integrity_check WHERE integrity_check = 'ok'"), 1);
    stop_member(&member);
    start_member(&member);
    connect_to_leader(&member, "test");
    CHECK(query_integer(client, "SELECT sum(length(value)) FROM t"), HUGE_VALUE);
    stop_members(&member, 1);
}

const struct scenario cluster_scenarios[] = {
    SCENARIO(rows_before_and_after_checkpoints_survive_a_restart),
    SCENARIO(a_server_that_joined_has_every_row_when_the_founder_is_removed),
    SCENARIO(last_entries_are_told_of_a_founder_and_of_a_server_in_no_cluster),
    SCENARIO(a_row_of_20_megabytes_is_replaced_and_rolled_back),
    SCENARIOS_END,
};
