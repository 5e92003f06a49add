/*
 * The scenarios of this program, by area. Each is a function named after what it promises; main.c runs them by name.
 */
#ifndef SCENARIOS_H
#define SCENARIOS_H

#include "../checks.h"

struct scenario {
    const char *name;
    void (*run)(void);
};
#define SCENARIO(function) {#function, function}
#define SCENARIOS_END {NULL, NULL}

/* One list for each file. */
extern const struct scenario client_scenarios[], cluster_scenarios[], membership_scenarios[], node_scenarios[],
    role_scenarios[], snapshot_scenarios[], stress_scenarios[];

#endif
