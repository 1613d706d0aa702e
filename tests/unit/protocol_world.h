/* protocol_world.h - what test_protocol.c simulates with: a clock, chance, messages under way, and
 * one loader with its readers around server.c (protocol_loader.c).
 */
#ifndef TESTS_PROTOCOL_WORLD_H
#define TESTS_PROTOCOL_WORLD_H

#include <stddef.h>

#include "proto/consumer.h"
#include "proto/server.h"
#include "tests/test.h"

enum {
    CONSUMERS_MAX = 3,
    STREAMS_MAX = 24,
    DOORS_MAX = 64,
    MEMORIES_MAX = 64,
    SLOTS_MAX = 6,
    WIRE_MAX = 4096,
    QUEUE_MAX = 64,
    PEER_TIMEOUT_MS = 400,
    RETRY_MS = 20,
    DOOR_TIMEOUT_MS = 600,
    READER_TIMEOUT_MS = 1500,
    CHAOS_MS = 2500,
    CALM_MS = 20000, /* afterwards everything must be done within this */
};

struct content {
    uint64_t epoch, span, generation;
    int complete;
};

struct memory { /* an arena; number 0 is none */
    struct content slot[SLOTS_MAX];
};

struct wire { /* a message under way */
    uint64_t at_ms, route;
    int to_loader, consumer;
    enum msg_type type;
    union {
        struct msg_head head;
        struct msg_opened opened;
        struct msg_grant grant;
        struct msg_ready ready;
        struct msg_rejected rejected;
        struct msg_ping ping;
        struct msg_pong pong;
    } m;
};

struct door {
    int used, consumer_holds, parent_holds, reader_holds;
    int hello, welcome; /* packets under way: 0 none; welcome 1 yes, -1 no */
    uint64_t loader, stream, slots;
    int memory;
};

struct stream { /* what one loader process knows, and the reader process, which may outlive it */
    int used, parent_knows;
    struct server server;
    int consumer, door; /* door -1: none yet */
    uint64_t route;
    int reader_lives, reader_death_seen, memory;
    uint64_t reader_ends_ms; /* orphan: until then it writes on */
    uint64_t describe_at_ms, arm_at_ms, write_until_ms;
    int described, armed, writing;
    struct msg_grant queue[QUEUE_MAX];
    int queued;
    struct msg_grant done[QUEUE_MAX];
    int done_count;
};

struct app { /* a consumer process and what it reads */
    struct consumer consumer;
    uint64_t incarnation, route, stalled_until_ms;
    int door, memory; /* door -1: none */
    uint64_t slots, epoch, span, last_epoch, read_until_ms;
    int reading, finished; /* reading: slot + 1 */
};

struct world {
    int schedule, app_count, calm;
    uint64_t random, now_ms, routes, loader, streams, loader_back_ms, loader_stopped_until_ms;
    int loader_lives, memories, wire_count, deliveries;
    uint64_t spans, trouble;
    uint64_t last_at_ms[2][CONSUMERS_MAX];
    struct door door[DOORS_MAX];
    struct memory memory[MEMORIES_MAX];
    struct app app[CONSUMERS_MAX];
    struct wire wire[WIRE_MAX]; /* last, and large: a new world forgets only their number */
};

extern struct world world;
extern struct stream world_streams[STREAMS_MAX];

#define SIM(condition)                                                                             \
    do {                                                                                           \
        if (!(condition))                                                                          \
            test_fail(__FILE__, __LINE__, "schedule %d at %llu ms: %s", world.schedule,            \
                      (unsigned long long)world.now_ms, #condition);                               \
    } while (0)

/* A number under `below`, of the schedule's own. */
uint64_t world_random(uint64_t below);

/* One in `n`, in the time of trouble. */
int world_chance(uint64_t n);

/* Bytes of a message of that type in a wire. */
size_t message_bytes(enum msg_type type);

/* Send; it takes a while, and may come twice or be lost. */
void wire_put(int to_loader, int consumer, uint64_t route, enum msg_type type, const void *m,
              uint64_t incarnation);

/* Take out the oldest message that is due for this side. 1, or 0: there is none. */
int wire_take(int to_loader, int consumer, struct wire *out);

/* A process died (consumer -1: the loader): of what it had sent or was to receive, some is lost and
 * some is not. */
void wire_lose(int to_loader, int consumer);

/* A loader process starts, dies, does what it can do now. */
void loader_start(void);
void loader_kill(void);
void loader_run(void);

#endif
