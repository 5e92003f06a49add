/*
 * What the machine can do without any dqlite, for one client of the same process: the limits beside which `make bench`
 * puts the libraries.
 *
 *     limits DIRECTORY DURATION_MS
 *
 * Prints lines of a name, operations a second and the 99th percentile in microseconds: 4 KiB written and synced with
 * fdatasync in a file that was filled with zeros before; plain SQLite in WAL mode with synchronous=FULL and OFF, one-row
 * inserts; point reads and scans of 1000 rows of the same table as in workloads.c.
 */
#include <fcntl.h>
#include <sqlite3.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

enum { BLOCK_SIZE = 4096, BLOCKS = 2048, SEEDED_ROWS = 10000, SCANNED_ROWS = 1000, SAMPLES_MAX = 1 << 22 };

static double samples[SAMPLES_MAX];
static unsigned seed = 1;

static void expect(int worked, const char *what)
{
    if (!worked) {
        fprintf(stderr, "limits: %s failed\n", what);
        exit(1);
    }
}

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

static void measure(const char *name, double duration_us, void (*operate)(void *arg), void *arg)
{
    double begin = now_us(), last = begin;
    size_t count = 0;
    while (last < begin + duration_us && count < SAMPLES_MAX) {
        double now;
        operate(arg);
        now = now_us();
        samples[count++] = now - last;
        last = now;
    }
    qsort(samples, count, sizeof *samples, compare);
    printf("%s %.1f %.1f\n", name, (double)count * 1e6 / (last - begin), samples[count * 99 / 100]);
    fflush(stdout);
}

static void sync_block(void *arg)
{
    static char block[BLOCK_SIZE];
    static int next;
    int fd = *(int *)arg;
    block[0]++;
    expect(pwrite(fd, block, sizeof block, (off_t)(next++ % BLOCKS) * BLOCK_SIZE) == BLOCK_SIZE, "pwrite");
    expect(fdatasync(fd) == 0, "fdatasync");
}

static void measure_disk(double duration_us)
{
    static char zeros[BLOCK_SIZE];
    int fd = open("limits.raw", O_RDWR | O_CREAT | O_TRUNC, 0600), i;
    expect(fd >= 0, "open");
    for (i = 0; i < BLOCKS; i++)
        expect(write(fd, zeros, sizeof zeros) == BLOCK_SIZE, "write");
    expect(fsync(fd) == 0, "fsync");
    measure("fdatasync-4k", duration_us, sync_block, &fd);
    close(fd);
    unlink("limits.raw");
}

static void insert(void *arg)
{
    sqlite3_stmt *statement = arg;
    expect(sqlite3_step(statement) == SQLITE_DONE && sqlite3_reset(statement) == SQLITE_OK, "insert");
}

static void select_rows(sqlite3_stmt *statement, int last, int expected)
{
    int rows = 0, rc;
    seed = seed * 1103515245u + 12345u;
    sqlite3_bind_int(statement, 1, (int)(seed / 65536 % (unsigned)last) + 1);
    while ((rc = sqlite3_step(statement)) == SQLITE_ROW)
        rows += sqlite3_column_text(statement, 2) != NULL;
    expect(rc == SQLITE_DONE && sqlite3_reset(statement) == SQLITE_OK && rows == expected, "select");
}

static void point_read(void *arg)
{
    select_rows(arg, SEEDED_ROWS, 1);
}

static void scan(void *arg)
{
    select_rows(arg, SEEDED_ROWS - SCANNED_ROWS, SCANNED_ROWS);
}

static void measure_statement(const char *name, double duration_us, sqlite3 *database, const char *sql,
                              void (*operate)(void *arg))
{
    sqlite3_stmt *statement;
    expect(sqlite3_prepare_v2(database, sql, -1, &statement, NULL) == SQLITE_OK, sql);
    measure(name, duration_us, operate, statement);
    sqlite3_finalize(statement);
}

static void measure_sqlite(const char *synchronous, const char *name, int reads, double duration_us)
{
    static const char *const files[] = {"limits.db", "limits.db-wal", "limits.db-shm"};
    sqlite3 *database;
    char sql[64];
    size_t i;
    expect(sqlite3_open("limits.db", &database) == SQLITE_OK, "sqlite3_open");
    snprintf(sql, sizeof sql, "PRAGMA synchronous = %s", synchronous);
    expect(sqlite3_exec(database, "PRAGMA journal_mode = WAL", NULL, NULL, NULL) == SQLITE_OK, "WAL mode");
    expect(sqlite3_exec(database, sql, NULL, NULL, NULL) == SQLITE_OK, sql);
    expect(sqlite3_exec(database,
                        "CREATE TABLE rows (id INTEGER PRIMARY KEY AUTOINCREMENT, client INTEGER, value);"
                        "CREATE TABLE seeded (id INTEGER PRIMARY KEY, number INTEGER, value TEXT);"
                        "INSERT INTO seeded WITH RECURSIVE n(i) AS (SELECT 1 UNION ALL SELECT i + 1 FROM n "
                        "WHERE i < 10000) SELECT i, i * 7, printf('%.*c', 100, 'x') FROM n",
                        NULL, NULL, NULL)
               == SQLITE_OK,
           "the tables");
    measure_statement(name, duration_us, database,
                      "INSERT INTO rows (client, value) VALUES (1, printf('%.*c', 100, 'x'))", insert);
    if (reads) {
        measure_statement("sqlite-read", duration_us, database, "SELECT id, number, value FROM seeded WHERE id = ?",
                          point_read);
        measure_statement("sqlite-scan", duration_us, database,
                          "SELECT id, number, value FROM seeded WHERE id >= ? ORDER BY id LIMIT 1000", scan);
    }
    sqlite3_close(database);
    for (i = 0; i < sizeof files / sizeof *files; i++)
        unlink(files[i]);
}

int main(int argc, char **argv)
{
    double duration_us = argc == 3 ? atof(argv[2]) * 1e3 : 0;
    if (duration_us <= 0) {
        fprintf(stderr, "usage: limits DIRECTORY DURATION_MS\n");
        return 2;
    }
    expect(chdir(argv[1]) == 0, "chdir");
    measure_disk(duration_us);
    measure_sqlite("FULL", "sqlite-insert-full", 0, duration_us);
    measure_sqlite("OFF", "sqlite-insert-off", 1, duration_us);
    return 0;
}
