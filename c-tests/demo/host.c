/*
 * A host program: runs one dqlite node inside itself and executes the SQL lines that it reads.
 *
 *     host ADDRESS DIRECTORY < statements.sql
 *
 * It prints "ready" when the node serves clients, then the rows or "ok" for every line, and stops the node cleanly at
 * the end of its input. Other clients can use the node at the same time. Exit code 0 if everything worked.
 */
#include <dqlite.h>

#include <stdio.h>
#include <string.h>
#include <strings.h>
#include <sys/stat.h>

#include "../wire_client.h"

#define DATABASE "demo"
#define TIMEOUT_MS 30000

static void print_row(void *arg, size_t count, const char *const *columns, const struct wire_value *values)
{
    size_t i;
    (void)arg;
    (void)columns;
    for (i = 0; i < count; i++) {
        if (i > 0)
            printf("|");
        switch (values[i].kind) {
        case WIRE_INTEGER:
            printf("%lld", (long long)values[i].integer);
            break;
        case WIRE_FLOAT:
            printf("%.15g", values[i].number);
            break;
        case WIRE_TEXT:
            printf("%s", values[i].bytes);
            break;
        case WIRE_BLOB:
            printf("(blob of %zu bytes)", values[i].size);
            break;
        default:
            printf("NULL");
        }
    }
    printf("\n");
}

/* Statements that return rows and those that do not travel in different requests. */
static int returns_rows(const char *sql)
{
    return strncasecmp(sql, "SELECT", 6) == 0 || strncasecmp(sql, "PRAGMA", 6) == 0 || strncasecmp(sql, "WITH", 4) == 0;
}

static int run_lines(const char *address)
{
    static char line[1 << 16];
    struct wire_client client;
    int failures = 0;
    if (wire_connect(&client, address, TIMEOUT_MS) != WIRE_OK
        || wire_wait_for_leader(&client, TIMEOUT_MS) != WIRE_OK || wire_open(&client, DATABASE) != WIRE_OK) {
        fprintf(stderr, "host: %s\n", client.error);
        wire_close(&client);
        return 1;
    }
    while (fgets(line, sizeof line, stdin) != NULL) {
        int result;
        line[strcspn(line, "\r\n")] = '\0';
        if (line[0] == '\0')
            continue;
        if (returns_rows(line))
            result = wire_query(&client, line, print_row, NULL);
        else
            result = wire_exec(&client, line);
        if (result != WIRE_OK) {
            printf("error %llu: %s\n", (unsigned long long)client.code, client.error);
            failures++;
        } else if (!returns_rows(line)) {
            printf("ok\n");
        }
        if (result == WIRE_BROKEN)
            break;
    }
    wire_close(&client);
    return failures != 0;
}

int main(int argc, char **argv)
{
    dqlite_node *node = NULL;
    int rc, failed = 1;
    if (argc != 3) {
        fprintf(stderr, "usage: host ADDRESS DIRECTORY < statements.sql\n");
        return 2;
    }
    setvbuf(stdout, NULL, _IOLBF, 0);
    mkdir(argv[2], 0755);

    rc = dqlite_node_create(1, argv[1], argv[2], &node);
    if (rc == DQLITE_OK)
        rc = dqlite_node_set_bind_address(node, argv[1]);
    if (rc == DQLITE_OK)
        rc = dqlite_node_start(node);
    if (rc == DQLITE_OK) {
        printf("ready\n");
        failed = run_lines(argv[1]);
        rc = dqlite_node_stop(node);
    }
    if (rc != DQLITE_OK)
        fprintf(stderr, "host: error %d: %s\n", rc, dqlite_node_errmsg(node));
    dqlite_node_destroy(node);
    return failed || rc != DQLITE_OK;
}
