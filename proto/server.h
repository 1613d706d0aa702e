/* server.h - the loader's side of the arena protocol as a pure step function: one struct server a
 * stream.
 *
 * Like consumer.h: events in, actions out, no clock, socket or process in here; loaderd and the
 * simulator in tests/ run the same code. The loader keeps nothing that cannot be recomputed: every
 * request may come again. Table of states and events: server.c.
 *
 * STARTING (reader spawned, open sent to it) -> OPENED (described; waits for the arena) -> ARMING
 * (arena handed to the reader) -> SERVING -> CLOSED. The reader's death, the door's hang-up, or a
 * rejection close it from any state; CLOSE kills and reaps the reader before the door is closed, so
 * that the consumer's hang-up proves that nobody writes.
 */
#ifndef PROTO_SERVER_H
#define PROTO_SERVER_H

#include <stdint.h>

#include "proto/arena.h"
#include "proto/msg.h"

enum server_state { SERVER_STARTING, SERVER_OPENED, SERVER_ARMING, SERVER_SERVING, SERVER_CLOSED };

struct server_slot {
    uint64_t generation; /* newest grant of this slot, 0: never granted */
    int done;            /* its span was delivered: repeat ready if the grant comes again */
    struct msg_ready ready;
};

struct server {
    enum server_state state;
    uint64_t stream;
    uint64_t consumer_incarnation; /* of the open; older ones are ignored */
    struct msg_opened opened;      /* valid from OPENED on */
    uint64_t slots;                /* of the arena, from ARMING on */
    uint64_t born_ms; /* a stream that has no arena door_timeout_ms after this is closed */
    uint64_t door_timeout_ms;
    uint64_t reading;  /* slots whose span the reader still owes */
    uint64_t heard_ms; /* newest answer of the reader, or when it was asked having owed nothing */
    uint64_t reader_timeout_ms;
    uint64_t describe_more_ms; /* that it may be silent besides while it describes the file */
    struct server_slot slot[ARENA_SLOTS_MAX];
};

enum server_event_type {
    SERVER_EV_OPEN,      /* open message (the first, or repeated) */
    SERVER_EV_DESCRIBED, /* the reader knows the file: msg is the opened to send */
    SERVER_EV_HELLO,     /* the consumer came through the door: slots, slot_bytes */
    SERVER_EV_ARMED,     /* the reader has mapped the arena */
    SERVER_EV_GRANT,     /* grant message */
    SERVER_EV_DONE,      /* the reader delivered: msg is the ready to send */
    SERVER_EV_REJECTED,  /* the reader refuses file or request: reason */
    SERVER_EV_DIED,      /* the reader is dead */
    SERVER_EV_HANGUP,    /* the consumer's door connection hung up */
    SERVER_EV_TICK,
};

struct server_event {
    enum server_event_type type;
    uint64_t now_ms;
    const union msg *msg;       /* OPEN, DESCRIBED, GRANT, DONE */
    uint64_t slots, slot_bytes; /* HELLO */
    const char *reason;         /* REJECTED */
};

enum server_action_type {
    SERVER_ACT_OPENED,   /* send s->opened to the consumer */
    SERVER_ACT_REJECTED, /* send rejected with `permanent` and `reason` */
    SERVER_ACT_HAND,     /* hand arena and door connection to the reader */
    SERVER_ACT_WELCOME,  /* answer the hello: `ok`, `reason` */
    SERVER_ACT_READ,     /* pass `grant` to the reader */
    SERVER_ACT_READY,    /* send `ready` to the consumer */
    SERVER_ACT_CLOSE,    /* kill and reap the reader, then close the door, then forget the stream */
};

struct server_action {
    enum server_action_type type;
    int permanent, ok;
    char reason[768];
    struct msg_grant grant;
    struct msg_ready ready;
};

enum { SERVER_ACTIONS_MAX = 4 };

/* A new stream for an open message; the caller spawns the reader. */
void server_init(struct server *s, uint64_t stream, uint64_t consumer_incarnation, uint64_t now_ms,
                 uint64_t door_timeout_ms, uint64_t reader_timeout_ms);

/* How long the reader has owed an answer about the file; 0 if it owes none. */
uint64_t server_reader_silent_ms(const struct server *s, uint64_t now_ms);

int server_step(struct server *s, const struct server_event *event,
                struct server_action actions[SERVER_ACTIONS_MAX]);

#endif
