/*
 * The load generator of `make bench`: clients that do one operation after the other, each on a thread and a connection
 * of its own, with the leader of a cluster.
 *
 *     load WORKLOAD CLIENTS WARM_UP_MS DURATION_MS DATABASE ADDRESS...
 *
 * The addresses are those of the servers 1, 2, ... It makes tables in the database, which must be new, prints "begin"
 * when the measured time begins and "end" when it ends, waits for what is under way, compares the database with what was
 * acknowledged, and prints one JSON object. Exit code 1 if an answer was wrong or something is lost.
 *
 * An operation that is refused because of another writer (SQLITE_BUSY) is repeated after a pause that grows from 50 us
 * to 12.8 ms and is random, as in a patient program; the pauses are part of its latency. The latency of an operation
 * counts if it began in the measured time, however long it takes; the throughput is what ended within it.
 *
 * Blocking sockets and a thread for each client: one send and one receive for an operation is what an epoll loop would
 * need too, and operations of several requests stay readable. Its own processor time is in the result.
 */
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/resource.h>
#include <time.h>
#include <unistd.h>

#include "load.h"

enum { CLIENTS_MAX = 1024, TIMEOUT_MS = 60000, LEADER_WAIT_MS = 120000, DRAIN_MS = 20000, STACK_SIZE = 256 << 10 };
enum { PAUSE_MIN_US = 50, PAUSE_DOUBLINGS = 8 };
enum { WARMING_UP, MEASURED, OVER };

static char **addresses;
static int address_count;
static const char *database;
static atomic_int phase;
static double over_since_us;

static double now_us(void)
{
    struct timespec time;
    clock_gettime(CLOCK_MONOTONIC, &time);
    return (double)time.tv_sec * 1e6 + (double)time.tv_nsec / 1e3;
}

static void sleep_us(double us)
{
    struct timespec time;
    time.tv_sec = (time_t)(us / 1e6);
    time.tv_nsec = (long)((us - (double)time.tv_sec * 1e6) * 1e3);
    nanosleep(&time, NULL);
}

/* xorshift64* */
uint64_t next_random(struct client *client)
{
    client->random ^= client->random >> 12;
    client->random ^= client->random << 25;
    client->random ^= client->random >> 27;
    return client->random * UINT64_C(2685821657736338717) >> 16;
}

void wrong(const struct client *client, const char *format, ...)
{
    va_list arguments;
    fprintf(stderr, "load: %s, client %u: ", client->workload->name, client->index);
    va_start(arguments, format);
    vfprintf(stderr, format, arguments);
    va_end(arguments);
    fputc('\n', stderr);
    exit(1);
}

/* ---- connections ---- */

/* Asks the servers in turn who leads, and connects to that one. */
static int connect_to_leader(struct client *client, int first)
{
    int i;
    for (i = 0; i < address_count; i++) {
        const char *address = addresses[(first + i) % address_count];
        uint64_t id = 0;
        if (wire_connect(&client->wire, address, TIMEOUT_MS) == WIRE_OK && wire_leader(&client->wire, &id) == WIRE_OK
            && id >= 1 && id <= (uint64_t)address_count) {
            if (strcmp(addresses[id - 1], address) == 0)
                return 1;
            wire_close(&client->wire);
            if (wire_connect(&client->wire, addresses[id - 1], TIMEOUT_MS) == WIRE_OK)
                return 1;
        }
        wire_close(&client->wire);
    }
    return 0;
}

/* With the database open and all statements prepared. */
static int reconnect(struct client *client)
{
    double end = now_us() + LEADER_WAIT_MS * 1e3;
    int attempt, i;
    wire_close(&client->wire);
    for (attempt = 0; now_us() < end; attempt++) {
        if (connect_to_leader(client, attempt)) {
            int result = wire_open(&client->wire, database);
            for (i = 0; result == WIRE_OK && i < STATEMENTS_MAX && client->workload->statements[i] != NULL; i++)
                result = wire_prepare(&client->wire, client->workload->statements[i], &client->statements[i]);
            if (result == WIRE_OK)
                return 1;
            wire_close(&client->wire);
        }
        sleep_us(20000);
    }
    return 0;
}

/* ---- a client ---- */

static void count_refusal(struct client *client)
{
    int broken = client->wire.fd < 0 || client->wire.code == 0, i;
    uint64_t code = broken ? 0 : client->wire.code;
    for (i = 0; i < CODES_MAX - 1 && client->codes[i].count > 0; i++)
        if (client->codes[i].code == code)
            break;
    if (client->codes[i].count++ == 0) {
        client->codes[i].code = code;
        snprintf(client->codes[i].text, sizeof client->codes[i].text, "%.60s", client->wire.error);
    }
}

static void pause_busy(struct client *client, int attempt)
{
    double longest = PAUSE_MIN_US * (double)(1 << (attempt < PAUSE_DOUBLINGS ? attempt : PAUSE_DOUBLINGS));
    sleep_us(longest * (0.5 + (double)(next_random(client) % 1000) / 2000));
}

/* Until it is done; 0 if it was given up. Nobody waits for ever when the measured time is over. */
static int operate_until_done(struct client *client)
{
    int attempt;
    for (attempt = 0;; attempt++) {
        enum outcome outcome;
        int at = atomic_load(&phase);
        if (at == OVER && now_us() > over_since_us + DRAIN_MS * 1e3)
            return 0;
        client->wire.code = 0;
        outcome = client->workload->operate(client);
        if (outcome == DONE)
            return 1;
        if (outcome == BUSY) {
            client->busy += at == MEASURED;
            pause_busy(client, attempt);
            continue;
        }
        count_refusal(client);
        if (atomic_load(&phase) == OVER)
            return 0;
        sleep_us(1000);
        if (!reconnect(client))
            wrong(client, "no leader in %d ms: %s", LEADER_WAIT_MS, client->wire.error);
    }
}

static void note_latency(struct client *client, double us)
{
    if (client->latency_count == client->latency_capacity) {
        client->latency_capacity = client->latency_capacity * 2 + 4096;
        client->latencies_us =
            realloc(client->latencies_us, client->latency_capacity * sizeof *client->latencies_us);
        if (client->latencies_us == NULL)
            wrong(client, "out of memory");
    }
    client->latencies_us[client->latency_count++] = us;
}

static void *run_client(void *arg)
{
    struct client *client = arg;
    int at;
    while ((at = atomic_load(&phase)) != OVER) {
        double begin = now_us();
        int done = operate_until_done(client);
        client->operations++;
        if (at == MEASURED)
            note_latency(client, now_us() - begin);
        if (done && atomic_load(&phase) == MEASURED)
            client->done++;
    }
    return NULL;
}

/* ---- before and after ---- */

static void prepare(struct client *clients, unsigned count)
{
    unsigned i;
    struct client maker = clients[0];
    struct workload nothing = *maker.workload;
    nothing.statements[0] = NULL;
    maker.workload = &nothing;
    if (!reconnect(&maker))
        wrong(&maker, "no leader: %s", maker.wire.error);
    for (i = 0; nothing.schema[i] != NULL; i++)
        if (wire_exec(&maker.wire, nothing.schema[i]) != WIRE_OK)
            wrong(&maker, "%s: %s", nothing.schema[i], maker.wire.error);
    wire_close(&maker.wire);
    for (i = 0; i < count; i++)
        if (!reconnect(&clients[i]))
            wrong(&clients[i], "no leader: %s", clients[i].wire.error);
}

struct held {
    int64_t written;
    int64_t sum;
    int has_sum;
};

static void take_held(void *arg, size_t count, const char *const *columns, const struct wire_value *values)
{
    struct held *held = arg;
    (void)columns;
    held->written = values[0].integer;
    held->has_sum = count > 1 && values[1].kind == WIRE_INTEGER;
    held->sum = held->has_sum ? values[1].integer : 0;
}

/* Acknowledged writes are all there, and nothing else but what may have happened unacknowledged. */
static void compare(struct client *clients, unsigned count)
{
    struct held held = {0, 0, 0};
    int64_t written = 0, sum = 0, unknown = 0;
    unsigned i;
    for (i = 0; i < count; i++) {
        written += clients[i].written;
        sum += clients[i].written_sum;
        unknown += clients[i].unknown;
    }
    if (!reconnect(&clients[0])
        || wire_query(&clients[0].wire, clients[0].workload->held, take_held, &held) != WIRE_OK)
        wrong(&clients[0], "the database cannot be compared: %s", clients[0].wire.error);
    if (held.written < written || held.written > written + unknown)
        wrong(&clients[0], "%" PRId64 " in the database, %" PRId64 " acknowledged, %" PRId64 " unknown", held.written,
              written, unknown);
    if (held.has_sum && unknown == 0 && held.sum != sum)
        wrong(&clients[0], "the row ids in the database have the sum %" PRId64 ", those acknowledged %" PRId64,
              held.sum, sum);
    printf("\"written\": %" PRId64 ", \"unknown\": %" PRId64 ", ", written, unknown);
}

static int compare_numbers(const void *one, const void *other)
{
    double a = *(const double *)one, b = *(const double *)other;
    return (a > b) - (a < b);
}

static double percentile(const double *sorted, size_t count, double share)
{
    size_t at = (size_t)((double)count * share);
    return count == 0 ? 0 : sorted[at < count ? at : count - 1];
}

static void print_latencies(const struct client *clients, unsigned count)
{
    size_t total = 0;
    double *all;
    unsigned i;
    for (i = 0; i < count; i++)
        total += clients[i].latency_count;
    all = malloc((total + 1) * sizeof *all);
    if (all == NULL)
        wrong(clients, "out of memory");
    for (i = 0, total = 0; i < count; i++) {
        if (clients[i].latency_count > 0)
            memcpy(all + total, clients[i].latencies_us, clients[i].latency_count * sizeof *all);
        total += clients[i].latency_count;
    }
    qsort(all, total, sizeof *all, compare_numbers);
    printf("\"samples\": %zu, \"p50_us\": %.1f, \"p99_us\": %.1f, \"p999_us\": %.1f, \"max_us\": %.1f, ", total,
           percentile(all, total, 0.5), percentile(all, total, 0.99), percentile(all, total, 0.999),
           percentile(all, total, 1));
    free(all);
}

/* A text of a server as JSON: what could end it becomes a space. */
static void print_text(const char *text)
{
    for (; *text != '\0'; text++)
        putchar(*text < ' ' || *text == '"' || *text == '\\' ? ' ' : *text);
}

static void print_refusals(const struct client *clients, unsigned count)
{
    unsigned i, j, more = 0;
    printf("\"refusals\": [");
    for (i = 0; i < count; i++)
        for (j = 0; j < CODES_MAX && clients[i].codes[j].count > 0; j++) {
            printf("%s{\"code\": %" PRIu64 ", \"count\": %" PRIu64 ", \"text\": \"", more++ > 0 ? ", " : "",
                   clients[i].codes[j].code, clients[i].codes[j].count);
            print_text(clients[i].codes[j].text);
            printf("\"}");
        }
    printf("]}\n");
}

static double processor_us(void)
{
    struct rusage usage;
    getrusage(RUSAGE_SELF, &usage);
    return (double)(usage.ru_utime.tv_sec + usage.ru_stime.tv_sec) * 1e6
           + (double)(usage.ru_utime.tv_usec + usage.ru_stime.tv_usec);
}

static void say(const char *word)
{
    puts(word);
    fflush(stdout);
}

/* Prints the first members of the result. */
static void run(struct client *clients, unsigned count, double warm_up_ms, double duration_ms)
{
    pthread_t *threads = calloc(count, sizeof *threads);
    pthread_attr_t attributes;
    double begin, end, processor;
    uint64_t done = 0, busy = 0, surroundings = 0;
    unsigned i, measured = clients->workload->beside ? 1 : count;
    pthread_attr_init(&attributes);
    pthread_attr_setstacksize(&attributes, STACK_SIZE);
    for (i = 0; i < count; i++)
        if (threads == NULL || pthread_create(&threads[i], &attributes, run_client, &clients[i]) != 0)
            wrong(&clients[i], "no thread");
    sleep_us(warm_up_ms * 1e3);
    processor = processor_us();
    begin = now_us();
    atomic_store(&phase, MEASURED);
    say("begin");
    sleep_us(duration_ms * 1e3);
    end = now_us();
    over_since_us = end;
    atomic_store(&phase, OVER);
    processor = processor_us() - processor;
    say("end");
    for (i = 0; i < count; i++)
        pthread_join(threads[i], NULL);
    for (i = 0; i < count; i++) {
        *(i < measured ? &done : &surroundings) += clients[i].done;
        busy += clients[i].busy;
    }
    printf("{\"seconds\": %.6f, \"done\": %" PRIu64 ", \"busy\": %" PRIu64 ", \"beside\": %" PRIu64
           ", \"load_cpu_us\": %.0f, ",
           (end - begin) / 1e6, done, busy, surroundings, processor);
    print_latencies(clients, measured);
    free(threads);
}

int main(int argc, char **argv)
{
    struct client *clients;
    unsigned count = argc > 6 ? (unsigned)atoi(argv[2]) : 0, i;
    const struct workload *workload = argc > 6 ? find_workload(argv[1]) : NULL;
    if (workload == NULL || count < 1 || count > CLIENTS_MAX) {
        fprintf(stderr, "usage: load WORKLOAD CLIENTS WARM_UP_MS DURATION_MS DATABASE ADDRESS...\nworkloads:");
        print_workloads();
        fprintf(stderr, "\n");
        return 2;
    }
    signal(SIGPIPE, SIG_IGN);
    database = argv[5];
    addresses = argv + 6;
    address_count = argc - 6;
    clients = calloc(count, sizeof *clients);
    if (clients == NULL)
        return 1;
    for (i = 0; i < count; i++) {
        clients[i].workload = workload;
        clients[i].index = i;
        clients[i].wire.fd = -1;
        clients[i].random = UINT64_C(88172645463325252) + i * UINT64_C(0x9E3779B97F4A7C15);
    }
    prepare(clients, count);
    run(clients, count, atof(argv[3]), atof(argv[4]));
    compare(clients, count);
    print_refusals(clients, count);
    for (i = 0; i < count; i++) {
        wire_close(&clients[i].wire);
        free(clients[i].latencies_us);
    }
    free(clients);
    return 0;
}
