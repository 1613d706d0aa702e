/* consumer.c - see consumer.h: what a consumer does about its loader, as a table.
 *
 *   state           what exists                event           what follows
 *   CLOSED          READY slots                TICK, due       OPEN -> OPENING; too often: FAIL
 *   OPENING         door, DEALER, open sent    OPENED          the same data: DOOR -> DOOR
 *                                                              other data: FAIL
 *   DOOR            and hello sent             WELCOME         GRANT -> FLOWING
 *   FLOWING         and GRANTED slots          READY           GRANTED -> READY; GRANT
 *                                              PONG unknown    GRANTED -> QUARANTINED; -> DYING
 *                                              REJECTED (now)  the same
 *   DYING           door, QUARANTINED slots    TICK, late      KILL again; too often: FAIL
 *   FAILED          nothing                    any             nothing
 *   OPENING, DOOR                              REJECTED (now), PONG unknown   CLOSE -> CLOSED
 *   OPENING .. FLOWING                         TICK, quiet     PING, repeat what may be lost
 *                                              TICK, silent    KILL -> DYING
 *   all but FAILED                             CURSOR          free what is not wanted; GRANT
 *                                              REJECTED (ever) FAIL -> FAILED
 *                                              HANGUP          GRANTED, QUARANTINED -> FREE;
 *                                                              CLOSE -> CLOSED
 *
 * A slot that was granted belongs to the loader until its ready comes or the hang-up of the door
 * proves that no process can write it; nothing else gives it back. So a span that is no longer
 * wanted stays GRANTED until then. A crash of the consumer leaves nothing: its arena vanishes with
 * it. Messages of an older loader (incarnation), stream or grant (generation) are ignored.
 */
#include "proto/consumer.h"

#include <inttypes.h>
#include <stdarg.h>
#include <string.h>

#include "proto/err.h"
#include "proto/opened.h"
#include "proto/order.h"

enum {
    PINGS_A_TIMEOUT = 8, /* questions before silence counts as death */
    PING_MS_MAX = 1000,  /* and at least one a second */
    RETRY_DOUBLINGS_MAX = 4,
    KILLS_MAX = 3, /* a door that survives these will not hang up */
};

struct step {
    struct consumer *c;
    struct consumer_action *actions;
    int count;
    uint64_t now_ms;
};

static struct consumer_action *act(struct step *s, enum consumer_action_type type)
{
    ensure(s->count < CONSUMER_ACTIONS_MAX);
    struct consumer_action *a = &s->actions[s->count++];
    a->type = type;
    a->slot = 0;
    a->permanent = 0;
    a->reason[0] = '\0';
    return a;
}

/* ---- small questions ---- */

static uint64_t ping_ms(const struct consumer *c)
{
    uint64_t ms = c->config.peer_timeout_ms / PINGS_A_TIMEOUT;
    return ms < 1 ? 1 : ms > PING_MS_MAX ? PING_MS_MAX : ms;
}

static int slots_in(const struct consumer *c, enum slot_state state)
{
    for (uint64_t i = 0; i < c->config.slots; i++)
        if (c->slots[i].state == state)
            return 1;
    return 0;
}

/* Is an answer of the loader outstanding? */
static int is_waiting(const struct consumer *c)
{
    return c->state == CONSUMER_OPENING || c->state == CONSUMER_DOOR ||
           (c->state == CONSUMER_FLOWING && slots_in(c, SLOT_GRANTED));
}

/* How far (epoch, span) lies ahead of the cursor, if it is one of the next config.slots spans
 * wanted; else UINT64_MAX. */
static uint64_t place_wanted(const struct consumer *c, uint64_t epoch, uint64_t span)
{
    const struct consumer_cursor *at = &c->cursor;
    if (!c->cursor_set || epoch < at->epoch || epoch > at->last_epoch || span >= c->spans)
        return UINT64_MAX;
    uint64_t epochs = epoch - at->epoch; /* each has a span at least */
    if (epochs > c->config.slots || (epochs == 0 && span < at->span))
        return UINT64_MAX;
    uint64_t place = epochs * c->spans + span - at->span;
    return place < c->config.slots ? place : UINT64_MAX;
}

static uint64_t span_rows(const struct consumer *c, uint64_t span)
{
    struct order order = {
        .rows = c->opened.rows, .span_rows = c->opened.span_rows, .streams = c->opened.streams};
    return order_span_rows(&order, span);
}

/* ---- failing, closing, opening ---- */

static void fail(struct step *s, int permanent, const char *format, ...)
    __attribute__((format(printf, 3, 4)));

static void fail(struct step *s, int permanent, const char *format, ...)
{
    struct consumer_action *a = act(s, CONSUMER_ACT_FAIL);
    va_list args;
    va_start(args, format);
    vsnprintf(a->reason, sizeof a->reason, format, args);
    va_end(args);
    a->permanent = permanent;
    s->c->state = CONSUMER_FAILED;
}

static void trouble_note(struct consumer *c, const char *text)
{
    snprintf(c->trouble, sizeof c->trouble, "%s", text);
}

/* Nobody can write the arena any more: every granted slot is ours again. */
static void close_proven(struct step *s)
{
    struct consumer *c = s->c;
    for (uint64_t i = 0; i < c->config.slots; i++)
        if (c->slots[i].state == SLOT_GRANTED || c->slots[i].state == SLOT_QUARANTINED)
            c->slots[i].state = SLOT_FREE;
    uint64_t doublings = c->attempts > 1 ? c->attempts - 1 : 0;
    if (doublings > RETRY_DOUBLINGS_MAX)
        doublings = RETRY_DOUBLINGS_MAX;
    c->retry_at_ms = s->now_ms + (c->config.retry_ms << doublings);
    c->state = CONSUMER_CLOSED;
    act(s, CONSUMER_ACT_CLOSE);
}

/* The loader is silent or has lost the stream, but its reader may still write: wait for the
 * hang-up. */
static void close_unproven(struct step *s)
{
    struct consumer *c = s->c;
    for (uint64_t i = 0; i < c->config.slots; i++)
        if (c->slots[i].state == SLOT_GRANTED)
            c->slots[i].state = SLOT_QUARANTINED;
    c->dying_at_ms = s->now_ms;
    c->kills = 0;
    c->state = CONSUMER_DYING;
}

static void open_again(struct step *s)
{
    struct consumer *c = s->c;
    if (c->attempts >= c->config.attempts_max) {
        fail(s, 0, "no data came in %" PRIu64 " openings of the stream in a row; the last: %s",
             c->attempts, c->trouble[0] ? c->trouble : "nothing is known about it");
        return;
    }
    c->attempts++;
    c->stream = 0;
    c->state = CONSUMER_OPENING;
    act(s, CONSUMER_ACT_OPEN);
}

/* ---- slots ---- */

/* Frees what is no longer wanted, then grants free slots to the wanted spans, nearest first. */
static void slots_turn(struct step *s)
{
    struct consumer *c = s->c;
    uint64_t n = c->config.slots, free_slot = 0;
    unsigned char held[ARENA_SLOTS_MAX]; /* by place */
    if (!c->cursor_set)
        return;
    memset(held, 0, n);
    for (uint64_t i = 0; i < n; i++) {
        struct slot *slot = &c->slots[i];
        if (slot->state != SLOT_READY && slot->state != SLOT_GRANTED)
            continue;
        uint64_t place = place_wanted(c, slot->epoch, slot->span);
        if (place != UINT64_MAX)
            held[place] = 1;
        else if (slot->state == SLOT_READY)
            slot->state = SLOT_FREE;
    }
    struct consumer_cursor at = c->cursor;
    for (uint64_t place = 0; place < n && at.epoch <= at.last_epoch; place++) {
        while (free_slot < n && c->slots[free_slot].state != SLOT_FREE)
            free_slot++;
        if (c->state != CONSUMER_FLOWING || free_slot == n || s->count == CONSUMER_ACTIONS_MAX)
            return;
        if (!held[place]) {
            c->slots[free_slot] = (struct slot){.state = SLOT_GRANTED,
                                                .epoch = at.epoch,
                                                .span = at.span,
                                                .generation = ++c->generation};
            act(s, CONSUMER_ACT_GRANT)->slot = free_slot;
        }
        if (++at.span == c->spans) {
            at.span = 0;
            at.epoch++;
        }
    }
}

/* Grants are idempotent: one whose message was dropped on a full queue is sent again. */
static void grants_repeat(struct step *s)
{
    for (uint64_t i = 0; i < s->c->config.slots && s->count < CONSUMER_ACTIONS_MAX; i++)
        if (s->c->slots[i].state == SLOT_GRANTED)
            act(s, CONSUMER_ACT_GRANT)->slot = i;
}

/* ---- events ---- */

static void tick_waiting(struct step *s)
{
    struct consumer *c = s->c;
    if (s->now_ms - c->heard_at_ms >= c->config.peer_timeout_ms) {
        trouble_note(c, "the loader was silent for too long and was killed");
        close_unproven(s);
        c->kills = 1;
        act(s, CONSUMER_ACT_KILL);
        return;
    }
    uint64_t quiet_since = c->heard_at_ms > c->pinged_at_ms ? c->heard_at_ms : c->pinged_at_ms;
    if (s->now_ms - quiet_since < ping_ms(c))
        return;
    c->pinged_at_ms = s->now_ms;
    act(s, CONSUMER_ACT_PING);
    if (c->state == CONSUMER_OPENING)
        act(s, CONSUMER_ACT_ASK);
    if (c->state == CONSUMER_FLOWING)
        grants_repeat(s);
}

static void tick_dying(struct step *s)
{
    struct consumer *c = s->c;
    if (s->now_ms - c->dying_at_ms < c->config.peer_timeout_ms)
        return;
    if (c->kills == KILLS_MAX) {
        fail(s, 0, "the loader was killed %d times and still holds the arena; the cause: %s",
             KILLS_MAX, c->trouble);
        return;
    }
    c->dying_at_ms = s->now_ms;
    c->kills++;
    act(s, CONSUMER_ACT_KILL);
}

static void on_tick(struct step *s)
{
    struct consumer *c = s->c;
    if (c->state == CONSUMER_CLOSED && s->now_ms >= c->retry_at_ms)
        open_again(s);
    else if (c->state == CONSUMER_DYING)
        tick_dying(s);
    else if (c->waiting)
        tick_waiting(s);
    slots_turn(s);
}

static void on_opened(struct step *s, const struct msg_opened *opened)
{
    struct consumer *c = s->c;
    struct err e;
    if (c->state != CONSUMER_OPENING)
        return;
    /* Positions already read rest on what the first opening said. */
    if (c->opened_once && opened_agrees(&c->opened, opened, &e) < 0) {
        fail(s, 1, "%s", e.text);
        return;
    }
    if (!c->opened_once)
        c->opened = *opened;
    c->opened_once = 1;
    c->spans = opened->spans;
    c->stream = opened->stream;
    c->state = CONSUMER_DOOR;
    act(s, CONSUMER_ACT_DOOR);
}

static void on_rejected(struct step *s, const struct msg_rejected *rejected)
{
    struct consumer *c = s->c;
    if (rejected->permanent) {
        fail(s, 1, "%s", rejected->reason);
        return;
    }
    trouble_note(c, rejected->reason);
    if (c->state == CONSUMER_FLOWING)
        close_unproven(s);
    else if (c->state == CONSUMER_OPENING || c->state == CONSUMER_DOOR)
        close_proven(s); /* this loader was granted nothing */
}

static void on_ready(struct step *s, const struct msg_ready *ready)
{
    struct consumer *c = s->c;
    if (c->state != CONSUMER_FLOWING || ready->stream != c->stream ||
        ready->slot >= c->config.slots)
        return;
    struct slot *slot = &c->slots[ready->slot];
    if (slot->state != SLOT_GRANTED || slot->generation != ready->generation ||
        slot->epoch != ready->epoch || slot->span != ready->span)
        return;
    if (ready->rows != span_rows(c, slot->span)) {
        fail(s, 1, "the loader delivered %" PRIu64 " rows for span %" PRIu64 ", which has %" PRIu64,
             ready->rows, slot->span, span_rows(c, slot->span));
        return;
    }
    if (!opened_offset_possible(&c->opened, ready->offset)) {
        fail(s, 1,
             "the loader put span %" PRIu64 " at byte %" PRIu64 " of a slot of %" PRIu64
             ", where it does not fit (or not at a multiple of 8)",
             slot->span, ready->offset, c->opened.span_bytes_max);
        return;
    }
    slot->state = SLOT_READY;
    slot->rows = ready->rows;
    slot->offset = ready->offset;
    slot->checksum = ready->checksum;
    c->attempts = 0;
    slots_turn(s);
}

static void on_pong(struct step *s, const struct msg_pong *pong)
{
    struct consumer *c = s->c;
    if (pong->known || pong->stream != c->stream)
        return;
    if (c->state == CONSUMER_DOOR || c->state == CONSUMER_FLOWING)
        trouble_note(c, "the loader no longer knew the stream");
    if (c->state == CONSUMER_DOOR)
        close_proven(s);
    else if (c->state == CONSUMER_FLOWING)
        close_unproven(s);
}

static void on_message(struct step *s, const struct consumer_event *event)
{
    struct consumer *c = s->c;
    if (event->msg->head.incarnation < c->loader_incarnation)
        return;
    c->loader_incarnation = event->msg->head.incarnation;
    c->heard_at_ms = s->now_ms;
    switch (event->type) {
    case CONSUMER_EV_OPENED:
        on_opened(s, &event->msg->opened);
        break;
    case CONSUMER_EV_REJECTED:
        on_rejected(s, &event->msg->rejected);
        break;
    case CONSUMER_EV_READY:
        on_ready(s, &event->msg->ready);
        break;
    default:
        on_pong(s, &event->msg->pong);
        break;
    }
}

static void on_cursor(struct step *s, const struct consumer_cursor *cursor)
{
    struct consumer *c = s->c;
    ensure(c->opened_once && cursor->span < c->spans);
    c->cursor = *cursor;
    c->cursor_set = 1;
    slots_turn(s);
}

static void on_hangup(struct step *s, const char *reason)
{
    if (s->c->state == CONSUMER_CLOSED)
        return;
    if (reason || s->c->state != CONSUMER_DYING)
        trouble_note(s->c, reason ? reason : "the loader died or closed the stream");
    close_proven(s);
}

static void event_take(struct step *s, const struct consumer_event *event)
{
    switch (event->type) {
    case CONSUMER_EV_TICK:
        on_tick(s);
        break;
    case CONSUMER_EV_CURSOR:
        on_cursor(s, &event->cursor);
        break;
    case CONSUMER_EV_HANGUP:
        on_hangup(s, event->reason);
        break;
    case CONSUMER_EV_WELCOME:
        s->c->heard_at_ms = s->now_ms;
        if (s->c->state == CONSUMER_DOOR) {
            s->c->state = CONSUMER_FLOWING;
            slots_turn(s);
        }
        break;
    default:
        on_message(s, event);
        break;
    }
}

/* ---- interface ---- */

void consumer_init(struct consumer *c, const struct consumer_config *config)
{
    ensure(config->slots <= ARENA_SLOTS_MAX && config->peer_timeout_ms > 0);
    memset(c, 0, sizeof *c);
    c->config = *config;
    c->state = CONSUMER_CLOSED;
}

void consumer_rest(struct consumer *c)
{
    c->state = CONSUMER_CLOSED;
    c->cursor_set = c->waiting = 0;
    c->attempts = c->retry_at_ms = 0;
    c->config.slots = 0;
    memset(c->slots, 0, sizeof c->slots);
}

int consumer_step(struct consumer *c, const struct consumer_event *event,
                  struct consumer_action actions[CONSUMER_ACTIONS_MAX])
{
    struct step s = {.c = c, .actions = actions, .now_ms = event->now_ms};
    enum consumer_state before = c->state;
    if (c->state == CONSUMER_FAILED)
        return 0;
    /* Patience counts only while we are here to listen: whoever was stopped for long (both may have
     * been) must not take the loader for dead on waking. */
    if (s.now_ms - c->stepped_at_ms >= c->config.peer_timeout_ms / 2 + 1)
        c->heard_at_ms = c->pinged_at_ms = c->dying_at_ms = s.now_ms;
    c->stepped_at_ms = s.now_ms;

    event_take(&s, event);

    int waiting = is_waiting(c);
    if (waiting && (!c->waiting || c->state != before))
        c->heard_at_ms = c->pinged_at_ms = s.now_ms; /* waiting begins now */
    c->waiting = waiting;
    if (c->state == CONSUMER_FLOWING && c->cursor_set && !waiting)
        c->attempts = 0; /* all that is wanted is here: this opening did not come in vain */
    return s.count;
}

static uint64_t least(uint64_t a, uint64_t b)
{
    return a < b ? a : b;
}

uint64_t consumer_due_ms(const struct consumer *c)
{
    if (c->state == CONSUMER_FAILED)
        return UINT64_MAX;
    if (c->state == CONSUMER_CLOSED)
        return c->retry_at_ms;
    if (c->state == CONSUMER_DYING) /* looked at often: one long wait would count as an absence */
        return least(c->stepped_at_ms + ping_ms(c), c->dying_at_ms + c->config.peer_timeout_ms);
    if (!c->waiting)
        return UINT64_MAX;
    uint64_t quiet_since = c->heard_at_ms > c->pinged_at_ms ? c->heard_at_ms : c->pinged_at_ms;
    return least(quiet_since + ping_ms(c), c->heard_at_ms + c->config.peer_timeout_ms);
}

int consumer_find(const struct consumer *c, uint64_t epoch, uint64_t span)
{
    for (uint64_t i = 0; i < c->config.slots; i++)
        if (c->slots[i].state == SLOT_READY && c->slots[i].epoch == epoch &&
            c->slots[i].span == span)
            return (int)i;
    return -1;
}
