/*
 * Forces a configuration upon the log of a node that does not run: server 1 at ADDRESS, alone. For tests with either
 * library, so it calls only what C releases since 1.9 have.
 *
 *     recover DIRECTORY ADDRESS
 */
#include <dqlite.h>

#include <stdint.h>
#include <stdio.h>

int main(int argc, char **argv)
{
    dqlite_node *node = NULL;
    dqlite_node_info_ext info = {sizeof info, 1, 0, 0};
    int rc;
    if (argc != 3) {
        fprintf(stderr, "usage: recover DIRECTORY ADDRESS\n");
        return 2;
    }
    info.address = (uint64_t)(uintptr_t)argv[2];
    rc = dqlite_node_create(1, "1", argv[1], &node);
    if (rc == DQLITE_OK)
        rc = dqlite_node_recover_ext(node, &info, 1);
    if (rc != DQLITE_OK)
        fprintf(stderr, "recover: error %d: %s\n", rc, dqlite_node_errmsg(node));
    dqlite_node_destroy(node);
    return rc != DQLITE_OK;
}
