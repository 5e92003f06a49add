/*
 * A small client of dqlite's protocol, enough for tests and the demo: connect, open a database, run SQL, read rows.
 * One request at a time; every wait ends after the timeout given to wire_connect. Not a client for production use.
 *
 * A message is a header of eight bytes and a body of whole eight-byte words, all little-endian:
 *
 *     u32 words in the body | u8 type | u8 schema | u16 zero | body
 *
 * A text in a body ends with a NUL and is padded with zeros to a whole word.
 */
#ifndef WIRE_CLIENT_H
#define WIRE_CLIENT_H

#include <stddef.h>
#include <stdint.h>

/* What the functions return. */
enum {
    WIRE_OK = 0,
    WIRE_REFUSED = 1, /* the node answered with a failure: see code and error; the connection stays usable */
    WIRE_BROKEN = 2   /* connection or protocol error: see error; close it */
};

struct wire_client {
    int fd;             /* -1 when not connected */
    uint64_t code;      /* SQLite result code of the last refusal */
    char error[256];    /* text of the last refusal or error */
    uint64_t last_id;   /* of the last wire_exec: row id of the last insert */
    uint64_t row_count; /* of the last wire_exec: rows changed; of the last wire_query: rows received */
    unsigned char *request; /* header and body of what is sent */
    size_t request_size;
    size_t request_capacity;
    unsigned char *answer; /* what was received; the messages before taken are done with */
    size_t received;
    size_t taken;
    size_t answer_capacity;
    const unsigned char *body; /* of the last message, within answer */
    size_t body_size;
};

/* The kind of a value, with the numbers of the protocol. */
enum { WIRE_INTEGER = 1, WIRE_FLOAT = 2, WIRE_TEXT = 3, WIRE_BLOB = 4, WIRE_NULL = 5 };

/* One value of a row. Text and bytes point into the client and are valid inside the row function only. */
struct wire_value {
    int kind;
    int64_t integer;
    double number;
    const char *bytes; /* text (ends with a NUL) or blob */
    size_t size;
};

/* Called for every row; columns are the names. */
typedef void (*wire_row_function)(void *arg, size_t count, const char *const *columns, const struct wire_value *values);

/* Connects to "a.b.c.d:port", or to the abstract Unix socket "@name". On failure the client is left closed, with a text in error. */
int wire_connect(struct wire_client *client, const char *address, int timeout_ms);
void wire_close(struct wire_client *client);

/* Opens the connection's one database. */
int wire_open(struct wire_client *client, const char *database);

/* Runs one or more statements that return no rows. */
int wire_exec(struct wire_client *client, const char *sql);

/* Runs one statement and calls row (may be NULL) for each of its rows. */
int wire_query(struct wire_client *client, const char *sql, wire_row_function row, void *arg);

/* The halves of wire_exec and wire_query, for a test that does something while the node is at work. The answer to a
 * query comes in parts; done tells the last one. */
int wire_send_exec(struct wire_client *client, const char *sql);
int wire_receive_result(struct wire_client *client);
int wire_send_query(struct wire_client *client, const char *sql);
int wire_receive_rows(struct wire_client *client, wire_row_function row, void *arg, int *done);

/* Prepares one statement; its number is valid on this connection. */
int wire_prepare(struct wire_client *client, const char *sql, uint32_t *statement);

/* As wire_exec and wire_query, for a prepared statement, with up to 255 integer parameters. */
int wire_exec_prepared(struct wire_client *client, uint32_t statement, size_t count, const int64_t *values);
int wire_query_prepared(struct wire_client *client, uint32_t statement, size_t count, const int64_t *values,
                        wire_row_function row, void *arg);

/* The same with parameters of all kinds; a text ends with a NUL. */
int wire_exec_values(struct wire_client *client, uint32_t statement, size_t count, const struct wire_value *values);
int wire_query_values(struct wire_client *client, uint32_t statement, size_t count, const struct wire_value *values,
                      wire_row_function row, void *arg);

/* Asks which server leads; id 0 if none is known. */
int wire_leader(struct wire_client *client, uint64_t *id);

/* Asks until a leader is known, for at most this long. A server that lost its companions leads a moment after its
 * start: another one might still have the lease. */
int wire_wait_for_leader(struct wire_client *client, int timeout_ms);

/* Asks the leader to add a server to its cluster, as a spare. */
int wire_add(struct wire_client *client, uint64_t id, const char *address);

/* With the numbers of the protocol. */
enum { WIRE_VOTER = 0, WIRE_STANDBY = 1, WIRE_SPARE = 2 };

/* Asks the leader to give a server a role, to remove it, or to make it the leader. */
int wire_assign(struct wire_client *client, uint64_t id, int role);
int wire_remove(struct wire_client *client, uint64_t id);
int wire_transfer(struct wire_client *client, uint64_t id);

/* Asks which role a server has; -1 if it is not in the cluster. */
int wire_role(struct wire_client *client, uint64_t id, int *role);

#endif
