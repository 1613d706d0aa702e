/* reader.c - see reader.h: the process that touches the file.
 *
 *   OPEN -> threads, sandbox, describe the split -> DESCRIBED      ARENA -> map it -> ARMED
 *   READ -> every chunk of the span read here and decoded in the decoders' threads -> DONE
 *
 * One request at a time, in the order they came. What the file or a request makes impossible is
 * answered with REJECTED; what the machine does to us (no memory) ends the process, and the parent
 * sees it die.
 */
#include "loaderd/reader.h"

#include <errno.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "loaderd/h5source.h"
#include "loaderd/layout.h"
#include "loaderd/decoders.h"
#include "loaderd/sandbox.h"
#include "proto/arena.h"
#include "proto/door.h"
#include "proto/log.h"
#include "proto/order.h"
#include "proto/rowhash.h"

struct reader {
    struct source *source;
    struct decoders *decoders;
    struct reader_open open;
    struct reader_described described;
    struct order order;
    struct arena arena;
    uint64_t bytes_decoded;
    double read_s, credit_s; /* of the present request */
    int door;                /* held, never used: its hang-up means that we are gone too */
};

/* libhdf5 with its caches, its tables of a chunked read (one of a whole data set of many small
 * chunks was seen to take over 100 MiB) and the C library. */
#define LIBRARY_BYTES (256ull << 20)

/* What the reader may take when no chunk is larger than chunk_bytes. A stored chunk has at most two
 * (source_chunk_stored): so have the 2 w + 2 jobs of w workers each, and each worker two scratch
 * buffers of that and one whole chunk (decoders.c; the reading thread where there are none): at
 * most 9 w + 9. libhdf5, reading one itself, holds it stored, decoded (the buffer doubling as it
 * grows) and in its cache of two: 8. */
static uint64_t memory_bound(uint64_t workers, uint64_t chunk_bytes)
{
    uint64_t bytes;
    if (__builtin_mul_overflow(9 * workers + 17, chunk_bytes, &bytes) ||
        __builtin_add_overflow(bytes, LIBRARY_BYTES, &bytes))
        return UINT64_MAX;
    return bytes;
}

static uint64_t chunk_bytes_max(const struct reader *r)
{
    uint64_t most = 0;
    for (uint32_t i = 0; i < r->described.field_count; i++) {
        uint64_t bytes = source_field(r->source, i)->chunk_bytes;
        most = bytes > most ? bytes : most;
    }
    return most;
}

/* The threads start, then the sandbox closes, then the file is looked at. */
static int reader_open_split(struct reader *r, const struct reader_open *open, struct err *e)
{
    if (r->decoders)
        return err_set(e, EXIT_CODE_PERMANENT, "the reader serves one split and was asked twice");
    r->open = *open;
    unsigned workers =
        open->workers > DECODERS_WORKERS_MAX ? DECODERS_WORKERS_MAX : (unsigned)open->workers;
    source_library_open();
    if (decoders_open(&r->decoders, workers, e) != 0 ||
        sandbox_enter(memory_bound(workers, open->span_bytes_limit), e) != 0 ||
        source_open(&r->source, READER_FILE_FD, open->split, e) != 0 ||
        layout_make(open, r->source, &r->described, e) != 0 ||
        source_fingerprint(r->source, r->described.fingerprint, e) != 0)
        return -1;
    sandbox_memory_lower(memory_bound(workers, chunk_bytes_max(r)));
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

/* By libhdf5, or from a plain field: what is delivered is what was decoded. */
static int rows_read(struct reader *r, uint32_t field, uint64_t row, uint64_t rows, void *out,
                     struct err *e)
{
    double begin = decoders_clock_s();
    int result = source_rows_read(r->source, field, row, rows, out, e);
    r->read_s += decoders_clock_s() - begin;
    r->bytes_decoded += rows * source_field(r->source, field)->row_bytes;
    return result;
}

/* The stored bytes of a chunk of which `held` rows are in the data set. */
static int chunk_read(struct reader *r, uint32_t field, uint64_t chunk, uint64_t stored,
                      uint64_t held, void *raw, uint32_t *mask, struct err *e)
{
    double begin = decoders_clock_s();
    int result = source_chunk_read(r->source, field, chunk, stored, raw, mask, e);
    r->read_s += decoders_clock_s() - begin;
    r->bytes_decoded += held * source_field(r->source, field)->row_bytes;
    return result;
}

/* Part of one stored chunk of `f`: read here, decoded by a thread. */
static int chunk_fetch(struct reader *r, uint32_t field, uint64_t row, uint64_t rows, void *out,
                       struct err *e)
{
    const struct source_field *f = source_field(r->source, field);
    uint64_t chunk = row / f->chunk_rows, first = chunk * f->chunk_rows, stored = 0;
    uint64_t all = source_rows(r->source);
    int partial = first + f->chunk_rows > all;
    uint64_t held = partial ? all - first : f->chunk_rows;
    if (!(partial && f->edge_unfiltered) &&
        source_chunk_stored(r->source, field, chunk, &stored, e) != 0)
        return -1;
    if (stored == 0)
        return rows_read(r, field, row, rows, out, e);
    uint32_t mask;
    if (f->plan.count == 0 && rows == f->chunk_rows && stored == f->chunk_bytes)
        return chunk_read(r, field, chunk, stored, held, out, &mask, e);
    struct decoders_job *job = decoders_take(r->decoders, stored, e);
    if (!job)
        return -1;
    job->raw_bytes = stored;
    job->plan = &f->plan;
    job->chunk_bytes = f->chunk_bytes;
    job->skip_bytes = (row - first) * f->row_bytes;
    job->take_bytes = rows * f->row_bytes;
    job->out = out;
    job->name = f->path;
    job->chunk = chunk;
    if (chunk_read(r, field, chunk, stored, held, job->raw, &job->mask, e) != 0) {
        decoders_return(r->decoders, job);
        return -1;
    }
    decoders_submit(r->decoders, job);
    return 0;
}

/* Rows [row, row + rows) of a field, out of as many of its chunks as hold them. */
static int rows_fetch(struct reader *r, uint32_t field, uint64_t row, uint64_t rows, char *out,
                      struct err *e)
{
    const struct source_field *f = source_field(r->source, field);
    if (!f->direct)
        return rows_read(r, field, row, rows, out, e);
    while (rows) {
        uint64_t left = f->chunk_rows - row % f->chunk_rows, take = left < rows ? left : rows;
        if (chunk_fetch(r, field, row, take, out, e) != 0)
            return -1;
        row += take;
        rows -= take;
        out += take * f->row_bytes;
    }
    return 0;
}

/* Rows [first, first + rows) of the file, each field to its place in the slot `done` rows on. */
static int fields_fetch(struct reader *r, uint64_t first, uint64_t rows, uint64_t done, char *slot,
                        struct err *e)
{
    const struct reader_described *d = &r->described;
    for (uint32_t i = 0; i < d->field_count; i++)
        if (rows_fetch(r, i, first, rows,
                       slot + d->fields[i].offset + done * d->fields[i].row_bytes, e) != 0)
            return -1;
    return 0;
}

/* The span's rows: one piece of the file, or all its chunks in the epoch's order. */
static int span_fetch(struct reader *r, const struct reader_read *read, uint64_t rows, char *slot,
                      struct err *e)
{
    const struct reader_described *d = &r->described;
    uint64_t place = read->span * (d->span_rows / d->chunk_rows);
    if (!r->order.shuffle)
        return fields_fetch(r, order_span_first(&r->order, read->span), rows, 0, slot, e);
    for (uint64_t done = 0; done < rows; place++) {
        uint64_t first = order_chunk_at(&r->order, read->epoch, place) * d->chunk_rows;
        uint64_t take = d->rows - first < d->chunk_rows ? d->rows - first : d->chunk_rows;
        ensure(take <= rows - done);
        if (fields_fetch(r, first, take, done, slot, e) != 0)
            return -1;
        done += take;
    }
    return 0;
}

static uint64_t span_checksum(const struct reader *r, uint64_t rows, const char *slot)
{
    uint32_t crc = 0;
    for (uint32_t i = 0; i < r->described.field_count; i++)
        crc = decode_crc32(crc, slot + r->described.fields[i].offset,
                           rows * r->described.fields[i].row_bytes);
    return crc;
}

static uint64_t span_digest(const struct reader *r, uint64_t rows, const char *slot)
{
    struct rowhash_field fields[8];
    for (uint32_t i = 0; i < r->described.field_count; i++)
        fields[i] = (struct rowhash_field){slot + r->described.fields[i].offset,
                                           r->described.fields[i].row_bytes};
    return rowhash_sum(fields, r->described.field_count, rows);
}

static int span_read(struct reader *r, const struct reader_read *read, struct reader_done *done,
                     struct err *e)
{
    if (r->arena.fd < 0 || read->span >= r->described.spans || read->slot >= r->arena.slots)
        return err_set(e, EXIT_CODE_PERMANENT,
                       "span %llu into slot %llu was asked and is not there",
                       (unsigned long long)read->span, (unsigned long long)read->slot);
    char *slot = arena_slot(&r->arena, read->slot);
    uint64_t rows = order_span_rows(&r->order, read->span), before = source_bytes_read(r->source);
    r->bytes_decoded = 0;
    r->read_s = 0;
    *done = (struct reader_done){.epoch = read->epoch,
                                 .span = read->span,
                                 .slot = read->slot,
                                 .generation = read->generation,
                                 .rows = rows};
    int result = span_fetch(r, read, rows, slot, e);
    if (decoders_wait(r->decoders, &done->decode_s, result == 0 ? e : NULL) != 0 || result != 0)
        return -1;
    done->bytes_read = source_bytes_read(r->source) - before;
    done->bytes_decoded = r->bytes_decoded;
    done->read_s = r->read_s;
    done->credit_s = r->credit_s;
    for (uint32_t i = 0; i < r->described.field_count; i++)
        done->bytes_delivered += rows * r->described.fields[i].row_bytes;
    if (r->open.verify)
        done->checksum = span_checksum(r, rows, slot);
    if (r->open.receipt)
        done->digest = span_digest(r, rows, slot);
    return 0;
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
    case READER_READ:
        answer->kind = READER_DONE;
        return span_read(r, &packet->read, &answer->done, e);
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

/* Take one packet and answer it, or wait for one. 1: go on; 0: the parent is gone; -1 and *e: we
 * must end. */
static int packet_serve(struct reader *r, struct err *e)
{
    struct reader_packet packet = {0}, answer = {0};
    int fds[DOOR_FDS_MAX], fd_count = 0;
    e->code = 0;
    ssize_t got = door_recv(READER_PAIR_FD, &packet, sizeof packet, fds, &fd_count, e);
    if (got < 0 && e->code == 0)
        return packet_wait(r, e) == 0 ? 1 : -1;
    if (got <= 0)
        return got == 0 ? 0 : -1;
    sandbox_time_limit(READER_REQUEST_LIMIT_S,
                       READER_REQUEST_CPU_S + (r->described.span_bytes_max >> 20));
    int failed = packet_handle(r, &packet, fds, fd_count, &answer, e) != 0;
    r->credit_s = 0;
    if (failed) {
        if (e->code != EXIT_CODE_PERMANENT)
            return -1;
        memset(&answer, 0, sizeof answer);
        answer.kind = READER_REJECTED;
        snprintf(answer.text, sizeof answer.text, "%s", e->text);
    }
    return door_send(READER_PAIR_FD, &answer, sizeof answer, NULL, 0, e) == 0 ? 1 : -1;
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
    int served;
    while ((served = packet_serve(&r, &e)) > 0)
        ;
    if (served < 0)
        log_error("part=reader code=%d %s", e.code, e.text);
    decoders_close(&r.decoders);
    source_close(&r.source);
    arena_close(&r.arena);
    if (r.door >= 0)
        close(r.door);
    return served < 0 ? EXIT_CODE_TEMPORARY : EXIT_CODE_DONE;
}
