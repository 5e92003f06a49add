/* See torture.h: clients that behave, and clients that do not. */
#include "torture.h"

#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum {
    PATIENCE_MS = 3000,
    ROWS_PER_VISIT = 40,
    REQUEST_TYPES = 23,
    ADD = 12,
    ASSIGN = 13,
    REMOVE = 14,
    TRANSFER = 18,
    CONNECT = 11,
    GARBAGE_MAX = 5000
};

static void set_bit(atomic_uchar *bits, int row)
{
    bits[row / 8] |= (unsigned char)(1u << row % 8);
}

/* Connected, with the database open, to whoever answers; a follower refuses, a closed port does not answer. */
static int visit(struct wire_client *client, struct group *group)
{
    const char *address = group->addresses[below((unsigned)group->members)];
    if (wire_connect(client, address, PATIENCE_MS * slowness) != WIRE_OK)
        return 0;
    if (wire_open(client, "torture") == WIRE_OK)
        return 1;
    wire_close(client);
    return 0;
}

/* ---- clients that behave ---- */

static void write_rows(struct wire_client *client, struct group *group)
{
    char sql[200];
    int left;
    if (wire_exec(client, "CREATE TABLE IF NOT EXISTS t (n INTEGER PRIMARY KEY, filler BLOB)") != WIRE_OK)
        return;
    for (left = 1 + (int)below(ROWS_PER_VISIT); left > 0 && !over; left--) {
        int row = group->next_row++, result;
        if (row >= ROWS_MAX)
            return;
        snprintf(sql, sizeof sql, "INSERT INTO t VALUES (%d, randomblob(%u))", row, below(3000));
        result = wire_exec(client, sql);
        if (result == WIRE_OK)
            set_bit(group->acknowledged, row);
        did(result == WIRE_OK ? D_rows_acknowledged : D_rows_refused, 1);
        if (result == WIRE_BROKEN)
            return;
    }
}

static void write_transaction(struct wire_client *client, struct group *group)
{
    char sql[200];
    int rows[10], count = 1 + (int)below(10), i;
    if (wire_exec(client, "CREATE TABLE IF NOT EXISTS t (n INTEGER PRIMARY KEY, filler BLOB)") != WIRE_OK
        || wire_exec(client, chance(50) ? "BEGIN" : "BEGIN IMMEDIATE") != WIRE_OK)
        return;
    for (i = 0; i < count; i++) {
        rows[i] = group->next_row++;
        if (rows[i] >= ROWS_MAX)
            return;
        snprintf(sql, sizeof sql, "INSERT INTO t VALUES (%d, zeroblob(%u))", rows[i], below(100));
        if (wire_exec(client, sql) != WIRE_OK)
            return;
    }
    if (chance(30)) {
        did(D_transactions_left_open, 1);
        return;
    }
    if (wire_exec(client, "COMMIT") != WIRE_OK)
        return;
    for (i = 0; i < count; i++)
        set_bit(group->acknowledged, rows[i]);
    did(D_rows_acknowledged, count);
}

static void query_prepared(struct wire_client *client)
{
    static const char *const texts[] = {"SELECT count(*) FROM t WHERE n > ?", "UPDATE t SET filler = NULL WHERE n = ?",
                                        "SELECT", "", "SELECT 1; SELECT 2", "PRAGMA integrity_check",
                                        "INSERT INTO t VALUES (-1 - ?, NULL) RETURNING n"};
    uint32_t statement = 0;
    int64_t value = below(1000);
    const char *text = texts[below(7)];
    if (wire_prepare(client, text, &statement) != WIRE_OK)
        return;
    if (chance(50))
        wire_query_prepared(client, statement, 1, &value, NULL, NULL);
    else
        wire_exec_prepared(client, statement, below(3) > 0, &value);
    wire_exec_prepared(client, (uint32_t)any(), 1, &value);
    did(D_answers_read, 1);
}

static void hang_up(void *arg, size_t count, const char *const *columns, const struct wire_value *values)
{
    (void)count;
    (void)columns;
    (void)values;
    shutdown(((struct wire_client *)arg)->fd, SHUT_RDWR);
}

static void leave_an_answer(struct wire_client *client)
{
    wire_query(client,
               "WITH RECURSIVE n (i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n LIMIT 20000) "
               "SELECT i, zeroblob(500) FROM n",
               hang_up, client);
    did(D_answers_cut_off, 1);
}

/* ---- clients that do not ---- */

static void send_bytes(const struct wire_client *client, const unsigned char *bytes, size_t size)
{
    while (size > 0) {
        ssize_t sent = send(client->fd, bytes, size, MSG_NOSIGNAL);
        if (sent <= 0)
            return;
        bytes += sent;
        size -= (size_t)sent;
    }
}

static void put_word(unsigned char *at, uint64_t word)
{
    int i;
    for (i = 0; i < 8; i++)
        at[i] = (unsigned char)(word >> (8 * i));
}

static void put_header(unsigned char *at, uint32_t words, unsigned type, unsigned schema)
{
    put_word(at, (uint64_t)words | (uint64_t)type << 32 | (uint64_t)schema << 40);
}

/* What the node makes of it does not matter, but it shall come to an end. */
static void await_the_end(const struct wire_client *client)
{
    char answer[4096];
    struct timeval wait = {0, 50000};
    setsockopt(client->fd, SOL_SOCKET, SO_RCVTIMEO, &wait, sizeof wait);
    while (recv(client->fd, answer, sizeof answer, 0) > 0)
        ;
}

/* The beginning of a request for a large body. */
static void leave_a_request(const struct wire_client *client)
{
    unsigned char bytes[4096];
    memset(bytes, 'x', sizeof bytes);
    put_header(bytes, chance(50) ? 1000 : below(1 << 28), 8, 0);
    put_word(bytes + 8, 0);
    send_bytes(client, bytes, 1 + below(sizeof bytes - 1));
    if (chance(50))
        sleep_ms(below(50));
    did(D_requests_cut_off, 1);
}

/* Any bytes, after a handshake or as one, or as messages of another server. */
static void send_garbage(struct group *group)
{
    struct wire_client client;
    unsigned char bytes[GARBAGE_MAX];
    size_t size = 8 + below(sizeof bytes - 8), i;
    if (wire_connect(&client, group->addresses[below((unsigned)group->members)], PATIENCE_MS * slowness) != WIRE_OK)
        return;
    for (i = 0; i < size; i++)
        bytes[i] = (unsigned char)any();
    if (chance(50)) {
        unsigned char connect[40];
        memset(connect, 0, sizeof connect);
        put_header(connect, 4, CONNECT, 0);
        put_word(connect + 8, chance(50) ? any() : 1 + below(3));
        memcpy(connect + 16, "127.0.0.1:1", 12);
        send_bytes(&client, connect, sizeof connect);
        /* A message to a server: type and length in words of the header. */
        put_word(bytes, 1 + below(7));
        if (size > 16)
            put_word(bytes + 8, chance(50) ? below(600) : any());
    } else if (chance(50)) {
        put_header(bytes, below((unsigned)size / 8), below(REQUEST_TYPES), below(3));
    }
    send_bytes(&client, bytes, size);
    await_the_end(&client);
    wire_close(&client);
    did(D_garbage_sent, 1);
}

/* Requests with a sound header and words that mean nothing, or too much. */
static void send_random_requests(const struct wire_client *client, const struct group *group)
{
    unsigned char bytes[8 + 8 * 12];
    int left;
    for (left = 1 + (int)below(10); left > 0; left--) {
        unsigned words = 1 + below(12), type = below(REQUEST_TYPES), i;
        /* In a cluster that keeps its rows, nobody is removed or added by accident. */
        if (group->keeps_rows && (type == ADD || type == ASSIGN || type == REMOVE || type == TRANSFER))
            continue;
        put_header(bytes, words, type, chance(80) ? 0 : below(4));
        for (i = 1; i <= words; i++)
            put_word(bytes + 8 * i, chance(50) ? below(4) : chance(50) ? any() : UINT64_C(0x0031203b29200041));
        send_bytes(client, bytes, 8 + 8 * words);
        did(D_random_requests, 1);
    }
    await_the_end(client);
}

void be_a_client(struct group *group)
{
    struct wire_client client;
    busy_with("a client");
    if (chance(10)) {
        send_garbage(group);
        return;
    }
    if (!visit(&client, group))
        return;
    switch (below(12)) {
    case 0:
        leave_an_answer(&client);
        break;
    case 1:
        leave_a_request(&client);
        break;
    case 2:
        send_random_requests(&client, group);
        break;
    case 3:
        query_prepared(&client);
        break;
    case 4:
    case 5:
        write_transaction(&client, group);
        break;
    default:
        write_rows(&client, group);
        break;
    }
    wire_close(&client);
}

/* ---- what owners need of clients ---- */

struct expected {
    unsigned char missing[ROWS_MAX / 8];
    long found;
};

static void find_row(void *arg, size_t count, const char *const *columns, const struct wire_value *values)
{
    struct expected *expected = arg;
    int64_t row = count > 0 ? values[0].integer : -1;
    (void)columns;
    if (row < 0 || row >= ROWS_MAX)
        return;
    expected->found += expected->missing[row / 8] >> row % 8 & 1;
    expected->missing[row / 8] &= (unsigned char)~(1u << row % 8);
}

/* Whether it could be asked. */
static int compare_rows(struct wire_client *client, struct group *group)
{
    struct expected *expected = malloc(sizeof *expected);
    int i, asked = 0, any_expected = 0, lost = 0;
    if (expected == NULL)
        return 0;
    expected->found = 0;
    for (i = 0; i < ROWS_MAX / 8; i++) {
        expected->missing[i] = group->acknowledged[i];
        any_expected |= expected->missing[i];
    }
    switch (wire_query(client, "SELECT n FROM t", find_row, expected)) {
    case WIRE_OK:
        asked = 1;
        break;
    case WIRE_REFUSED:
        /* A database without its table has lost all of it. */
        asked = strstr(client->error, "no such table") != NULL;
        break;
    default:
        break;
    }
    for (i = 0; asked && i < ROWS_MAX; i++)
        lost += expected->missing[i / 8] >> i % 8 & 1;
    if (lost > 0)
        complain("%s has lost %d acknowledged rows of %ld", group->name, lost, expected->found + lost);
    if (asked) {
        did(D_checks_of_rows, 1);
        did(D_rows_found_again, expected->found);
    }
    free(expected);
    return asked;
}

int check_rows(struct group *group, int timeout_ms)
{
    int waited_ms, done = 0;
    if (!group->keeps_rows)
        return 1;
    for (waited_ms = 0; !done && waited_ms < timeout_ms; waited_ms += 20 * slowness) {
        struct wire_client client;
        if (visit(&client, group)) {
            done = compare_rows(&client, group);
            wire_close(&client);
        }
        if (!done)
            sleep_ms(20L * slowness);
    }
    return done;
}

void add_members(struct group *group)
{
    int tries, i;
    for (tries = 0; tries < MEMBERS_MAX; tries++) {
        struct wire_client client;
        if (!visit(&client, group))
            continue;
        for (i = 0; i < group->members; i++)
            if (wire_add(&client, group->ids[i], group->addresses[i]) == WIRE_OK)
                did(D_servers_added, 1);
        wire_close(&client);
    }
}
