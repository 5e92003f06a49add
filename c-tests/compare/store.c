/*
 * What compare/store.sh lets a client do to a node, and how long that took. Every command opens the database "store".
 *
 *     store first ADDRESS SINCE_NS          asks for a row until the node answers; prints the milliseconds since then
 *     store grow ADDRESS MB                 fills the database up to a size; half of its bytes can be compressed
 *     store insert ADDRESS COUNT RATE       rows of 40 kB, RATE a second
 *     store write ADDRESS COUNT SECONDS     small rows, one after the other, until one of the two or a SIGTERM ends it
 *     store pages ADDRESS                   prints the size of the database in pages
 *
 * write prints its count, then median, 99th percentile and worst latency in milliseconds.
 */
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>

#include "../wire_client.h"

enum { TIMEOUT_MS = 600000, PATIENCE_S = 600, SMALL_ROWS = 1000, WRITES_MAX = 10000000, PAGE_SIZE = 4096 };

static volatile sig_atomic_t told_to_end;

static void end(int number)
{
    (void)number;
    told_to_end = 1;
}

static double now_ms(clockid_t clock)
{
    struct timespec time;
    clock_gettime(clock, &time);
    return (double)time.tv_sec * 1e3 + (double)time.tv_nsec / 1e6;
}

static void sleep_ms(double ms)
{
    struct timespec time = {(time_t)(ms / 1e3), 0};
    time.tv_nsec = (long)((ms - (double)time.tv_sec * 1e3) * 1e6);
    if (ms > 0)
        nanosleep(&time, NULL);
}

static void expect(struct wire_client *client, int worked)
{
    if (!worked) {
        fprintf(stderr, "store: %s\n", client->error);
        exit(1);
    }
}

static void run(struct wire_client *client, const char *sql)
{
    expect(client, wire_exec(client, sql) == WIRE_OK);
}

/* Connects, waits for a leader, which with a single voter is the node itself, and makes the tables. */
static void open_store(struct wire_client *client, const char *address)
{
    expect(client, wire_connect(client, address, TIMEOUT_MS) == WIRE_OK);
    expect(client, wire_wait_for_leader(client, TIMEOUT_MS) == WIRE_OK);
    expect(client, wire_open(client, "store") == WIRE_OK);
    run(client, "CREATE TABLE IF NOT EXISTS small (id INTEGER PRIMARY KEY, number INTEGER)");
    run(client, "CREATE TABLE IF NOT EXISTS filler (id INTEGER PRIMARY KEY, dense BLOB, sparse BLOB)");
}

static int ask_once(const char *address)
{
    struct wire_client client;
    uint64_t leader = 0;
    int answered = wire_connect(&client, address, TIMEOUT_MS) == WIRE_OK && wire_leader(&client, &leader) == WIRE_OK
        && leader != 0 && wire_open(&client, "store") == WIRE_OK
        && wire_query(&client, "SELECT number FROM small WHERE id = 1", NULL, NULL) == WIRE_OK && client.row_count == 1;
    wire_close(&client);
    return answered;
}

static int first(const char *address, double since_ms)
{
    while (!ask_once(address)) {
        if (now_ms(CLOCK_REALTIME) - since_ms > PATIENCE_S * 1e3) {
            fprintf(stderr, "store: no answer after %d seconds\n", PATIENCE_S);
            return 1;
        }
        sleep_ms(1);
    }
    printf("%.0f\n", now_ms(CLOCK_REALTIME) - since_ms);
    return 0;
}

static void keep_integer(void *number, size_t count, const char *const *columns, const struct wire_value *values)
{
    (void)columns;
    if (count == 1)
        *(int64_t *)number = values[0].integer;
}

static int64_t pages(struct wire_client *client)
{
    int64_t count = 0;
    expect(client, wire_query(client, "PRAGMA page_count", keep_integer, &count) == WIRE_OK);
    return count;
}

/* A row a page, 4 MB a transaction. */
static int grow(const char *address, double mb)
{
    struct wire_client client;
    open_store(&client, address);
    run(&client, "INSERT OR REPLACE INTO small VALUES (1, 1)");
    while ((double)pages(&client) * PAGE_SIZE < mb * 1e6)
        run(&client, "WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n WHERE i < 1000)"
                     " INSERT INTO filler (dense, sparse) SELECT randomblob(2000), zeroblob(2000) FROM n");
    wire_close(&client);
    return 0;
}

static int insert(const char *address, int count, double rate)
{
    struct wire_client client;
    double begin = now_ms(CLOCK_MONOTONIC);
    int i;
    open_store(&client, address);
    for (i = 0; i < count; i++) {
        run(&client, "INSERT INTO filler (dense, sparse) VALUES (randomblob(20000), zeroblob(20000))");
        sleep_ms(begin + i * 1e3 / rate - now_ms(CLOCK_MONOTONIC));
    }
    wire_close(&client);
    return 0;
}

static int compare(const void *one, const void *other)
{
    double a = *(const double *)one, b = *(const double *)other;
    return (a > b) - (a < b);
}

static int write_small(const char *address, int most, double seconds)
{
    struct wire_client client;
    struct sigaction action;
    uint32_t statement;
    int64_t parameters[2];
    int count;
    double *latencies = calloc((size_t)most, sizeof *latencies), begin;
    if (latencies == NULL)
        return 1;
    memset(&action, 0, sizeof action);
    action.sa_handler = end;
    action.sa_flags = SA_RESTART;
    sigaction(SIGTERM, &action, NULL);
    open_store(&client, address);
    expect(&client, wire_prepare(&client, "INSERT OR REPLACE INTO small VALUES (?, ?)", &statement) == WIRE_OK);
    begin = now_ms(CLOCK_MONOTONIC);
    for (count = 0; count < most && !told_to_end && now_ms(CLOCK_MONOTONIC) - begin < seconds * 1e3; count++) {
        double sent = now_ms(CLOCK_MONOTONIC);
        parameters[0] = count % SMALL_ROWS + 1;
        parameters[1] = count;
        expect(&client, wire_exec_prepared(&client, statement, 2, parameters) == WIRE_OK);
        latencies[count] = now_ms(CLOCK_MONOTONIC) - sent;
    }
    wire_close(&client);
    if (count == 0)
        return 1;
    qsort(latencies, (size_t)count, sizeof *latencies, compare);
    printf("%d %.2f %.2f %.2f\n", count, latencies[count / 2], latencies[(size_t)count * 99 / 100],
           latencies[count - 1]);
    return 0;
}

static int print_pages(const char *address)
{
    struct wire_client client;
    open_store(&client, address);
    printf("%lld\n", (long long)pages(&client));
    wire_close(&client);
    return 0;
}

int main(int argc, char **argv)
{
    double numbers[2] = {argc > 3 ? atof(argv[3]) : 0, argc > 4 ? atof(argv[4]) : 0};
    if (argc == 4 && strcmp(argv[1], "first") == 0)
        return first(argv[2], numbers[0] / 1e6);
    if (argc == 4 && strcmp(argv[1], "grow") == 0)
        return grow(argv[2], numbers[0]);
    if (argc == 5 && strcmp(argv[1], "insert") == 0 && numbers[0] > 0 && numbers[1] > 0)
        return insert(argv[2], (int)numbers[0], numbers[1]);
    if (argc == 5 && strcmp(argv[1], "write") == 0 && numbers[0] > 0 && numbers[0] <= WRITES_MAX)
        return write_small(argv[2], (int)numbers[0], numbers[1]);
    if (argc == 3 && strcmp(argv[1], "pages") == 0)
        return print_pages(argv[2]);
    fprintf(stderr, "usage: store first|grow|insert|write|pages ADDRESS [NUMBER [NUMBER]]\n");
    return 2;
}
