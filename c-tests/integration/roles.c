/* Role management as a host switches it on. */
#include "members.h"
#include "scenarios.h"

enum { POLL_MS = 50 };

static void manage_roles(dqlite_node *node)
{
    CHECK(dqlite_node_set_target_voters(node, 3), DQLITE_OK);
    CHECK(dqlite_node_set_target_standbys(node, 3), DQLITE_OK);
    CHECK(dqlite_node_enable_role_management(node), DQLITE_OK);
}

static void wait_for_role(struct member *leader, dqlite_node_id id, int expected)
{
    int waited_ms, role = -1;
    for (waited_ms = 0; waited_ms < PATIENCE_MS && role != expected; waited_ms += POLL_MS) {
        CHECK(wire_role(&leader->client, id, &role), WIRE_OK);
        if (role != expected)
            sleep_ms(POLL_MS);
    }
    CHECK(role, expected);
}

/* The last change may not be committed yet, and there can be only one. */
static void add_when_possible(struct member *leader, const struct member *added)
{
    int waited_ms, result = WIRE_REFUSED;
    for (waited_ms = 0; waited_ms < PATIENCE_MS && result == WIRE_REFUSED; waited_ms += POLL_MS) {
        result = wire_add(&leader->client, added->id, added->address);
        if (result == WIRE_REFUSED) {
            CHECK_TEXT(leader->client.error, "a configuration change is already in progress");
            sleep_ms(POLL_MS);
        }
    }
    CHECK(result, WIRE_OK);
}

static void servers_added_one_by_one_get_the_roles_that_are_missing(void)
{
    struct member members[5];
    int number;
    start_members(members, 5, "roles", manage_roles);
    wait_until_leads(&members[0]);
    for (number = 1; number < 5; number++) {
        const struct member *added = &members[number];
        add_when_possible(&members[0], added);
        wait_for_role(&members[0], added->id, number < 3 ? WIRE_VOTER : WIRE_STANDBY);
    }
    /* Who goes gives up what it has, as far as there is somebody; stopping is possible in any case. */
    for (number = 0; number < 5; number++) {
        int code = dqlite_node_handover(members[number].node);
        CHECK(code == DQLITE_OK || code == DQLITE_ERROR, 1);
        stop_member(&members[number]);
    }
}

const struct scenario role_scenarios[] = {
    SCENARIO(servers_added_one_by_one_get_the_roles_that_are_missing),
    SCENARIOS_END,
};
