/*
 * Torture of the whole C API: several threads call every function with right and wrong arguments, in right and wrong
 * states, on several nodes and servers that start, stop, hand over and form clusters, while clients write, leave in
 * the middle and send garbage. Only what dqlite.h asks of a program is respected: set-up calls of a handle come from
 * one thread at a time, nobody uses a handle that is being destroyed, a text is read before the next one is asked for.
 *
 * Checked are the documented codes and texts, that acknowledged rows are still there after every start, that no call
 * takes longer than it may, and that descriptors, threads, VFSes and signals are in the end as they were before.
 *
 *     TORTURE_SECONDS   how long (default 20)
 *     TORTURE_SEED      of the random numbers; each thread draws its own, so that only its own sequence repeats
 *     TORTURE_SLOWNESS  how many times longer all waits are, for tools that slow the program down (default 1)
 *     TORTURE_SPARE_DESCRIPTORS  how many the tool in use may open for itself (default 0)
 */
#include "torture.h"

#include <dirent.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

enum {
    OWNERS = 5,
    PASSERS_BY = 2,
    CLIENTS = 4,
    THREADS = OWNERS + PASSERS_BY + CLIENTS,
    /* The longest call is a handover, 16 seconds. */
    CALL_LIMIT_MS = 40000,
    SIGNALS_MAX = 65,
    SETTLE_ROUNDS = 500,
    /* On a slow machine it goes on until every function was called, at most so many times longer. */
    LONGER = 5
};

#define AS_TEXT(name) #name,
static const char *const function_names[] = {FUNCTIONS(AS_TEXT)};
static const char *const deed_names[] = {DEEDS(AS_TEXT)};

struct group groups[GROUPS];
struct slot slots[SLOTS];
int slowness = 1;
atomic_int over;
static atomic_int complaints;
static uint64_t seed;
static int spare_descriptors;

/* ---- counts ---- */

enum { CODES = DQLITE_NOMEM + 1 };
static atomic_long codes[F_COUNT][CODES];
static atomic_long calls[F_COUNT];
static atomic_long deeds[D_COUNT];

void did(enum deed deed, long count)
{
    deeds[deed] += count;
}

void complain(const char *format, ...)
{
    char text[1024];
    va_list arguments;
    va_start(arguments, format);
    vsnprintf(text, sizeof text, format, arguments);
    va_end(arguments);
    fprintf(stderr, "torture: wrong: %s\n", text);
    complaints++;
}

static const char *never_called(void)
{
    int i;
    for (i = 0; i < F_COUNT; i++)
        if (calls[i] == 0)
            return function_names[i];
    return NULL;
}

static void print_table(void)
{
    int i;
    printf("%-42s %8s %8s %8s %8s %8s\n", "function", "calls", "OK", "ERROR", "MISUSE", "NOMEM");
    for (i = 0; i < F_COUNT; i++)
        printf("%-42s %8ld %8ld %8ld %8ld %8ld\n", function_names[i], calls[i], codes[i][DQLITE_OK],
               codes[i][DQLITE_ERROR], codes[i][DQLITE_MISUSE], codes[i][DQLITE_NOMEM]);
    for (i = 0; i < D_COUNT; i++)
        printf("%-42s %8ld\n", deed_names[i], deeds[i]);
}

/* ---- the watchdog ---- */

struct watched {
    _Atomic(const char *) what;
    atomic_llong since_ms;
    uint64_t random;
};

/* The last ones are those of the main thread and of its own few at the end. */
static struct watched watched[THREADS + 1 + MEMBERS_MAX];
static _Thread_local struct watched *own = &watched[THREADS];

static long long now_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return now.tv_sec * 1000LL + now.tv_nsec / 1000000;
}

void sleep_ms(long ms)
{
    struct timespec time = {ms / 1000, ms % 1000 * 1000000};
    nanosleep(&time, NULL);
}

void busy_with(const char *what)
{
    own->since_ms = now_ms();
    own->what = what;
}

void be_watched(int member)
{
    own = &watched[THREADS + 1 + member];
}

void enter(enum function function)
{
    busy_with(function_names[function]);
}

void leave(enum function function)
{
    busy_with(NULL);
    calls[function]++;
}

int leave_with(enum function function, int code)
{
    leave(function);
    if (code >= 0 && code < CODES)
        codes[function][code]++;
    else
        complain("%s returned %d, which is no code", function_names[function], code);
    return code;
}

/* Looks at all threads until it is told that everything is over; a hang ends the process. */
static void *watch(void *arg)
{
    atomic_int *done = arg;
    while (!*done) {
        int i;
        for (i = 0; i <= THREADS + MEMBERS_MAX; i++) {
            const char *what = watched[i].what;
            long long since_ms = watched[i].since_ms;
            if (what != NULL && now_ms() - since_ms > (long long)CALL_LIMIT_MS * slowness && watched[i].what == what
                && watched[i].since_ms == since_ms) {
                fprintf(stderr, "torture: wrong: %s of thread %d hangs (TORTURE_SEED=%llu)\n", what, i,
                        (unsigned long long)seed);
                fflush(NULL);
                /* The core, or the tool in use, has the stacks. */
                abort();
            }
        }
        sleep_ms(100);
    }
    return NULL;
}

/* ---- random numbers: SplitMix64 ---- */

uint64_t any(void)
{
    uint64_t z = own->random += UINT64_C(0x9E3779B97F4A7C15);
    z = (z ^ z >> 30) * UINT64_C(0xBF58476D1CE4E5B9);
    z = (z ^ z >> 27) * UINT64_C(0x94D049BB133111EB);
    return z ^ z >> 31;
}

unsigned below(unsigned bound)
{
    return (unsigned)(any() % bound);
}

int chance(unsigned percent)
{
    return below(100) < percent;
}

/* ---- what the process has ---- */

struct belongings {
    int descriptors;
    int threads;
    int vfses;
    sigset_t blocked;
    struct sigaction actions[SIGNALS_MAX];
};

static int count_entries(const char *directory)
{
    struct dirent *entry;
    DIR *entries = opendir(directory);
    int count = 0;
    while (entries != NULL && (entry = readdir(entries)) != NULL)
        count += entry->d_name[0] != '.';
    if (entries != NULL)
        closedir(entries);
    return count;
}

static void list_belongings(void)
{
    struct dirent *entry;
    char link[300], target[300];
    DIR *entries = opendir("/proc/self/fd");
    while (entries != NULL && (entry = readdir(entries)) != NULL) {
        ssize_t size;
        snprintf(link, sizeof link, "/proc/self/fd/%s", entry->d_name);
        size = readlink(link, target, sizeof target - 1);
        if (size > 0)
            fprintf(stderr, "torture: descriptor %s: %.*s\n", entry->d_name, (int)size, target);
    }
    if (entries != NULL)
        closedir(entries);
}

static struct belongings count_belongings(void)
{
    struct belongings count;
    sqlite3_vfs *vfs;
    int number;
    memset(&count, 0, sizeof count);
    count.descriptors = count_entries("/proc/self/fd");
    count.threads = count_entries("/proc/self/task");
    for (vfs = sqlite3_vfs_find(NULL); vfs != NULL; vfs = vfs->pNext)
        count.vfses++;
    pthread_sigmask(SIG_SETMASK, NULL, &count.blocked);
    for (number = 1; number < SIGNALS_MAX; number++)
        sigaction(number, NULL, &count.actions[number]);
    return count;
}

static void compare_belongings(const struct belongings *before)
{
    struct belongings after = count_belongings();
    int round, number;
    /* The kernel still lists a thread for a moment after it was joined. */
    for (round = 0; after.threads > before->threads && round < SETTLE_ROUNDS; round++) {
        sleep_ms(10);
        after = count_belongings();
    }
    if (after.descriptors < before->descriptors || after.descriptors > before->descriptors + spare_descriptors) {
        complain("%d descriptors before, %d after", before->descriptors, after.descriptors);
        list_belongings();
    }
    if (after.threads != before->threads)
        complain("%d threads before, %d after", before->threads, after.threads);
    if (after.vfses != before->vfses)
        complain("%d VFSes before, %d after", before->vfses, after.vfses);
    for (number = 1; number < SIGNALS_MAX; number++)
        if (after.actions[number].sa_handler != before->actions[number].sa_handler
            || sigismember(&after.blocked, number) != sigismember(&before->blocked, number))
            complain("signal %d is treated otherwise than before", number);
}

/* ---- what there is ---- */

/* Addresses of their own within 127.0.0.0/8: no client's port can be in the way, since clients get 127.0.0.1. */
static void name_address(char *address, int number)
{
    unsigned process = (unsigned)getpid();
    snprintf(address, ADDRESS_SIZE, "127.%u.%u.%d:9001", 1 + process / 256 % 254, process % 256, number + 1);
}

static struct slot *new_slot(struct group *group, int is_server, const char *base)
{
    static int count;
    struct slot *slot = &slots[count];
    int member = group->members++;
    slot->group = group;
    slot->member = member;
    slot->is_server = is_server;
    group->ids[member] = (uint64_t)member + 1;
    name_address(group->addresses[member], count);
    snprintf(slot->directory, sizeof slot->directory, "%s/%s%d", base, group->name, member);
    mkdir(slot->directory, 0755);
    pthread_mutex_init(&slot->owner, NULL);
    pthread_mutex_init(&slot->text, NULL);
    pthread_mutex_init(&slot->lock, NULL);
    pthread_cond_init(&slot->unused, NULL);
    count++;
    return slot;
}

/* Three nodes alone, three on directories that come and go, a cluster of nodes and one of servers. */
static void name_everything(const char *base)
{
    static const char *const names[GROUPS] = {"alone-a", "alone-b", "alone-c", "scratch-a",
                                              "scratch-b", "scratch-c", "cluster", "servers"};
    int i, member;
    for (i = 0; i < GROUPS; i++) {
        groups[i].name = names[i];
        groups[i].keeps_rows = strncmp(names[i], "scratch", 7) != 0;
        for (member = 0; member < (i < GROUPS - 2 ? 1 : MEMBERS_MAX); member++)
            new_slot(&groups[i], i == GROUPS - 1, base);
    }
}

/* ---- the threads ---- */

static void *run_owner(void *arg)
{
    own = arg;
    while (!over) {
        call_without_handle();
        live(&slots[below(SLOTS)]);
    }
    return NULL;
}

static void *run_passer_by(void *arg)
{
    own = arg;
    while (!over) {
        pass_by(&slots[below(SLOTS)]);
        sleep_ms(below(30));
    }
    return NULL;
}

static void *run_client(void *arg)
{
    own = arg;
    while (!over) {
        be_a_client(&groups[below(GROUPS)]);
        busy_with(NULL);
        sleep_ms(below(10));
    }
    return NULL;
}

static void run_threads(int seconds)
{
    pthread_t threads[THREADS];
    int i;
    for (i = 0; i < THREADS; i++) {
        void *(*run)(void *) = i < OWNERS ? run_owner : i < OWNERS + PASSERS_BY ? run_passer_by : run_client;
        watched[i].random = seed * 1000 + (uint64_t)i;
        if (pthread_create(&threads[i], NULL, run, &watched[i]) != 0) {
            complain("no thread");
            exit(2);
        }
    }
    sleep_ms(seconds * 1000L);
    for (i = 0; i < LONGER * seconds && never_called() != NULL; i++)
        sleep_ms(1000);
    over = 1;
    for (i = 0; i < SLOTS; i++)
        stop_from_outside(&slots[i]);
    for (i = 0; i < THREADS; i++)
        pthread_join(threads[i], NULL);
}

static void *do_nothing(void *arg)
{
    return arg;
}

static long number_from(const char *name, long otherwise)
{
    const char *text = getenv(name);
    return text != NULL && *text != '\0' ? strtol(text, NULL, 10) : otherwise;
}

int main(int argc, char **argv)
{
    struct belongings before;
    pthread_t watchdog;
    atomic_int done = 0;
    int i, seconds;
    if (argc != 2) {
        fprintf(stderr, "usage: %s DIRECTORY\n", argv[0]);
        return 2;
    }
    seconds = (int)number_from("TORTURE_SECONDS", 20);
    seed = (uint64_t)number_from("TORTURE_SEED", (long)(now_ms() % 1000000));
    slowness = (int)number_from("TORTURE_SLOWNESS", 1);
    spare_descriptors = (int)number_from("TORTURE_SPARE_DESCRIPTORS", 0);
    printf("torture: TORTURE_SEED=%llu TORTURE_SECONDS=%d\n", (unsigned long long)seed, seconds);
    fflush(stdout);
    for (i = THREADS; i <= THREADS + MEMBERS_MAX; i++)
        watched[i].random = seed * 1000 + (uint64_t)i;
    name_everything(argv[1]);
    /* SQLite registers its own VFSes now, and a sanitizer starts its own thread with the first one of the program. */
    sqlite3_vfs_find(NULL);
    pthread_create(&watchdog, NULL, do_nothing, NULL);
    pthread_join(watchdog, NULL);
    before = count_belongings();
    pthread_create(&watchdog, NULL, watch, &done);
    run_threads(seconds);
    check_all_rows();
    done = 1;
    pthread_join(watchdog, NULL);
    compare_belongings(&before);
    print_table();
    if (never_called() != NULL)
        complain("%s was never called", never_called());
    printf("torture: seed %llu, %ld starts, %d complaints\n", (unsigned long long)seed,
           deeds[D_nodes_started] + deeds[D_servers_started], complaints);
    return complaints > 0;
}
