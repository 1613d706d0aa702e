/* stream_step.c - the actions of proto/server.c carried out, and what the reader says turned into
 * events.
 *
 * A reader is sent READER_SPANS_MAX reads at a time; the others wait here, one place a slot, so
 * that a newer grant of a slot replaces the older one and nothing grows.
 */
#include "loaderd/stream_private.h"

#include <stdio.h>
#include <string.h>
#include <unistd.h>

#include "proto/log.h"

void stream_reject(struct streams *s, const struct link_peer *peer, int permanent,
                   const char *reason)
{
    struct msg_rejected m = {.permanent = permanent};
    MSG_STR(m.reason, reason);
    log_warn("part=reject permanent=%d %s", permanent, reason);
    daemon_reply(s->daemon, peer, MSG_rejected, &m);
}

static void reads_send(struct stream *st)
{
    struct err ignored; /* a reader that is gone shows as a hang-up of the pair */
    while (st->waiting && st->in_flight < READER_SPANS_MAX) {
        uint16_t slot = st->ring[st->first];
        const struct msg_grant *g = &st->grant[slot];
        struct reader_packet packet = {
            .kind = READER_READ,
            .read = {.epoch = g->epoch, .span = g->span, .slot = slot, .generation = g->generation},
        };
        if (child_send(&st->child, &packet, NULL, 0, &ignored) != 0)
            return;
        st->queued[slot] = 0;
        st->first = (st->first + 1) % ARENA_SLOTS_MAX;
        st->waiting--;
        st->in_flight++;
    }
}

static void read_enqueue(struct stream *st, const struct msg_grant *grant)
{
    ensure(grant->slot < ARENA_SLOTS_MAX);
    st->grant[grant->slot] = *grant;
    if (!st->queued[grant->slot]) {
        st->queued[grant->slot] = 1;
        st->ring[(st->first + st->waiting++) % ARENA_SLOTS_MAX] = (uint16_t)grant->slot;
    }
    reads_send(st);
}

static void arena_hand(struct stream *st)
{
    struct reader_packet packet = {.kind = READER_ARENA,
                                   .arena = {.slots = st->slots, .slot_bytes = st->slot_bytes}};
    int fds[2] = {st->arena, st->door};
    struct err ignored;
    child_send(&st->child, &packet, fds, 2, &ignored);
    close(st->arena);
    st->arena = -1;
}

void stream_step(struct streams *s, struct stream **st_p, const struct server_event *event)
{
    struct server_action actions[SERVER_ACTIONS_MAX];
    struct stream *st = *st_p;
    int count = server_step(&st->server, event, actions);
    for (int i = 0; i < count; i++) {
        struct server_action *a = &actions[i];
        switch (a->type) {
        case SERVER_ACT_OPENED:
            daemon_reply(s->daemon, &st->peer, MSG_opened, &st->server.opened);
            break;
        case SERVER_ACT_REJECTED:
            stream_reject(s, &st->peer, a->permanent, a->reason);
            break;
        case SERVER_ACT_HAND:
            arena_hand(st);
            break;
        case SERVER_ACT_WELCOME:
            if (st->door >= 0)
                stream_door_answer(st->door, a->ok, a->reason);
            break;
        case SERVER_ACT_READ:
            read_enqueue(st, &a->grant);
            break;
        case SERVER_ACT_READY:
            daemon_reply(s->daemon, &st->peer, MSG_ready, &a->ready);
            break;
        case SERVER_ACT_CLOSE:
            stream_close(s, st_p);
            return;
        }
    }
}

static void reader_described(struct streams *s, struct stream **st_p,
                             const struct reader_described *d)
{
    union msg m = {0};
    struct msg_opened *o = &m.opened;
    highwater_helper_add(&s->daemon->highwater, (*st_p)->child.pid);
    o->stream = (*st_p)->server.stream;
    MSG_STR(o->fingerprint, d->fingerprint);
    MSG_STR(o->layout, d->layout);
    o->rows = d->rows;
    o->streams = d->streams;
    o->chunk_rows = d->chunk_rows;
    o->spans = d->spans;
    o->span_rows = d->span_rows;
    o->span_bytes_max = d->span_bytes_max;
    o->chunk_bytes_max = d->chunk_bytes_max;
    o->kept_bytes = d->kept_bytes;
    o->fields_count = d->field_count;
    memcpy(o->fields, d->fields, d->field_count * sizeof o->fields[0]);
    stream_step(
        s, st_p,
        &(struct server_event){.type = SERVER_EV_DESCRIBED, .now_ms = stream_now_ms(), .msg = &m});
}

/* "trainer.train" of the routing id trainer.train-3-1; whatever else it holds is made printable. */
static void consumer_name(const struct link_peer *peer, char name[65])
{
    uint32_t bytes = peer->bytes < 64 ? peer->bytes : 64, dashes = 0;
    for (uint32_t i = 0; i < bytes; i++)
        name[i] = peer->id[i] > ' ' && peer->id[i] < 127 ? (char)peer->id[i] : '?';
    name[bytes] = 0;
    while (bytes > 0 && dashes < 2)
        dashes += name[--bytes] == '-';
    if (dashes == 2 && bytes)
        name[bytes] = 0;
}

static void receipts_tell(struct streams *s, struct stream *st, const struct reader_done *d)
{
    struct msg_loader_receipt receipts[2];
    struct err e = {0};
    if (!s->daemon->options.loader_receipt || st->server.state != SERVER_SERVING)
        return;
    int count = receipt_add(&st->receipt, st->server.opened.spans, d, receipts);
    for (int i = 0; i < count; i++) {
        receipts[i].stream = st->server.stream;
        consumer_name(&st->peer, receipts[i].consumer);
        MSG_STR(receipts[i].split, st->split);
        if (daemon_fact(s->daemon, MSG_loader_receipt, &receipts[i], &e) != 0)
            log_warn("part=receipt the receipt of epoch %llu is lost: %s",
                     (unsigned long long)receipts[i].epoch, e.text);
    }
}

static void reader_done(struct streams *s, struct stream **st_p, const struct reader_done *d)
{
    struct stream *st = *st_p;
    union msg m = {.ready = {.stream = st->server.stream,
                             .epoch = d->epoch,
                             .span = d->span,
                             .slot = d->slot,
                             .generation = d->generation,
                             .rows = d->rows,
                             .offset = d->offset,
                             .checksum = d->checksum}};
    struct msg_loader_span measured = {.stream = st->server.stream,
                                       .epoch = d->epoch,
                                       .span = d->span,
                                       .rows = d->rows,
                                       .bytes_read = d->bytes_read,
                                       .bytes_decoded = d->bytes_decoded,
                                       .read_s = d->read_s,
                                       .decode_s = d->decode_s};
    if (st->in_flight)
        st->in_flight--;
    reads_send(st);
    s->spans++;
    receipts_tell(s, st, d);
    stream_step(
        s, st_p,
        &(struct server_event){.type = SERVER_EV_DONE, .now_ms = stream_now_ms(), .msg = &m});
    daemon_publish(s->daemon, MSG_loader_span, &measured);
}

static void reader_failed(struct streams *s, struct stream **st_p, enum server_event_type type,
                          const char *why)
{
    char reason[768];
    snprintf(reason, sizeof reason, "%s: %.600s", (*st_p)->file, why);
    stream_step(s, st_p,
                &(struct server_event){.type = type, .now_ms = stream_now_ms(), .reason = reason});
}

/* It will say no more. */
static void reader_died(struct streams *s, struct stream **st_p, const char *why)
{
    struct stream *st = *st_p;
    int fault = child_fault(&st->child);
    int faults = fault ? stream_fault_count(s, &st->identity, stream_now_ms()) : 0;
    char reason[320];
    snprintf(reason, sizeof reason, "%.200s%s%s", why, fault ? ": " : "",
             fault ? child_fault_name(fault) : "");
    log_warn("stream=%llu part=reader %s: %s", (unsigned long long)st->server.stream, st->file,
             reason);
    if (faults < CHILD_FAULTS_MAX) {
        reader_failed(s, st_p, SERVER_EV_DIED, reason);
        return;
    }
    snprintf(reason, sizeof reason, "%d of its readers died, the last one of %s: %s", faults,
             child_fault_name(fault), child_fault_meaning(fault));
    reader_failed(s, st_p, SERVER_EV_REJECTED, reason);
}

/* One that was stopped from outside is given as long as any silent process; one that is busy ends
 * itself. */
void stream_reader_watch(struct streams *s, struct stream **st_p)
{
    uint64_t patience_ms = s->daemon->options.peer_timeout_s * 1000;
    if (server_reader_silent_ms(&(*st_p)->server, stream_now_ms()) < patience_ms ||
        !child_is_stopped(&(*st_p)->child))
        return;
    log_warn("stream=%llu part=reader %s: its reader process is stopped: killing it",
             (unsigned long long)(*st_p)->server.stream, (*st_p)->file);
    stream_step(s, st_p, &(struct server_event){.type = SERVER_EV_DIED, .now_ms = stream_now_ms()});
}

void stream_reader_hear(struct streams *s, struct stream **st_p)
{
    struct reader_packet packet;
    struct err e = {0};
    for (int i = 0; *st_p && i < STREAM_PACKETS_MAX; i++) {
        int got = child_recv(&(*st_p)->child, &packet, &e);
        if (got == 0)
            return;
        if (got < 0) {
            reader_died(s, st_p, e.text);
            return;
        }
        switch (packet.kind) {
        case READER_DESCRIBED:
            reader_described(s, st_p, &packet.described);
            break;
        case READER_ARMED:
            stream_step(s, st_p,
                        &(struct server_event){.type = SERVER_EV_ARMED, .now_ms = stream_now_ms()});
            break;
        case READER_DONE:
            reader_done(s, st_p, &packet.done);
            break;
        default: /* child_recv lets nothing else through but READER_REJECTED */
            reader_failed(s, st_p, SERVER_EV_REJECTED, packet.text);
            break;
        }
    }
}
