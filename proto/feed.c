/* feed.c - see feed.h: joins consumer.c, which decides, to what comes in and goes out.
 *
 *   feed_pump  (here)          messages, door, clock -> events -> consumer_step -> actions
 *   feed_act   (feed_act.c)    actions -> messages, door, arena, SIGKILL
 *   feed_seek  (feed_rows.c)   position -> cursor, an event like the others
 *   feed_rows  (feed_rows.c)   positions -> order -> READY slots -> pointers
 *
 * What is decided here is only what the consumer's table cannot know: what the bytes are. Nothing
 * waits.
 */
#include "proto/feed_private.h"

#include <inttypes.h>
#include <string.h>
#include <unistd.h>

#include "proto/door.h"
#include "proto/log.h"
#include "proto/opened.h"

enum {
    RETRY_MS = 100,    /* a supervised loader is back within about this */
    ATTEMPTS_MAX = 25, /* with doubling pauses: about half a minute */
};

/* One event through the table and out into the world. Returns the number of actions, or -1 and *e
 * when the loader cannot be reached. */
static int step_once(struct feed *f, const struct consumer_event *event, struct err *e)
{
    struct consumer_action actions[CONSUMER_ACTIONS_MAX];
    int count = consumer_step(&f->consumer, event, actions);
    for (int i = 0; i < count && !f->failure.code; i++) {
        if (feed_act(f, &actions[i], e) == 0)
            continue;
        if (e->code == EXIT_CODE_PERMANENT && !f->failure.code)
            feed_fail(f, e);
        return -1;
    }
    return count;
}

void feed_step(struct feed *f, const struct consumer_event *event)
{
    struct consumer_event next = {.type = CONSUMER_EV_TICK, .now_ms = event->now_ms};
    struct err e = {0};
    enum consumer_state before = f->consumer.state;
    int count = step_once(f, event, &e);
    while (count == CONSUMER_ACTIONS_MAX && !f->failure.code)
        count = step_once(f, &next, &e); /* more is wanted than fits one step */
    if (count < 0 && !f->failure.code) {
        next.type = CONSUMER_EV_HANGUP; /* only OPEN and DOOR can fail: nothing is granted yet */
        next.reason = e.text;
        step_once(f, &next, &e);
    }
    if (before == CONSUMER_FLOWING && f->consumer.state != CONSUMER_FLOWING && !f->failure.code)
        log_warn("feed=%s \"%s: opening the stream again\"", f->config.role, f->consumer.trouble);
}

/* ---- what comes in ---- */

/* A span has just become READY: can its pointers be true, and are its bytes those that the loader
 * decoded? */
static void span_verify(struct feed *f, const struct slot *slot)
{
    struct err e;
    const struct msg_opened *o = &f->consumer.opened;
    const void *at = feed_slot_span(f, (uint64_t)(slot - f->consumer.slots));
    if (span_check(o->fields, o->fields_count, at, slot->rows, &e) < 0) {
        err_prefix(&e, "span %" PRIu64 " of epoch %" PRIu64 " of %s", slot->span, slot->epoch,
                   f->config.file);
        feed_fail(f, &e);
        return;
    }
    uint64_t found = f->config.verify ? opened_checksum(o, at, slot->rows) : slot->checksum;
    if (found == slot->checksum)
        return;
    err_set(&e, EXIT_CODE_PERMANENT,
            "span %" PRIu64 " of epoch %" PRIu64 " of %s arrived with CRC-32 %08" PRIx64
            ", the loader computed %08" PRIx64 ": the arena was written by somebody else, or the "
            "memory is faulty",
            slot->span, slot->epoch, f->config.file, found, slot->checksum);
    feed_fail(f, &e);
}

static void ready_take(struct feed *f, struct consumer_event *event)
{
    const struct msg_ready *ready = &event->msg->ready;
    struct slot *slot = &f->consumer.slots[ready->slot < ARENA_SLOTS_MAX ? ready->slot : 0];
    int was_granted = slot->state == SLOT_GRANTED;
    event->type = CONSUMER_EV_READY;
    feed_step(f, event);
    if (was_granted && slot->state == SLOT_READY && !f->failure.code)
        span_verify(f, slot);
}

static void message_take(struct feed *f, enum msg_type type, const union msg *m)
{
    struct consumer_event event = {.now_ms = feed_clock_ms(), .msg = m};
    struct err e;
    switch (type) {
    case MSG_opened:
        if (opened_check(&m->opened, feed_span_bytes_limit(f), &e) < 0) {
            feed_fail(f, &e);
            return;
        }
        if (m->opened.streams != f->config.streams) {
            err_set(&e, EXIT_CODE_PERMANENT,
                    "the loader opened %" PRIu64 " streams where %" PRIu64 " were asked for",
                    m->opened.streams, f->config.streams);
            feed_fail(f, &e);
            return;
        }
        if (m->opened.streams && !f->config.rest && m->opened.rows % m->opened.streams != 0) {
            err_set(&e, EXIT_CODE_PERMANENT,
                    "the loader opened %" PRIu64 " rows, which are no whole number of rows for "
                    "%" PRIu64 " streams",
                    m->opened.rows, m->opened.streams);
            feed_fail(f, &e);
            return;
        }
        event.type = CONSUMER_EV_OPENED;
        break;
    case MSG_rejected:
        event.type = CONSUMER_EV_REJECTED;
        break;
    case MSG_pong:
        event.type = CONSUMER_EV_PONG;
        break;
    case MSG_ready:
        ready_take(f, &event);
        return;
    default:
        log_warn("feed=%s \"the loader sent %s, which is not for a consumer\"", f->config.role,
                 msg_name(type));
        return;
    }
    feed_step(f, &event);
}

static void messages_take(struct feed *f)
{
    union msg m;
    enum msg_type type;
    struct err e;
    for (int i = 0; i < 2 * LINK_QUEUE_MAX && f->dealer.socket; i++) {
        int taken = link_recv(&f->dealer, NULL, &type, &m, &e);
        if (taken == 0)
            return;
        if (taken < 0)
            log_warn("feed=%s \"%s\"", f->config.role, e.text);
        else
            message_take(f, type, &m);
    }
}

static void welcome_take(struct feed *f, const struct door_welcome *welcome)
{
    struct consumer_event event = {.type = CONSUMER_EV_WELCOME, .now_ms = feed_clock_ms()};
    union msg m;
    if (!welcome->ok) {
        m.rejected = (struct msg_rejected){.head.incarnation = f->consumer.loader_incarnation};
        snprintf(m.rejected.reason, sizeof m.rejected.reason, "%.*s", (int)sizeof welcome->text,
                 welcome->text);
        event.type = CONSUMER_EV_REJECTED;
        event.msg = &m;
    }
    feed_step(f, &event);
}

/* Everything that came through the door, its hang-up included. */
static void door_take(struct feed *f)
{
    struct consumer_event hangup = {.type = CONSUMER_EV_HANGUP};
    struct door_welcome welcome;
    struct err e;
    int fds[DOOR_FDS_MAX], fd_count;
    while (f->door >= 0) {
        ssize_t bytes = door_recv(f->door, &welcome, sizeof welcome, fds, &fd_count, &e);
        if (bytes < 0 && e.code == 0)
            return;
        while (fd_count > 0)
            close(fds[--fd_count]); /* the loader has none to give */
        if (bytes == (ssize_t)sizeof welcome && welcome.magic == DOOR_MAGIC) {
            welcome_take(f, &welcome);
        } else if (bytes != 0) {
            err_set(&e, EXIT_CODE_PERMANENT,
                    "the loader answered at the door in another version's words");
            feed_fail(f, &e);
        } else if (feed_door_reopen(f) < 0) {
            hangup.now_ms = feed_clock_ms();
            feed_step(f, &hangup);
            return;
        }
    }
}

/* ---- interface ---- */

struct feed_config feed_config_of(const struct options *o)
{
    return (struct feed_config){.span_rows = o->order_span_rows,
                                .arena_limit_bytes = o->arena_limit_mb << 20,
                                .peer_timeout_ms = o->peer_timeout_s * 1000,
                                .verify = o->data_verify,
                                .features = o->data_features,
                                .targets = o->data_targets,
                                .weights = o->data_weights,
                                .begins = o->data_stateful, /* fisherd's too: the fingerprint
                                                               of what it opens is of them */
                                .window = o->data_window};
}

static const char *text_keep(char *kept, size_t capacity, const char *text)
{
    size_t bytes = strlen(text);
    ensure(bytes < capacity);
    return memcpy(kept, text, bytes + 1);
}

static void request_make(struct feed *f)
{
    struct msg_open *m = &f->request;
    struct feed_config *c = &f->config;
    *m = (struct msg_open){.seed = c->seed,
                           .shuffle = c->shuffle,
                           .streams = c->streams,
                           .span_rows = c->span_rows,
                           .span_bytes_limit = feed_span_bytes_limit(f),
                           .verify = c->verify,
                           .rest = c->rest,
                           .singly = c->lock != NULL, /* spans are copied on, one by one */
                           .begins = c->begins,
                           .window = c->window,
                           .window_spans = c->window_spans,
                           .batch_rows = c->batch_rows,
                           .slice_rows = c->slice_rows,
                           .epochs_count = c->epoch_count};
    ensure(c->epoch_count <= sizeof m->epochs / sizeof *m->epochs);
    if (c->epoch_count)
        memcpy(m->epochs, c->epochs, c->epoch_count * sizeof *m->epochs);
    c->file = text_keep(m->file, sizeof m->file, c->file);
    c->split = text_keep(m->split, sizeof m->split, c->split);
    c->features =
        text_keep(m->features, sizeof m->features, c->features ? c->features : "features");
    c->targets = text_keep(m->targets, sizeof m->targets, c->targets ? c->targets : "targets");
    c->weights = text_keep(m->weights, sizeof m->weights, c->weights ? c->weights : "");
    c->epochs = m->epochs;
}

void feed_open(struct feed *f, const struct feed_config *config)
{
    memset(f, 0, sizeof *f);
    f->config = *config;
    f->config.role = text_keep(f->role, sizeof f->role, config->role);
    if (!config->shuffle)
        f->config.window_spans = config->streams ? config->streams : 1;
    ensure(f->config.window_spans >= 1 && f->config.window_spans <= FEED_WINDOW_SPANS_MAX);
    request_make(f);
    ensure(f->config.slots <= ARENA_SLOTS_MAX);
    f->arena = ARENA_CLOSED;
    f->door = f->pidfd = -1;
    consumer_init(&f->consumer,
                  &(struct consumer_config){.peer_timeout_ms = config->peer_timeout_ms,
                                            .retry_ms = RETRY_MS,
                                            .attempts_max = ATTEMPTS_MAX});
}

static void arena_give_back(struct feed *f)
{
    if (f->locked)
        f->config.unlock(f->arena.base);
    f->locked = 0;
    arena_close(&f->arena);
}

void feed_close(struct feed *f)
{
    if (!f->config.role)
        return; /* never opened, or closed already */
    feed_fail(f, &(struct err){.code = EXIT_CODE_TEMPORARY, .text = "the feed was closed"});
    arena_give_back(f);
    f->info_set = f->window.valid = 0;
    f->config.role = NULL;
}

void feed_rest(struct feed *f)
{
    if (f->resting || f->failure.code)
        return;
    feed_links_close(f);
    arena_give_back(f);
    consumer_rest(&f->consumer);
    f->window.valid = 0;
    f->resting = 1;
}

int feed_pump(struct feed *f, struct err *e)
{
    if (f->resting)
        return 0;
    /* Messages before the hang-up: what a dead loader had delivered is good. */
    messages_take(f);
    door_take(f);
    struct consumer_event tick = {.type = CONSUMER_EV_TICK, .now_ms = feed_clock_ms()};
    if (!f->failure.code)
        feed_step(f, &tick);
    if (!f->failure.code)
        return 0;
    *e = f->failure;
    return -1;
}

int feed_poll_items(struct feed *f, struct link_poll_item *items)
{
    int count = 0;
    if (f->dealer.socket)
        items[count++] = (struct link_poll_item){.link = &f->dealer};
    if (f->door >= 0)
        items[count++] = (struct link_poll_item){.fd = f->door};
    return count;
}

int feed_timeout_ms(const struct feed *f)
{
    uint64_t due = consumer_due_ms(&f->consumer), now = feed_clock_ms();
    if (f->resting)
        return FEED_IDLE_MS;
    if (f->failure.code || due <= now)
        return 0;
    return due - now < FEED_IDLE_MS ? (int)(due - now) : FEED_IDLE_MS;
}

int feed_ready(const struct feed *f)
{
    return f->info_set;
}
