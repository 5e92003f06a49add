/*
 * What the library offers to debuggers, beside its header: log lines on and off, stacks.
 *
 *     tracing DIRECTORY ADDRESS OTHER_ADDRESS
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "checks.h"

extern bool _dqliteTracingEnabled;
void dqliteTracingMaybeEnable(bool enabled);
void dqlite_print_crash_trace(int fd);
void dqlite_print_trace(int skip);

static int standard_error;

/* Standard error goes into a file, of which the tests look at the size. */
static void redirect(void)
{
    int fd = open(path("stderr"), O_CREAT | O_TRUNC | O_WRONLY | O_APPEND, 0600);
    CHECK(fd >= 0, 1);
    standard_error = dup(2);
    dup2(fd, 2);
    close(fd);
}

static void restore(void)
{
    dup2(standard_error, 2);
    close(standard_error);
}

static long long written(void)
{
    struct stat status;
    return fstat(2, &status) == 0 ? (long long)status.st_size : -1;
}

/* A life of a node gives log lines, of starting and stopping at least. */
static long long lines_of_a_life(bool enabled)
{
    long long before = written();
    dqlite_node *node = NULL;
    CHECK(dqlite_node_create(1, address, directory("life"), &node), DQLITE_OK);
    CHECK(dqlite_node_set_bind_address(node, address), DQLITE_OK);
    CHECK(dqlite_node_start(node), DQLITE_OK);
    dqliteTracingMaybeEnable(enabled);
    CHECK(dqlite_node_stop(node), DQLITE_OK);
    dqlite_node_destroy(node);
    return written() - before;
}

static void log_lines_can_be_turned_on_and_off(void)
{
    redirect();
    unsetenv("LIBDQLITE_TRACE");
    CHECK(lines_of_a_life(true), 0); /* the environment has not asked for them */
    CHECK(_dqliteTracingEnabled, 0);
    setenv("LIBDQLITE_TRACE", "1", 1);
    CHECK(lines_of_a_life(true) > 0, 1);
    CHECK(_dqliteTracingEnabled, 1);
    dqliteTracingMaybeEnable(false);
    CHECK(_dqliteTracingEnabled, 0);
    CHECK(lines_of_a_life(false), 0);
    _dqliteTracingEnabled = true; /* as a debugger does */
    CHECK(lines_of_a_life(true) > 0, 1);
    restore();
}

static void there_is_no_crash_trace_and_a_stack_can_be_printed(void)
{
    char text[256] = "";
    int ends[2];
    long long before;
    CHECK(pipe(ends), 0);
    dqlite_print_crash_trace(ends[1]);
    dqlite_print_crash_trace(-1);
    close(ends[1]);
    CHECK(read(ends[0], text, sizeof text - 1) > 0, 1);
    CHECK(strncmp(text, "dqlite: no crash trace", 22), 0);
    close(ends[0]);
    redirect();
    before = written();
    dqlite_print_trace(0);
    CHECK(written() > before, 1);
    restore();
}

int main(int argc, char **argv)
{
    checks_begin(argc, argv);
    RUN(log_lines_can_be_turned_on_and_off);
    RUN(there_is_no_crash_trace_and_a_stack_can_be_printed);
    return checks_end();
}
