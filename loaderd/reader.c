/* reader.c - see reader.h: the process that touches the file.
 *
 *   OPEN -> threads, sandbox, describe the split -> DESCRIBED      ARENA -> map it -> ARMED
 *   READ -> every chunk of the span read and decoded (reader_spans.c) -> DONE
 *
 * Requests are answered in the order they came. What the file or a request makes impossible is
 * answered with REJECTED; what the machine does to us (no memory) ends the process, and the parent
 * sees it die.
 */
#include "loaderd/reader_private.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "loaderd/sandbox.h"
#include "proto/door.h"
#include "proto/log.h"

/* libhdf5 with its caches (h5source_private.h), its tables of a chunked read (h5source_read.c) and
 * the C library. */
#define LIBRARY_BYTES (256ull << 20)

/* What the reader may take when no chunk is larger than chunk_bytes. A stored chunk has at most two
 * (source_chunk_find): each of w workers (the main thread where there are none) has one of those,
 * two scratch buffers as large and one whole chunk (decoders.c): at most 7 w + 7. libhdf5, reading
 * one itself, holds it stored, decoded (the buffer doubling as it grows) and in its cache of
 * two: 8. Of each of `sets` data sets a chunk is kept (fetch.c), of one of two planes two. Besides,
 * the pointers, and while spans are laid out the items of each chunk of the order, which are fewer.
 */
static uint64_t memory_bound(uint64_t workers, uint64_t chunk_bytes, uint64_t sets,
                             uint64_t pointer_bytes)
{
    uint64_t bytes;
    if (__builtin_mul_overflow(7 * workers + 16 + sets, chunk_bytes, &bytes) ||
        __builtin_add_overflow(bytes, LIBRARY_BYTES + 2 * pointer_bytes, &bytes))
        return UINT64_MAX;
    return bytes;
}

/* The bound that the file itself sets. */
static uint64_t memory_needed(const struct reader *r, uint64_t workers)
{
    uint32_t sets = source_field_count(r->source);
    uint64_t most = 0, numbers = source_nodes(r->source)->count + source_edges(r->source)->count +
                                 source_documents(r->source)->count;
    for (uint32_t i = 0; i < sets; i++) {
        uint64_t bytes = source_field(r->source, i)->chunk_bytes;
        most = bytes > most ? bytes : most;
    }
    return memory_bound(workers, most, sets, numbers * sizeof(uint64_t));
}

/* Seconds that the digest of what was added to the file may take. */
static uint64_t digest_limit_s(const struct reader *r)
{
    uint64_t seconds = 0;
    for (uint32_t i = 0; i < source_field_count(r->source); i++) {
        const struct source_field *f = source_field(r->source, i);
        if (source_field_is_digested(f))
            seconds += f->items * f->row_bytes / READER_DIGEST_BYTES_A_S +
                       source_chunks(r->source, i) / READER_CHUNKS_A_S;
    }
    return seconds < READER_DIGEST_S_MAX ? seconds : READER_DIGEST_S_MAX;
}

static void describe_time_limit(const struct reader *r)
{
    uint64_t more = digest_limit_s(r);
    if (source_layout(r->source) == SOURCE_GRAPH || r->open.begins || r->open.weights[0])
        sandbox_time_limit(READER_REQUEST_LIMIT_S + more,
                           READER_REQUEST_CPU_S + READER_WALK_CPU_S + more);
}

/* As if they were all alike; no more than the other clock has time for. */
static uint64_t span_chunks_count(const struct reader *r)
{
    const uint64_t most = READER_REQUEST_LIMIT_S * READER_CHUNKS_A_S;
    double sum = 0;
    for (uint32_t i = 0; i < r->described.field_count; i++) {
        const struct layout_field *from = &r->layout.field[i];
        double items = (double)r->described.fields[i].items_max;
        if (from->from == LAYOUT_WINDOWS)
            items *= (double)r->layout.window;
        if (from->from == LAYOUT_ITEMS || from->from == LAYOUT_WINDOWS)
            sum += items * (double)source_chunks(r->source, from->set) /
                   (double)(source_field(r->source, from->set)->items + 1);
    }
    return sum < (double)most ? (uint64_t)sum : most;
}

/* The threads start, then the sandbox closes, then the file is looked at. */
static int reader_open_split(struct reader *r, const struct reader_open *open, struct err *e)
{
    if (r->decoders)
        return err_set(e, EXIT_CODE_PERMANENT, "the reader serves one split and was asked twice");
    r->open = *open;
    unsigned workers =
        open->workers > DECODERS_WORKERS_MAX ? DECODERS_WORKERS_MAX : (unsigned)open->workers;
    unsigned readers =
        open->readers > DECODERS_WORKERS_MAX ? DECODERS_WORKERS_MAX : (unsigned)open->readers;
    uint64_t memory =
        memory_bound(workers, open->span_bytes_limit, SOURCE_FIELDS_MAX, SOURCE_POINTERS_BYTES_MAX);
    struct source_wish wish = {open->split,   open->features, open->targets,
                               open->weights, open->window,   open->begins};
    source_library_open();
    if (decoders_open(&r->decoders, workers, readers, e) != 0 || sandbox_enter(memory, e) != 0 ||
        source_open(&r->source, READER_FILE_FD, &wish, e) != 0)
        return -1;
    describe_time_limit(r);
    if (layout_make(open, r->source, &r->layout, &r->described, e) != 0 ||
        source_fingerprint(r->source, r->described.fingerprint, e) != 0)
        return -1;
    r->span_chunks = span_chunks_count(r);
    sandbox_memory_lower(memory_needed(r, workers));
    if (open->drop_behind)
        source_drop_behind(r->source, open->shuffle);
    r->order = (struct order){
        .seed = open->seed,
        .shuffle = open->shuffle,
        .rows = r->described.rows,
        .chunk_rows = r->described.chunk_rows,
        .span_rows = r->described.span_rows,
        .streams = r->described.streams,
        .window_spans = 1, /* rows inside a window are the consumer's business */
    };
    r->fetch = (struct fetch){.source = r->source,
                              .decoders = r->decoders,
                              .layout = &r->layout,
                              .described = &r->described,
                              .order = &r->order,
                              .in_threads = open->singly,
                              .between = reader_spans_between,
                              .self = r};
    return 0;
}

static int reader_arm(struct reader *r, const struct reader_arena *arena, const int *fds,
                      int fd_count, struct err *e)
{
    if (fd_count != 2 || r->arena.fd >= 0 || !r->source)
        return err_set(e, EXIT_CODE_PERMANENT, "the reader was handed %d descriptors out of turn",
                       fd_count);
    if (arena->slot_bytes < r->described.span_bytes_max)
        return err_set(
            e, EXIT_CODE_PERMANENT, "the arena's slots have %llu bytes; a span needs %llu",
            (unsigned long long)arena->slot_bytes, (unsigned long long)r->described.span_bytes_max);
    return arena_attach(&r->arena, fds[0], arena->slots, arena->slot_bytes, e);
}

int reader_reject(struct reader_packet *answer, const struct err *e)
{
    if (e->code != EXIT_CODE_PERMANENT)
        return -1;
    memset(answer, 0, sizeof *answer);
    answer->kind = READER_REJECTED;
    snprintf(answer->text, sizeof answer->text, "%s", e->text);
    return 0;
}

void reader_time_limit(const struct reader *r)
{
    sandbox_time_limit(READER_REQUEST_LIMIT_S, READER_REQUEST_CPU_S +
                                                   (r->described.span_bytes_max >> 20) +
                                                   r->span_chunks / READER_CHUNKS_A_S);
}

/* Handle one packet and fill `answer`. 0, or -1 and *e. */
static int packet_handle(struct reader *r, const struct reader_packet *packet, const int *fds,
                         int fd_count, struct reader_packet *answer, struct err *e)
{
    switch (packet->kind) {
    case READER_OPEN:
        answer->kind = READER_DESCRIBED;
        if (reader_open_split(r, &packet->open, e) != 0)
            return -1;
        answer->described = r->described;
        return 0;
    case READER_ARENA:
        answer->kind = READER_ARMED;
        if (reader_arm(r, &packet->arena, fds, fd_count, e) != 0)
            return -1;
        r->door = fds[1];
        return 0;
    default:
        return err_set(e, EXIT_CODE_PERMANENT, "the reader was sent a packet of kind %d",
                       (int)packet->kind);
    }
}

/* Wait for something to come; the time limits rest while we do. 0, or -1 and *e. */
static int packet_wait(struct reader *r, struct err *e)
{
    struct pollfd wait = {.fd = READER_PAIR_FD, .events = POLLIN};
    double begin = decoders_clock_s();
    sandbox_time_limit(0, 0);
    if (poll(&wait, 1, -1) < 0 && errno != EINTR)
        return err_errno(e, EXIT_CODE_TEMPORARY, "cannot wait for requests");
    r->credit_s += decoders_clock_s() - begin;
    return 0;
}

/* Take a packet, if there is one. 1: taken; 0: there is none; -1: the parent is gone, or *e, and we
 * must end. */
static int packet_take(struct reader *r, struct err *e)
{
    struct reader_packet packet = {0}, answer = {0};
    int fds[DOOR_FDS_MAX], fd_count = 0, failed;
    e->code = 0;
    ssize_t got = door_recv(READER_PAIR_FD, &packet, sizeof packet, fds, &fd_count, e);
    if (got <= 0)
        return got < 0 && e->code == 0 ? 0 : -1;
    if (r->ended == r->count) /* it is the next to be answered */
        reader_time_limit(r);
    if (packet.kind == READER_READ) {
        if (reader_span_begin(r, &packet.read, e) == 0)
            return 1; /* answered in its turn */
        failed = 1;
    } else {
        failed = packet_handle(r, &packet, fds, fd_count, &answer, e) != 0;
    }
    if ((failed && reader_reject(&answer, e) != 0) ||
        door_send(READER_PAIR_FD, &answer, sizeof answer, NULL, 0, e) != 0)
        return -1;
    return 1;
}

/* Go on with what came, or take a packet; wait where nothing can be done. What is done is answered
 * before another span begins: one that no thread helps with takes as long to begin as to read. 0,
 * or -1: the parent is gone, or *e, and we must end. */
static int reader_turn(struct reader *r, struct err *e)
{
    int gone_on = reader_spans_go_on(r, e);
    if (gone_on)
        return gone_on < 0 ? -1 : 0;
    int taken = r->count < READER_SPANS_MAX ? packet_take(r, e) : 0;
    if (r->broken.code) {
        *e = r->broken;
        return -1;
    }
    if (taken)
        return taken < 0 ? -1 : 0;
    if (!r->count)
        return packet_wait(r, e);
    reader_spans_pause(r);
    return 0;
}

/* Die with the parent, even if it died before we could ask for that. */
static int parent_bind(void)
{
    struct ucred peer;
    socklen_t bytes = sizeof peer;
    return prctl(PR_SET_PDEATHSIG, SIGKILL) == 0 &&
           getsockopt(READER_PAIR_FD, SOL_SOCKET, SO_PEERCRED, &peer, &bytes) == 0 &&
           peer.pid == getppid();
}

int reader_main(void)
{
    struct reader r = {.arena = ARENA_CLOSED, .door = -1};
    struct err e = {0};
    if (!parent_bind()) {
        fprintf(stderr,
                "loaderd --reader is started by loaderd itself, and its loaderd is not there\n");
        return EXIT_CODE_PERMANENT;
    }
    log_stage_set("loaderd");
    prctl(PR_SET_NAME, "loaderd-reader"); /* not "exe" */
    while (reader_turn(&r, &e) == 0)
        ;
    if (e.code)
        log_error("part=reader code=%d %s", e.code, e.text);
    decoders_close(&r.decoders);
    fetch_close(&r.fetch);
    source_close(&r.source);
    arena_close(&r.arena);
    if (r.door >= 0)
        close(r.door);
    return e.code ? EXIT_CODE_TEMPORARY : EXIT_CODE_DONE;
}
