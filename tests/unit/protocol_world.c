/* protocol_world.c - see protocol_world.h: chance, and messages under way. */
#include "tests/unit/protocol_world.h"

struct world world;

uint64_t world_random(uint64_t below)
{
    uint64_t z = (world.random += 0x9e3779b97f4a7c15ull);
    z = (z ^ (z >> 30)) * 0xbf58476d1ce4e5b9ull;
    z = (z ^ (z >> 27)) * 0x94d049bb133111ebull;
    return (z ^ (z >> 31)) % below;
}

int world_chance(uint64_t n)
{
    return !world.calm && world_random(n) == 0;
}

size_t message_bytes(enum msg_type type)
{
    switch (type) {
    case MSG_open:
        return sizeof(struct msg_head); /* what is asked for is always the same here */
    case MSG_opened:
        return sizeof(struct msg_opened);
    case MSG_grant:
        return sizeof(struct msg_grant);
    case MSG_ready:
        return sizeof(struct msg_ready);
    case MSG_rejected:
        return sizeof(struct msg_rejected);
    default:
        return sizeof(struct msg_ping);
    }
}

void wire_put(int to_loader, int consumer, uint64_t route, enum msg_type type, const void *m,
              uint64_t incarnation)
{
    int copies = world_chance(50) ? 0 : world_chance(20) ? 2 : 1;
    for (int i = 0; i < copies; i++) {
        SIM(world.wire_count < WIRE_MAX);
        struct wire *x = &world.wire[world.wire_count++];
        uint64_t *last = &world.last_at_ms[to_loader][consumer];
        uint64_t at = world.now_ms + world_random(world.calm ? 3 : 12);
        if (i == 0) /* in order; a copy may come any time later */
            *last = at = at > *last ? at : *last;
        else
            at += world_random(100);
        x->at_ms = at;
        x->route = route;
        x->to_loader = to_loader;
        x->consumer = consumer;
        x->type = type;
        memcpy(&x->m, m, message_bytes(type));
        x->m.head.incarnation = incarnation;
    }
}

int wire_take(int to_loader, int consumer, struct wire *out)
{
    int best = -1;
    for (int i = 0; i < world.wire_count; i++)
        if (world.wire[i].to_loader == to_loader && world.wire[i].at_ms <= world.now_ms &&
            (to_loader || world.wire[i].consumer == consumer) &&
            (best < 0 || world.wire[i].at_ms < world.wire[best].at_ms))
            best = i;
    if (best < 0)
        return 0;
    *out = world.wire[best];
    memmove(&world.wire[best], &world.wire[best + 1],
            (size_t)(--world.wire_count - best) * sizeof world.wire[0]);
    return 1;
}

void wire_lose(int to_loader, int consumer)
{
    int kept = 0;
    for (int i = 0; i < world.wire_count; i++) {
        int touched = world.wire[i].to_loader == to_loader || world_random(2) == 0;
        touched = touched && (consumer < 0 || world.wire[i].consumer == consumer);
        if (!touched || world_random(2) == 0)
            world.wire[kept++] = world.wire[i];
    }
    world.wire_count = kept;
}
