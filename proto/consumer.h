/* consumer.h - the consumer's side of the arena protocol as a pure step function.
 *
 * One struct consumer is one stream. No clock, socket or memory access in here: events come in,
 * actions go out, so that feed.c (real sockets) and the simulator in tests/ run the same code. The
 * table of states and events is drawn in consumer.c.
 *
 * Stream:  CLOSED -> OPENING -> DOOR -> FLOWING -> (hang-up) -> CLOSED ...; DYING: the loader lost
 * the stream or was killed for its silence, and only the hang-up of the door is waited for. Slot:
 * FREE -> GRANTED -> READY -> FREE; GRANTED -> QUARANTINED while the loader is silent but not
 *          proven dead; hang-up of the door proves it and frees them. READY slots survive a loader.
 */
#ifndef PROTO_CONSUMER_H
#define PROTO_CONSUMER_H

#include <stdint.h>

#include "proto/arena.h"
#include "proto/msg.h"

enum consumer_state {
    CONSUMER_CLOSED,
    CONSUMER_OPENING,
    CONSUMER_DOOR,
    CONSUMER_FLOWING,
    CONSUMER_DYING,
    CONSUMER_FAILED
};
enum slot_state { SLOT_FREE, SLOT_GRANTED, SLOT_READY, SLOT_QUARANTINED };

struct slot {
    enum slot_state state;
    uint64_t epoch, span, generation, rows, offset, checksum;
};

/* What the consumer wants: spans of `epoch` from `span` on, in order, then epoch + 1 from 0 on, up
 * to and including last_epoch. Held spans before the cursor are freed. */
struct consumer_cursor {
    uint64_t epoch, span, last_epoch;
};

struct consumer_config {
    uint64_t slots;           /* of the arena; 0 until it is made, set by whoever executes DOOR */
    uint64_t peer_timeout_ms; /* silence after which the peer is killed */
    uint64_t retry_ms; /* pause before opening again; doubled at each failure up to 16 times */
    uint64_t
        attempts_max; /* openings in a row that brought nothing wanted before FAILED (temporary) */
};

struct consumer {
    struct consumer_config config;
    enum consumer_state state;
    struct consumer_cursor cursor;
    int cursor_set;
    uint64_t spans;              /* an epoch, as opened */
    uint64_t stream;             /* as opened by the present loader */
    uint64_t loader_incarnation; /* older ones are ignored */
    uint64_t generation;         /* of the newest grant */
    uint64_t attempts, retry_at_ms;
    uint64_t heard_at_ms;        /* newest sign of life, or when waiting for one began */
    uint64_t pinged_at_ms;       /* newest question, or when waiting began */
    uint64_t stepped_at_ms;      /* newest step: a long gap is our own absence, not the loader's */
    uint64_t dying_at_ms, kills; /* DYING: when it began or was killed last; SIGKILLs sent */
    int waiting;                 /* an answer of the loader is outstanding */
    struct msg_opened opened; /* first answer; a later one must agree (fingerprint, rows, fields) */
    int opened_once;
    char trouble[769]; /* why the newest opening failed, for FAIL's sentence */
    struct slot slots[ARENA_SLOTS_MAX];
};

enum consumer_event_type {
    CONSUMER_EV_TICK,     /* time passes */
    CONSUMER_EV_CURSOR,   /* the wish changed */
    CONSUMER_EV_OPENED,   /* opened message */
    CONSUMER_EV_REJECTED, /* rejected message */
    CONSUMER_EV_WELCOME,  /* the loader has the arena */
    CONSUMER_EV_READY,    /* ready message */
    CONSUMER_EV_PONG,     /* pong message */
    CONSUMER_EV_HANGUP,   /* the door hung up (or could not be connected): nobody writes any more */
};

struct consumer_event {
    enum consumer_event_type type;
    uint64_t now_ms;
    struct consumer_cursor cursor; /* CURSOR */
    const union msg *msg;          /* OPENED, REJECTED, READY, PONG */
    const char *reason;            /* HANGUP: why, if something is known; else NULL */
};

enum consumer_action_type {
    /* Close door and DEALER; connect the door: from here on its hang-up is watched, and its peer
     * can be killed; then a new DEALER with a fresh routing id; send open. */
    CONSUMER_ACT_OPEN,
    CONSUMER_ACT_ASK,   /* send open once more on the present DEALER */
    CONSUMER_ACT_DOOR,  /* make the arena if there is none; send hello through the door */
    CONSUMER_ACT_GRANT, /* send grant: slot index in `slot` (a repeated one too) */
    CONSUMER_ACT_PING,  /* send ping with c->stream (0 while opening) */
    CONSUMER_ACT_KILL,  /* the peer was silent too long: SIGKILL it through its pidfd */
    /* Close the door; the DEALER stays until OPEN: a rejection may be under way. */
    CONSUMER_ACT_CLOSE,
    CONSUMER_ACT_FAIL, /* give up, close everything: `permanent` and `reason` say why */
};

struct consumer_action {
    enum consumer_action_type type;
    uint64_t slot;
    int permanent;
    char reason[768];
};

enum { CONSUMER_ACTIONS_MAX = 64 }; /* a step; if all are used, tick again at once */

void consumer_init(struct consumer *c, const struct consumer_config *config);

/* Between two steps: nothing is wanted any more, and whoever calls has closed the door and given
 * the arena back. What was opened once is remembered: the next opening, at the next step, must
 * agree.
 */
void consumer_rest(struct consumer *c);

/* One step. Returns the number of actions written. */
int consumer_step(struct consumer *c, const struct consumer_event *event,
                  struct consumer_action actions[CONSUMER_ACTIONS_MAX]);

/* When the next TICK will have something to do, on the clock of now_ms; UINT64_MAX: never. */
uint64_t consumer_due_ms(const struct consumer *c);

/* The READY slot that holds (epoch, span), or -1. */
int consumer_find(const struct consumer *c, uint64_t epoch, uint64_t span);

#endif
