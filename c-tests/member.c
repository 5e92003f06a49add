/*
 * A host program: one dqlite node of a cluster, until SIGTERM or SIGINT.
 *
 *     member ID ADDRESS DIRECTORY [LATENCY_MS [SNAPSHOT_THRESHOLD SNAPSHOT_TRAILING [lz4|raw]]]
 *
 * Zero leaves a setting at its default. Prints "ready" when the node serves clients. With another id than 1 the node
 * waits until a client adds it to a cluster. On the signal it hands leadership over and stops; exit code 0 if all
 * worked. Runs with our library and with C releases, of which Debian's 1.11 cannot hand over and compresses all
 * snapshots. With MEMBER_MANAGES_ROLES in its environment the node gives the servers their roles while it leads, which
 * Debian's 1.11 cannot do either.
 */
#include <dqlite.h>

#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>

/* Null at run time where the library does not have them. */
#pragma weak dqlite_node_handover
#pragma weak dqlite_node_enable_role_management
#pragma weak dqlite_node_set_snapshot_compression

static int set(dqlite_node *node, int argc, char **argv)
{
    unsigned long long latency_ms = argc > 4 ? strtoull(argv[4], NULL, 10) : 0;
    unsigned threshold = argc > 6 ? (unsigned)atoi(argv[5]) : 0;
    unsigned trailing = argc > 6 ? (unsigned)atoi(argv[6]) : 0;
    int rc = dqlite_node_set_bind_address(node, argv[2]);
    if (rc == 0 && latency_ms != 0)
        rc = dqlite_node_set_network_latency(node, latency_ms * 1000000);
    if (rc == 0 && threshold != 0)
        rc = dqlite_node_set_snapshot_params(node, threshold, trailing);
    if (rc == 0 && getenv("MEMBER_MANAGES_ROLES") != NULL && dqlite_node_enable_role_management != NULL)
        rc = dqlite_node_enable_role_management(node);
    if (rc == 0 && argc > 7 && dqlite_node_set_snapshot_compression != NULL)
        rc = dqlite_node_set_snapshot_compression(node, strcmp(argv[7], "lz4") == 0);
    return rc;
}

int main(int argc, char **argv)
{
    dqlite_node *node = NULL;
    sigset_t signals;
    int rc, received;
    if (argc < 4) {
        fprintf(stderr, "usage: member ID ADDRESS DIRECTORY [LATENCY_MS [SNAPSHOT_THRESHOLD SNAPSHOT_TRAILING [lz4|raw]]]\n");
        return 2;
    }
    signal(SIGPIPE, SIG_IGN);
    /* Before the node starts its threads, which inherit it. */
    sigemptyset(&signals);
    sigaddset(&signals, SIGTERM);
    sigaddset(&signals, SIGINT);
    pthread_sigmask(SIG_BLOCK, &signals, NULL);
    mkdir(argv[3], 0755);

    rc = dqlite_node_create(strtoull(argv[1], NULL, 10), argv[2], argv[3], &node);
    if (rc == 0)
        rc = set(node, argc, argv);
    if (rc == 0)
        rc = dqlite_node_start(node);
    if (rc == 0) {
        printf("ready\n");
        fflush(stdout);
        sigwait(&signals, &received);
        /* Fails where there is nobody to hand over to; that is no reason not to stop. */
        if (dqlite_node_handover != NULL && dqlite_node_handover(node) != 0)
            fprintf(stderr, "member: handover: %s\n", dqlite_node_errmsg(node));
        rc = dqlite_node_stop(node);
    }
    if (rc != 0)
        fprintf(stderr, "member: error %d: %s\n", rc, dqlite_node_errmsg(node));
    dqlite_node_destroy(node);
    return rc != 0;
}
