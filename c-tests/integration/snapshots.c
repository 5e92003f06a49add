/* Snapshots as a host and its clients meet them: on disk, after a restart, and on servers that come later. */
#include <dirent.h>
#include <stdio.h>
#include <string.h>

#include "members.h"
#include "scenarios.h"

enum { THRESHOLD = 16, MANY = 60, POLL_MS = 10 };

static void take_many_raw(dqlite_node *node)
{
    CHECK(dqlite_node_set_snapshot_params(node, THRESHOLD, THRESHOLD), DQLITE_OK);
    CHECK(dqlite_node_set_snapshot_compression(node, false), DQLITE_OK);
}

static void take_many_compressed(dqlite_node *node)
{
    CHECK(dqlite_node_set_snapshot_params(node, THRESHOLD, THRESHOLD), DQLITE_OK);
    CHECK(dqlite_node_set_snapshot_compression(node, true), DQLITE_OK);
}

/* The path of a complete snapshot in the member's directory, which has a description beside it; "" if there is none. */
static const char *find_snapshot(const struct member *member)
{
    static char found[8192];
    static const char suffix[] = ".meta";
    DIR *entries = opendir(member->directory);
    struct dirent *entry;
    found[0] = '\0';
    while (entries != NULL && (entry = readdir(entries)) != NULL) {
        size_t length = strlen(entry->d_name);
        if (strncmp(entry->d_name, "snapshot-", 9) == 0 && length > sizeof suffix
            && strcmp(entry->d_name + length - (sizeof suffix - 1), suffix) == 0)
            snprintf(found, sizeof found, "%s/%.*s", member->directory, (int)(length - (sizeof suffix - 1)),
                     entry->d_name);
    }
    if (entries != NULL)
        closedir(entries);
    return found;
}

static void wait_for_snapshot(const struct member *member)
{
    int waited_ms;
    for (waited_ms = 0; waited_ms < PATIENCE_MS && *find_snapshot(member) == '\0'; waited_ms += POLL_MS)
        sleep_ms(POLL_MS);
    CHECK(*find_snapshot(member) != '\0', 1);
}

static int is_compressed(const char *snapshot)
{
    static const unsigned char lz4[4] = {0x04, 0x22, 0x4d, 0x18};
    unsigned char start[4] = {0};
    FILE *file = fopen(snapshot, "rb");
    CHECK(file != NULL, 1);
    if (file != NULL) {
        CHECK((long long)fread(start, sizeof start, 1, file), 1);
        fclose(file);
    }
    return memcmp(start, lz4, sizeof lz4) == 0;
}

/* One by one, so that snapshots are taken in between. */
static void insert_rows(struct member *leader, int count)
{
    for (; count > 0; count--)
        exec(leader, "INSERT INTO t VALUES (randomblob(2000))");
}

static void expect_rows(struct member *leader, const char *database, int64_t rows)
{
    connect_to_leader(leader, database);
    CHECK(query_integer(&leader->client, "SELECT count(*) FROM t"), rows);
    CHECK(query_integer(&leader->client, "SELECT count(*) FROM pragma_integrity_check WHERE integrity_check = 'ok'"), 1);
}

static void come_back_and_join(const char *name, settings_function set, int compressed)
{
    struct member members[2];
    static const char *const databases[] = {"one", "two"};
    int number;
    start_members(members, 2, name, set);
    for (number = 0; number < 2; number++) {
        connect_to_leader(&members[0], databases[number]);
        exec(&members[0], "CREATE TABLE t (v BLOB)");
        insert_rows(&members[0], MANY);
    }
    wait_for_snapshot(&members[0]);
    stop_member(&members[0]);
    CHECK(is_compressed(find_snapshot(&members[0])), compressed);
    start_member(&members[0]);
    for (number = 0; number < 2; number++) {
        expect_rows(&members[0], databases[number], MANY);
        insert_rows(&members[0], MANY);
    }
    add_voter(&members[0], &members[1]);
    wait_for_snapshot(&members[1]);
    CHECK(wire_transfer(&members[0].client, members[1].id), WIRE_OK);
    for (number = 0; number < 2; number++) {
        expect_rows(&members[1], databases[number], 2 * MANY);
        insert_rows(&members[1], 1);
    }
    stop_members(members, 2);
}

static void raw_snapshots_bring_every_database_back_and_to_others(void)
{
    come_back_and_join("raw", take_many_raw, 0);
}

static void compressed_snapshots_bring_every_database_back_and_to_others(void)
{
    come_back_and_join("compressed", take_many_compressed, 1);
}

/* What the others have dropped meanwhile does not come back with it. */
static void a_snapshot_replaces_what_a_server_had_that_was_away(void)
{
    struct member members[2];
    struct wire_client *client = &members[1].client;
    start_members(members, 2, "away", take_many_compressed);
    connect_to_leader(&members[0], "one");
    CHECK(wire_add(&members[0].client, 2, members[1].address), WIRE_OK);
    CHECK(wire_assign(&members[0].client, 2, WIRE_STANDBY), WIRE_OK);
    exec(&members[0], "CREATE TABLE gone (n INT)");
    stop_member(&members[1]);
    exec(&members[0], "DROP TABLE gone");
    exec(&members[0], "CREATE TABLE t (v BLOB)");
    insert_rows(&members[0], MANY);
    connect_to_leader(&members[0], "two");
    exec(&members[0], "CREATE TABLE t (v BLOB)");
    insert_rows(&members[0], MANY);
    wait_for_snapshot(&members[0]);

    start_member(&members[1]);
    CHECK(wire_assign(&members[0].client, 2, WIRE_VOTER), WIRE_OK);
    CHECK(wire_transfer(&members[0].client, 2), WIRE_OK);
    expect_rows(&members[1], "two", MANY);
    expect_rows(&members[1], "one", MANY);
    CHECK(wire_query(client, "SELECT * FROM gone", NULL, NULL), WIRE_REFUSED);
    CHECK_TEXT(client->error, "no such table: gone");
    insert_rows(&members[1], 1);
    stop_members(members, 2);
}

const struct scenario snapshot_scenarios[] = {
    SCENARIO(raw_snapshots_bring_every_database_back_and_to_others),
    SCENARIO(compressed_snapshots_bring_every_database_back_and_to_others),
    SCENARIO(a_snapshot_replaces_what_a_server_had_that_was_away),
    SCENARIOS_END,
};
