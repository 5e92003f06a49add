/*
 * What the C tests of the API share: checks that count and go on, test directories, and the proof that a test leaves
 * nothing behind in the process. Checks may be made from any thread.
 */
#ifndef CHECKS_H
#define CHECKS_H

#include <dqlite.h>

#include "wire_client.h"

/* Set by checks_begin from the program's arguments. */
extern const char *base, *address, *other_address;

/* Reads DIRECTORY ADDRESS OTHER_ADDRESS: an empty directory for this run and two free addresses. */
void checks_begin(int argc, char **argv);

/* Runs one test, then checks that descriptors, threads, VFSes of SQLite, signal handlers and the signal mask are as
 * they were before it. */
void run_test(const char *name, void (*test)(void));
#define RUN(test) run_test(#test, test)

/* The exit code of the program. */
int checks_end(void);

void check_int(const char *file, int line, const char *what, long long is, long long should);
void check_text(const char *file, int line, const char *what, const char *is, const char *should);
void check_some_text(const char *file, int line, const char *what, const char *is);

#define CHECK(call, code) check_int(__FILE__, __LINE__, #call, (call), (code))
#define CHECK_TEXT(call, text) check_text(__FILE__, __LINE__, #call, (call), (text))
/* A failed call must leave a reason. */
#define REFUSED(node, call, code)                                                                 \
    do {                                                                                          \
        check_int(__FILE__, __LINE__, #call, (call), (code));                                     \
        check_some_text(__FILE__, __LINE__, "errmsg after " #call, dqlite_node_errmsg(node));     \
    } while (0)

/* Name below the base directory; valid until the next call on the same thread. */
const char *path(const char *name);
/* The same, and the directory is there. */
const char *directory(const char *name);

/* A node with id 1 that runs on this directory and address. */
dqlite_node *start_node(const char *data_dir, const char *at);
/* A client of it, with the database "test" open. */
void connect_client(struct wire_client *client, const char *at);
/* The integer in the first row and column; -1 if there is none. */
int64_t query_integer(struct wire_client *client, const char *sql);

#endif
