/* Leadership that moves between two voters, and back. */
#include "members.h"
#include "scenarios.h"

static void start_two_voters(struct member *members, const char *name)
{
    start_members(members, 2, name, NULL);
    wait_until_leads(&members[0]);
    add_voter(&members[0], &members[1]);
    CHECK(wire_open(&members[0].client, "test"), WIRE_OK);
    exec(&members[0], "CREATE TABLE t (n INT)");
    exec(&members[0], "INSERT INTO t VALUES (1)");
}

/* On a connection of its own: that of the member may be in the middle of something. */
static void transfer(struct member *from, struct member *to)
{
    struct wire_client client;
    CHECK(wire_connect(&client, from->address, PATIENCE_MS), WIRE_OK);
    CHECK(wire_transfer(&client, to->id), WIRE_OK);
    wire_close(&client);
    connect_to_leader(to, "test");
}

static void a_founder_that_handed_leadership_over_can_be_removed(void)
{
    struct member members[2];
    int role = 99;
    start_two_voters(members, "founder");
    transfer(&members[0], &members[1]);
    CHECK(query_integer(&members[1].client, "SELECT n FROM t"), 1);
    CHECK(wire_remove(&members[1].client, 1), WIRE_OK);
    CHECK(wire_role(&members[1].client, 1, &role), WIRE_OK);
    CHECK(role, -1);
    exec(&members[1], "INSERT INTO t VALUES (2)");
    CHECK(query_integer(&members[1].client, "SELECT sum(n) FROM t"), 3);
    stop_members(members, 2);
}

/* The open transaction reads on the old leader. It neither keeps leadership there nor keeps the new rows away. */
static void an_open_transaction_holds_up_no_transfer_there_and_back(void)
{
    struct member members[2];
    struct wire_client reader;
    start_two_voters(members, "back");
    connect_client(&reader, members[0].address);
    CHECK(wire_exec(&reader, "BEGIN"), WIRE_OK);
    CHECK(query_integer(&reader, "SELECT count(*) FROM t"), 1);
    transfer(&members[0], &members[1]);
    exec(&members[1], "INSERT INTO t VALUES (2)");
    /* It can only lead with every row that was acknowledged. */
    transfer(&members[1], &members[0]);
    CHECK(query_integer(&members[0].client, "SELECT sum(n) FROM t"), 3);
    exec(&members[0], "INSERT INTO t VALUES (3)");
    wire_close(&reader);
    transfer(&members[0], &members[1]);
    CHECK(query_integer(&members[1].client, "SELECT sum(n) FROM t"), 6);
    stop_members(members, 2);
}

const struct scenario membership_scenarios[] = {
    SCENARIO(a_founder_that_handed_leadership_over_can_be_removed),
    SCENARIO(an_open_transaction_holds_up_no_transfer_there_and_back),
    SCENARIOS_END,
};
