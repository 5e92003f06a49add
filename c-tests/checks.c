/* See checks.h. */
#include "checks.h"

#include <dirent.h>
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdatomic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum { DESCRIPTORS_MAX = 1024, SIGNALS_MAX = 65, CONNECT_TIMEOUT_MS = 60000, SETTLE_ROUNDS = 200 };

const char *base, *address, *other_address;
static atomic_int failures;
static const char *test_name = "";

void check_int(const char *file, int line, const char *what, long long is, long long should)
{
    if (is != should) {
        fprintf(stderr, "%s:%d: %s: %s is %lld, should be %lld\n", file, line, test_name, what, is, should);
        failures++;
    }
}

void check_text(const char *file, int line, const char *what, const char *is, const char *should)
{
    if (is == NULL || strcmp(is, should) != 0) {
        fprintf(stderr, "%s:%d: %s: %s is \"%s\", should be \"%s\"\n", file, line, test_name, what, is ? is : "(NULL)",
                should);
        failures++;
    }
}

void check_some_text(const char *file, int line, const char *what, const char *is)
{
    if (is == NULL || *is == '\0') {
        fprintf(stderr, "%s:%d: %s: %s is empty\n", file, line, test_name, what);
        failures++;
    }
}

/* ---- what a process has ---- */

struct belongings {
    int descriptors;
    int threads;
    int vfses;
};

static struct belongings count_belongings(void)
{
    struct belongings count = {0, 0, 0};
    struct dirent *entry;
    sqlite3_vfs *vfs;
    DIR *tasks;
    int fd;
    for (fd = 0; fd < DESCRIPTORS_MAX; fd++)
        count.descriptors += fcntl(fd, F_GETFD) != -1;
    tasks = opendir("/proc/self/task");
    while (tasks != NULL && (entry = readdir(tasks)) != NULL)
        count.threads += entry->d_name[0] != '.';
    if (tasks != NULL)
        closedir(tasks);
    for (vfs = sqlite3_vfs_find(NULL); vfs != NULL; vfs = vfs->pNext)
        count.vfses++;
    return count;
}

struct signals {
    sigset_t blocked;
    struct sigaction actions[SIGNALS_MAX];
};

static void read_signals(struct signals *signals)
{
    int number;
    memset(signals, 0, sizeof *signals);
    pthread_sigmask(SIG_SETMASK, NULL, &signals->blocked);
    for (number = 1; number < SIGNALS_MAX; number++)
        sigaction(number, NULL, &signals->actions[number]);
}

static int signals_differ(const struct signals *one, const struct signals *other)
{
    int number, differences = 0;
    for (number = 1; number < SIGNALS_MAX; number++) {
        differences += one->actions[number].sa_handler != other->actions[number].sa_handler;
        differences += sigismember(&one->blocked, number) != sigismember(&other->blocked, number);
    }
    return differences;
}

static void sleep_ms(long ms)
{
    struct timespec time = {ms / 1000, ms % 1000 * 1000000};
    nanosleep(&time, NULL);
}

void run_test(const char *name, void (*test)(void))
{
    struct belongings before, after;
    struct signals signals_before, signals_after;
    int round;
    test_name = name;
    before = count_belongings();
    read_signals(&signals_before);
    test();
    after = count_belongings();
    /* The kernel still lists a thread for a moment after it was joined. */
    for (round = 0; after.threads > before.threads && round < SETTLE_ROUNDS; round++) {
        sleep_ms(10);
        after = count_belongings();
    }
    CHECK(after.descriptors, before.descriptors);
    CHECK(after.threads, before.threads);
    CHECK(after.vfses, before.vfses);
    read_signals(&signals_after);
    CHECK(signals_differ(&signals_before, &signals_after), 0);
}

void checks_begin(int argc, char **argv)
{
    if (argc < 4) {
        fprintf(stderr, "usage: %s DIRECTORY ADDRESS OTHER_ADDRESS\n", argv[0]);
        exit(2);
    }
    base = argv[1];
    address = argv[2];
    other_address = argv[3];
    /* SQLite's own VFSes are registered now, and not during the first test. */
    sqlite3_vfs_find(NULL);
}

int checks_end(void)
{
    if (failures > 0)
        fprintf(stderr, "%d checks failed\n", failures);
    return failures > 0;
}

/* ---- nodes and clients ---- */

const char *path(const char *name)
{
    static _Thread_local char text[4096];
    snprintf(text, sizeof text, "%s/%s", base, name);
    return text;
}

const char *directory(const char *name)
{
    mkdir(path(name), 0755);
    return path(name);
}

dqlite_node *start_node(const char *data_dir, const char *at)
{
    dqlite_node *node = NULL;
    CHECK(dqlite_node_create(1, at, data_dir, &node), DQLITE_OK);
    CHECK(dqlite_node_set_bind_address(node, at), DQLITE_OK);
    CHECK(dqlite_node_start(node), DQLITE_OK);
    CHECK_TEXT(dqlite_node_errmsg(node), "");
    return node;
}

void connect_client(struct wire_client *client, const char *at)
{
    CHECK(wire_connect(client, at, CONNECT_TIMEOUT_MS), WIRE_OK);
    CHECK(wire_wait_for_leader(client, CONNECT_TIMEOUT_MS), WIRE_OK);
    CHECK(wire_open(client, "test"), WIRE_OK);
}

static void first_integer(void *arg, size_t count, const char *const *columns, const struct wire_value *values)
{
    (void)columns;
    if (count > 0)
        *(int64_t *)arg = values[0].integer;
}

int64_t query_integer(struct wire_client *client, const char *sql)
{
    int64_t integer = -1;
    CHECK(wire_query(client, sql, first_integer, &integer), WIRE_OK);
    return integer;
}
