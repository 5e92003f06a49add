/* See members.h. */
#include "members.h"

#include <stddef.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <time.h>
#include <unistd.h>

/* Elections after 0.75 s: this machine may be busy with other things. */
enum { LATENCY_MS = 50, POLL_MS = 10 };

void sleep_ms(long ms)
{
    struct timespec time = {ms / 1000, ms % 1000 * 1000000};
    nanosleep(&time, NULL);
}

static int connect_abstract(void *arg, const char *to, int *fd)
{
    struct sockaddr_un address;
    size_t length = strlen(to);
    (void)arg;
    if (to[0] != '@' || length > sizeof address.sun_path)
        return 1;
    memset(&address, 0, sizeof address);
    address.sun_family = AF_UNIX;
    memcpy(address.sun_path + 1, to + 1, length - 1);
    *fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (*fd < 0)
        return 1;
    if (connect(*fd, (struct sockaddr *)&address, (socklen_t)(offsetof(struct sockaddr_un, sun_path) + length)) == 0)
        return 0;
    close(*fd);
    return 1;
}

void create_member(struct member *member)
{
    CHECK(dqlite_node_create(member->id, member->address, member->directory, &member->node), DQLITE_OK);
    CHECK(dqlite_node_set_bind_address(member->node, member->address), DQLITE_OK);
    CHECK(dqlite_node_set_connect_func(member->node, connect_abstract, NULL), DQLITE_OK);
    CHECK(dqlite_node_set_network_latency_ms(member->node, LATENCY_MS), DQLITE_OK);
    if (member->set != NULL)
        member->set(member->node);
}

void start_member(struct member *member)
{
    if (member->node == NULL)
        create_member(member);
    CHECK(dqlite_node_start(member->node), DQLITE_OK);
    CHECK_TEXT(dqlite_node_errmsg(member->node), "");
    CHECK(wire_connect(&member->client, member->address, PATIENCE_MS), WIRE_OK);
}

void stop_member(struct member *member)
{
    wire_close(&member->client);
    CHECK(dqlite_node_stop(member->node), DQLITE_OK);
    dqlite_node_destroy(member->node);
    member->node = NULL;
}

void start_members(struct member *members, int count, const char *name, settings_function set)
{
    int number;
    for (number = 0; number < count; number++) {
        struct member *member = &members[number];
        char directory_name[64];
        memset(member, 0, sizeof *member);
        member->id = (dqlite_node_id)number + 1;
        member->set = set;
        snprintf(member->address, sizeof member->address, "@dqlite-c-test-%d-%d", (int)getpid(), number + 1);
        snprintf(directory_name, sizeof directory_name, "%s-%d", name, number + 1);
        snprintf(member->directory, sizeof member->directory, "%s", directory(directory_name));
        start_member(member);
    }
}

void stop_members(struct member *members, int count)
{
    int number;
    for (number = 0; number < count; number++)
        stop_member(&members[number]);
}

void reconnect(struct member *member)
{
    wire_close(&member->client);
    CHECK(wire_connect(&member->client, member->address, PATIENCE_MS), WIRE_OK);
}

void wait_until_leads(struct member *member)
{
    int waited_ms;
    uint64_t leader = 0;
    for (waited_ms = 0; waited_ms < PATIENCE_MS && leader != member->id; waited_ms += POLL_MS) {
        CHECK(wire_leader(&member->client, &leader), WIRE_OK);
        if (leader != member->id)
            sleep_ms(POLL_MS);
    }
    CHECK((long long)leader, (long long)member->id);
}

void connect_to_leader(struct member *member, const char *database)
{
    reconnect(member);
    wait_until_leads(member);
    CHECK(wire_open(&member->client, database), WIRE_OK);
}

void add_voter(struct member *leader, const struct member *other)
{
    CHECK(wire_add(&leader->client, other->id, other->address), WIRE_OK);
    CHECK(wire_assign(&leader->client, other->id, WIRE_VOTER), WIRE_OK);
}

void exec(struct member *member, const char *sql)
{
    int result = wire_exec(&member->client, sql);
    CHECK(result, WIRE_OK);
    if (result != WIRE_OK)
        fprintf(stderr, "%s: %s\n", sql, member->client.error);
}
