/* stream.c - see stream.h. What should happen is decided in proto/server.c; stream_step.c carries
 * its actions out, and the world's events become its events:
 *
 *   open, grant, ping (here)    a reader process is started, a span is wanted -> OPEN GRANT
 *   the reader (stream_step.c)  its answers, its death -> DESCRIBED ARMED DONE REJECTED DIED
 *                               (stream_faults.c: a file that faults each is rejected)
 *   the door   (stream_door.c)  a visitor says hello -> HELLO; the consumer's end -> HANGUP
 */
#include "loaderd/stream_private.h"

#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/stat.h>
#include <unistd.h>

#include "loaderd/layout.h"
#include "proto/door.h"
#include "proto/limits.h"
#include "proto/log.h"

uint64_t stream_now_ms(void)
{
    return (uint64_t)(clock_monotonic_s() * 1000);
}

int streams_wake_add(struct streams *s, int fd)
{
    struct epoll_event event = {.events = EPOLLIN | EPOLLRDHUP, .data.fd = fd};
    return epoll_ctl(s->wake, EPOLL_CTL_ADD, fd, &event);
}

int streams_open(struct streams *s, struct daemon *d, struct err *e)
{
    *s = (struct streams){.daemon = d, .listener = -1};
    for (int i = 0; i < STREAMS_MAX; i++)
        s->visitor[i].connection = -1;
    s->wake = epoll_create1(EPOLL_CLOEXEC);
    if (s->wake < 0)
        return err_errno(e, EXIT_CODE_TEMPORARY, "cannot watch the streams");
    hold_tasks(&s->holds, &d->options);
    s->listener = door_listen("sockets/loader.door", e);
    if (s->listener >= 0 && streams_wake_add(s, s->listener) != 0)
        return err_errno(e, EXIT_CODE_TEMPORARY, "cannot watch the door");
    return s->listener < 0 ? -1 : 0;
}

/* The order matters: the reader is dead before the consumer can see the door hang up. */
void stream_close(struct streams *s, struct stream **st_p)
{
    struct stream *st = *st_p;
    if (!st)
        return;
    if (st->child.pid > 0)
        log_info("stream=%llu part=close spans of %s are no longer served",
                 (unsigned long long)st->server.stream, st->file);
    highwater_helper_remove(&s->daemon->highwater, st->child.pid);
    child_kill(&st->child);
    if (st->arena >= 0)
        close(st->arena);
    if (st->door >= 0)
        close(st->door);
    free(st);
    *st_p = NULL;
}

void streams_close(struct streams *s)
{
    if (!s->daemon)
        return;
    for (int i = 0; i < STREAMS_MAX; i++) {
        stream_close(s, &s->stream[i]);
        if (s->visitor[i].connection >= 0)
            close(s->visitor[i].connection);
    }
    if (s->listener >= 0)
        close(s->listener);
    if (s->wake >= 0)
        close(s->wake);
    holds_close(&s->holds);
    *s = (struct streams){0};
}

struct stream **stream_find(struct streams *s, uint64_t id)
{
    for (int i = 0; i < STREAMS_MAX; i++)
        if (s->stream[i] && s->stream[i]->server.stream == id)
            return &s->stream[i];
    return NULL;
}

/* Who has something to say: every stream's reader and consumer, every visitor, the listener. */
struct spoken {
    struct epoll_event event[3 * STREAMS_MAX + 1];
    int count;
};

static int has_spoken(const struct spoken *k, int fd)
{
    for (int i = 0; i < k->count; i++)
        if (k->event[i].data.fd == fd)
            return 1;
    return 0;
}

/* One question to the kernel instead of one to each descriptor: this runs for every span. */
void streams_pump(struct streams *s)
{
    struct spoken k;
    k.count = epoll_wait(s->wake, k.event, sizeof k.event / sizeof *k.event, 0);
    streams_visitors_hear(s, has_spoken(&k, s->listener));
    for (int i = 0; i < STREAMS_MAX; i++) {
        struct stream **st_p = &s->stream[i];
        if (*st_p && has_spoken(&k, (*st_p)->child.pair))
            stream_reader_hear(s, st_p);
        else if (*st_p)
            stream_reader_watch(s, st_p);
        if (*st_p && has_spoken(&k, (*st_p)->door))
            stream_door_hear(s, st_p);
        if (*st_p)
            stream_step(s, st_p,
                        &(struct server_event){.type = SERVER_EV_TICK, .now_ms = stream_now_ms()});
    }
}

static struct stream **stream_of_peer(struct streams *s, const struct link_peer *peer)
{
    for (int i = 0; i < STREAMS_MAX; i++) {
        struct stream *st = s->stream[i];
        if (st && st->peer.bytes == peer->bytes && !memcmp(st->peer.id, peer->id, peer->bytes))
            return &s->stream[i];
    }
    return NULL;
}

/* A file of more than a quarter of the memory there is would push the model out of it. */
static int file_is_large(const struct options *o, int file)
{
    struct stat st;
    char source[64];
    uint64_t memory = limits_host("", o->host_limit_mb, source, sizeof source);
    return fstat(file, &st) == 0 && (uint64_t)st.st_size > memory / 4;
}

/* What the fields allow each for itself and not together. */
static int open_check(const struct msg_open *m, struct err *e)
{
    if (m->streams && m->shuffle)
        return err_set(e, EXIT_CODE_PERMANENT,
                       "%llu streams were asked for, shuffled; streams are in file order (shuffle "
                       "false)",
                       (unsigned long long)m->streams);
    if (m->streams && m->window_spans != m->streams)
        return err_set(
            e, EXIT_CODE_PERMANENT,
            "%llu streams were asked for in windows of %llu spans; a window has a span of "
            "each stream",
            (unsigned long long)m->streams, (unsigned long long)m->window_spans);
    return 0;
}

static int reader_start(struct streams *s, struct stream *st, const struct msg_open *m,
                        struct err *e)
{
    struct reader_packet packet = {.kind = READER_OPEN};
    struct reader_open *o = &packet.open;
    MSG_STR(o->split, m->split);
    MSG_STR(o->features, m->features);
    MSG_STR(o->targets, m->targets);
    MSG_STR(o->weights, m->weights);
    o->seed = m->seed;
    o->window = m->window;
    o->window_spans = m->window_spans;
    o->batch_rows = m->batch_rows;
    o->slice_rows = m->slice_rows;
    o->epoch_count = m->epochs_count;
    memcpy(o->epochs, m->epochs, sizeof o->epochs);
    o->streams = m->streams;
    o->span_rows = m->span_rows;
    o->span_bytes_chosen = layout_span_bytes_chosen(m->window_spans);
    o->span_bytes_limit = m->span_bytes_limit;
    o->workers = child_workers(s->daemon->options.loader_num_workers);
    o->readers = limits_readers("", s->daemon->options.loader_num_workers);
    o->shuffle = m->shuffle;
    o->begins = m->begins;
    o->rest = m->rest;
    o->singly = m->singly;
    o->verify = m->verify;
    o->receipt = s->daemon->options.loader_receipt;
    MSG_STR(st->split, m->split);
    if (open_check(m, e) != 0)
        return -1;
    hold_file(&s->holds, m->file);
    int file = child_file_open(m->file, e);
    if (file < 0)
        return -1;
    st->identity = stream_file_identity(file);
    o->drop_behind = file_is_large(&s->daemon->options, file);
    int failed = child_start(&st->child, s->daemon->run, file, e) != 0 ||
                 child_send(&st->child, &packet, NULL, 0, e) != 0;
    close(file);
    if (!failed && streams_wake_add(s, st->child.pair) != 0)
        failed = err_errno(e, EXIT_CODE_TEMPORARY, "cannot watch a reader");
    return failed ? -1 : 0;
}

static void path_shorten(char *shown, size_t capacity, const char *path)
{
    size_t length = strlen(path),
           cut = length > STREAM_FILE_SHOWN_BYTES ? length - STREAM_FILE_SHOWN_BYTES : 0;
    snprintf(shown, capacity, "%s%s", cut ? "..." : "", path + cut);
}

static void request_open(struct streams *s, const struct link_peer *peer, const union msg *m)
{
    struct err e = {0};
    struct server_event event = {.type = SERVER_EV_OPEN, .now_ms = stream_now_ms(), .msg = m};
    struct stream **st_p = stream_of_peer(s, peer);
    if (st_p) {
        stream_step(s, st_p, &event);
        return;
    }
    int i = 0;
    while (i < STREAMS_MAX && s->stream[i])
        i++;
    if (i == STREAMS_MAX) {
        char reason[80];
        snprintf(reason, sizeof reason, "all %d streams of this loaderd are in use", STREAMS_MAX);
        stream_reject(s, peer, 0, reason);
        return;
    }
    struct stream *st = calloc(1, sizeof *st);
    if (!st) {
        stream_reject(s, peer, 0, "no memory for another stream");
        return;
    }
    st->child = CHILD_NONE;
    st->door = st->arena = -1;
    st->peer = *peer;
    path_shorten(st->file, sizeof st->file, m->open.file);
    /* The number is never used again, not even by a later loaderd of this run. */
    server_init(&st->server, (s->daemon->lock.incarnation << 24) + ++s->opened, m->head.incarnation,
                event.now_ms, STREAM_DOOR_TIMEOUT_MS, READER_ANSWER_MS);
    if (m->open.begins || m->open.weights[0])
        st->server.describe_more_ms = READER_DIGEST_S_MAX * 1000;
    if (reader_start(s, st, &m->open, &e) != 0) {
        stream_reject(s, peer, e.code == EXIT_CODE_PERMANENT, e.text);
        stream_close(s, &st);
        return;
    }
    log_info("stream=%llu part=open split=%s reader=%d rows of %s are asked for",
             (unsigned long long)st->server.stream, m->open.split[0] ? m->open.split : "/",
             (int)st->child.pid, st->file);
    s->stream[i] = st;
    stream_step(s, &s->stream[i], &event);
}

static void request_ping(struct streams *s, const struct link_peer *peer, const union msg *m)
{
    struct msg_pong pong = {.stream = m->ping.stream,
                            .known = stream_find(s, m->ping.stream) != NULL};
    daemon_reply(s->daemon, peer, MSG_pong, &pong);
}

int streams_request(struct streams *s, const struct link_peer *peer, enum msg_type type,
                    const union msg *m)
{
    struct stream **st_p;
    switch (type) {
    case MSG_open:
        request_open(s, peer, m);
        return 1;
    case MSG_grant:
        /* Only the consumer that opened a stream may fill its slots; a grant of a stream that is
         * gone needs no answer: the next ping tells. */
        st_p = stream_find(s, m->grant.stream);
        if (st_p && stream_of_peer(s, peer) == st_p)
            stream_step(s, st_p,
                        &(struct server_event){
                            .type = SERVER_EV_GRANT, .now_ms = stream_now_ms(), .msg = m});
        return 1;
    case MSG_ping:
        request_ping(s, peer, m);
        return 1;
    default:
        return 0;
    }
}
