/*
 * Durability under kill -9: rounds of { start the host program, let eight writers insert, kill it }.
 *
 *     kill9 HOST_PROGRAM ADDRESS DIRECTORY ROUNDS [SEED]
 *
 * After every start, each row whose insert was acknowledged in any earlier round must be there with its content, and
 * so must each row that was seen once. When there are many, all are deleted, and must stay away from then on, so that
 * rounds and snapshots stay short. Exit code 0 if no row was missing or came back and no start failed.
 */
#include <errno.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "wire_client.h"

enum { WRITERS = 8, ROWS_MAX = 4 << 20, ROWS_KEPT = 5000, START_TIMEOUT_MS = 30000, REQUEST_TIMEOUT_MS = 30000, SQLITE_BUSY = 5 };

enum row_state { UNKNOWN = 0, MUST_EXIST = 1, MUST_NOT_EXIST = 2 };

static const char *address;
static _Atomic unsigned char rows[ROWS_MAX]; /* enum row_state by id */
static atomic_uint next_id = 1;
static atomic_uint acknowledged;
static atomic_uint refusals; /* other than busy: none is expected */
static char first_refusal[320];
static pthread_mutex_t refusal_lock = PTHREAD_MUTEX_INITIALIZER;

struct host {
    pid_t pid;
    int input; /* closing it lets the host stop cleanly */
    int output;
};

static void sleep_ms(long ms)
{
    struct timespec time;
    time.tv_sec = ms / 1000;
    time.tv_nsec = ms % 1000 * 1000000;
    nanosleep(&time, NULL);
}

static int start_host(struct host *host, char *program, char *directory)
{
    int input[2], output[2];
    char text[256];
    size_t size = 0;
    if (pipe(input) != 0 || pipe(output) != 0)
        return -1;
    host->pid = fork();
    if (host->pid == 0) {
        dup2(input[0], 0);
        dup2(output[1], 1);
        close(input[0]);
        close(input[1]);
        close(output[0]);
        close(output[1]);
        execl(program, program, address, directory, (char *)NULL);
        _exit(127);
    }
    close(input[0]);
    close(output[1]);
    host->input = input[1];
    host->output = output[0];
    while (host->pid > 0 && size < sizeof text - 1) {
        struct pollfd wait;
        ssize_t received;
        wait.fd = host->output;
        wait.events = POLLIN;
        if (poll(&wait, 1, START_TIMEOUT_MS) != 1)
            return -1;
        received = read(host->output, text + size, sizeof text - 1 - size);
        if (received <= 0)
            return -1;
        size += (size_t)received;
        text[size] = '\0';
        if (strstr(text, "ready\n") != NULL)
            return 0;
    }
    return -1;
}

static int end_host(struct host *host)
{
    int status = -1;
    close(host->input);
    if (host->pid > 0)
        waitpid(host->pid, &status, 0);
    close(host->output);
    return status;
}

static void *write_rows(void *arg)
{
    struct wire_client client;
    (void)arg;
    if (wire_connect(&client, address, REQUEST_TIMEOUT_MS) != WIRE_OK || wire_open(&client, "kill9") != WIRE_OK) {
        wire_close(&client);
        return NULL;
    }
    for (;;) {
        unsigned id = atomic_fetch_add(&next_id, 1);
        char sql[128];
        int result;
        if (id >= ROWS_MAX)
            break;
        snprintf(sql, sizeof sql, "INSERT INTO w (id, text) VALUES (%u, 'v%u')", id, id);
        while ((result = wire_exec(&client, sql)) == WIRE_REFUSED && client.code == SQLITE_BUSY)
            sleep_ms(1);
        if (result == WIRE_OK) {
            atomic_store(&rows[id], MUST_EXIST);
            atomic_fetch_add(&acknowledged, 1);
            continue;
        }
        if (result == WIRE_REFUSED) {
            pthread_mutex_lock(&refusal_lock);
            if (atomic_fetch_add(&refusals, 1) == 0)
                snprintf(first_refusal, sizeof first_refusal, "%llu %s", (unsigned long long)client.code,
                         client.error);
            pthread_mutex_unlock(&refusal_lock);
        }
        break;
    }
    wire_close(&client);
    return NULL;
}

struct check {
    unsigned char *present;
    unsigned long wrong;
    unsigned long count;
};

static void see_row(void *arg, size_t count, const char *const *columns, const struct wire_value *values)
{
    struct check *check = arg;
    char expected[32];
    (void)columns;
    snprintf(expected, sizeof expected, "v%lld", (long long)values[0].integer);
    if (count != 2 || values[0].integer < 1 || values[0].integer >= ROWS_MAX || values[1].kind != WIRE_TEXT
        || strcmp(values[1].bytes, expected) != 0)
        check->wrong++;
    else
        check->present[values[0].integer] = 1;
    check->count++;
}

/* Nobody writes meanwhile, so every id up to `last` is settled. */
static int delete_rows(struct wire_client *client, unsigned last)
{
    unsigned id;
    if (wire_exec(client, "DELETE FROM w") != WIRE_OK) {
        fprintf(stderr, "kill9: cannot delete: %s\n", client->error);
        return -1;
    }
    for (id = 1; id < last && id < ROWS_MAX; id++)
        atomic_store(&rows[id], MUST_NOT_EXIST);
    return 0;
}

/* Returns the number of rows that are missing or wrong; -1 if that cannot be found out. */
static long verify(unsigned long *found_unacknowledged)
{
    struct wire_client client;
    struct check check = {NULL, 0, 0};
    unsigned id, last = atomic_load(&next_id);
    long bad = -1;
    check.present = calloc(ROWS_MAX, 1);
    if (check.present == NULL || wire_connect(&client, address, REQUEST_TIMEOUT_MS) != WIRE_OK) {
        free(check.present);
        return -1;
    }
    if (wire_open(&client, "kill9") == WIRE_OK
        && wire_exec(&client, "CREATE TABLE IF NOT EXISTS w (id INTEGER PRIMARY KEY, text TEXT)") == WIRE_OK
        && wire_query(&client, "SELECT id, text FROM w", see_row, &check) == WIRE_OK) {
        bad = (long)check.wrong;
        for (id = 1; id < last && id < ROWS_MAX; id++) {
            if (atomic_load(&rows[id]) == MUST_EXIST && !check.present[id]) {
                if (bad++ < 5)
                    fprintf(stderr, "kill9: row %u is missing\n", id);
            } else if (atomic_load(&rows[id]) == MUST_NOT_EXIST && check.present[id]) {
                if (bad++ < 5)
                    fprintf(stderr, "kill9: row %u was deleted and is back\n", id);
            } else if (atomic_load(&rows[id]) == UNKNOWN && check.present[id]) {
                ++*found_unacknowledged;
                atomic_store(&rows[id], MUST_EXIST);
            }
        }
        if (bad == 0 && check.count > ROWS_KEPT && delete_rows(&client, last) != 0)
            bad = -1;
    } else {
        fprintf(stderr, "kill9: cannot check: %s\n", client.error);
    }
    wire_close(&client);
    free(check.present);
    return bad;
}

/* One round; a last one stops the host cleanly instead of writing and killing. Returns 0 if all is well. */
static int run_round(char *program, char *directory, int is_last, unsigned long *found)
{
    struct host host;
    pthread_t writers[WRITERS];
    long bad;
    int i, status;
    if (start_host(&host, program, directory) != 0) {
        fprintf(stderr, "kill9: the host did not start\n");
        if (host.pid > 0)
            kill(host.pid, SIGKILL);
        end_host(&host);
        return 1;
    }
    bad = verify(found);
    if (bad != 0) {
        fprintf(stderr, "kill9: %ld rows are missing or wrong\n", bad);
        kill(host.pid, SIGKILL);
        end_host(&host);
        return 1;
    }
    if (is_last) {
        status = end_host(&host);
        return !WIFEXITED(status) || WEXITSTATUS(status) != 0;
    }
    for (i = 0; i < WRITERS; i++)
        pthread_create(&writers[i], NULL, write_rows, NULL);
    sleep_ms(20 + rand() % 300);
    kill(host.pid, SIGKILL);
    end_host(&host);
    for (i = 0; i < WRITERS; i++)
        pthread_join(writers[i], NULL);
    return 0;
}

int main(int argc, char **argv)
{
    unsigned long found = 0;
    int round, rounds;
    unsigned seed;
    if (argc < 5) {
        fprintf(stderr, "usage: kill9 HOST_PROGRAM ADDRESS DIRECTORY ROUNDS [SEED]\n");
        return 2;
    }
    address = argv[2];
    rounds = atoi(argv[4]);
    seed = argc > 5 ? (unsigned)strtoul(argv[5], NULL, 10) : (unsigned)time(NULL);
    printf("kill9: %d rounds, seed %u\n", rounds, seed);
    srand(seed);
    signal(SIGPIPE, SIG_IGN);
    for (round = 1; round <= rounds + 1; round++) {
        if (run_round(argv[1], argv[3], round > rounds, &found) != 0) {
            fprintf(stderr, "kill9: failed in round %d\n", round);
            return 1;
        }
        if (round % 25 == 0 && round <= rounds) {
            printf("kill9: round %d, %u rows acknowledged\n", round, atomic_load(&acknowledged));
            fflush(stdout);
        }
    }
    if (atomic_load(&refusals) > 0) {
        fprintf(stderr, "kill9: %u inserts were refused, the first with: %s\n", atomic_load(&refusals), first_refusal);
        return 1;
    }
    if (atomic_load(&acknowledged) == 0) {
        fprintf(stderr, "kill9: no insert was ever acknowledged, so nothing was shown\n");
        return 1;
    }
    printf("kill9: %d kills, %u acknowledged rows, none missing; %lu rows were there without acknowledgement\n", rounds,
           atomic_load(&acknowledged), found);
    return 0;
}
