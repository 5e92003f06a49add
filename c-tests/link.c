/* Compiles as C99, C11 and C++, and reads both version symbols. */
#include <dqlite.h>

#include <stdio.h>
#include <string.h>

int main(void)
{
    char expected[32];
    size_t size;
    snprintf(expected, sizeof expected, "%d.%d.%d@rust-", DQLITE_VERSION_MAJOR, DQLITE_VERSION_MINOR,
             DQLITE_VERSION_RELEASE);
    size = strlen(expected);
    if (dqlite_version_number() != DQLITE_VERSION_NUMBER) {
        fprintf(stderr, "dqlite_version_number() is %d, not %d\n", dqlite_version_number(), DQLITE_VERSION_NUMBER);
        return 1;
    }
    if (strncmp(dqlite_version_string, expected, size) != 0 || strlen(dqlite_version_string) == size) {
        fprintf(stderr, "dqlite_version_string is \"%s\", not %s<version>\n", dqlite_version_string, expected);
        return 1;
    }
    dqlite_node_destroy(NULL);
    return strcmp(dqlite_node_errmsg(NULL), "node is NULL") != 0;
}
