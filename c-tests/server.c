/*
 * dqlite_server from C: servers that found, join, leave and find their cluster again; wrong orders; threads.
 *
 *     server DIRECTORY ADDRESS OTHER_ADDRESS
 */
#include <pthread.h>
#include <stdatomic.h>
#include <stdio.h>
#include <string.h>

#include "checks.h"

enum { STOPPING_THREADS = 4 };

static const dqlite_node_id BOOTSTRAP_ID = 3297041220608546238ULL;

static dqlite_server *create(const char *name, const char *at)
{
    dqlite_server *server = NULL;
    CHECK(dqlite_server_create(directory(name), &server), DQLITE_OK);
    CHECK(dqlite_server_set_address(server, at), DQLITE_OK);
    return server;
}

static dqlite_server *found(const char *name)
{
    dqlite_server *server = create(name, address);
    CHECK(dqlite_server_set_auto_bootstrap(server, true), DQLITE_OK);
    CHECK(dqlite_server_start(server), DQLITE_OK);
    return server;
}

static dqlite_server *join(const char *name)
{
    dqlite_server *server = create(name, other_address);
    CHECK(dqlite_server_set_auto_join(server, &address, 1), DQLITE_OK);
    CHECK(dqlite_server_start(server), DQLITE_OK);
    return server;
}

/* What a file of a server says. */
static const char *content(const char *name, const char *file_name)
{
    static char text[4096];
    char file_path[4200];
    size_t size = 0;
    FILE *file;
    snprintf(file_path, sizeof file_path, "%s/%s", path(name), file_name);
    file = fopen(file_path, "rb");
    if (file != NULL) {
        size = fread(text, 1, sizeof text - 1, file);
        fclose(file);
    }
    text[size] = '\0';
    return text;
}

static void write_file(const char *name, const char *file_name, const char *text)
{
    char file_path[4200];
    FILE *file;
    snprintf(file_path, sizeof file_path, "%s/%s", directory(name), file_name);
    file = fopen(file_path, "wb");
    CHECK(file != NULL && fputs(text, file) >= 0, 1);
    if (file != NULL)
        fclose(file);
}

static void null_arguments_are_misuse(void)
{
    dqlite_server *server = NULL;
    CHECK(dqlite_server_create(NULL, &server), DQLITE_MISUSE);
    CHECK(dqlite_server_create(base, NULL), DQLITE_MISUSE);
    CHECK(dqlite_server_start(NULL), DQLITE_MISUSE);
    CHECK(dqlite_server_stop(NULL), DQLITE_MISUSE);
    CHECK(dqlite_server_handover(NULL), DQLITE_MISUSE);
    CHECK(dqlite_server_get_id(NULL) == 0, 1);
    dqlite_server_destroy(NULL);
    CHECK(dqlite_server_create(base, &server), DQLITE_OK);
    CHECK(dqlite_server_set_address(server, NULL), DQLITE_MISUSE);
    CHECK(dqlite_server_set_bind_address(server, NULL), DQLITE_MISUSE);
    CHECK(dqlite_server_set_auto_join(server, NULL, 1), DQLITE_MISUSE);
    CHECK(dqlite_server_set_auto_join(server, NULL, 0), DQLITE_OK);
    dqlite_server_destroy(server);
}

static void wrong_orders_are_refused(void)
{
    dqlite_server *server = create("wrong-orders", address);
    CHECK(dqlite_server_get_id(server) == 0, 1);
    CHECK(dqlite_server_stop(server), DQLITE_ERROR);
    CHECK(dqlite_server_handover(server), DQLITE_ERROR);
    CHECK(dqlite_server_start(server), DQLITE_ERROR); /* neither to found nor to join */
    CHECK(dqlite_server_set_auto_bootstrap(server, true), DQLITE_OK);
    CHECK(dqlite_server_set_auto_join(server, &other_address, 1), DQLITE_OK);
    CHECK(dqlite_server_start(server), DQLITE_ERROR); /* both */
    dqlite_server_destroy(server);

    server = found("wrong-orders");
    CHECK(dqlite_server_start(server), DQLITE_ERROR);
    CHECK(dqlite_server_handover(server), DQLITE_ERROR); /* to nobody */
    CHECK(dqlite_server_stop(server), DQLITE_OK);
    CHECK(dqlite_server_stop(server), DQLITE_ERROR);
    CHECK(dqlite_server_handover(server), DQLITE_ERROR);
    dqlite_server_destroy(server);
}

static void damaged_files_are_refused(void)
{
    char info[256];
    dqlite_server *server = create("damaged", address);
    snprintf(info, sizeof info, "v1\n%s\n%llu\n", address, BOOTSTRAP_ID);
    CHECK(dqlite_server_set_auto_bootstrap(server, true), DQLITE_OK);
    write_file("damaged", "server-info", "blah");
    CHECK(dqlite_server_start(server), DQLITE_ERROR);
    write_file("damaged", "server-info", info);
    write_file("damaged", "node-store", "blah");
    CHECK(dqlite_server_start(server), DQLITE_ERROR);
    CHECK_TEXT(content("damaged", "node-store"), "blah");
    write_file("damaged", "node-store", "");
    CHECK(dqlite_server_start(server), DQLITE_OK);
    CHECK(dqlite_server_get_id(server) == BOOTSTRAP_ID, 1);
    dqlite_server_destroy(server);
}

static void servers_found_join_and_come_back(void)
{
    char expected[512];
    struct wire_client client;
    dqlite_server *one = found("one"), *two = join("two");
    dqlite_node_id id = dqlite_server_get_id(two);
    snprintf(expected, sizeof expected, "v1\n%s\n%llu\nvoter\n%s\n%llu\nspare\n", address, BOOTSTRAP_ID, other_address, id);
    CHECK_TEXT(content("two", "node-store"), expected);
    snprintf(expected, sizeof expected, "v1\n%s\n%llu\n", other_address, id);
    CHECK_TEXT(content("two", "server-info"), expected);
    connect_client(&client, address);
    CHECK(wire_exec(&client, "CREATE TABLE t (a INTEGER); INSERT INTO t VALUES (7)"), WIRE_OK);
    wire_close(&client);

    CHECK(dqlite_server_stop(two), DQLITE_OK);
    CHECK(dqlite_server_start(two), DQLITE_OK);
    CHECK(dqlite_server_get_id(two) == id, 1);
    CHECK(dqlite_server_stop(one), DQLITE_OK);
    CHECK(dqlite_server_start(one), DQLITE_OK);
    dqlite_server_destroy(two); /* while it runs */
    two = create("two", "127.0.0.1:1"); /* as another object that knows the directory only */
    CHECK(dqlite_server_start(two), DQLITE_OK);
    CHECK(dqlite_server_get_id(two) == id, 1);

    CHECK(dqlite_server_handover(one), DQLITE_OK);
    CHECK(dqlite_server_stop(one), DQLITE_OK);
    connect_client(&client, other_address);
    CHECK(query_integer(&client, "SELECT a FROM t"), 7);
    wire_close(&client);
    CHECK(dqlite_server_stop(two), DQLITE_OK);
    dqlite_server_destroy(one);
    dqlite_server_destroy(two);
}

static atomic_int connects;

static int refuse(void *arg, const char *to, int *fd)
{
    (void)to;
    (void)fd;
    atomic_fetch_add((atomic_int *)arg, 1);
    return 1;
}

static void the_connect_function_gets_its_argument(void)
{
    dqlite_server *server = create("connect", address);
    CHECK(dqlite_server_set_auto_bootstrap(server, true), DQLITE_OK);
    CHECK(dqlite_server_set_connect_func(server, refuse, &connects), DQLITE_OK);
    CHECK(dqlite_server_start(server), DQLITE_ERROR); /* it does not even reach itself */
    CHECK(connects > 0, 1);
    CHECK(dqlite_server_set_connect_func(server, NULL, NULL), DQLITE_OK);
    CHECK(dqlite_server_start(server), DQLITE_OK);
    dqlite_server_destroy(server);
}

static void *stop(void *server)
{
    return dqlite_server_stop(server) == DQLITE_OK ? server : NULL;
}

static void one_of_several_threads_stops_it(void)
{
    pthread_t threads[STOPPING_THREADS];
    dqlite_server *server = found("threads");
    int number, stopped = 0;
    for (number = 0; number < STOPPING_THREADS; number++)
        CHECK(pthread_create(&threads[number], NULL, stop, server), 0);
    for (number = 0; number < STOPPING_THREADS; number++) {
        void *result = NULL;
        pthread_join(threads[number], &result);
        stopped += result != NULL;
    }
    CHECK(stopped, 1);
    dqlite_server_destroy(server);
}

int main(int argc, char **argv)
{
    checks_begin(argc, argv);
    RUN(null_arguments_are_misuse);
    RUN(wrong_orders_are_refused);
    RUN(damaged_files_are_refused);
    RUN(servers_found_join_and_come_back);
    RUN(the_connect_function_gets_its_argument);
    RUN(one_of_several_threads_stops_it);
    return checks_end();
}
