/* feed_act.c - see feed_private.h: the actions of consumer.c on a real link, door, arena and
 * process.
 *
 * The door is connected when the stream is opened, before there is an arena to hand over: from then
 * on its hang-up shows the loader's death, and a pidfd of who listens there is what a silent loader
 * is killed through. Sizes are decided here: how many slots, and what is too large.
 */
#include "proto/feed_private.h"

#include <inttypes.h>
#include <poll.h>
#include <signal.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "proto/door.h"
#include "proto/log.h"
#include "proto/opened.h"

#define CONTROL   "loader.ctl"
#define DOOR_PATH "sockets/loader.door"

enum {
    SLOTS_LOCKED_LEAST = 6, /* for a device: being filled, read and copied, some each */
    DOOR_AGE_MS = 1000,     /* a door that lived this long without a hello may be tried again */
};

uint64_t feed_clock_ms(void)
{
    struct timespec now;
    clock_gettime(CLOCK_MONOTONIC, &now);
    return (uint64_t)now.tv_sec * 1000 + (uint64_t)now.tv_nsec / 1000000;
}

static uint64_t mib_up(uint64_t bytes)
{
    return (bytes + (1 << 20) - 1) >> 20;
}

/* ---- door and link ---- */

static void fd_close(int *fd)
{
    if (*fd >= 0)
        close(*fd);
    *fd = -1;
}

void feed_links_close(struct feed *f)
{
    fd_close(&f->door);
    fd_close(&f->pidfd);
    link_close(&f->dealer);
}

void feed_fail(struct feed *f, const struct err *e)
{
    f->failure = *e;
    feed_links_close(f);
}

static int has_hung_up(int fd)
{
    struct pollfd item = {.fd = fd, .events = POLLIN};
    return poll(&item, 1, 0) > 0;
}

/* Connects the door and takes a pidfd of who listens. A door that has not hung up after the pidfd
 * was taken proves that the pid had not been given to another process. */
static int door_open(struct feed *f, struct err *e)
{
    pid_t pid;
    f->door = door_connect(DOOR_PATH, &pid, e);
    if (f->door < 0)
        return -1;
    f->pidfd = (int)syscall(SYS_pidfd_open, pid, 0);
    if (f->pidfd >= 0 && !has_hung_up(f->door)) {
        f->door_since_ms = feed_clock_ms();
        return 0;
    }
    err_set(e, EXIT_CODE_TEMPORARY, "cannot get hold of process %d behind the door %s", (int)pid,
            DOOR_PATH);
    fd_close(&f->door);
    fd_close(&f->pidfd);
    return -1;
}

int feed_door_reopen(struct feed *f)
{
    struct err e;
    if (f->consumer.state != CONSUMER_OPENING || has_hung_up(f->pidfd) ||
        feed_clock_ms() - f->door_since_ms < DOOR_AGE_MS)
        return -1;
    fd_close(&f->door);
    fd_close(&f->pidfd);
    return door_open(f, &e);
}

uint64_t feed_span_bytes_limit(const struct feed *f)
{
    uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE);
    return f->config.arena_limit_bytes / (f->config.window_spans + 1) / page * page;
}

static void open_send(struct feed *f)
{
    link_send(&f->dealer, NULL, MSG_open, &f->request); /* repeated if it is lost */
}

/* ---- arena ---- */

int feed_arena(const struct feed_config *c, uint64_t spans, uint64_t span_rows,
               uint64_t span_bytes_max, uint64_t *slots_p, uint64_t *slot_bytes_p, struct err *e)
{
    uint64_t page = (uint64_t)sysconf(_SC_PAGESIZE), slots = c->slots;
    uint64_t slot_bytes = (span_bytes_max + page - 1) / page * page;
    uint64_t window = c->shuffle ? c->window_spans : c->streams ? c->streams : 1;
    window = window < spans ? window : spans; /* so few there may be */
    uint64_t least = window + 1, fit = c->arena_limit_bytes / slot_bytes;
    if (!slots && c->ahead_rows)
        slots = window + (c->ahead_rows + span_rows - 1) / span_rows;
    if (fit < least)
        return err_set(e, EXIT_CODE_PERMANENT,
                       "a window of %" PRIu64 " spans of %" PRIu64 " bytes needs %" PRIu64
                       " MiB of arena (%" PRIu64 " slots), arena.limit_mb is %" PRIu64
                       "; raise it, or lower %s",
                       window, slot_bytes, mib_up(least * slot_bytes), least,
                       c->arena_limit_bytes >> 20,
                       c->streams ? "training.batch_size (a stream each) or order.span_rows"
                                  : "order.window_spans or order.span_rows");
    if (slots && slots < least)
        return err_set(e, EXIT_CODE_PERMANENT,
                       "arena.slots is %" PRIu64 ", a window of %" PRIu64
                       " spans needs at least %" PRIu64,
                       slots, window, least);
    if (slots > fit)
        return err_set(e, EXIT_CODE_PERMANENT,
                       "%s %" PRIu64 " slots, which at %" PRIu64 " bytes each need %" PRIu64
                       " MiB, arena.limit_mb is %" PRIu64,
                       c->slots ? "arena.slots asks for" : "loader.prefetch_factor makes", slots,
                       slot_bytes, mib_up(slots * slot_bytes), c->arena_limit_bytes >> 20);
    if (slots == 0) {
        slots = 2 * window * (c->lock ? 2 : 1);
        if (c->lock && slots < SLOTS_LOCKED_LEAST)
            slots = SLOTS_LOCKED_LEAST;
        if (slots > spans)
            slots = spans > least ? spans : least;
    }
    *slots_p = slots < fit ? slots : fit;
    *slot_bytes_p = slot_bytes;
    return 0;
}

/* opened_check has seen that what is needed is there. */
static void graph_info_fill(struct feed *f)
{
    const struct msg_opened *o = &f->consumer.opened;
    const struct msg_field_info *edges = opened_field(o, "edge_features");
    f->info.features[0] = *opened_field(o, "node_features");
    f->info.feature_parts = 1;
    f->info.feature_values = f->info.features[0].values;
    f->info.edge_source = *opened_field(o, "edge_source");
    f->info.edge_target = *opened_field(o, "edge_target");
    if (edges)
        f->info.edge_features = *edges;
}

/* Each token but the last is to be followed by the next one: the same items, read from the second
 * on; and so are weights, which are those of the tokens that are to follow. */
static void tokens_info_fill(struct feed *f)
{
    struct msg_field_info steps = *opened_field(&f->consumer.opened, "tokens");
    f->info.targets = steps;
    opened_following(&f->info.targets);
    if (f->info.weights.name[0])
        opened_following(&f->info.weights);
    steps.values--;
    f->info.features[0] = steps;
    f->info.feature_parts = 1;
    f->info.feature_values = steps.values;
}

static void info_fill(struct feed *f)
{
    const struct msg_opened *o = &f->consumer.opened;
    const struct msg_field_info *targets = opened_field(o, "targets");
    const struct msg_field_info *weights = opened_field(o, "weights");
    const struct msg_field_info *begins = opened_field(o, "begins");
    f->info = (struct feed_info){0};
    memcpy(f->info.fingerprint, o->fingerprint, sizeof f->info.fingerprint);
    f->info.order = (struct order){.seed = f->config.seed,
                                   .shuffle = f->config.shuffle,
                                   .rows = o->rows,
                                   .chunk_rows = o->chunk_rows,
                                   .span_rows = o->span_rows,
                                   .window_spans = f->config.window_spans,
                                   .streams = o->streams};
    memcpy(f->info.layout, o->layout, sizeof f->info.layout);
    memcpy(f->info.fields, o->fields, sizeof f->info.fields);
    f->info.field_count = o->fields_count;
    for (uint32_t i = 0; i < o->fields_count; i++)
        if (strncmp(o->fields[i].name, "features", 8) == 0) {
            f->info.features[f->info.feature_parts++] = o->fields[i];
            f->info.feature_values += o->fields[i].values;
        }
    if (targets)
        f->info.targets = *targets;
    if (weights)
        f->info.weights = *weights;
    if (begins)
        f->info.begins = *begins;
    if (strcmp(o->layout, "graph") == 0)
        graph_info_fill(f);
    if (strcmp(o->layout, "tokens") == 0)
        tokens_info_fill(f);
    f->info.slots = f->arena.slots;
    f->info.arena_bytes = f->arena.bytes;
    f->info_set = 1;
}

static void arena_lock(struct feed *f)
{
    struct err why;
    if (!f->config.lock)
        return;
    f->locked = f->config.lock(f->arena.base, f->arena.bytes, &why) == 0;
    if (!f->locked)
        log_warn("feed=%s rows come to the device by slower copies: %s", f->config.role, why.text);
}

static int arena_prepare(struct feed *f, struct err *e)
{
    uint64_t slots, slot_bytes;
    if (f->arena.fd >= 0)
        return 0;
    const struct msg_opened *o = &f->consumer.opened;
    if (feed_arena(&f->config, o->spans, o->span_rows, o->span_bytes_max, &slots, &slot_bytes, e) <
            0 ||
        arena_create(&f->arena, slots, slot_bytes, e) < 0 ||
        (f->config.pin && arena_pin(&f->arena, e) < 0))
        return -1;
    arena_lock(f);
    f->consumer.config.slots = slots;
    info_fill(f);
    log_info("feed=%s rows=%" PRIu64 " spans=%" PRIu64 " slots=%" PRIu64 " slot_bytes=%" PRIu64
             " \"data opened\"",
             f->config.role, f->info.order.rows, f->consumer.spans, slots, slot_bytes);
    return 0;
}

/* ---- actions ---- */

/* Of all feeds of this process: a routing id is never used twice, not even by the next feed of a
 * role. */
static uint64_t openings;

static int do_open(struct feed *f, struct err *e)
{
    char id[LINK_PEER_BYTES_MAX + 1];
    fd_close(&f->door);
    fd_close(&f->pidfd);
    link_close(&f->dealer);
    if (door_open(f, e) < 0)
        return -1; /* temporary: the loader is not there yet */
    int bytes = snprintf(id, sizeof id, "%s-%" PRIu64 "-%" PRIu64, f->config.role,
                         f->config.incarnation, ++openings);
    f->attempt++;
    ensure(bytes > 0 && bytes <= LINK_PEER_BYTES_MAX);
    if (link_open(&f->dealer, LINK_DEALER, ".", CONTROL, id, e) < 0)
        return -1;
    open_send(f);
    return 0;
}

static int do_door(struct feed *f, struct err *e)
{
    struct door_hello hello = {.magic = DOOR_MAGIC, .stream = f->consumer.stream};
    if (arena_prepare(f, e) < 0) {
        feed_fail(f, e);
        return -1;
    }
    hello.slots = f->arena.slots;
    hello.slot_bytes = f->arena.slot_bytes;
    return door_send(f->door, &hello, sizeof hello, &f->arena.fd, 1, e);
}

static void do_grant(struct feed *f, uint64_t index)
{
    const struct slot *slot = &f->consumer.slots[index];
    struct msg_grant grant = {.stream = f->consumer.stream,
                              .epoch = slot->epoch,
                              .span = slot->span,
                              .slot = index,
                              .generation = slot->generation};
    link_send(&f->dealer, NULL, MSG_grant, &grant); /* repeated if it is lost */
}

static void do_kill(struct feed *f)
{
    log_warn("feed=%s \"the loader was silent for %" PRIu64 " ms: killing it, to be restarted\"",
             f->config.role, f->config.peer_timeout_ms);
    if (f->pidfd >= 0)
        syscall(SYS_pidfd_send_signal, f->pidfd, SIGKILL, NULL, 0);
}

int feed_act(struct feed *f, const struct consumer_action *a, struct err *e)
{
    struct msg_ping ping = {.stream = f->consumer.stream};
    switch (a->type) {
    case CONSUMER_ACT_OPEN:
        return do_open(f, e);
    case CONSUMER_ACT_ASK:
        open_send(f);
        return 0;
    case CONSUMER_ACT_DOOR:
        return do_door(f, e);
    case CONSUMER_ACT_GRANT:
        do_grant(f, a->slot);
        return 0;
    case CONSUMER_ACT_PING:
        link_send(&f->dealer, NULL, MSG_ping, &ping);
        return 0;
    case CONSUMER_ACT_KILL:
        do_kill(f);
        return 0;
    case CONSUMER_ACT_CLOSE:
        fd_close(&f->door);
        fd_close(&f->pidfd);
        return 0;
    case CONSUMER_ACT_FAIL:
        err_set(e, a->permanent ? EXIT_CODE_PERMANENT : EXIT_CODE_TEMPORARY, "%s", a->reason);
        feed_fail(f, e);
        return 0;
    }
    return 0;
}
