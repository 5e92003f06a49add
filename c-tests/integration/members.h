/*
 * Nodes of this process that can become one cluster: each has a directory of its own and an abstract Unix socket, and
 * reaches the others through a connect function. The first one founds the cluster, the others wait to be added.
 */
#ifndef MEMBERS_H
#define MEMBERS_H

#include "../checks.h"

enum { MEMBERS_MAX = 5, PATIENCE_MS = 60000 };

typedef void (*settings_function)(dqlite_node *node);

struct member {
    dqlite_node_id id;
    char address[64];
    char directory[4096];
    settings_function set;     /* called before each start; may be NULL */
    dqlite_node *node;         /* NULL until it is created, and after a stop */
    struct wire_client client; /* connected while the node runs */
};

/* Members 1 to count, in directories that begin with this name, all started. */
void start_members(struct member *members, int count, const char *name, settings_function set);
void stop_members(struct member *members, int count);

/* Creates the node, for what can be asked before start_member. */
void create_member(struct member *member);
/* Creates the node if need be, starts it and connects the client. */
void start_member(struct member *member);
void stop_member(struct member *member);

/* A fresh connection for the member's client. */
void reconnect(struct member *member);
/* Fresh, with this database open, when the member leads. */
void connect_to_leader(struct member *member, const char *database);
/* Waits until the member says that it leads. */
void wait_until_leads(struct member *member);

/* The leader adds another one as a voter. */
void add_voter(struct member *leader, const struct member *other);

void exec(struct member *member, const char *sql);

void sleep_ms(long ms);

#endif
