/* What the load generator's main program (load.c) and its workloads (workloads.c) share. */
#ifndef LOAD_H
#define LOAD_H

#include <stddef.h>
#include <stdint.h>

#include "../../c-tests/wire_client.h"

enum { STATEMENTS_MAX = 8, CODES_MAX = 16 };

/* How an operation ended. */
enum outcome {
    DONE,   /* every answer was what it has to be */
    BUSY,   /* refused because another client writes: it did nothing and is repeated */
    REFUSED /* any other refusal, or the connection broke: the client looks for the leader again */
};

/* One client: a thread, a connection, one operation at a time. */
struct client {
    const struct workload *workload;
    unsigned index;
    struct wire_client wire;
    uint32_t statements[STATEMENTS_MAX];
    uint64_t random;     /* state of the generator */
    uint64_t operations; /* tried so far, all repetitions of one as one */
    int64_t last_id;     /* the greatest of its row ids, or the revision it saw last */
    uint64_t rows;       /* what the operation under way read so far */
    int64_t sum;
    /* What the database must hold in the end: acknowledged, and what may or may not have happened. */
    int64_t written;
    int64_t written_sum;
    int64_t unknown;
    int64_t under_way; /* rows that the request under way may write */
    /* Of the measured time. */
    uint64_t done;
    uint64_t busy;
    double *latencies_us;
    size_t latency_count;
    size_t latency_capacity;
    struct {
        uint64_t code; /* 0 for a broken connection */
        uint64_t count;
        char text[64];
    } codes[CODES_MAX];
};

struct workload {
    const char *name;
    const char *const *schema;                 /* statements before the load, ends with NULL */
    const char *statements[STATEMENTS_MAX];    /* prepared by every client */
    enum outcome (*operate)(struct client *client);
    /* One row: a number that is equal to the sum of `written`, and one for `written_sum`, or NULL. */
    const char *held;
    /* Only the first client writes and is measured; the others are its surroundings. */
    int beside;
};

const struct workload *find_workload(const char *name);
void print_workloads(void);

uint64_t next_random(struct client *client);

/* A wrong answer ends the program: numbers of a server that answers wrongly mean nothing. */
void wrong(const struct client *client, const char *format, ...);

#endif
