/* See torture.h: the lives of nodes and servers, and calls from outside while they live. */
#include "torture.h"

#include <arpa/inet.h>
#include <dirent.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

enum { OVERLONG = 70000, LATENCY_MS = 20, LIFE_STEPS_MAX = 40, TEXT_MAX = 100000, LAST_STARTS = 6 };

/* How far the life of a handle has come, as its owner knows it: others may have stopped it meanwhile. */
enum stage { BROKEN, FRESH, STARTED };

struct life {
    struct slot *slot;
    dqlite_node *node;
    dqlite_server *server;
    enum stage stage;
};

/* ---- texts ---- */

static int is_utf8(const unsigned char *text)
{
    while (*text != 0) {
        int more = *text < 0x80 ? 0 : *text >= 0xC2 && *text < 0xE0 ? 1 : *text >= 0xE0 && *text < 0xF0 ? 2
                 : *text >= 0xF0 && *text < 0xF5 ? 3 : -1;
        if (more < 0)
            return 0;
        for (text++; more > 0; more--, text++)
            if (*text < 0x80 || *text >= 0xC0)
                return 0;
    }
    return 1;
}

static void check_text(const char *what, const char *text)
{
    if (text == NULL || *text == '\0')
        complain("%s: no text", what);
    else if (strnlen(text, TEXT_MAX) == TEXT_MAX || !is_utf8((const unsigned char *)text))
        complain("%s: no valid text", what);
}

/* After a failure there is a text; `allowed` is a set of codes. */
static void check_node(struct life *life, const char *name, int code, int allowed)
{
    if (life->stage == BROKEN)
        allowed = MISUSE;
    if (code < 0 || code > DQLITE_NOMEM || !(allowed & 1 << code))
        complain("%s of %s%d returned %d in stage %d: %s", name, life->slot->group->name, life->slot->member, code,
                 life->stage, dqlite_node_errmsg(life->node));
    if (code == DQLITE_OK)
        return;
    pthread_mutex_lock(&life->slot->text);
    enter(F_dqlite_node_errmsg);
    check_text(name, dqlite_node_errmsg(life->node));
    leave(F_dqlite_node_errmsg);
    pthread_mutex_unlock(&life->slot->text);
}

#define NODE(life, allowed, name, arguments) check_node(life, #name, CALL(name, arguments), allowed)

static void check_code(const char *name, int code, int allowed)
{
    if (code < 0 || code > DQLITE_NOMEM || !(allowed & 1 << code))
        complain("%s returned %d", name, code);
}

#define CODE(allowed, name, arguments) check_code(#name, CALL(name, arguments), allowed)

static char overlong_text[OVERLONG];

static void fill_overlong_text(void)
{
    memset(overlong_text, 'a', sizeof overlong_text - 1);
}

static const char *overlong(void)
{
    static pthread_once_t once = PTHREAD_ONCE_INIT;
    pthread_once(&once, fill_overlong_text);
    return overlong_text;
}

/* A text that is no address. */
static const char *wrong_text(void)
{
    static const char *const texts[] = {NULL, "", ":", "127.0.0.1:99999", "[::1", "\xff\xfe", "a\nb:1", "1.2.3.4:-1",
                                        "localhost:1:2", "\xc3\x28:9001", "999.1.1.1:9001"};
    unsigned i = below(sizeof texts / sizeof texts[0] + 1);
    return i < sizeof texts / sizeof texts[0] ? texts[i] : overlong();
}

static const char *address_of(const struct slot *slot)
{
    return slot->group->addresses[slot->member];
}

/* ---- connect functions ---- */

static int connect_over_tcp(void *arg, const char *address, int *fd)
{
    struct sockaddr_in to;
    char host[ADDRESS_SIZE];
    const char *colon = strrchr(address, ':');
    (void)arg;
    if (colon == NULL || (size_t)(colon - address) >= sizeof host)
        return 1;
    memset(&to, 0, sizeof to);
    to.sin_family = AF_INET;
    memcpy(host, address, (size_t)(colon - address));
    host[colon - address] = '\0';
    to.sin_port = htons((uint16_t)atoi(colon + 1));
    if (inet_pton(AF_INET, host, &to.sin_addr) != 1)
        return 1;
    *fd = socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
    if (*fd >= 0 && connect(*fd, (struct sockaddr *)&to, sizeof to) == 0)
        return 0;
    if (*fd >= 0)
        close(*fd);
    return 1;
}

static int connect_never(void *arg, const char *address, int *fd)
{
    static atomic_uint calls;
    int pair[2];
    (void)arg;
    (void)address;
    switch (calls++ % 4) {
    case 0:
        return 1;
    case 1:
        *fd = -1; /* claims success and has nothing */
        return 0;
    case 2:
        sleep_ms(20);
        return -1;
    default:
        /* The other end is gone already. */
        if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, pair) != 0)
            return 1;
        close(pair[1]);
        *fd = pair[0];
        return 0;
    }
}

/* ---- handles that others may use ---- */

static void publish(struct life *life)
{
    pthread_mutex_lock(&life->slot->lock);
    life->slot->node = life->node;
    life->slot->server = life->server;
    pthread_mutex_unlock(&life->slot->lock);
}

/* Nobody uses the handle any more when this returns. */
static void withdraw(struct life *life)
{
    struct slot *slot = life->slot;
    pthread_mutex_lock(&slot->lock);
    slot->node = NULL;
    slot->server = NULL;
    while (slot->users > 0)
        pthread_cond_wait(&slot->unused, &slot->lock);
    pthread_mutex_unlock(&slot->lock);
}

static int borrow(struct slot *slot, struct life *life)
{
    pthread_mutex_lock(&slot->lock);
    life->slot = slot;
    life->node = slot->node;
    life->server = slot->server;
    life->stage = STARTED;
    if (life->node != NULL || life->server != NULL)
        slot->users++;
    pthread_mutex_unlock(&slot->lock);
    return life->node != NULL || life->server != NULL;
}

static void give_back(struct slot *slot)
{
    pthread_mutex_lock(&slot->lock);
    if (--slot->users == 0)
        pthread_cond_signal(&slot->unused);
    pthread_mutex_unlock(&slot->lock);
}

static void read_address(struct life *life)
{
    const char *text;
    pthread_mutex_lock(&life->slot->text);
    enter(F_dqlite_node_get_bind_address);
    text = dqlite_node_get_bind_address(life->node);
    leave(F_dqlite_node_get_bind_address);
    if (text != NULL)
        check_text("dqlite_node_get_bind_address", text);
    pthread_mutex_unlock(&life->slot->text);
}

/* Any thread may stop and hand over, and ask for texts one after the other. */
void pass_by(struct slot *slot)
{
    struct life life;
    if (!borrow(slot, &life))
        return;
    if (life.node != NULL) {
        switch (below(12)) {
        case 0:
            NODE(&life, OK | MISUSE, dqlite_node_stop, (life.node));
            break;
        case 1:
            NODE(&life, OK | ERROR | MISUSE, dqlite_node_handover, (life.node));
            break;
        default:
            read_address(&life);
            break;
        }
    } else {
        switch (below(12)) {
        case 0:
            CODE(OK | ERROR, dqlite_server_stop, (life.server));
            break;
        case 1:
            CODE(OK | ERROR, dqlite_server_handover, (life.server));
            break;
        default:
            CALL_VOID(dqlite_server_get_id, (life.server));
            break;
        }
    }
    give_back(slot);
}

/* A handover under way ends with it. */
void stop_from_outside(struct slot *slot)
{
    struct life life;
    if (!borrow(slot, &life))
        return;
    if (life.node != NULL)
        NODE(&life, OK | MISUSE, dqlite_node_stop, (life.node));
    else
        CODE(OK | ERROR, dqlite_server_stop, (life.server));
    give_back(slot);
}

/* ---- set-up calls of a node ---- */

/* Before a start these are accepted, after it only once the node has stopped. */
static int before_start(const struct life *life)
{
    return life->stage == STARTED ? OK | MISUSE : OK;
}

static void wrong_recovery(struct life *life)
{
    const char *address = address_of(life->slot);
    dqlite_node_info infos[2] = {{1, address}, {2, "127.0.0.1:1"}};
    uint64_t words[10] = {32, 1, (uint64_t)(uintptr_t)address, 0, 40, 2, (uint64_t)(uintptr_t) "127.0.0.1:1", 0, 0, 0};
    dqlite_node_info_ext *exts = (dqlite_node_info_ext *)words;
    static const uint64_t sizes[] = {0, 8, 31, 33};
    dqlite_node *node = life->node;
    switch (below(12)) {
    case 0:
        NODE(life, MISUSE, dqlite_node_recover, (node, NULL, 1));
        break;
    case 1:
        NODE(life, MISUSE, dqlite_node_recover, (node, infos, 0));
        break;
    case 2:
        NODE(life, NOMEM, dqlite_node_recover, (node, infos, -1));
        break;
    case 3:
        infos[1].id = 1;
        NODE(life, MISUSE, dqlite_node_recover, (node, infos, 2));
        break;
    case 4:
        infos[1].address = address;
        NODE(life, MISUSE, dqlite_node_recover, (node, infos, 2));
        break;
    case 5:
        infos[0].id = 0;
        NODE(life, MISUSE, dqlite_node_recover, (node, infos, 2));
        break;
    case 6:
        infos[1].address = chance(50) ? NULL : "\xff";
        NODE(life, MISUSE, dqlite_node_recover, (node, infos, 2));
        break;
    case 7:
        words[0] = sizes[below(4)];
        NODE(life, MISUSE, dqlite_node_recover_ext, (node, exts, 2));
        break;
    case 8:
        words[8] = 1; /* a field of the future that is in use */
        NODE(life, MISUSE, dqlite_node_recover_ext, (node, exts, 2));
        break;
    case 9:
        words[3] = 3 + any() % 1000;
        NODE(life, MISUSE, dqlite_node_recover_ext, (node, exts, 2));
        break;
    case 10:
        words[3] = words[7] = 2; /* nobody votes */
        NODE(life, MISUSE, dqlite_node_recover_ext, (node, exts, 2));
        break;
    default:
        NODE(life, NOMEM, dqlite_node_recover_ext, (node, chance(50) ? NULL : exts, (int)any() | INT32_MIN));
        break;
    }
}

static void recover(struct life *life)
{
    dqlite_node_info infos[1];
    dqlite_node_info_ext exts[1];
    infos[0].id = life->slot->group->ids[0];
    infos[0].address = address_of(life->slot);
    memset(exts, 0, sizeof exts);
    exts[0].size = sizeof exts[0];
    exts[0].id = infos[0].id;
    exts[0].address = (uint64_t)(uintptr_t)infos[0].address;
    if (life->slot->group->members > 1)
        wrong_recovery(life);
    else if (chance(50))
        NODE(life, OK | ERROR, dqlite_node_recover, (life->node, infos, 1));
    else
        NODE(life, OK | ERROR, dqlite_node_recover_ext, (life->node, exts, 1));
}

static void describe(struct life *life)
{
    uint64_t index = 0, term = 0;
    switch (below(4)) {
    case 0:
        NODE(life, MISUSE, dqlite_node_describe_last_entry, (life->node, NULL, &term));
        break;
    case 1:
        NODE(life, MISUSE, dqlite_node_describe_last_entry, (life->node, &index, NULL));
        break;
    default:
        NODE(life, life->stage == STARTED ? MISUSE : OK | ERROR, dqlite_node_describe_last_entry,
             (life->node, &index, &term));
        break;
    }
}

static void bind_somewhere(struct life *life)
{
    static const char *const addresses[] = {"@", "[::1]:0", "127.0.0.1:0", "@torture"};
    if (life->stage == STARTED)
        NODE(life, MISUSE | ERROR, dqlite_node_set_bind_address, (life->node, address_of(life->slot)));
    else if (chance(50))
        NODE(life, MISUSE | ERROR, dqlite_node_set_bind_address, (life->node, wrong_text()));
    else
        NODE(life, OK | ERROR, dqlite_node_set_bind_address, (life->node, addresses[below(4)]));
}

static void set_snapshots(struct life *life)
{
    static const unsigned numbers[] = {0, 3, 4, 16, 64, 1024, UINT32_MAX};
    unsigned threshold = numbers[below(7)], trailing = numbers[below(7)];
    int strategy = chance(80) ? (int)below(2) : (int)any();
    int good = trailing >= 4 && trailing >= threshold;
    if (chance(50))
        NODE(life, good ? before_start(life) : MISUSE, dqlite_node_set_snapshot_params,
             (life->node, threshold, trailing));
    else
        NODE(life, good && (strategy == 0 || strategy == 1) ? before_start(life) : MISUSE,
             dqlite_node_set_snapshot_params_v2, (life->node, threshold, trailing, strategy));
}

static void set_latency(struct life *life)
{
    static const unsigned long long nanoseconds[] = {0,          999999, 1000000, 3600000000000ULL, 3600000000001ULL,
                                                     UINT64_MAX};
    static const unsigned milliseconds[] = {0, 1, 20, 3600000, 3600001, UINT32_MAX};
    unsigned i = below(6);
    if (chance(50))
        NODE(life, i == 2 || i == 3 ? before_start(life) : MISUSE, dqlite_node_set_network_latency,
             (life->node, nanoseconds[i]));
    else
        NODE(life, i >= 1 && i <= 3 ? before_start(life) : MISUSE, dqlite_node_set_network_latency_ms,
             (life->node, milliseconds[i]));
}

static void set_number(struct life *life)
{
    dqlite_node *node = life->node;
    size_t size = chance(50) ? (size_t)1 << below(24) : (size_t)any();
    int is_power = size >= 512 && size <= 262144 && (size & (size - 1)) == 0;
    switch (below(8)) {
    case 0:
        NODE(life, OK, dqlite_node_set_failure_domain, (node, any()));
        break;
    case 1:
        NODE(life, is_power ? before_start(life) : ERROR | MISUSE, dqlite_node_set_block_size, (node, size));
        break;
    case 2:
        NODE(life, OK, dqlite_node_set_target_voters, (node, (int)any()));
        break;
    case 3:
        NODE(life, OK, dqlite_node_set_target_standbys, (node, (int)any()));
        break;
    case 4:
        NODE(life, OK, dqlite_node_set_pool_thread_count, (node, (unsigned)any()));
        break;
    case 5:
        NODE(life, OK, dqlite_node_set_auto_recovery, (node, chance(50)));
        break;
    case 6:
        NODE(life, OK, dqlite_node_set_snapshot_compression, (node, chance(50)));
        break;
    default:
        NODE(life, OK, dqlite_node_set_busy_timeout, (node, chance(50) ? below(100) : UINT32_MAX));
        break;
    }
}

static void set_up_node(struct life *life)
{
    switch (below(10)) {
    case 0:
        bind_somewhere(life);
        break;
    case 1:
        NODE(life, before_start(life), dqlite_node_set_connect_func,
             (life->node, chance(50) ? connect_never : NULL, life));
        break;
    case 2:
        set_latency(life);
        break;
    case 3:
        set_snapshots(life);
        break;
    case 4:
        NODE(life, OK, dqlite_node_enable_role_management, (life->node));
        break;
    case 5:
        NODE(life, before_start(life), dqlite_node_enable_disk_mode, (life->node));
        break;
    case 6:
        wrong_recovery(life);
        break;
    case 7:
        describe(life);
        break;
    case 8:
        read_address(life);
        break;
    default:
        set_number(life);
        break;
    }
}

/* ---- the life of a node ---- */

static void check_created(struct life *life, int code, int allowed)
{
    check_code("dqlite_node_create", code, allowed);
    if (life->node == NULL) {
        complain("dqlite_node_create returned %d and no handle", code);
        return;
    }
    life->stage = code == DQLITE_OK ? FRESH : BROKEN;
    if (code == DQLITE_OK)
        return;
    enter(F_dqlite_node_errmsg);
    check_text("dqlite_node_create", dqlite_node_errmsg(life->node));
    leave(F_dqlite_node_errmsg);
}

/* A handle that was never a node: everything is refused, and destroying it is due all the same. */
static void create_in_vain(struct slot *slot)
{
    struct life life = {slot, NULL, NULL, BROKEN};
    const char *directory = chance(50) ? wrong_text() : "/dev/null";
    int i, code;
    if (chance(20)) {
        CODE(MISUSE, dqlite_node_create, (1, address_of(slot), slot->directory, NULL));
        return;
    }
    if (chance(30))
        code = CALL(dqlite_node_create, (any(), chance(50) ? NULL : "\xff", slot->directory, &life.node));
    else
        code = CALL(dqlite_node_create, (any(), address_of(slot), directory, &life.node));
    check_created(&life, code, ERROR | MISUSE);
    if (life.node == NULL)
        return;
    publish(&life);
    for (i = (int)below(5); i > 0; i--)
        set_up_node(&life);
    withdraw(&life);
    CALL_VOID(dqlite_node_destroy, (life.node));
}

/* Scratch directories are emptied, and sometimes filled with things that do not belong there. */
static void scratch(const struct slot *slot)
{
    char path[4096 + 300];
    struct dirent *entry;
    DIR *entries = opendir(slot->directory);
    while (entries != NULL && (entry = readdir(entries)) != NULL) {
        snprintf(path, sizeof path, "%s/%s", slot->directory, entry->d_name);
        if (entry->d_name[0] != '.')
            unlink(path);
    }
    if (entries != NULL)
        closedir(entries);
    if (chance(30)) {
        static const char *const names[] = {"open-1", "metadata1", "0000000000000001-0000000000000001",
                                            "snapshot-1-1-1.meta", "foreign"};
        FILE *file;
        snprintf(path, sizeof path, "%s/%s", slot->directory, names[below(5)]);
        file = fopen(path, "w");
        if (file != NULL) {
            int i;
            for (i = (int)below(200); i > 0; i--)
                fputc((int)below(256), file);
            fclose(file);
        }
    }
}

/* What every start needs. */
static void prepare(struct life *life)
{
    const struct slot *slot = life->slot;
    dqlite_node *node = life->node;
    NODE(life, OK | ERROR, dqlite_node_set_bind_address, (node, address_of(slot)));
    NODE(life, OK, dqlite_node_set_connect_func, (node, chance(50) ? connect_over_tcp : NULL, NULL));
    NODE(life, OK, dqlite_node_set_network_latency_ms, (node, LATENCY_MS * (unsigned)slowness));
    NODE(life, OK, dqlite_node_set_snapshot_params, (node, 16 + below(64), 128));
    NODE(life, OK, dqlite_node_set_pool_thread_count, (node, below(4)));
    NODE(life, OK, dqlite_node_set_busy_timeout, (node, below(200)));
    NODE(life, OK, dqlite_node_set_auto_recovery, (node, true));
    if (slot->group->members > 1) {
        NODE(life, OK, dqlite_node_set_target_voters, (node, MEMBERS_MAX));
        NODE(life, OK, dqlite_node_enable_role_management, (node));
    }
}

static int start_node(struct life *life)
{
    int code = CALL(dqlite_node_start, (life->node));
    check_node(life, "dqlite_node_start", code, OK | ERROR | MISUSE);
    if (code == DQLITE_OK) {
        life->stage = STARTED;
        did(D_nodes_started, 1);
    } else if (life->slot->group->keeps_rows) {
        /* The one in the same directory, or on the same address, was destroyed before. */
        complain("%s%d does not start: %s", life->slot->group->name, life->slot->member,
                 dqlite_node_errmsg(life->node));
    }
    return code == DQLITE_OK;
}

/* A second node on the directory of one that runs. */
static void start_another(struct slot *slot)
{
    struct life life = {slot, NULL, NULL, BROKEN};
    check_created(&life, CALL(dqlite_node_create, (1, address_of(slot), slot->directory, &life.node)), OK | ERROR);
    if (life.stage == FRESH) {
        NODE(&life, OK, dqlite_node_set_bind_address, (life.node, "127.0.0.1:0"));
        /* The first one may have been stopped meanwhile. */
        NODE(&life, OK | ERROR, dqlite_node_start, (life.node));
        recover(&life);
        did(D_starts_with_another_on_the_directory, 1);
    }
    if (life.node != NULL)
        CALL_VOID(dqlite_node_destroy, (life.node));
}

static void run_node(struct life *life)
{
    int i;
    if (life->slot->group->members > 1)
        add_members(life->slot->group);
    if (!life->slot->group->keeps_rows && chance(20))
        start_another(life->slot);
    if (chance(40))
        check_rows(life->slot->group, 1000 * slowness);
    for (i = (int)below(LIFE_STEPS_MAX); i > 0 && !over; i--) {
        set_up_node(life);
        sleep_ms(below(20));
    }
    if (chance(10))
        NODE(life, ERROR | MISUSE, dqlite_node_start, (life->node));
    if (chance(30))
        NODE(life, OK | ERROR | MISUSE, dqlite_node_handover, (life->node));
    if (chance(60))
        NODE(life, OK | MISUSE, dqlite_node_stop, (life->node));
    for (i = (int)below(5); i > 0; i--)
        set_up_node(life);
    if (chance(20))
        NODE(life, ERROR | MISUSE, dqlite_node_start, (life->node));
    if (chance(20))
        recover(life);
}

static void live_as_node(struct slot *slot)
{
    struct life life = {slot, NULL, NULL, BROKEN};
    int i, code;
    if (chance(20))
        create_in_vain(slot);
    if (!slot->group->keeps_rows && chance(50))
        scratch(slot);
    code = CALL(dqlite_node_create, (slot->group->ids[slot->member], address_of(slot), slot->directory, &life.node));
    check_created(&life, code, slot->group->keeps_rows ? OK : OK | ERROR);
    if (life.node == NULL)
        return;
    publish(&life);
    for (i = (int)below(10); i > 0; i--)
        set_up_node(&life);
    if (chance(10))
        NODE(&life, MISUSE | ERROR, dqlite_node_stop, (life.node));
    if (chance(10))
        NODE(&life, MISUSE | ERROR, dqlite_node_handover, (life.node));
    if (life.stage == FRESH && chance(90)) {
        prepare(&life);
        if (chance(20))
            describe(&life);
        if (chance(20))
            recover(&life);
        if (start_node(&life))
            run_node(&life);
    }
    withdraw(&life);
    CALL_VOID(dqlite_node_destroy, (life.node));
}

/* ---- the life of a server ---- */

static void set_up_server_wrongly(dqlite_server *server)
{
    const char *addresses[2] = {"127.0.0.1:1", NULL};
    switch (below(5)) {
    case 0:
        CODE(MISUSE, dqlite_server_set_address, (server, chance(50) ? NULL : "\xff"));
        break;
    case 1:
        CODE(MISUSE, dqlite_server_set_auto_join, (server, NULL, 1));
        break;
    case 2:
        CODE(MISUSE, dqlite_server_set_auto_join, (server, addresses, 2));
        break;
    case 3:
        CODE(MISUSE, dqlite_server_set_bind_address, (server, chance(50) ? NULL : "\xff"));
        break;
    default:
        CODE(OK, dqlite_server_set_connect_func, (server, chance(50) ? connect_never : NULL, NULL));
        break;
    }
}

/* Never starts well: the settings make no sense, or the directory. */
static void try_a_server(const struct slot *slot)
{
    dqlite_server *server = NULL;
    static const char *const paths[] = {"", "/dev/null", "/nowhere/at/all"};
    const char *joined[2];
    const char *path = chance(20) ? overlong() : paths[below(3)];
    joined[0] = slot->group->addresses[0];
    joined[1] = wrong_text();
    if (chance(20)) {
        CODE(MISUSE, dqlite_server_create, (NULL, &server));
        CODE(MISUSE, dqlite_server_create, (slot->directory, NULL));
        return;
    }
    CODE(OK, dqlite_server_create, (path, &server));
    if (chance(50))
        CODE(OK, dqlite_server_set_auto_bootstrap, (server, true));
    if (chance(50))
        CODE(OK, dqlite_server_set_auto_join, (server, joined, 1));
    if (chance(50))
        CODE(OK | MISUSE, dqlite_server_set_auto_join, (server, joined, 2));
    if (chance(50))
        CODE(OK | MISUSE, dqlite_server_set_address, (server, wrong_text()));
    set_up_server_wrongly(server);
    CODE(ERROR, dqlite_server_start, (server));
    CODE(ERROR, dqlite_server_stop, (server));
    CODE(ERROR, dqlite_server_handover, (server));
    CALL_VOID(dqlite_server_get_id, (server));
    CALL_VOID(dqlite_server_destroy, (server));
}

static void set_up_server(const struct slot *slot, dqlite_server *server)
{
    const char *first = slot->group->addresses[0];
    CODE(OK, dqlite_server_set_address, (server, address_of(slot)));
    CODE(OK, dqlite_server_set_connect_func, (server, chance(50) ? connect_over_tcp : NULL, NULL));
    if (chance(30))
        CODE(OK, dqlite_server_set_bind_address, (server, address_of(slot)));
    if (slot->member == 0)
        CODE(OK, dqlite_server_set_auto_bootstrap, (server, true));
    else
        CODE(OK, dqlite_server_set_auto_join, (server, &first, 1));
}

static void live_as_server(struct slot *slot)
{
    struct life life = {slot, NULL, NULL, FRESH};
    int round, i;
    if (chance(30))
        try_a_server(slot);
    CODE(OK, dqlite_server_create, (slot->directory, &life.server));
    for (i = (int)below(4); i > 0; i--)
        set_up_server_wrongly(life.server);
    set_up_server(slot, life.server);
    publish(&life);
    for (round = 1 + (int)below(3); round > 0 && !over; round--) {
        int code = CALL(dqlite_server_start, (life.server));
        check_code("dqlite_server_start", code, OK | ERROR);
        did(D_servers_started, code == DQLITE_OK);
        for (i = (int)below(LIFE_STEPS_MAX); i > 0 && !over; i--) {
            set_up_server_wrongly(life.server);
            CODE(OK, dqlite_server_set_connect_func, (life.server, NULL, NULL));
            sleep_ms(below(20));
        }
        if (chance(30))
            check_rows(slot->group, 1000 * slowness);
        if (chance(10))
            CODE(OK | ERROR, dqlite_server_start, (life.server));
        if (chance(30))
            CODE(OK | ERROR, dqlite_server_handover, (life.server));
        if (chance(70))
            CODE(OK | ERROR, dqlite_server_stop, (life.server));
    }
    withdraw(&life);
    CALL_VOID(dqlite_server_destroy, (life.server));
}

void live(struct slot *slot)
{
    if (pthread_mutex_trylock(&slot->owner) != 0)
        return;
    if (slot->is_server)
        live_as_server(slot);
    else
        live_as_node(slot);
    pthread_mutex_unlock(&slot->owner);
}

/* ---- calls without a handle ---- */

static void call_with_null(void)
{
    static const char *const address = "127.0.0.1:1";
    uint64_t word;
    CODE(MISUSE, dqlite_node_set_bind_address, (NULL, address));
    CODE(MISUSE, dqlite_node_set_connect_func, (NULL, NULL, NULL));
    CODE(MISUSE, dqlite_node_set_block_size, (NULL, 512));
    CODE(MISUSE, dqlite_node_start, (NULL));
    CODE(MISUSE, dqlite_node_stop, (NULL));
    CODE(MISUSE, dqlite_node_handover, (NULL));
    CODE(MISUSE, dqlite_node_recover, (NULL, NULL, 0));
    CODE(MISUSE, dqlite_node_recover_ext, (NULL, NULL, 0));
    CODE(MISUSE, dqlite_node_describe_last_entry, (NULL, &word, &word));
    CODE(MISUSE, dqlite_node_enable_disk_mode, (NULL));
    CODE(MISUSE, dqlite_node_enable_role_management, (NULL));
    CALL_VOID(dqlite_node_destroy, (NULL));
    CALL_VOID(dqlite_node_get_bind_address, (NULL));
    CODE(MISUSE, dqlite_server_set_address, (NULL, address));
    CODE(MISUSE, dqlite_server_set_auto_bootstrap, (NULL, true));
    CODE(MISUSE, dqlite_server_set_auto_join, (NULL, &address, 1));
    CODE(MISUSE, dqlite_server_set_bind_address, (NULL, address));
    CODE(MISUSE, dqlite_server_set_connect_func, (NULL, NULL, NULL));
    CODE(MISUSE, dqlite_server_start, (NULL));
    CODE(MISUSE, dqlite_server_stop, (NULL));
    CODE(MISUSE, dqlite_server_handover, (NULL));
    CALL_VOID(dqlite_server_get_id, (NULL));
    CALL_VOID(dqlite_server_destroy, (NULL));
}

static void call_vfs(void)
{
    sqlite3_vfs vfs;
    dqlite_vfs_frame *frames = NULL;
    dqlite_buffer buffer = {NULL, 0};
    unsigned long numbers[1] = {1};
    void *data = NULL;
    unsigned count = 0;
    size_t size = 0;
    const char *name = wrong_text();
    memset(&vfs, 0, sizeof vfs);
    CODE(ERROR, dqlite_vfs_init, (chance(50) ? NULL : &vfs, name));
    CODE(ERROR, dqlite_vfs_poll, (&vfs, name, &frames, &count));
    CODE(ERROR, dqlite_vfs_apply, (&vfs, name, 1, numbers, &count));
    CODE(ERROR, dqlite_vfs_abort, (&vfs, name));
    CODE(ERROR, dqlite_vfs_snapshot, (&vfs, name, &data, &size));
    CODE(ERROR, dqlite_vfs_restore, (&vfs, name, &buffer, size));
    CODE(ERROR, dqlite_vfs_num_pages, (&vfs, name, &count));
    CODE(ERROR, dqlite_vfs_shallow_snapshot, (&vfs, name, &buffer, 1));
    CODE(ERROR, dqlite_vfs_enable_disk, (&vfs));
    CODE(ERROR, dqlite_vfs_snapshot_disk, (&vfs, name, &buffer, 1));
    CODE(ERROR, dqlite_vfs_restore_disk, (&vfs, name, &buffer, size, size));
    CALL_VOID(dqlite_vfs_close, (chance(50) ? NULL : &vfs));
}

void call_without_handle(void)
{
    if (chance(10))
        call_with_null();
    if (chance(10))
        call_vfs();
    CALL_VOID(dqlite_generate_node_id, (wrong_text()));
    enter(F_dqlite_version_number);
    if (dqlite_version_number() < DQLITE_VERSION_NUMBER || dqlite_version_string == NULL)
        complain("no version");
    leave(F_dqlite_version_number);
}

/* ---- the end ---- */

/* A server's start waits for a leader, which may be one that starts after it: hence the threads, and further tries. */
static void *start_for_the_last_time(void *arg)
{
    struct life *life = arg;
    struct slot *slot = life->slot;
    be_watched(slot->member);
    if (slot->is_server) {
        int tries = 0, code;
        CODE(OK, dqlite_server_create, (slot->directory, &life->server));
        set_up_server(slot, life->server);
        do
            code = CALL(dqlite_server_start, (life->server));
        while (code != DQLITE_OK && ++tries < LAST_STARTS);
        check_code("the last dqlite_server_start", code, OK);
    } else {
        int code = CALL(dqlite_node_create,
                        (slot->group->ids[slot->member], address_of(slot), slot->directory, &life->node));
        check_created(life, code, OK);
        prepare(life);
        start_node(life);
    }
    return NULL;
}

void check_all_rows(void)
{
    int g, i;
    for (g = 0; g < GROUPS; g++) {
        struct life lives[MEMBERS_MAX];
        pthread_t threads[MEMBERS_MAX];
        int count = 0;
        if (!groups[g].keeps_rows)
            continue;
        for (i = 0; i < SLOTS; i++)
            if (slots[i].group == &groups[g]) {
                memset(&lives[count], 0, sizeof lives[count]);
                lives[count].slot = &slots[i];
                pthread_create(&threads[count], NULL, start_for_the_last_time, &lives[count]);
                count++;
            }
        for (i = 0; i < count; i++)
            pthread_join(threads[i], NULL);
        if (!check_rows(&groups[g], 60000 * slowness))
            complain("%s has no leader though all of it runs", groups[g].name);
        for (i = 0; i < count; i++) {
            if (chance(50) && lives[i].node != NULL)
                NODE(&lives[i], OK, dqlite_node_stop, (lives[i].node));
            CALL_VOID(dqlite_node_destroy, (lives[i].node));
            CALL_VOID(dqlite_server_destroy, (lives[i].server));
        }
    }
}
