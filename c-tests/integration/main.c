/*
 * What a cluster promises to hosts that use the C API and to clients that speak the protocol, scenario by scenario.
 *
 *     integration DIRECTORY ADDRESS OTHER_ADDRESS [SCENARIO...]
 *
 * Without names it runs all of them. STRESS_REQUESTS in its environment makes the load of stress.c lighter or heavier.
 *
 * The program can be tried on C 1.18.6 too, with SIGPIPE ignored by the shell, since C leaves that to its host. There
 * each scenario ends with threads and descriptors that C keeps for the next node; what else fails there says so.
 */
#include <stdio.h>
#include <string.h>

#include "scenarios.h"

static const struct scenario *const areas[] = {client_scenarios,    node_scenarios, cluster_scenarios,
                                               membership_scenarios, role_scenarios, snapshot_scenarios,
                                               stress_scenarios};

/* Runs the scenarios of this name, or all for NULL; tells how many there were. */
static int run_named(const char *name)
{
    size_t area;
    int count = 0;
    for (area = 0; area < sizeof areas / sizeof areas[0]; area++) {
        const struct scenario *scenario;
        for (scenario = areas[area]; scenario->name != NULL; scenario++) {
            if (name != NULL && strcmp(name, scenario->name) != 0)
                continue;
            printf("%s\n", scenario->name);
            fflush(stdout);
            run_test(scenario->name, scenario->run);
            count++;
        }
    }
    return count;
}

int main(int argc, char **argv)
{
    int number;
    checks_begin(argc, argv);
    if (argc == 4)
        run_named(NULL);
    for (number = 4; number < argc; number++) {
        if (run_named(argv[number]) == 0) {
            fprintf(stderr, "there is no scenario %s\n", argv[number]);
            return 2;
        }
    }
    return checks_end();
}
