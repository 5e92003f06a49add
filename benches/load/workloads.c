/*
 * What the clients do. Every answer is checked: rows changed, row ids, rows read and what is in them. What was
 * acknowledged is summed up and compared with the database in the end.
 *
 * Statements are prepared once for each connection and executed with parameters, as Go clients do; BEGIN, COMMIT and
 * ROLLBACK are sent as text, as go-dqlite does.
 */
#include "load.h"

#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#define TEXT_100 "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ-+0123456789abcdefghijklmnopqrstuvwxyz"

enum {
    SEEDED_ROWS = 10000,
    SCANNED_ROWS = 1000,
    BATCH_ROWS = 100,
    TRANSACTION_ROWS = 10,
    UPSERT_KEYS = 5000,
    LARGE_SIZE = 64 << 10,
    JOINED_ROWS = 2000,
    KINE_KEYS = 20,          /* of each client */
    KINE_EVENTS = 500,       /* a watcher reads at most so many at once */
    KINE_COMPACT_EVERY = 256 /* operations of the first client */
};

/* Names sort as client and key, so a prefix is a range. */
#define KINE_NAME "/registry/client-%03u/key-%03u"
#define KINE_FIRST "/registry/client-%03u/"
#define KINE_LAST "/registry/client-%03u0"

static struct wire_value integer(int64_t number)
{
    struct wire_value value;
    memset(&value, 0, sizeof value);
    value.kind = WIRE_INTEGER;
    value.integer = number;
    return value;
}

static struct wire_value text(const char *bytes)
{
    struct wire_value value;
    memset(&value, 0, sizeof value);
    value.kind = WIRE_TEXT;
    value.bytes = bytes;
    value.size = strlen(bytes);
    return value;
}

static struct wire_value blob(const char *bytes, size_t size)
{
    struct wire_value value = text("");
    value.kind = WIRE_BLOB;
    value.bytes = bytes;
    value.size = size;
    return value;
}

/* ---- answers ---- */

/* SQLITE_BUSY and its extended forms say that nothing was done; SQLITE_IOERR_NOT_LEADER, too. */
#define PRIMARY(code) ((code) & 0xff)
#define SQLITE_BUSY 5
#define SQLITE_IOERR_NOT_LEADER 10250

static enum outcome refused(struct client *client, int result)
{
    uint64_t code = result == WIRE_REFUSED ? client->wire.code : 0;
    if (code != 0 && PRIMARY(code) == SQLITE_BUSY)
        return BUSY;
    if (code != SQLITE_IOERR_NOT_LEADER)
        client->unknown += client->under_way;
    return REFUSED;
}

/* Runs a statement that must change so many rows; -1 if that is not known. */
static enum outcome change(struct client *client, int statement, size_t count, const struct wire_value *values, int rows)
{
    int result = wire_exec_values(&client->wire, client->statements[statement], count, values);
    if (result != WIRE_OK)
        return refused(client, result);
    if (rows >= 0 && client->wire.row_count != (uint64_t)rows)
        wrong(client, "%" PRIu64 " rows changed instead of %d", client->wire.row_count, rows);
    return DONE;
}

/* As change, for a statement that is a write by itself and adds the rows. */
static enum outcome add_rows(struct client *client, int statement, size_t count, const struct wire_value *values,
                             int rows)
{
    enum outcome outcome;
    int64_t last;
    client->under_way = rows;
    outcome = change(client, statement, count, values, rows);
    client->under_way = 0;
    if (outcome != DONE)
        return outcome;
    last = (int64_t)client->wire.last_id;
    if (last < client->last_id + rows)
        wrong(client, "last insert id %" PRId64 " after %" PRId64, last, client->last_id);
    client->last_id = last;
    client->written += rows;
    /* The rows of one statement have ids without gaps. */
    client->written_sum += rows * last - (int64_t)rows * (rows - 1) / 2;
    return DONE;
}

static void sum_first_column(void *arg, size_t count, const char *const *columns, const struct wire_value *values)
{
    struct client *client = arg;
    (void)count;
    (void)columns;
    client->rows++;
    client->sum += values[0].kind == WIRE_INTEGER ? values[0].integer : 0;
}

static enum outcome query(struct client *client, int statement, size_t count, const struct wire_value *values)
{
    int result;
    client->rows = 0;
    client->sum = 0;
    result = wire_query_values(&client->wire, client->statements[statement], count, values, sum_first_column, client);
    return result == WIRE_OK ? DONE : refused(client, result);
}

static void expect_read(const struct client *client, uint64_t rows, int64_t sum)
{
    if (client->rows != rows || client->sum != sum)
        wrong(client, "%" PRIu64 " rows with the sum %" PRId64 " instead of %" PRIu64 " with %" PRId64, client->rows,
              client->sum, rows, sum);
}

/* ---- rows ---- */

static const char *const ROWS_SCHEMA[] = {
    "CREATE TABLE seeded (id INTEGER PRIMARY KEY, number INTEGER, value TEXT)",
    "INSERT INTO seeded WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 10000) "
    "SELECT i, i * 7, '" TEXT_100 "' FROM n",
    "CREATE TABLE rows (id INTEGER PRIMARY KEY AUTOINCREMENT, client INTEGER, value)",
    NULL,
};
#define ROWS_HELD "SELECT count(*), coalesce(sum(id), 0) FROM rows"
#define INSERT_ROW "INSERT INTO rows (client, value) VALUES (?, ?)"
#define READ_ROW "SELECT number, value FROM seeded WHERE id = ?"

static enum outcome insert(struct client *client)
{
    struct wire_value values[2];
    values[0] = integer(client->index);
    values[1] = text(TEXT_100);
    return add_rows(client, 0, 2, values, 1);
}

static enum outcome large(struct client *client)
{
    static const char zeros[LARGE_SIZE];
    struct wire_value values[2];
    values[0] = integer(client->index);
    values[1] = blob(zeros, sizeof zeros);
    return add_rows(client, 0, 2, values, 1);
}

static enum outcome batch(struct client *client)
{
    struct wire_value values[2 * BATCH_ROWS];
    int i;
    for (i = 0; i < BATCH_ROWS; i++) {
        values[2 * i] = integer(client->index);
        values[2 * i + 1] = text(TEXT_100);
    }
    return add_rows(client, 0, 2 * BATCH_ROWS, values, BATCH_ROWS);
}

static enum outcome exec_text(struct client *client, const char *sql)
{
    int result = wire_exec(&client->wire, sql);
    return result == WIRE_OK ? DONE : refused(client, result);
}

static enum outcome rolled_back(struct client *client, enum outcome outcome)
{
    if (outcome == BUSY && exec_text(client, "ROLLBACK") != DONE)
        return REFUSED;
    return outcome;
}

static enum outcome transaction(struct client *client)
{
    struct wire_value values[2];
    int64_t sum = 0, last = client->last_id;
    enum outcome outcome = exec_text(client, "BEGIN");
    int i;
    values[0] = integer(client->index);
    values[1] = text(TEXT_100);
    if (outcome != DONE)
        return outcome;
    for (i = 0; i < TRANSACTION_ROWS; i++) {
        outcome = change(client, 0, 2, values, 1);
        if (outcome != DONE)
            return rolled_back(client, outcome);
        if ((int64_t)client->wire.last_id <= last)
            wrong(client, "last insert id %" PRIu64 " after %" PRId64, client->wire.last_id, last);
        last = (int64_t)client->wire.last_id;
        sum += last;
    }
    client->under_way = TRANSACTION_ROWS;
    outcome = exec_text(client, "COMMIT");
    client->under_way = 0;
    if (outcome != DONE)
        return rolled_back(client, outcome);
    client->last_id = last;
    client->written += TRANSACTION_ROWS;
    client->written_sum += sum;
    return DONE;
}

static enum outcome read_row(struct client *client, int statement)
{
    int64_t id = (int64_t)(next_random(client) % SEEDED_ROWS) + 1;
    struct wire_value value = integer(id);
    enum outcome outcome = query(client, statement, 1, &value);
    if (outcome == DONE)
        expect_read(client, 1, id * 7);
    return outcome;
}

static enum outcome point_read(struct client *client)
{
    return read_row(client, 0);
}

static enum outcome mix(struct client *client)
{
    return client->operations % 10 == client->index % 10 ? insert(client) : read_row(client, 1);
}

static enum outcome scan(struct client *client)
{
    int64_t first = (int64_t)(next_random(client) % (SEEDED_ROWS - SCANNED_ROWS)) + 1;
    struct wire_value value = integer(first);
    enum outcome outcome = query(client, 0, 1, &value);
    if (outcome == DONE)
        expect_read(client, SCANNED_ROWS, SCANNED_ROWS * first + (int64_t)SCANNED_ROWS * (SCANNED_ROWS - 1) / 2);
    return outcome;
}

/* One row is the product of 2000 rows with themselves: about half a second of a processor. */
static enum outcome beside(struct client *client)
{
    enum outcome outcome;
    if (client->index == 0)
        return insert(client);
    outcome = query(client, 1, 0, NULL);
    if (outcome == DONE)
        expect_read(client, 1, (int64_t)JOINED_ROWS * JOINED_ROWS);
    return outcome;
}

/* ---- keys and values ---- */

static const char *const KEYS_SCHEMA[] = {
    "CREATE TABLE keys (key TEXT PRIMARY KEY, value TEXT, version INTEGER) WITHOUT ROWID",
    NULL,
};

static enum outcome upsert(struct client *client)
{
    struct wire_value values[2];
    enum outcome outcome;
    char key[32];
    snprintf(key, sizeof key, "key-%08u", (unsigned)(next_random(client) % UPSERT_KEYS));
    values[0] = text(key);
    values[1] = text(TEXT_100);
    client->under_way = 1;
    outcome = change(client, 0, 2, values, 1);
    client->under_way = 0;
    if (outcome == DONE)
        client->written++;
    return outcome;
}

/* ---- as Kubernetes uses it through kine: a table of revisions ---- */

static const char *const KINE_SCHEMA[] = {
    "CREATE TABLE kine (id INTEGER PRIMARY KEY AUTOINCREMENT, name TEXT, created INTEGER, deleted INTEGER, "
    "create_revision INTEGER, prev_revision INTEGER, lease INTEGER, value BLOB, old_value BLOB)",
    "CREATE INDEX kine_name ON kine (name, id)",
    "CREATE UNIQUE INDEX kine_name_revision ON kine (name, prev_revision)",
    NULL,
};
enum { KINE_INSERT, KINE_GET, KINE_LIST, KINE_AFTER, KINE_MAX, KINE_COMPACT };
#define KINE_COLUMNS "kv.id, kv.name, kv.created, kv.deleted, kv.create_revision, kv.prev_revision, kv.lease, kv.value"

static enum outcome kine_get(struct client *client, const char *name)
{
    struct wire_value value = text(name);
    enum outcome outcome = query(client, KINE_GET, 1, &value);
    if (outcome == DONE && client->rows > 1)
        wrong(client, "%" PRIu64 " newest revisions of %s", client->rows, name);
    return outcome;
}

/* Reads the newest revision of one of its keys, and adds the next one. */
static enum outcome kine_update(struct client *client)
{
    struct wire_value values[8];
    char name[64];
    enum outcome outcome;
    int64_t previous;
    snprintf(name, sizeof name, KINE_NAME, client->index, (unsigned)(next_random(client) % KINE_KEYS));
    outcome = kine_get(client, name);
    if (outcome != DONE)
        return outcome;
    previous = client->sum;
    values[0] = text(name);
    values[1] = integer(previous == 0);
    values[2] = integer(0);
    values[3] = integer(previous);
    values[4] = integer(previous);
    values[5] = integer(0);
    values[6] = blob(TEXT_100 TEXT_100 TEXT_100, 300);
    values[7] = blob(TEXT_100 TEXT_100 TEXT_100, previous == 0 ? 0 : 300);
    return add_rows(client, KINE_INSERT, 8, values, 1);
}

static enum outcome kine_list(struct client *client)
{
    struct wire_value values[2];
    char first[64], last[64];
    enum outcome outcome;
    snprintf(first, sizeof first, KINE_FIRST, client->index);
    snprintf(last, sizeof last, KINE_LAST, client->index);
    values[0] = text(first);
    values[1] = text(last);
    outcome = query(client, KINE_LIST, 2, values);
    if (outcome == DONE && client->rows > KINE_KEYS)
        wrong(client, "a list of %" PRIu64 " keys", client->rows);
    return outcome;
}

/* What a watcher does: the greatest id, and what is newer than the one it saw last. */
static enum outcome kine_poll(struct client *client)
{
    struct wire_value value;
    enum outcome outcome = query(client, KINE_MAX, 0, NULL);
    if (outcome != DONE)
        return outcome;
    if (client->sum < client->last_id)
        wrong(client, "the greatest id is %" PRId64 " after %" PRId64, client->sum, client->last_id);
    value = integer(client->sum - KINE_EVENTS / 10);
    outcome = query(client, KINE_AFTER, 1, &value);
    if (outcome == DONE && client->rows > KINE_EVENTS)
        wrong(client, "%" PRIu64 " events", client->rows);
    return outcome;
}

/* Removes old revisions that have a newer one. */
static enum outcome kine_compact(struct client *client)
{
    struct wire_value value = integer(client->last_id - KINE_EVENTS);
    return change(client, KINE_COMPACT, 1, &value, -1);
}

static enum outcome kine(struct client *client)
{
    char name[64];
    if (client->index == 0 && client->operations % KINE_COMPACT_EVERY == KINE_COMPACT_EVERY - 1)
        return kine_compact(client);
    switch (client->operations % 10) {
    case 0:
    case 3:
    case 5:
    case 8:
        return kine_update(client);
    case 1:
    case 6:
        return kine_list(client);
    case 4:
        return kine_poll(client);
    default:
        snprintf(name, sizeof name, KINE_NAME, client->index, (unsigned)(next_random(client) % KINE_KEYS));
        return kine_get(client, name);
    }
}

/* ---- all of them ---- */

#define TEN_ROWS "(?, ?), (?, ?), (?, ?), (?, ?), (?, ?), (?, ?), (?, ?), (?, ?), (?, ?), (?, ?)"

static const struct workload WORKLOADS[] = {
    {"insert", ROWS_SCHEMA, {INSERT_ROW}, insert, ROWS_HELD, 0},
    {"transaction", ROWS_SCHEMA, {INSERT_ROW}, transaction, ROWS_HELD, 0},
    {"batch",
     ROWS_SCHEMA,
     {"INSERT INTO rows (client, value) VALUES " TEN_ROWS ", " TEN_ROWS ", " TEN_ROWS ", " TEN_ROWS ", " TEN_ROWS
      ", " TEN_ROWS ", " TEN_ROWS ", " TEN_ROWS ", " TEN_ROWS ", " TEN_ROWS},
     batch,
     ROWS_HELD,
     0},
    {"upsert",
     KEYS_SCHEMA,
     {"INSERT INTO keys (key, value, version) VALUES (?, ?, 1) "
      "ON CONFLICT (key) DO UPDATE SET value = excluded.value, version = version + 1"},
     upsert,
     "SELECT coalesce(sum(version), 0), NULL FROM keys",
     0},
    {"read", ROWS_SCHEMA, {READ_ROW}, point_read, ROWS_HELD, 0},
    {"scan",
     ROWS_SCHEMA,
     {"SELECT id, number, value FROM seeded WHERE id >= ? ORDER BY id LIMIT 1000"},
     scan,
     ROWS_HELD,
     0},
    {"mix", ROWS_SCHEMA, {INSERT_ROW, READ_ROW}, mix, ROWS_HELD, 0},
    {"large", ROWS_SCHEMA, {INSERT_ROW}, large, ROWS_HELD, 0},
    {"kine",
     KINE_SCHEMA,
     {"INSERT INTO kine (name, created, deleted, create_revision, prev_revision, lease, value, old_value) "
      "VALUES (?, ?, ?, ?, ?, ?, ?, ?)",
      "SELECT " KINE_COLUMNS " FROM kine AS kv WHERE kv.name = ? ORDER BY kv.id DESC LIMIT 1",
      "SELECT " KINE_COLUMNS " FROM kine AS kv JOIN (SELECT max(id) AS id FROM kine WHERE name >= ? AND name < ? "
      "GROUP BY name) AS newest ON newest.id = kv.id WHERE kv.deleted = 0 ORDER BY kv.name",
      "SELECT " KINE_COLUMNS " FROM kine AS kv WHERE kv.id > ? ORDER BY kv.id LIMIT 500",
      "SELECT max(id) FROM kine",
      "DELETE FROM kine WHERE id <= ? AND EXISTS (SELECT 1 FROM kine AS newer WHERE newer.name = kine.name "
      "AND newer.id > kine.id)"},
     kine,
     /* AUTOINCREMENT counts every row that was committed, also those that a compaction removed. */
     "SELECT coalesce((SELECT seq FROM sqlite_sequence WHERE name = 'kine'), 0), NULL",
     0},
    {"beside",
     ROWS_SCHEMA,
     {INSERT_ROW,
      "SELECT count(*) FROM (SELECT id FROM seeded LIMIT 2000) AS a, (SELECT number FROM seeded LIMIT 2000) AS b "
      "WHERE a.id + b.number > 0"},
     beside,
     ROWS_HELD,
     1},
};

const struct workload *find_workload(const char *name)
{
    size_t i;
    for (i = 0; i < sizeof WORKLOADS / sizeof *WORKLOADS; i++)
        if (strcmp(WORKLOADS[i].name, name) == 0)
            return &WORKLOADS[i];
    return NULL;
}

void print_workloads(void)
{
    size_t i;
    for (i = 0; i < sizeof WORKLOADS / sizeof *WORKLOADS; i++)
        fprintf(stderr, " %s", WORKLOADS[i].name);
}
