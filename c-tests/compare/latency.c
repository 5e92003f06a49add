/*
 * How long one client waits: for a one-row insert that commits by itself, and for the read of one row by its key. Both
 * are prepared statements.
 *
 *     latency ADDRESS COUNT
 *
 * Prints three numbers, in microseconds: median and 99th percentile of COUNT inserts, median of COUNT reads.
 */
#include <stdio.h>
#include <stdlib.h>
#include <time.h>

#include "../wire_client.h"

enum { TIMEOUT_MS = 30000, WARM_UP = 200 };

static double now_us(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec * 1e6 + (double)time.tv_nsec / 1e3;
}

static int compare(const void *one, const void *other)
{
    double a = *(const double *)one, b = *(const double *)other;
    return (a > b) - (a < b);
}

static void expect(struct wire_client *client, int worked)
{
    if (!worked) {
        fprintf(stderr, "latency: %s\n", client->error);
        exit(1);
    }
}

int main(int argc, char **argv)
{
    struct wire_client client;
    uint32_t insert, read;
    int64_t parameters[2];
    int count = argc == 3 ? atoi(argv[2]) : 0, i;
    double *inserts = calloc((size_t)count + 1, sizeof *inserts), *reads = calloc((size_t)count + 1, sizeof *reads);
    if (count < 1 || inserts == NULL || reads == NULL) {
        fprintf(stderr, "usage: latency ADDRESS COUNT\n");
        return 2;
    }
    expect(&client, wire_connect(&client, argv[1], TIMEOUT_MS) == WIRE_OK);
    expect(&client, wire_open(&client, "latency") == WIRE_OK);
    expect(&client, wire_exec(&client, "CREATE TABLE t (id INTEGER PRIMARY KEY, number INTEGER)") == WIRE_OK);
    expect(&client, wire_prepare(&client, "INSERT INTO t VALUES (?, ?)", &insert) == WIRE_OK);
    expect(&client, wire_prepare(&client, "SELECT number FROM t WHERE id = ?", &read) == WIRE_OK);
    for (i = -WARM_UP; i < count; i++) {
        double begin = now_us();
        parameters[0] = i;
        parameters[1] = i * 7;
        expect(&client, wire_exec_prepared(&client, insert, 2, parameters) == WIRE_OK);
        if (i >= 0)
            inserts[i] = now_us() - begin;
    }
    for (i = -WARM_UP; i < count; i++) {
        double begin = now_us();
        parameters[0] = (int64_t)(i + WARM_UP) * 7919 % count;
        expect(&client, wire_query_prepared(&client, read, 1, parameters, NULL, NULL) == WIRE_OK);
        expect(&client, client.row_count == 1);
        if (i >= 0)
            reads[i] = now_us() - begin;
    }
    wire_close(&client);
    qsort(inserts, (size_t)count, sizeof *inserts, compare);
    qsort(reads, (size_t)count, sizeof *reads, compare);
    printf("%.1f %.1f %.1f\n", inserts[count / 2], inserts[(size_t)count * 99 / 100], reads[count / 2]);
    return 0;
}
